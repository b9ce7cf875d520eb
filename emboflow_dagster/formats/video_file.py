"""One video measured by decoding it: what the header declares is compared, never believed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
SIGNATURES = ("mp4", "matroska", "avi")
#: Frames of one video that are decoded; the rest is counted by its packets.
MAX_DECODED = 500_000
#: A freeze: no pixel changes by more than this on average (of 255), as ffmpeg's freezedetect at -60 dB.
FREEZE_LEVEL = 0.255
FREEZE_SECONDS = 0.25


@dataclass(slots=True)
class VideoFacts:
    """What decoding found.

    Attributes:
        frames: Frames decoded.
        declared_frames: The header's count, ``None`` where it has none.
        errors: Packets that could not be decoded, and damaged frames.
        rotation: Degrees that a player turns the picture by.
        freezes: (first frame, frames) of each stretch without change of 0.25 s or more.
        complete: False where the rest was counted and not decoded.
    """

    codec: str = ""
    width: int = 0
    height: int = 0
    fps: str | None = None
    frames: int = 0
    duration_s: float | None = None
    streams: int = 0
    video_streams: int = 0
    declared_frames: int | None = None
    errors: int = 0
    rotation: int = 0
    freezes: list[tuple[int, int]] = field(default_factory=list)
    complete: bool = True

    def as_structure(self) -> dict[str, Any]:
        """The entry of the report's ``files``."""
        return {
            "codec": self.codec,
            "width": self.width,
            "height": self.height,
            "fps": self.fps,
            "frames": self.frames,
            "durationS": self.duration_s,
            "streams": self.streams,
            "declaredFrames": self.declared_frames,
            "rotation": self.rotation,
        }


def measure_video(path: Path, *, freezes: bool = True, max_frames: int = MAX_DECODED) -> VideoFacts:
    """Decode the first video stream.

    Raises:
        ValueError: No video stream, or not a readable container.
    """
    import av
    from av.error import FFmpegError

    facts = VideoFacts()
    try:
        # A title in another encoding is no reason not to look at the pictures, and PyAV leaves the file open.
        with av.open(str(path), metadata_errors="replace") as container:
            facts.streams = len(container.streams)
            facts.video_streams = len(container.streams.video)
            if not container.streams.video:
                raise ValueError("no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            context = stream.codec_context
            if context is None:  # its codec has no decoder here
                raise ValueError("no decoder for its codec")
            rate = stream.average_rate
            facts.codec = context.codec.canonical_name
            facts.width, facts.height = context.width, context.height
            facts.fps = f"{rate.numerator}/{rate.denominator}" if rate else None
            facts.duration_s = container.duration / 1e6 if container.duration is not None else None
            facts.declared_frames = stream.frames or None
            still = _Stillness(float(rate) if rate and freezes else None)
            for packet in container.demux(stream):
                if facts.frames >= max_frames:
                    facts.complete = False
                    facts.frames += packet.size > 0
                    continue
                try:
                    frames = packet.decode()
                except FFmpegError:
                    facts.errors += 1
                    continue
                for frame in frames:
                    facts.frames += 1
                    facts.errors += bool(frame.is_corrupt)
                    facts.rotation = int(frame.rotation)
                    still.see(frame)
            facts.freezes = still.finish()
    except FFmpegError as error:
        raise ValueError(str(error)) from error
    return facts


class _Stillness:
    """Finds stretches in which the brightness of no part of the picture changes."""

    def __init__(self, fps: float | None) -> None:
        self._needed = None if fps is None else max(2, round(FREEZE_SECONDS * fps))
        self._last: np.ndarray | None = None
        self._start = 0
        self._index = -1
        self._found: list[tuple[int, int]] = []

    def see(self, frame: Any) -> None:
        """Compare one frame with the one before it."""
        import numpy as np

        self._index += 1
        if self._needed is None:
            return
        plane = frame.planes[0]
        if "yuv" in frame.format.name or "gray" in frame.format.name:
            rows = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
            now = rows[: frame.height, : frame.width].astype(np.int16)
        else:
            now = frame.to_ndarray(format="gray").astype(np.int16)
        same = (
            self._last is not None
            and self._last.shape == now.shape
            and float(np.abs(now - self._last).mean()) < FREEZE_LEVEL
        )
        self._last = now
        if not same:
            self._end()
            self._start = self._index

    def finish(self) -> list[tuple[int, int]]:
        """All stretches found."""
        if self._index >= 0:
            self._index += 1
            self._end()
        return self._found

    def _end(self) -> None:
        length = self._index - self._start
        if self._needed is not None and length >= self._needed:
            self._found.append((self._start, length))
