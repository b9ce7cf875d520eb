"""Episodes out of LeRobot datasets 2.0, 2.1 and 3.0, also of those that are wrong in the usual ways.

Types are coerced, never passed through; paths are found by looking; the grid is made anew and the recorded
stamps are kept beside it. A video that is a constant-rate file of its episode alone is copied bit for bit.
"""

from collections.abc import Container, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical.column_numbers import numbers, words
from emboflow_dagster.formats.canonical.grid import NS
from emboflow_dagster.formats.canonical.lerobot_rows import Rows, episodes_of, is_depth
from emboflow_dagster.formats.canonical.lerobot_rows import pictures as column_pictures
from emboflow_dagster.formats.canonical.lerobot_tree import Clip, Tree
from emboflow_dagster.formats.canonical.names import camera_name, dimension_names, kind_of
from emboflow_dagster.formats.canonical.schema import INDEX_COLUMNS, Camera, Episode, FeatureSpec
from emboflow_dagster.formats.canonical.source_video import TOLERANCE_S, Timing, Videos, pictures, timing
from emboflow_dagster.formats.lerobot_folder import datasets
from emboflow_dagster.formats.lerobot_info import INFO, read_info
from emboflow_dagster.formats.lerobot_stamps import Clock
from emboflow_dagster.formats.lerobot_tables import INDEX_COLUMNS as PLACES
from emboflow_dagster.formats.lerobot_tables import read_tables

if TYPE_CHECKING:
    import numpy as np

OnMissingVideo = Literal["fail", "drop-feature", "drop-episode"]

#: Columns in words that say what is asked of the robot, where no task is known by its index.
TASK_WORDS = ("task", "language_instruction", "natural_language_instruction", "instruction", "prompt")
_DEPTH = "pictures of more than 8 bits are depth and no video"
_MAX_NAMED = 20

#: What lerobot itself allows a stamp to be off the grid.
GRID_TOLERANCE_S = 1e-4


class MissingVideoError(InvalidInputError):
    """A video is declared and absent or unusable, and the caller did not say what to do about it."""

    default_kind = ErrorKind.INPUT_MISSING


def suggested_fps(path: Path) -> float | None:
    """The rate that ``meta/info.json`` declares; of several datasets the one that all declare."""
    rates = {_declared_fps(folder) for folder in datasets(path)}
    return rates.pop() if len(rates) == 1 else None


def _declared_fps(folder: Path) -> float | None:
    info = read_info(folder / INFO)
    return float(info.fps) if info is not None and info.fps else None


