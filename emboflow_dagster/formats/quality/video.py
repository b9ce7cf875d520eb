"""Checks of videos: there, decodable, as fast as declared, as long as the rows, moving with the robot."""

import math
from abc import abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.evidence import Rule
from emboflow_dagster.formats.quality.values import movement
from emboflow_dagster.formats.quality.view import FREEZE_CHANGE, EpisodeView, VideoView

if TYPE_CHECKING:
    import numpy as np

FPS_TOLERANCE = 1.0
FRAME_TOLERANCE = 2
#: A frame in which no tile changes by more than this share of what tiles change by in the livelier quarter of
#: the frames, and by no more than in a freeze, is the one before it again, but for the encoder's noise.
DUPLICATE_SHARE, DUPLICATE_LEAST = 0.05, 0.02
DUPLICATE_WARN = 0.1
#: A picture is off its row's time by so many frames.
OFF_WARN, OFF_FAIL = 0.5, 2
#: Standard deviation of brightness below which a picture shows nothing.
BLANK_STD = 2.0
DRIFT_WARN_S, DRIFT_FAIL_S = 0.2, 1.0
#: Frames of one video that are decoded.
MAX_FRAMES = 500_000
#: A side of the picture that frames are compared at: a mean over it says what the whole picture's says.
COMPARE_SIDE = 160
#: Frames are compared tile by tile, so many a side: an arm far from the camera changes few of them.
TILES = 8


def watch(path: Path | None, name: str, *, rows: int | None = None, fps: float | None = None) -> VideoView:
    """Decode one video and compare each frame with the one before it; a missing one is `path` ``None``."""
    import av
    from av.error import FFmpegError

    view = VideoView(name, rows=rows, declared_fps=fps, missing=path is None)
    if path is None:
        return view
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                view.error = "no video stream"
                return view
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = stream.average_rate
            view.fps = float(rate) if rate else None
            view.declared_frames = stream.frames or None
            length = stream.duration
            if length is not None and stream.time_base is not None:
                view.duration_s = float(length * Fraction(stream.time_base))
            elif container.duration is not None:
                view.duration_s = container.duration / 1e6
            last: np.ndarray | None = None
            for packet in container.demux(stream):
                if view.frames >= MAX_FRAMES:
                    view.complete = False
                    break
                try:
                    frames = packet.decode()
                except FFmpegError:
                    view.errors += 1
                    continue
                for frame in frames:
                    view.errors += bool(frame.is_corrupt)
                    now = _brightness(frame)
                    if _is_blank(now):
                        view.blank.append(view.frames)
                    view.frames += 1
                    view.seconds.append(math.nan if frame.time is None else float(frame.time))
                    if last is not None:
                        view.changes.append(_change(last, now))
                    last = now
    except (FFmpegError, ValueError) as error:
        view.error = str(error) or type(error).__name__
    return view


