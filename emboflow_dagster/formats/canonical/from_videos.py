"""Episodes out of videos alone: each file is one episode with one camera and no numbers.

Frames are counted by decoding. A file at a constant rate keeps its frames; of any other the grid holds the
last frame at or before each grid time, as it does for topics. Pictures are upright: a rotation is applied.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import EmboflowError, ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical.grid import NS, grid_of, held
from emboflow_dagster.formats.canonical.schema import Camera, Episode
from emboflow_dagster.formats.canonical.source_video import Timing, Videos, pictures, timing
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.video import is_video
from emboflow_dagster.formats.video_file import SUFFIXES

if TYPE_CHECKING:
    import numpy as np

CAMERA = "video"
#: A dropped frame: the next one comes after more than so many of the video's own intervals.
GAP_INTERVALS = 1.5


def video_files(path: Path) -> list[Path]:
    """The videos of an asset in natural order: the file itself, or those below a folder.

    Raises:
        NotFoundError: There is none.
    """
    if not path.is_dir():
        candidates = [path]
    else:
        found = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        candidates = sorted(
            (p for p in found if not p.is_symlink()),
            key=lambda p: natural_key(p.relative_to(path).as_posix()),
        )
    videos = [candidate for candidate in candidates if candidate.is_file() and is_video(candidate)]
    if not videos:
        raise NotFoundError(f"{path.name}: no video", kind=ErrorKind.FILE_MAGIC)
    return videos


def suggested_fps(path: Path) -> float | None:
    """The rate of the first video, by its packets."""
    found = timing(video_files(path)[0], decode=False)
    return found.fps or found.nominal


def episodes(
    path: Path,
    *,
    fps: float | None = None,
    task: str = "",
    asset_id: str | None = None,
    videos: Videos = True,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Every video as an episode, file by file in natural order.

    Args:
        path: A video, or a folder with some.
        fps: The grid's rate; ``None`` for each video's own, which must be constant then.
        task: What is shown.
        asset_id: For the source reference.
        videos: ``copy`` refuses what cannot be copied, ``encode`` encodes all of them.
        skipped: Gets ``{"source", "reason"}`` of each file left out.

    Raises:
        NotFoundError: No video.
        InvalidInputError: ``videos`` is false: nothing would be left.
    """
    if videos is False:
        raise InvalidInputError("a video without its pictures holds nothing", hint="set `videos: true`")
    left_out = skipped if skipped is not None else []
    root = path if path.is_dir() else path.parent
    for file in video_files(path):
        source = {"assetId": asset_id, "path": file.relative_to(root).as_posix(), "ref": "/"}
        try:
            yield _episode(file, timing(file, decode=True), fps, source, task, videos)
        except EmboflowError as error:
            left_out.append({"source": source, "reason": error.message})


def _episode(
    file: Path, found: Timing, fps: float | None, source: dict[str, Any], task: str, videos: Videos
) -> Episode:
    import numpy as np

    rate = fps or found.fps or found.nominal
    if rate is None:
        mean = (found.frames - 1) / (found.stamps_s[-1] - found.stamps_s[0])
        raise InvalidInputError(
            f"its frames are not at a constant rate ({mean:.3g} a second on the average), and no `fps` is set"
        )
    stamps = np.round(found.stamps_s * NS).astype(np.int64)
    reason = found.why_not_copied(rate)
    if videos == "copy" and reason:
        raise InvalidInputError(f"its video cannot be copied: {reason}")
    flags: list[str] = ["damaged_video"] if found.errors else []
    sync: dict[str, dict[str, float]] = {}
    valid = None
    places = np.arange(found.frames)
    if not found.is_at(rate):
        grid = grid_of(int(stamps[0]), int(stamps[-1]), rate)
        places, age = held(stamps, grid)
        valid = _valid(stamps, places, age)
        sync[f"observation.images.{CAMERA}"] = {"maxAgeNs": int(age.max()), "meanAgeNs": float(age.mean())}
        flags.append("resampled")
        if valid is not None:
            flags.append("stale_frames")
        stamps = stamps[places]
    wanted = places.tolist()
    return Episode(
        source=source,
        features={},
        specs={},
        source_timestamp_ns=stamps,
        t0_ns=int(stamps[0]),
        task=task,
        flags=tuple(flags),
        valid=valid,
        cameras={
            CAMERA: Camera(
                found.shape,
                lambda: pictures(file, wanted),
                source["path"],
                file if reason is None and videos != "encode" else None,
            )
        },
        sync=sync,
        frames=len(stamps),
        fps=rate,
    )


def _valid(stamps: "np.ndarray", places: "np.ndarray", age: "np.ndarray") -> "np.ndarray | None":
    """False where a frame stands for one that was dropped; ``None`` where none was."""
    import numpy as np

    steps = np.diff(stamps)
    if not len(steps):
        return None
    usual = float(np.median(steps))
    gap = np.append(steps, 0)[places] > GAP_INTERVALS * usual
    stale = gap & (age > 0.99 * usual)  # 1: the clocks of some containers count milliseconds
    return ~stale if stale.any() else None
