"""Episodes out of LeRobot datasets 2.0, 2.1 and 3.0, also of those that are wrong in the usual ways.

Types are coerced, never passed through; paths are found by looking; the grid is made anew and the recorded
stamps are kept beside it. A video that is a constant-rate file of its episode alone is copied bit for bit.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical.grid import NS
from emboflow_dagster.formats.canonical.lerobot_rows import Rows, episodes_of, numbers
from emboflow_dagster.formats.canonical.lerobot_rows import pictures as column_pictures
from emboflow_dagster.formats.canonical.lerobot_tree import Clip, Tree
from emboflow_dagster.formats.canonical.names import camera_name, dimension_names, kind_of
from emboflow_dagster.formats.canonical.schema import INDEX_COLUMNS, Camera, Episode, FeatureSpec
from emboflow_dagster.formats.canonical.source_video import TOLERANCE_S, Timing, Videos, pictures, timing
from emboflow_dagster.formats.lerobot_info import INFO, read_info
from emboflow_dagster.formats.lerobot_tables import INDEX_COLUMNS as PLACES
from emboflow_dagster.formats.lerobot_tables import read_tables

if TYPE_CHECKING:
    import numpy as np

OnMissingVideo = Literal["fail", "drop-feature", "drop-episode"]

#: What lerobot itself allows a stamp to be off the grid.
GRID_TOLERANCE_S = 1e-4


class MissingVideoError(InvalidInputError):
    """A video is declared and absent or unusable, and the caller did not say what to do about it."""

    default_kind = ErrorKind.INPUT_MISSING


def suggested_fps(path: Path) -> float | None:
    """The rate that ``meta/info.json`` declares."""
    info = read_info(path / INFO)
    return float(info.fps) if info is not None and info.fps else None


def episodes(
    path: Path,
    *,
    fps: float,
    task: str | None = None,
    asset_id: str | None = None,
    videos: Videos = True,
    on_missing_video: OnMissingVideo = "fail",
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Every episode, in the order of the data files.

    Args:
        path: The tree.
        fps: Its rate; rows are not resampled.
        task: What was asked of the robot; default is the dataset's own word for it.
        asset_id: For the source reference.
        videos: Whether, and how, pictures are taken along; with ``copy`` a video that cannot be copied counts
            as missing.
        on_missing_video: ``fail`` raises. Else a camera of which no file exists is left out; of one with some
            files, ``drop-episode`` leaves out the episodes without, ``drop-feature`` the camera.
        skipped: Gets ``{"source", "reason"}`` of each episode and feature left out.

    Raises:
        MissingVideoError: A video is missing, and ``on_missing_video`` is ``fail``.
        InvalidInputError: No such tree, or a file of it cannot be read.
    """
    tree = Tree(path)
    reader = _Reader(tree, fps, task, asset_id, videos, skipped if skipped is not None else [])
    if videos is not False:
        reader.choose_cameras(on_missing_video)
    for rows in episodes_of(tree):
        cameras = reader.cameras_of(rows)
        if isinstance(cameras, str):
            if on_missing_video == "fail":
                raise _missing(f"episode {rows.index}: {cameras}")
            reader.leave_out(f"episode {rows.index}", cameras)
            continue
        yield reader.episode(rows, cameras)


