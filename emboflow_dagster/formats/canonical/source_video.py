"""Videos as sources: when their frames are, whether at a constant rate, and their upright pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.video_container import RAW, kind_of_file, missing_end

if TYPE_CHECKING:
    import numpy as np

Videos = bool | Literal["copy", "encode"]
"""``True`` copies what can be copied and encodes the rest, ``copy`` and ``encode`` do one of them only."""

#: Stamps this far from the grid are still on it; so coarse are the clocks of some containers.
TOLERANCE_S: Final = 1e-3
#: Two rates that differ by less are one.
RATE_TOLERANCE: Final = 1e-3
#: The shortest step may be so many intervals of the rate; stamps are rounded.
MAX_RATE_TO_STEP: Final = 1.2
MAX_FRAMES: Final = 5_000_000
#: What a raw stream without a rate is played at.
RAW_FPS: Final = 25


@dataclass(frozen=True, slots=True)
class Timing:
    """The frames of one video.

    Attributes:
        stamps_s: Seconds of each frame in the order of presentation, float64 ``(frames,)``.
        fps: The rate where it is constant, else ``None``.
        nominal: The rate that the frames would have if none were missing, else ``None``.
        shape: ``(height, width, 3)`` as players show it.
        rotation: Degrees by which players turn the stored picture counter-clockwise.
        mp4: Whether the container is MP4 or QuickTime, as the canonical dataset's is.
        errors: Packets that could not be decoded; 0 where they were only counted.
        cut: Why its end is known to be missing; ``None`` where nothing says so.
    """

    stamps_s: "np.ndarray"
    fps: float | None
    nominal: float | None
    shape: tuple[int, int, int]
    rotation: int
    mp4: bool
    errors: int = 0
    cut: str | None = None

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.stamps_s)

    def is_at(self, fps: float) -> bool:
        """Whether it runs at this constant rate."""
        return self.fps is not None and abs(self.fps - fps) <= RATE_TOLERANCE * fps

    def why_not_copied(self, fps: float) -> str | None:
        """Why the file cannot stand in a dataset of this rate as it is; ``None`` where it can."""
        if not self.mp4:
            return "its container is no MP4"
        if self.rotation % 360:
            return f"players turn it by {self.rotation} degrees"
        if self.cut:
            return f"its end is missing: {self.cut}"
        if self.errors:
            return f"{self.errors} of its packets cannot be decoded"
        if self.fps is None:
            return "its rate is not constant"
        return None if self.is_at(fps) else f"it runs at {self.fps:g} fps, not at {fps:g}"


def timing(path: Path, *, decode: bool) -> Timing:
    """When the frames of the first video stream are.

    Args:
        path: The file.
        decode: Decode every frame and count those that come out; without it packets are counted, which reads
            the file and takes a hundredth of the time.

    Raises:
        InvalidInputError: It is no video, or no frame of it can be decoded.
    """
    import av
    import numpy as np
    from av.error import FFmpegError

    stamps: list[float] = []
    errors = unstamped = 0
    first: Any = None
    rates: list[float] = []
    tick = 0.0
    raw = kind_of_file(path) in RAW
    decode = decode or raw  # its packets have no time to be counted by
    try:
        # FFmpeg decodes a picture to look into the file; where we decode one anyway, it shall not.
        look = {} if decode else {"skip_frame": "all"}
        with av.open(str(path), metadata_errors="replace", options=look) as container:
            if not container.streams.video:
                raise InvalidInputError(f"{path.name}: no video stream", kind=ErrorKind.FORMAT_UNSUPPORTED)
            stream = container.streams.video[0]
            # Of one frame threads would decode as many as there are threads.
            stream.thread_type = "AUTO" if decode else "NONE"
            # The average of all frames; and the rate of which every step is a multiple.
            rates = [float(rate) for rate in (stream.average_rate, stream.base_rate) if rate]
            second = Fraction(stream.time_base or 0)
            tick = float(second)
            for packet in container.demux(stream):
                if len(stamps) > MAX_FRAMES:
                    raise InvalidInputError(f"{path.name}: more than {MAX_FRAMES} frames")
                if not decode and first is not None:
                    if packet.size and packet.pts is not None and not packet.is_discard:
                        stamps.append(packet.pts * second.numerator / second.denominator)
                    continue
                try:
                    frames = packet.decode() if decode else _alone(stream.codec_context, packet)
                except FFmpegError:
                    errors += 1
                    continue
                first = first or next(iter(frames), None)
                if decode:
                    errors += sum(bool(frame.is_corrupt) for frame in frames)
                    stamps += [float(frame.time) for frame in frames if frame.time is not None]
                    unstamped += sum(frame.time is None for frame in frames)
                elif packet.size and packet.pts is not None and not packet.is_discard:
                    stamps.append(packet.pts * second.numerator / second.denominator)
            if raw and unstamped and first is not None:
                rates, tick = [raw_rate(stream)], 0.0
                stamps = [number / rates[0] for number in range(unstamped + len(stamps))]
    except FFmpegError as error:
        raise InvalidInputError(f"{path.name}: not readable: {error}", kind=ErrorKind.FILE_CORRUPT) from error
    if first is None or not stamps:
        raise InvalidInputError(f"{path.name}: no frame could be decoded", kind=ErrorKind.FILE_CORRUPT)
    when = np.sort(np.asarray(stamps, dtype=np.float64))
    turned = int(first.rotation) % 360
    height, width = (first.width, first.height) if turned in (90, 270) else (first.height, first.width)
    return Timing(
        stamps_s=when,
        fps=constant_rate(when, rates[0] if rates else None, tick),
        nominal=next(
            (rate for rate in rates if _is_plausible(when, rate) and _on_grid(when, rate, tick)), None
        ),
        shape=(height, width, 3),
        rotation=turned,
        mp4=kind_of_file(path) == "mp4",
        errors=errors if decode else 0,
        cut=missing_end(path),
    )


def raw_rate(stream: Any) -> float:
    """What a raw stream's header says, else what FFmpeg plays it at; asked when a frame was decoded."""
    return float(stream.codec_context.framerate or stream.average_rate or RAW_FPS)