def episodes(
    path: Path,
    *,
    fps: float | None,
    task: str | None = None,
    asset_id: str | None = None,
    videos: Videos = True,
    on_missing_video: OnMissingVideo = "fail",
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Every episode, in the order of the data files.

    Args:
        path: The tree, or a folder that holds one or several.
        fps: Its rate; rows are not resampled. ``None`` where several datasets have rates of their own.
        task: What was asked of the robot; default is the dataset's own word for it.
        asset_id: For the source reference.
        videos: Whether, and how, pictures are taken along; with ``copy`` a video that cannot be copied counts
            as missing.
        on_missing_video: ``fail`` raises. Else a camera of which no file exists is left out; of one with some
            files, ``drop-episode`` leaves out the episodes without, ``drop-feature`` the camera. Depth is
            left out by both.
        skipped: Gets ``{"source", "reason"}`` of each episode, file and feature left out.

    Raises:
        MissingVideoError: A video is missing, and ``on_missing_video`` is ``fail``.
        InvalidInputError: No such tree, or no rate.
    """
    left_out = skipped if skipped is not None else []
    for folder in datasets(path):
        rate = fps or _declared_fps(folder)
        if rate is None:
            hint = "set `fps` in the node's config"
            raise InvalidInputError(f"{folder.name}: {INFO} declares no fps", hint=hint)
        reader = _Reader(Tree(folder), rate, task, asset_id, videos, left_out, path)
        reader.policy = on_missing_video
        for episode in reader.episodes():
            yield episode if fps else replace(episode, fps=rate)


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
        asset: Path,
    ) -> None:
        self.tree = tree
        self.fps = fps
        self.task = task
        self.asset_id = asset_id
        self.videos: Videos = videos
        self.skipped = skipped
        self.features: list[str] = []
        """Features with videos that are taken along."""
        self.policy: OnMissingVideo = "fail"
        root = tree.root.relative_to(asset).as_posix()
        self._below = "" if root == "." else f"{root}/"
        self._timings: dict[str, tuple[Path, Timing | str]] = {}
        self._shown: dict[tuple[str, Path], np.ndarray] = {}
        """Of the files of each camera, which of their frames an episode has already."""
        self._said: set[str] = set()
        self._clock = Clock(tree.info.fps or fps)

    def episodes(self) -> Iterator[Episode]:
        """The episodes whose videos are there."""
        if self.videos is not False:
            self.choose_cameras(self.policy)
        for rows in episodes_of(self.tree, self.leave_out):
            cameras = self.cameras_of(rows)
            if isinstance(cameras, str):
                if self.policy == "fail":
                    raise _missing(f"{self._below}episode {rows.index}: {cameras}")
                self.leave_out(f"episode {rows.index}", cameras)
                continue
            yield self.episode(rows, cameras)

    def leave_out(self, ref: str, reason: str) -> None:
        """Note something that is left out, once."""
        if ref in self._said:
            return
        self._said.add(ref)
        source = {"assetId": self.asset_id, "path": self.tree.root.name, "ref": f"{self._below}{ref}"}
        self.skipped.append({"source": source, "reason": reason})

    def choose_cameras(self, on_missing: OnMissingVideo) -> None:
        """Decide which of the declared videos become cameras."""
        for path in self.tree.undeclared_videos[:_MAX_NAMED]:
            name = path.relative_to(self.tree.root).as_posix()
            self.leave_out(name, "a video of no declared feature")
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
        one = not self.tree.long_files
        lengths = read_tables(((path.name, path) for path in self.tree.data), one_episode=one).lengths
        found = ((index, self._camera(feature, index, length)) for index, length in sorted(lengths.items()))
        missing = next((f"episode {index}: {why}" for index, why in found if isinstance(why, str)), None)
        self._shown.clear()
        return missing

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
            if first is None and is_depth(self.tree, rows.segments, column):
                if self.policy == "fail":
                    return f"{column}: {_DEPTH}"
                self.leave_out(column, _DEPTH)
                continue
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
        if not clip.whole and (overlap := self._overlap(feature, clip.path, when, first, length)):
            return overlap
        reason = when.why_not_copied(self.fps)
        if reason is None and not (first == 0 and when.frames == length):
            reason = f"its file has {when.frames} frames, the episode {length}"
        if self.videos == "copy" and reason:
            return f"its video cannot be copied: {reason}"
        copied = reason is None and self.videos != "encode"
        if not copied and is_depth_video(clip.path):
            return f"{_DEPTH}, and its file is not copied: {reason or 'none is'}"
        start = float(when.stamps_s[first])
        return Camera(
            when.shape,
            partial(pictures, clip.path, range(length), from_s=start if first else 0.0),
            feature,
            clip.path if copied else None,
        )

    def _overlap(self, feature: str, path: Path, when: Timing, first: int, length: int) -> str | None:
        """Note the frames of an episode; why they cannot be its own."""
        import numpy as np

        shown = self._shown.get((feature, path))
        if shown is None:
            shown = self._shown[feature, path] = np.zeros(when.frames, np.bool_)
        frames = shown[first : first + length]
        if frames.any():
            # Metadata that begin every episode at 0 would show each the pictures of the first.
            return "the metadata give it pictures of another episode"
        frames[:] = True
        return None

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
        said: dict[str, list[str]] = {}
        declared = self.tree.info.document.get("features")
        for column in rows.table.column_names:
            if column == "timestamp":
                continue
            if column in TASK_WORDS and (spoken := words(rows.table.column(column))):
                said[column] = spoken
                continue
            values = numbers(rows.table.column(column))
            if isinstance(values, str):
                self.leave_out(column, values)
            elif column in PLACES:
                plain[column] = values[:, 0] if values.shape[1] else np.full(len(values), np.nan)
            elif not values.shape[1]:
                self.leave_out(column, "holds no numbers")
            elif name := self._name_of(column, features):
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
        stamps, flags = self._stamps(rows)
        order = plain.get("frame_index")
        if order is not None and not np.array_equal(order, np.arange(len(order))):
            flags = (*flags, "frame_index_renumbered")
        frame_tasks = self._frame_tasks(plain.get("task_index"))
        for column in sorted(said, key=TASK_WORDS.index):
            if frame_tasks:
                self.leave_out(column, "words; the tasks are those of an earlier column")
            elif any(said[column]):
                frame_tasks = tuple(said[column])
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
        there = {*rows.table.column_names, *rows.images, *PLACES, "timestamp", *self._said}
        for name, feature in self.tree.info.features.items():
            if feature["dtype"] != "video" and name not in there:
                self.leave_out(name, "declared, and no such column in the data")

    def _name_of(self, column: str, taken: Container[str]) -> str | None:
        name = column.replace("/", ".")
        name = f"source.{name}" if name in INDEX_COLUMNS else name
        if not name or name in taken:
            self.leave_out(column, "has no name" if not name else f"another column is called {name}")
            return None
        return name

    def _stamps(self, rows: Rows) -> tuple["np.ndarray | None", tuple[str, ...]]:
        import numpy as np

        if "timestamp" not in rows.table.column_names:
            return None, ()
        stamps = self._clock.ns(rows.table.column("timestamp"))
        if stamps is None:
            return None, ("invalid_stamps",)
        flags = () if self._clock.unit == "s" else (f"stamps_in_{self._clock.unit}",)
        off = np.abs((stamps - stamps[0]) / NS - np.arange(len(stamps)) / self.fps).max()
        return stamps, (*flags, "off_grid") if off > GRID_TOLERANCE_S else flags

    def _frame_tasks(self, indices: "np.ndarray | None") -> tuple[str, ...]:
        import numpy as np

        if indices is None or not (np.abs(indices) < 2**62).all():  # NaN neither
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


def is_depth_video(path: Path) -> bool:
    """Whether a video is one plane of more than 8 bits: as RGB its lower bits would be lost."""
    import av

    with av.open(str(path), metadata_errors="replace", options={"skip_frame": "all"}) as container:
        context = container.streams.video[0].codec_context
        parts = context.format.components if context.format is not None else ()
        return len(parts) == 1 and parts[0].bits > 8  # noqa: PLR2004 - of a picture for people


def _missing(text: str) -> MissingVideoError:
    return MissingVideoError(text, hint="set `onMissingVideo` to `drop-feature` or `drop-episode`")
