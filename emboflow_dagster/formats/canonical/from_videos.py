"""Episodes out of videos alone: no numbers, and a camera or several, as the names of the files say.

Frames are counted by decoding. A file at a constant rate keeps its frames; of any other the grid holds the
last frame at or before each grid time, as it does for topics. Pictures are upright: a rotation is applied.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import EmboflowError, ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical.grid import NS, grid_of, held
from emboflow_dagster.formats.canonical.names import camera_name
from emboflow_dagster.formats.canonical.schema import Camera, Episode
from emboflow_dagster.formats.canonical.source_video import RATE_TOLERANCE, Timing, Videos, pictures, timing
from emboflow_dagster.formats.canonical.splitting import Split
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.media_places import divide
from emboflow_dagster.formats.video import is_video
from emboflow_dagster.formats.video_container import SUFFIXES

if TYPE_CHECKING:
    import numpy as np

CAMERA = "video"
#: Cameras of one episode may differ by so many frames.
MAX_UNEVEN = 2
#: Letters that the names of an episode's files may have.
MAX_NAMES = 1_000
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
    split: Split | None = None,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Videos as episodes, in natural order; which are cameras of one episode, their names say.

    Cameras of one episode begin together: each is timed from its own first frame, and the shortest ends it.

    Args:
        path: A video, or a folder with some.
        fps: The grid's rate; ``None`` for each episode's own, which must be constant then.
        task: What is shown.
        asset_id: For the source reference.
        videos: ``copy`` refuses what cannot be copied, ``encode`` encodes all of them.
        split: By ``file``, ``one`` or ``name``: how to tell files apart instead of by the rules of
            :mod:`~emboflow_dagster.formats.media_places`.
        skipped: Gets ``{"source", "reason"}`` of each file left out.

    Raises:
        NotFoundError: No video.
        InvalidInputError: ``videos`` is false: nothing would be left; or no file fits a pattern.
    """
    if videos is False:
        raise InvalidInputError("a video without its pictures holds nothing", hint="set `videos: true`")
    left_out = skipped if skipped is not None else []
    root = path if path.is_dir() else path.parent
    by = split.by if split is not None and split.by in ("file", "one", "name") else "name"
    names = [file.relative_to(root).as_posix() for file in video_files(path)]
    division = divide(names, by, split.pattern if split is not None else None)
    for name in division.left_out:
        source = {"assetId": asset_id, "path": name, "ref": "/"}
        left_out.append({"source": source, "reason": f"its name does not fit {division.pattern}"})
    for cameras in division.episodes.values():
        source = {"assetId": asset_id, "path": ",".join(cameras.values())[:MAX_NAMES], "ref": "/"}
        try:
            found: dict[str, tuple[str, Path]] = {}
            for name, file in cameras.items():
                found[camera_name(name or CAMERA, taken=found)] = (name, root / file)
            yield _episode(_timed(found), root, fps, source, task, videos)
        except EmboflowError as error:
            left_out.append({"source": source, "reason": error.message})


@dataclass(frozen=True, slots=True)
class _Track:
    """One camera: its file, when its frames are, and their stamps in ns, int64 ``(frames,)``."""

    file: Path
    timing: Timing
    stamps: "np.ndarray"

    def grid(self, rate: float) -> "np.ndarray":
        """Stamps of the frames that it can give at a rate."""
        if self.timing.is_at(rate):
            return self.stamps
        return grid_of(int(self.stamps[0]), int(self.stamps[-1]), rate)


def _timed(files: dict[str, tuple[str, Path]]) -> dict[str, _Track]:
    import numpy as np

    tracks: dict[str, _Track] = {}
    for name, (said, file) in files.items():
        try:
            found = timing(file, decode=True)
        except EmboflowError as error:
            if len(files) == 1:
                raise
            raise InvalidInputError(f"{said}: {error.message}", kind=error.kind) from error
        begin = found.stamps_s[0] if len(files) > 1 else 0.0
        tracks[name] = _Track(file, found, np.round((found.stamps_s - begin) * NS).astype(np.int64))
    return tracks


def _rate(tracks: "Collection[_Track]") -> float:
    """The rate that the cameras have of their own."""
    rates = [track.timing.fps or track.timing.nominal for track in tracks]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        found = next(track.timing for track in tracks if not (track.timing.fps or track.timing.nominal))
        mean = (found.frames - 1) / (found.stamps_s[-1] - found.stamps_s[0])
        raise InvalidInputError(
            f"its frames are not at a constant rate ({mean:.3g} a second on the average), and no `fps` is set"
        )
    if max(known) - min(known) > RATE_TOLERANCE * max(known):
        each = " and ".join(f"{rate:g}" for rate in sorted(set(known)))
        raise InvalidInputError(f"its cameras run at {each} fps, and no `fps` is set")
    return known[0]


def _episode(
    tracks: dict[str, _Track],
    root: Path,
    fps: float | None,
    source: dict[str, Any],
    task: str,
    videos: Videos,
) -> Episode:
    import numpy as np

    rate = fps or _rate(tracks.values())
    grids = {name: track.grid(rate) for name, track in tracks.items()}
    frames = min(map(len, grids.values()))
    flags: dict[str, None] = {}
    if max(map(len, grids.values())) - frames > MAX_UNEVEN:
        flags["uneven_cameras"] = None
    sync: dict[str, dict[str, float]] = {}
    valid = np.ones(frames, dtype=bool)
    newest = np.full(frames, np.iinfo(np.int64).min, dtype=np.int64)
    cameras: dict[str, Camera] = {}
    for name, track in tracks.items():
        found, stamps = track.timing, track.stamps
        reason = found.why_not_copied(rate)
        if reason is None and found.frames != frames:
            reason = f"it has {found.frames} frames, its episode {frames}"
        if videos == "copy" and reason:
            raise InvalidInputError(f"its video cannot be copied: {reason}")
        if found.errors:
            flags["damaged_video"] = None
        if found.cut:
            flags["truncated_video"] = None
        places = np.arange(frames)
        if not found.is_at(rate):
            places, age = held(stamps, grids[name][:frames])
            fresh = _valid(stamps, places, age)
            sync[f"observation.images.{name}"] = {"maxAgeNs": int(age.max()), "meanAgeNs": float(age.mean())}
            flags["resampled"] = None
            if fresh is not None:
                flags["stale_frames"] = None
                valid &= fresh
        newest = np.maximum(newest, stamps[places])
        cameras[name] = Camera(
            found.shape,
            partial(pictures, track.file, places.tolist()),
            track.file.relative_to(root).as_posix(),
            track.file if reason is None and videos != "encode" else None,
        )
    return Episode(
        source=source,
        features={},
        specs={},
        source_timestamp_ns=newest,
        t0_ns=int(newest[0]),
        task=task,
        flags=tuple(flags),
        valid=valid if "stale_frames" in flags else None,
        cameras=cameras,
        sync=sync,
        frames=frames,
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