def _brightness(frame: Any) -> "np.ndarray":
    """The picture's brightness, every n-th pixel of it."""
    import numpy as np

    plane = frame.planes[0]
    if "yuv" in frame.format.name or "gray" in frame.format.name:
        whole = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
        whole = whole[: frame.height, : frame.width]
    else:
        whole = frame.to_ndarray(format="gray")
    step = max(1, min(whole.shape) // COMPARE_SIDE)
    return whole[::step, ::step].astype(np.int16)


def _change(last: "np.ndarray", now: "np.ndarray") -> float:
    """The mean change of brightness in the tile that changes most."""
    import numpy as np

    if last.shape != now.shape:
        return 255.0
    change = np.abs(now - last)
    high, wide = (max(1, side // TILES) for side in change.shape)
    rows, columns = change.shape[0] // high, change.shape[1] // wide
    # Whole numbers, and rows below each other first: a mean over two axes takes ten times as long.
    bands = change[: rows * high, : columns * wide].reshape(rows, high, -1).sum(axis=1, dtype=np.int32)
    return float(bands.reshape(rows, columns, wide).sum(axis=2, dtype=np.int64).max() / (high * wide))


def _is_blank(now: "np.ndarray") -> bool:
    """Whether the standard deviation is below `BLANK_STD`; sums of whole numbers, so exact."""
    flat = now.reshape(-1).astype(float)
    total = float(flat.sum())
    return flat.size * float(flat @ flat) - total * total < (BLANK_STD * flat.size) ** 2


class VideoCheck(Check):
    """A check of each video; one that is missing or does not decode is unresolved, but for its own check."""

    asks = "videos that decode"

    def take(self, episode: EpisodeView) -> None:
        """Count videos, not episodes."""
        for camera, video in episode.videos.items():
            self.declared += 1
            self.resolved += self.look(episode, camera, video)

    @abstractmethod
    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Measure one video; False where it holds nothing for this check."""

    def note(self, metric: str, value: float, unit: str, episode: EpisodeView, video: VideoView, text: str,
             camera: str, **where: Any) -> str:  # fmt: skip
        """Keep a measurement of a video."""
        return self.measure(
            metric, value, unit, episode=episode.ref, feature=camera, n=video.frames,
            say=f"{video.name}: {text}", **where,
        )  # fmt: skip


class VideoExists(VideoCheck):
    """Every declared video is a file."""

    name = "video_exists"
    title = "every declared camera has its file"
    rules: ClassVar[dict[str, Rule]] = {"missing": Rule(fail=0)}

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Is it there."""
        self.note("missing", int(video.missing), "files", episode, video, "declared, and not there", camera)
        return True

    def _message(self) -> str:
        missing = self.total("missing")
        return f"{missing} of {self.declared} videos are not there" if missing else "every video is there"


class DecodeAllFrames(VideoCheck):
    """Every packet of every video can be decoded."""

    name = "decode_all_frames"
    title = "every frame of every video can be decoded"
    rules: ClassVar[dict[str, Rule]] = {"undecoded": Rule(fail=0), "decoded": Rule()}

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Decode it."""
        if video.missing:
            return False
        if video.error is not None or not video.frames:
            lost, text = max(1, video.declared_frames or 1), video.error or "no frame can be decoded"
        else:
            short = (video.declared_frames or 0) - video.frames if video.complete else 0
            lost = max(video.errors, short, 0)
            text = f"{lost} frames cannot be decoded, {video.frames} can"
        self.note("undecoded", lost, "frames", episode, video, text, camera)
        self.note("decoded", video.frames, "frames", episode, video, "", camera)
        return True

    def _message(self) -> str:
        lost = self.total("undecoded")
        return f"{lost} frames cannot be decoded" if lost else f"all {self.total('decoded')} frames decode"


class DeclaredVsDecoded(VideoCheck):
    """The container's frame count is what decoding gives."""

    name = "declared_vs_decoded"
    title = "the container's frame count is what decoding gives"
    rules: ClassVar[dict[str, Rule]] = {"difference": Rule(warn=0, fail=FRAME_TOLERANCE)}

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Compare them."""
        if video.missing or video.declared_frames is None or not video.complete:
            return False
        off = abs(video.declared_frames - video.frames)
        text = f"the header declares {video.declared_frames} frames, {video.frames} could be decoded"
        self.note("difference", off, "frames", episode, video, text, camera)
        return True

    def _message(self) -> str:
        return f"declared and decoded frames differ by at most {self.most('difference'):.0f}"


class VideoFps(VideoCheck):
    """The video's rate is the dataset's within 1 Hz."""

    name = "video_fps"
    title = "the video's rate is the declared one within 1 frame/s"
    rules: ClassVar[dict[str, Rule]] = {"fpsDifference": Rule(fail=FPS_TOLERANCE)}

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Compare them."""
        if not video.decoded or video.fps is None or video.declared_fps is None:
            return False
        off = abs(video.fps - video.declared_fps)
        text = f"{video.fps:g} frames/s, {video.declared_fps:g} are declared"
        self.note("fpsDifference", off, "frames/s", episode, video, text, camera)
        return True

    def _message(self) -> str:
        return f"videos are within {self.most('fpsDifference'):.2g} frames/s of the declared rate"


class FrameCount(VideoCheck):
    """A video has as many frames as the rows beside it, within 2; an episode has the rows it declares."""

    name = "frame_count"
    title = "videos have as many frames as rows (within 2), episodes the rows they declare"
    rules: ClassVar[dict[str, Rule]] = {
        "frameDifference": Rule(fail=FRAME_TOLERANCE),
        "rowDifference": Rule(fail=0),
    }

    def take(self, episode: EpisodeView) -> None:
        """The episode's own rows, then its videos."""
        if episode.declared_length is not None:
            self.declared += 1
            self.resolved += 1
            off = abs(episode.declared_length - episode.length)
            say = f"{episode.ref}: {episode.declared_length} frames declared, {episode.length} rows"
            self.measure("rowDifference", off, "rows", episode=episode.ref, n=episode.length, say=say)
        super().take(episode)

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Compare frames with rows."""
        if video.missing or video.rows is None or not video.complete:
            return False
        text = f"{video.frames} frames for {video.rows} rows"
        self.note("frameDifference", abs(video.frames - video.rows), "frames", episode, video, text, camera)
        return True

    def _message(self) -> str:
        rows, frames = self.most("rowDifference"), self.most("frameDifference")
        return f"rows differ from declared by at most {rows:.0f}, frames from rows by at most {frames:.0f}"


class VideoFreeze(VideoCheck):
    """No camera stands still for a quarter second while the robot moves."""

    name = "video_freeze"
    version = 3
    title = "no camera stands still while the robot moves"
    rules: ClassVar[dict[str, Rule]] = {
        "frozenMoving": Rule(warn=0),
        "frozenShare": Rule(fail=0.99),
        "freezeS": Rule(),
    }

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Find the stretches; where nothing is known of the robot each counts as moving."""
        if not video.decoded or len(video.changes) < 1:
            return False
        # A file that holds several episodes has rows of its own: nothing is known of the robot beside it.
        moving = movement(episode) if video.rows in (None, episode.length) else None
        frozen = while_moving = 0
        rate = video.fps or video.declared_fps or 30.0
        for start, end in video.freezes():
            beside = moving[start:end] if moving is not None else None
            count = end - start if beside is None else int(beside.sum())
            frozen += end - start
            while_moving += count
            stamps = episode.stamps_ns
            known = stamps is not None and moving is not None and end < len(stamps)
            self.measure(
                "freezeS", (end - start) / rate, "s", episode=episode.ref, feature=camera, n=end - start,
                frames=(start, end), ns=(int(stamps[start]), int(stamps[end])) if known else None,  # pyright: ignore[reportOptionalSubscript] - known
            )  # fmt: skip
        text = f"{frozen} of {video.frames} frames repeat the one before them, {while_moving} while moving"
        self.note("frozenMoving", while_moving, "frames", episode, video, text, camera)
        self.note("frozenShare", frozen / video.frames, "", episode, video, text, camera)
        return True

    def _message(self) -> str:
        moving = self.total("frozenMoving")
        if not moving:
            return "no camera stands still while the robot moves"
        share = self.most("frozenShare")
        return f"{moving} frames stand still while the robot moves, at most {share:.0%} of one video"


class DuplicateFrames(VideoCheck):
    """Few frames are the one before them again: a camera slower than its dataset repeats them."""

    name = "duplicate_frames"
    version = 3
    title = "few frames are the one before them again"
    rules: ClassVar[dict[str, Rule]] = {"duplicateRatio": Rule(warn=DUPLICATE_WARN)}

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Count them."""
        if not video.decoded or len(video.changes) < 1:
            return False
        lively = sorted(video.changes)[len(video.changes) * 3 // 4]
        level = max(DUPLICATE_LEAST, min(FREEZE_CHANGE, DUPLICATE_SHARE * lively))
        count = sum(change < level for change in video.changes)
        text = f"{count} of {video.frames} frames are the one before them again"
        self.note("duplicateRatio", count / len(video.changes), "", episode, video, text, camera)
        return True

    def _message(self) -> str:
        return f"at most {self.most('duplicateRatio'):.1%} of a video's frames are the one before them again"


class DurationDrift(VideoCheck):
    """A video lasts as long as the rows beside it, and each of its pictures is there when its row is."""

    name = "duration_drift"
    version = 3
    title = "a video lasts as long as its rows, and each picture has its row's time"
    rules: ClassVar[dict[str, Rule]] = {
        "driftS": Rule(warn=DRIFT_WARN_S, fail=DRIFT_FAIL_S),
        "offFrames": Rule(warn=OFF_WARN, fail=OFF_FAIL),
    }

    def look(self, episode: EpisodeView, camera: str, video: VideoView) -> bool:
        """Compare both durations, and the stamps of the pictures with the rows' ``frame_index / fps``."""
        if not video.decoded or video.rows is None or not video.declared_fps or video.duration_s is None:
            return False
        rows_s = video.rows / video.declared_fps
        text = f"lasts {video.duration_s:.2f} s, its rows {rows_s:.2f} s"
        self.note("driftS", abs(video.duration_s - rows_s), "s", episode, video, text, camera)
        off = [
            abs(second * video.declared_fps - place)
            for place, second in enumerate(video.seconds[: video.rows])
        ]
        known = [place for place, value in enumerate(off) if not math.isnan(value)]
        if known:
            worst = max(known, key=off.__getitem__)
            late = [place for place in known if off[place] > OFF_WARN]
            text = f"picture {worst} is {off[worst] / video.declared_fps * 1e3:.0f} ms from its row's time"
            self.note(
                "offFrames", off[worst], "frames", episode, video, text, camera,
                frames=(late[0], late[-1]) if late else None,
            )  # fmt: skip
        return True

    def _message(self) -> str:
        ends, off = self.most("driftS"), self.most("offFrames")
        return f"videos and rows end at most {ends:.3f} s apart, pictures are at most {off:.2g} frames off"


VIDEO_CHECKS: tuple[type[Check], ...] = (
    VideoExists, DecodeAllFrames, DeclaredVsDecoded, VideoFps, FrameCount, VideoFreeze, DuplicateFrames,
    DurationDrift,
)  # fmt: skip
