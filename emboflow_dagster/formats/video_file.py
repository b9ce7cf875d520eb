"""One video measured by decoding it: what the header declares is compared, never believed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.video_container import RAW

if TYPE_CHECKING:
    import numpy as np

#: Frames of one video that are decoded; the rest is counted by its packets.
MAX_DECODED = 500_000
SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
SIGNATURES = ("mp4", "matroska", "avi")
#: Bits of a colour that usual videos have.
_BYTE_BITS = 8
#: How brightness is coded (ITU-T H.273) where it is for bright screens.
_HDR = {16: "PQ", 18: "HLG"}
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
        pixel_format: How a picture is stored, in FFmpeg's words.
        bit_depth: Bits of a colour.
        hdr: ``PQ`` or ``HLG`` where its brightness is meant for bright screens.
        intervals_s: Shortest, median and longest time between two frames, where there are two.
        first_s: When the first frame is shown.
        last_s: When the last one is.
        varies: Whether these are no constant rate.
        clock: False for a raw stream, whose rate is a guess of the reader.
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
    pixel_format: str = ""
    bit_depth: int = 8
    hdr: str | None = None
    intervals_s: tuple[float, float, float] | None = None
    first_s: float = 0.0
    last_s: float = 0.0
    varies: bool = False
    clock: bool = True

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
            "pixelFormat": self.pixel_format,
            "bitDepth": self.bit_depth,
            "hdr": self.hdr,
            "intervalsS": self.intervals_s and [round(value, 6) for value in self.intervals_s],
        }


def measure_video(path: Path, *, freezes: bool = True, max_frames: int = MAX_DECODED) -> VideoFacts:
    """Decode the first video stream.

    Raises:
        NoVideoError: Other streams alone.
        ValueError: Not a readable container.
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
                if not container.streams:
                    raise ValueError("no stream")
                kinds = ", ".join(sorted({stream.type for stream in container.streams}))
                raise NoVideoError(f"no video stream: it holds {kinds}")
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
            facts.clock = container.format.name not in RAW
            _describe(facts, context)
            stamps: list[float] = []
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
                    if frame.time is not None:
                        stamps.append(frame.time)
                    still.see(frame)
            facts.freezes = still.finish()
            if not facts.clock:
                facts.fps = _raw_rate(stream)
            else:
                _measure_clock(facts, stamps, float(rate) if rate else None, float(stream.time_base or 0))
    except FFmpegError as error:
        raise ValueError(str(error)) from error
    return facts


def _describe(facts: VideoFacts, context: Any) -> None:
    from av import VideoFormat

    if context.pix_fmt:
        facts.pixel_format = context.pix_fmt
        facts.bit_depth = max(component.bits for component in VideoFormat(context.pix_fmt).components)
    facts.hdr = _HDR.get(int(context.color_trc or 0))


def _raw_rate(stream: Any) -> str:
    from fractions import Fraction

    from emboflow_dagster.formats.canonical.source_video import raw_rate

    rate = Fraction(raw_rate(stream)).limit_denominator(1_001)
    return f"{rate.numerator}/{rate.denominator}"


def _measure_clock(facts: VideoFacts, stamps: list[float], rate: float | None, tick: float) -> None:
    import numpy as np

    from emboflow_dagster.formats.canonical.source_video import constant_rate

    if len(stamps) < 2:  # noqa: PLR2004 - an interval is between two
        return
    when = np.sort(np.asarray(stamps, dtype=np.float64))
    steps = np.diff(when)
    facts.intervals_s = float(steps.min()), float(np.median(steps)), float(steps.max())
    facts.first_s, facts.last_s = float(when[0]), float(when[-1])
    facts.varies = constant_rate(when, rate, tick) is None


class NoVideoError(ValueError):
    """A file with other streams alone, such as sound."""


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
        deep = frame.format.components[0].bits > _BYTE_BITS
        if not deep and ("yuv" in frame.format.name or "gray" in frame.format.name):
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
