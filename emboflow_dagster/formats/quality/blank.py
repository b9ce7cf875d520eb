"""A check of pictures: frames of one brightness everywhere, which a covered or dead camera gives."""

from typing import ClassVar

from emboflow_dagster.formats.quality.evidence import Rule
from emboflow_dagster.formats.quality.video import VideoCheck
from emboflow_dagster.formats.quality.view import EpisodeView, VideoView

BLANK_FAIL = 0.5


class BlankFrames(VideoCheck):
    """Every frame shows something: none is black, white or grey all over."""

    name = "blank_frames"
    version = 1
    title = "no frame is black, white or of any one brightness all over"
    rules: ClassVar[dict[str, Rule]] = {
        "blankFrames": Rule(warn=0),
        "blankShare": Rule(fail=BLANK_FAIL),
    }

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Count them; the interval is that of the longest run."""
        if not video.decoded:
            return False
        start, longest = 0, (0, -1)
        for place, number in enumerate(video.blank):
            if place and number != video.blank[place - 1] + 1:
                start = place
            if place - start > longest[1] - longest[0]:
                longest = (start, place)
        count = len(video.blank)
        run = (video.blank[longest[0]], video.blank[longest[1]]) if count else None
        text = f"{count} of {video.frames} frames show nothing"
        if run is not None:
            text += f", the longest run from frame {run[0]} to {run[1]}"
        self.note("blankFrames", count, "frames", episode, video, text, camera, frames=run)
        self.note("blankShare", count / video.frames, "", episode, video, text, camera)
        return True

    def _message(self) -> str:
        count = self.total("blankFrames")
        if not count:
            return "every frame shows something"
        return f"{count} frames show nothing, at most {self.most('blankShare'):.0%} of one video"
