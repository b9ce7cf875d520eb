"""A version's videos for LeRobot: copied where its readers find every frame by stamp, else encoded anew."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical.video_track import write_video
from emboflow_dagster.formats.exports.lerobot_stats import PictureStats, sampled

if TYPE_CHECKING:
    import numpy as np

#: What LeRobot records and merges.
CODECS: Final = frozenset({"h264", "hevc", "av1"})
#: LeRobot refuses a frame that is further from its stamp, in seconds.
TOLERANCE_S: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Track:
    """One episode of one camera as it was delivered.

    Attributes:
        info: What `info.json` says of the camera's files.
        shape: Height, width, 3.
        reason: Why the file was encoded anew, ``None`` for one that was copied bit for bit.
    """

    info: dict[str, Any]
    shape: tuple[int, int, int]
    reason: str | None


def deliver(source: Path, target: Path, *, length: int, fps: float, stats: PictureStats) -> Track:
    """Bring an episode's video to ``target`` and count its pictures into ``stats``.

    Raises:
        InvalidInputError: It cannot be decoded, or has not one picture a frame.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    reason = _reason(source, length, fps)
    if reason is None:
        shutil.copyfile(source, target)
    else:
        write_video(target, _pictures(source), fps=fps)
    wanted, count = sampled(length), 0
    shape: tuple[int, int, int] = (0, 0, 3)
    for picture in _pictures(target, wanted):
        if picture is not None:
            stats.add(picture)
            shape = (picture.shape[0], picture.shape[1], 3)
        count += 1
    if count != length:
        raise InvalidInputError(
            f"{source.name}: {count} pictures for {length} frames", kind=ErrorKind.FILE_CORRUPT
        )
    return Track(_info(target, fps), shape, reason)


def off_grid(path: Path, length: int, fps: float) -> str | None:
    """Why frames would not be found by their stamps; ``None`` where all are. Nothing is decoded."""
    import av

    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        base = stream.time_base
        stamps = sorted(
            packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None
        )
    if len(stamps) != length:
        return f"{len(stamps)} packets for {length} frames"
    if base is None:
        return "no time base"
    far = max((abs(float(pts * base) - i / fps) for i, pts in enumerate(stamps)), default=0.0)
    return f"a stamp is {far:.6f} s off the grid of {fps:g} fps" if far > TOLERANCE_S / 2 else None


def _reason(source: Path, length: int, fps: float) -> str | None:
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(source), metadata_errors="replace") as container:
            codec = container.streams.video[0].codec.canonical_name
            others = len(container.streams) - 1
        if codec not in CODECS:
            return f"codec {codec} is none of {', '.join(sorted(CODECS))}"
        if others:
            return f"{others} streams beside the pictures"
        return off_grid(source, length, fps)
    except (FFmpegError, IndexError) as error:
        text = f"{source.name}: not readable: {error}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT) from error


def _pictures(path: Path, wanted: "frozenset[int] | None" = None) -> "Iterator[np.ndarray | Any]":
    """Every picture, uint8 RGB; ``None`` in place of one that is not wanted."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            for place, frame in enumerate(container.decode(video=0)):
                yield frame.to_ndarray(format="rgb24") if wanted is None or place in wanted else None
    except FFmpegError as error:
        text = f"{path.name}: not decodable: {error}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT) from error


def _info(path: Path, fps: float) -> dict[str, Any]:
    import av

    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": whole(fps),
            "video.channels": 3,
            "has_audio": False,
        }


def whole(fps: float) -> int | float:
    """LeRobot's frames per second: a whole number where it is one."""
    return int(fps) if float(fps).is_integer() else fps