def _alone(context: Any, packet: Any) -> list[Any]:
    """The frames of one packet, without waiting for those that a decoder wants to see behind it."""
    frames = packet.decode() or context.decode(None)
    context.flush_buffers()
    return frames


def pictures(
    path: Path, places: Sequence[int] | None = None, *, from_s: float = 0.0
) -> Iterator["np.ndarray"]:
    """Upright uint8 RGB pictures ``(height, width, 3)``.

    Args:
        path: The file.
        places: Which frames, not decreasing, counted from the first at or after `from_s`; all where ``None``.
        from_s: Where to begin, in seconds of the file.
    """
    import av
    from av.error import FFmpegError

    wanted = iter(places) if places is not None else None
    place = next(wanted, None) if wanted is not None else None
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if from_s > 0 and stream.time_base:
            container.seek(int(from_s / stream.time_base), stream=stream, backward=True)
        number = -1
        half_tick = TOLERANCE_S
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                if frame.time is not None and frame.time < from_s - half_tick:
                    continue
                number += 1
                if wanted is None:
                    yield upright(frame)
                    continue
                if place is None:
                    return
                if number != place:
                    continue
                picture = upright(frame)
                while place == number:
                    yield picture
                    place = next(wanted, None)


def upright(frame: Any) -> "np.ndarray":
    """A decoded frame as players show it."""
    import numpy as np

    picture = frame.to_ndarray(format="rgb24")
    turns = round(int(frame.rotation) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def constant_rate(when: "np.ndarray", nominal: float | None, tick: float) -> float | None:
    """The rate of frames at these seconds, ``None`` where it varies or frames are missing.

    Args:
        when: Ascending seconds, float64 ``(frames,)``.
        nominal: The rate that the header says.
        tick: Seconds of the container's clock.
    """
    import numpy as np

    if len(when) == 1:
        return nominal
    step = (when[-1] - when[0]) / (len(when) - 1)
    if step <= 0:
        return None
    # The header's rate is exact where the clock is coarse, but headers may lie.
    rate = nominal if nominal and abs(nominal * step - 1) <= RATE_TOLERANCE else 1 / step
    off = np.abs(when - when[0] - np.arange(len(when)) / rate).max()
    return rate if off <= max(TOLERANCE_S, 1.01 * tick) and off < 0.25 / rate else None


def _is_plausible(when: "np.ndarray", rate: float) -> bool:
    """Whether some two frames are one interval apart.

    Every stamp is a multiple of the clock's own tick, and headers of videos at a varying rate declare that.
    """
    import numpy as np

    steps = np.diff(when)
    steps = steps[steps > TOLERANCE_S]
    return not len(steps) or bool(rate * steps.min() <= MAX_RATE_TO_STEP)


def _on_grid(when: "np.ndarray", rate: float, tick: float) -> bool:
    """Whether every frame is at a multiple of the rate's interval; frames may be missing."""
    import numpy as np

    since = when - when[0]
    off = np.abs(since - np.round(since * rate) / rate).max()
    return bool(off <= max(TOLERANCE_S, 1.01 * tick) and off < 0.25 / rate)