class _Reader:
    """What is known of the whole dataset while its episodes are read."""

    def __init__(
        self,
        tree: Tree,
        fps: float,
        task: str | None,
        asset_id: str | None,
        videos: Videos,
        skipped: list[dict[str, Any]],
    ) -> None:
        self.tree = tree
        self.fps = fps
        self.task = task
        self.asset_id = asset_id
        self.videos: Videos = videos
        self.skipped = skipped
        self.features: list[str] = []
        """Features with videos that are taken along."""
        self._timings: dict[str, tuple[Path, Timing | str]] = {}
        self._said: set[str] = set()

    def leave_out(self, ref: str, reason: str) -> None:
        """Note something that is left out, once."""
        if ref in self._said:
            return
        self._said.add(ref)
        source = {"assetId": self.asset_id, "path": self.tree.root.name, "ref": ref}
        self.skipped.append({"source": source, "reason": reason})

    def choose_cameras(self, on_missing: OnMissingVideo) -> None:
        """Decide which of the declared videos become cameras."""
        for feature in self.tree.info.videos:
            if not self.tree.has_videos(feature):
                reason = "declared as a video, and no file has it"
                if on_missing == "fail":
                    raise _missing(f"{feature}: {reason}")
                self.leave_out(feature, reason)
            elif on_missing == "drop-feature" and (reason := self._first_missing(feature)):
                self.leave_out(feature, reason)
            else:
                self.features.append(feature)

    def _first_missing(self, feature: str) -> str | None:
        lengths = read_tables((path.name, path) for path in self.tree.data).lengths
        for index, length in sorted(lengths.items()):
            found = self._camera(feature, index, length)
            if isinstance(found, str):
                return f"episode {index}: {found}"
        return None

    def cameras_of(self, rows: Rows) -> dict[str, Camera] | str:
        """The episode's cameras, or what is missing."""
        found: dict[str, Camera] = {}
        if self.videos is False:
            return found
        for feature in self.features:
            camera = self._camera(feature, rows.index, rows.table.num_rows)
            if isinstance(camera, str):
                return f"{feature}: {camera}"
            found[camera_name(feature, taken=found)] = camera
        for column in rows.images:
            frames = partial(column_pictures, self.tree, rows.segments, column)
            first = next(frames(), None)
            if first is None:
                return f"{column}: its first picture cannot be decoded"
            shape = (int(first.shape[0]), int(first.shape[1]), 3)
            found[camera_name(column, taken=found)] = Camera(shape, frames, column)
        return found

    def _camera(self, feature: str, index: int, length: int) -> Camera | str:
        clip = self.tree.clip(feature, index)
        if clip is None:
            return "no video"
        when = self._timing(feature, clip.path)
        if isinstance(when, str):
            return when
        first, there = _frames_of(when, clip, length, self.fps)
        if there < length:
            return f"{there} pictures for {length} frames"
        reason = when.why_not_copied(self.fps)
        if reason is None and not (first == 0 and when.frames == length):
            reason = f"its file has {when.frames} frames, the episode {length}"
        if self.videos == "copy" and reason:
            return f"its video cannot be copied: {reason}"
        copied = reason is None and self.videos != "encode"
        start = float(when.stamps_s[first])
        return Camera(
            when.shape,
            partial(pictures, clip.path, range(length), from_s=start if first else 0.0),
            feature,
            clip.path if copied else None,
        )

    def _timing(self, feature: str, path: Path) -> Timing | str:
        known = self._timings.get(feature)
        if known is None or known[0] != path:
            try:
                found: Timing | str = timing(path, decode=False)
            except InvalidInputError as error:
                found = error.message
            known = self._timings[feature] = (path, found)
        return known[1]

    def episode(self, rows: Rows, cameras: dict[str, Camera]) -> Episode:
        """The rows as an episode."""
        import numpy as np

        features: dict[str, np.ndarray] = {}
        specs: dict[str, FeatureSpec] = {}
        plain: dict[str, np.ndarray] = {}
        declared = self.tree.info.document.get("features")
        for column in rows.table.column_names:
            values = numbers(rows.table.column(column))
            if isinstance(values, str):
                self.leave_out(column, values)
            elif column == "timestamp" or column in PLACES:
                plain[column] = values[:, 0] if values.shape[1] else np.full(len(values), np.nan)
            elif not values.shape[1]:
                self.leave_out(column, "holds no numbers")
            else:
                name = column.replace("/", ".")
                name = f"source.{name}" if name in INDEX_COLUMNS else name
                # A number beyond float32 becomes infinite; the quality report names it.
                with np.errstate(over="ignore"):
                    features[name] = values.astype(np.float32)
                entry = declared.get(column) if isinstance(declared, dict) else None
                names = entry.get("names") if isinstance(entry, dict) else None
                stem = column.rpartition(".")[2]
                specs[name] = FeatureSpec(
                    dimension_names(names, values.shape[1], stem), kind_of(name), None, column
                )
        self._note_absent(rows)
        stamps, flags = self._stamps(plain.get("timestamp"))
        order = plain.get("frame_index")
        if order is not None and not np.array_equal(order, np.arange(len(order))):
            flags = (*flags, "frame_index_renumbered")
        frame_tasks = self._frame_tasks(plain.get("task_index"))
        meta = self.tree.episodes.get(rows.index)
        own = frame_tasks[0] if frame_tasks else next(iter(meta.tasks if meta else ()), "")
        success = features.get("next.success", features.get("success"))
        return Episode(
            source={
                "assetId": self.asset_id,
                "path": rows.segments[0].path.relative_to(self.tree.root).as_posix(),
                "ref": f"episode {rows.index}",
            },
            features=features,
            specs=specs,
            source_timestamp_ns=stamps,
            t0_ns=None if stamps is None else int(stamps[0]),
            task=own if self.task is None else self.task,
            success=bool((success > 0).any()) if success is not None else meta.success if meta else None,
            flags=flags,
            cameras=cameras,
            frames=rows.table.num_rows,
            frame_tasks=frame_tasks if self.task is None and len(set(frame_tasks)) > 1 else (),
        )

    def _note_absent(self, rows: Rows) -> None:
        there = {*rows.table.column_names, *rows.images, *PLACES, "timestamp"}
        for name, feature in self.tree.info.features.items():
            if feature["dtype"] != "video" and name not in there:
                self.leave_out(name, "declared, and no such column in the data")

    def _stamps(self, seconds: "np.ndarray | None") -> tuple["np.ndarray | None", tuple[str, ...]]:
        import numpy as np

        if seconds is None or not len(seconds) or not np.isfinite(seconds).all():
            return None, ()
        # Stamps of days since some epoch lose their ns in float64 as they did when they were written.
        stamps = np.round(seconds * NS).astype(np.int64)
        off = np.abs(seconds - seconds[0] - np.arange(len(seconds)) / self.fps).max()
        return stamps, ("off_grid",) if off > GRID_TOLERANCE_S else ()

    def _frame_tasks(self, indices: "np.ndarray | None") -> tuple[str, ...]:
        import numpy as np

        if indices is None or not np.isfinite(indices).all():
            return ()
        found = [self.tree.tasks.get(index) for index in indices.astype(np.int64).tolist()]
        return tuple(task for task in found if task is not None) if None not in found else ()


def _frames_of(when: Timing, clip: Clip, length: int, fps: float) -> tuple[int, int]:
    """The first frame of an episode in its file, and how many frames there are for it."""
    import numpy as np

    if clip.whole:
        return 0, min(when.frames, length)
    # Frames of a long file are cut at half an interval: stamps are float32 in the metadata of some.
    first = int(np.searchsorted(when.stamps_s, clip.from_s - 0.5 / fps))
    end = clip.from_s + (length - 0.5) / fps
    return first, int(np.searchsorted(when.stamps_s, end - TOLERANCE_S)) - first


def _missing(text: str) -> MissingVideoError:
    return MissingVideoError(text, hint="set `onMissingVideo` to `drop-feature` or `drop-episode`")
