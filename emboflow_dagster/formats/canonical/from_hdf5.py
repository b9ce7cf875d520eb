"""Episodes out of HDF5 demonstrations: robosuite raw (0.3.0 too), robomimic, ALOHA, and others by a mapping.

One row of the file is one frame: demonstrations are recorded at the control rate, and nothing is resampled.
robosuite's flattened simulator state begins with the simulation time; where that column is a clock it becomes
the frames' own stamp. The other layouts hold no time, and none is made up for them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical.hdf5_cameras import cameras_of, is_camera, picture_at
from emboflow_dagster.formats.canonical.hdf5_plain import (
    TIMESTAMP,
    left_out_of,
    mapped_demos,
    parts,
    robosuite_030,
    stamps_of,
    why_none_is_mapped,
)
from emboflow_dagster.formats.canonical.names import kind_of
from emboflow_dagster.formats.canonical.schema import Episode, FeatureSpec
from emboflow_dagster.formats.hdf5_file import SUFFIXES, is_hdf5
from emboflow_dagster.formats.hdf5_layout import Demo, Field, Layout, layout_of, natural_key, open_hdf5
from emboflow_dagster.formats.hdf5_proposal import propose
from emboflow_dagster.formats.hdf5_warnings import REPACK
from emboflow_dagster.formats.nearest import instead

__all__ = ["episodes", "hdf5_files", "nominal_fps", "picture_at", "simulation_clock", "suggested_fps"]

if TYPE_CHECKING:
    import h5py
    import numpy as np

#: Datasets of files whose layout is kept: some MiB; a folder of a thousand ALOHA episodes has fewer.
FIELDS_KEPT = 20_000
#: Numbers of one feature and episode that are still read into memory.
MAX_FEATURE_NUMBERS = 200_000_000

_ALOHA_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_ALOHA_NAMES = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _ALOHA_ARM)
_ALOHA = {
    "observations/qpos": "observation.state",
    "observations/qvel": "observation.velocity",
    "observations/effort": "observation.effort",
    "action": "action",
    "base_action": "action.base",
}
#: ALOHA's recorder runs at this rate (DT = 0.02) and writes none into its files.
ALOHA_HZ = 50.0


def hdf5_files(path: Path) -> list[Path]:
    """The HDF5 files of an asset in natural order: the file itself, or those below a folder.

    Raises:
        NotFoundError: There is none.
    """
    if not path.is_dir():
        candidates = [path] if path.exists() else []
    else:
        candidates = sorted(
            (
                p
                for p in path.rglob("*")
                if p.suffix.lower() in SUFFIXES and p.is_file() and not p.is_symlink()
            ),
            key=lambda p: natural_key(p.relative_to(path).as_posix()),
        )
    found = [candidate for candidate in candidates if is_hdf5(candidate)]
    if not found:
        raise NotFoundError(f"{path.name}: no HDF5 file", kind=ErrorKind.FILE_MAGIC)
    return found


def episodes(
    path: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    task: str | None = None,
    asset_id: str | None = None,
    videos: bool = True,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Every demonstration with actions, file by file and ``demo_2`` before ``demo_10``.

    Without `mapping`: robosuite ``states`` -> ``observation.environment_state``, ``actions`` -> ``action``
    (in 0.3.0 ``joint_velocities`` and ``gripper_actuations``, side by side); robomimic ``obs/<name>`` ->
    ``observation.<name>``; ALOHA ``qpos qvel
    effort`` -> ``observation.state``, ``.velocity``, ``.effort``. Pictures become cameras.

    Args:
        path: A file, or a folder with one or several.
        mapping: Dataset path within the episode (``joint_torques``, or several joined with ``+``) to feature
            name; replaces the default. In a file of no known layout every group that holds all of them is an
            episode, the file itself where it does. ``timestamp`` as a feature are the frames' own stamps:
            whole numbers are ns, others seconds. A mapping needs no actions.
        task: What was asked of the robot; default is the file's own word for it, or its environment.
        asset_id: For the source reference.
        videos: Whether pictures are taken along.
        skipped: Gets ``{"source", "reason"}`` of each episode left out.

    Raises:
        NotFoundError: No HDF5 file.
        InvalidInputError: A file cannot be read, or holds no known layout.
    """
    left_out = skipped if skipped is not None else []
    root = path if path.is_dir() else path.parent
    files = hdf5_files(path)
    failed: list[InvalidInputError] = []
    for file_path in files:
        name = file_path.relative_to(root).as_posix()
        try:
            file, layout = _opened(file_path, name)
            demos = layout.demos or (mapped_demos(layout, mapping) if mapping else [])
            if not demos:
                file.close()
                raise _none(name, layout, mapping)
        except InvalidInputError as error:
            # One bad file of many costs itself.
            failed.append(error)
            if len(failed) == len(files):
                raise failed[0] from None
            if len(files) > 1:
                source = {"assetId": asset_id, "path": name, "ref": "/"}
                left_out.append({"source": source, "reason": error.message})
            continue
        with file:
            left_out += left_out_of(demos, {"assetId": asset_id, "path": name}, mapping, videos=videos)
            for demo in demos:
                source = {"assetId": asset_id, "path": name, "ref": demo.group or "/"}
                result = _episode(file, layout, demo, mapping, source, task=task, videos=videos)
                if isinstance(result, str):
                    left_out.append({"source": source, "reason": result})
                else:
                    yield result


def _opened(path: Path, name: str) -> "tuple[h5py.File, Layout]":
    """A file and what stands in it.

    Raises:
        InvalidInputError: It cannot be read.
    """
    try:
        file = open_hdf5(path)
        try:
            return file, _layout(path, file)
        except BaseException:
            file.close()
            raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        kind = ErrorKind.FILE_TRUNCATED if "truncated" in str(error) else ErrorKind.FILE_CORRUPT
        raise InvalidInputError(f"{name}: not readable: {error}", kind=kind) from error


def _readable(path: Path) -> "Iterator[tuple[h5py.File, Layout]]":
    """The files of an asset that can be read, one after the other."""
    for file_path in hdf5_files(path):
        try:
            file, layout = _opened(file_path, file_path.name)
        except InvalidInputError:
            continue
        with file:
            yield file, layout


def _none(name: str, layout: Layout, mapping: Mapping[str, str] | None) -> InvalidInputError:
    """Why a file has no demonstrations, and the mapping with which it may have some."""
    hint = None
    if not mapping:
        hint = "set `mapping` in the node's config: dataset of an episode to feature name"
        if found := propose(layout):
            hint = f"{hint}; by names and shapes {json.dumps(found, ensure_ascii=False)}"
    return InvalidInputError(
        f"{name}: no demonstrations{why_none_is_mapped(layout, mapping or {})}",
        kind=ErrorKind.FORMAT_UNSUPPORTED,
        hint=hint,
    )


def suggested_fps(path: Path) -> float | None:
    """The rate the file itself gives: the environment's control frequency, or its simulation clock's step."""
    for file, layout in _readable(path):
        if layout.control_hz:
            return layout.control_hz
        # Without an environment no state has a clock: every one would be read to find none.
        demos = layout.demos if layout.env and layout.format == "hdf5_robosuite_raw" else []
        for demo in demos:
            state = demo.state
            if state is not None and state.is_numeric and not state.closed:
                stamps = simulation_clock(layout, _read(file, demo, "states", state))
                step = _median_step(stamps)
                if step:
                    return round(1e9 / step, 3)
    return None


def _episode(
    file: "h5py.File",
    layout: Layout,
    demo: Demo,
    mapping: Mapping[str, str] | None,
    source: Mapping[str, Any],
    *,
    task: str | None,
    videos: bool,
) -> Episode | str:
    """The episode, or why there is none."""
    import numpy as np

    wanted = dict(mapping) if mapping is not None else _default_mapping(layout, demo)
    if mapping is None and "action" not in wanted.values():
        return "no actions"
    length = _length(demo, wanted)
    features: dict[str, np.ndarray] = {}
    specs: dict[str, FeatureSpec] = {}
    clock = stamps = None
    for dataset, feature in wanted.items():
        if is_camera(demo, dataset):
            continue
        names: list[str] = []
        columns: list[np.ndarray] = []
        for part in parts(dataset):
            rows = _rows(file, demo, part, length)
            if isinstance(rows, str):
                return rows
            if part == "states" and layout.format == "hdf5_robosuite_raw":
                clock = simulation_clock(layout, rows)
            columns.append(rows)
            width = rows.reshape(length, -1).shape[1]
            names += _names(layout, part, width, clock is not None)
        if feature == TIMESTAMP:
            stamps = stamps_of(columns[0])
            if isinstance(stamps, str):
                return f"{dataset}: {stamps}"
            continue
        # A number beyond float32 becomes infinite; the quality report names it.
        with np.errstate(over="ignore"):
            flat = [rows.astype(np.float32).reshape(length, -1) for rows in columns]
        features[feature] = np.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]
        place = ",".join(demo.fields[part].path for part in parts(dataset))
        specs[feature] = FeatureSpec(tuple(names), kind_of(feature), None, place)
    if stamps is not None:
        clock = None
    flags = () if clock is None else ("sim_time",)
    flags += tuple(f"split:{key}" for key in layout.keys_of(demo))
    if layout.damage is not None:
        flags += (layout.damage.code,)
    return Episode(
        source=source,
        features=features,
        specs=specs,
        source_timestamp_ns=clock if stamps is None else stamps,
        t0_ns=next((int(found[0]) for found in (stamps, clock) if found is not None), None),
        task=task if task is not None else _task(layout),
        flags=flags,
        cameras=cameras_of(file, demo, length, mapping) if videos else {},
        frames=length,
    )


_LAYOUTS: dict[Path, tuple[tuple[int, ...], Layout]] = {}


def _layout(path: Path, file: "h5py.File") -> Layout:
    """The layout of an open file, kept of the last ones: their rate is asked for before their episodes."""
    found = path.stat()
    state = (found.st_ino, found.st_size, found.st_mtime_ns)
    known = _LAYOUTS.get(path)
    if known is None or known[0] != state:
        layout = layout_of(file)
        if len(layout.fields) + sum(len(kept.fields) for _, kept in _LAYOUTS.values()) > FIELDS_KEPT:
            _LAYOUTS.clear()
        known = _LAYOUTS[path] = (state, layout)
    return known[1]


def nominal_fps(path: Path) -> float | None:
    """The rate that files of this layout have by convention where they say none: 50 Hz of ALOHA."""
    for _, layout in _readable(path):
        return ALOHA_HZ if layout.format == "hdf5_aloha" else None
    return None


def _length(demo: Demo, wanted: Mapping[str, str]) -> int:
    if demo.action is not None or demo.state is not None:
        return demo.length
    found = (demo.fields.get(part) for dataset in wanted for part in parts(dataset))
    return next((item.shape[0] for item in found if item is not None and item.shape), 0)


def _rows(file: "h5py.File", demo: Demo, dataset: str, length: int) -> "np.ndarray | str":
    """The rows of a dataset, or why they cannot be had."""
    item = demo.fields.get(dataset)
    if item is None:
        return f"no dataset {dataset}{instead(dataset, demo.fields)}"
    reason = _unusable(item, length)
    if reason:
        return f"{dataset}: {reason}"
    try:
        return _read(file, demo, dataset, item)
    except (OSError, RuntimeError, ValueError) as error:
        return f"{dataset}: not readable: {error}"


def _default_mapping(layout: Layout, demo: Demo) -> dict[str, str]:
    if layout.format == "hdf5_aloha":
        return {dataset: feature for dataset, feature in _ALOHA.items() if dataset in demo.fields}
    found: dict[str, str] = {}
    if layout.format == "hdf5_robomimic":
        for name, item in demo.fields.items():
            if name.startswith("obs/") and item.is_numeric and not item.zero_width:
                found[name] = "observation." + name.removeprefix("obs/").replace("/", ".")
    elif demo.state is not None:
        found["states"] = "observation.environment_state"
    return found | ({"actions": "action"} if demo.action is not None else robosuite_030(demo))


def _unusable(item: Field, length: int) -> str | None:
    if item.foreign:
        return "its values stand in another file"
    if item.missing:
        return f"packed with {item.missing}, which is not installed: {REPACK}"
    if not item.is_numeric:
        return f"shape {list(item.shape)} of {item.dtype} is no vector per frame"
    if item.zero_width:
        return "holds no numbers"
    if item.shape[0] != length:
        return f"{item.shape[0]} rows for {length} frames"
    if item.shape[0] * (item.width or 1) > MAX_FEATURE_NUMBERS:
        return f"more than {MAX_FEATURE_NUMBERS} numbers"
    return None


def _read(file: "h5py.File", demo: Demo, name: str, item: Field) -> "np.ndarray":
    import numpy as np
    from h5py import h5d, h5s  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs

    if not item.shape:
        return np.asarray([])
    if item.column:
        table = file[item.path].fields(item.column)  # pyright: ignore[reportAttributeAccessIssue] - a table
        return np.asarray(table[: item.shape[0]])
    # By h5py's own identifiers, as the file is walked: a demonstration's datasets are many and small.
    dataset = h5d.open(file.id, f"{demo.group}/{name}".encode())
    rows = np.empty(item.shape, dataset.dtype)
    if rows.size:
        # With its own space: a dataset that has grown since the walk is refused, not read beyond the array.
        place = h5s.ALL
        if item.declared is not None:
            place = dataset.get_space()
            place.select_hyperslab((0,) * len(item.shape), item.shape)
        dataset.read(h5s.create_simple(item.shape), place, rows)
    return rows


def simulation_clock(layout: Layout, states: "np.ndarray") -> "np.ndarray | None":
    """The first column as int64 ns where it is robosuite's simulation time: it never runs backwards."""
    import numpy as np

    if layout.env is None or states.ndim != 2 or len(states) < 2:  # noqa: PLR2004 - rows and columns, a step
        return None
    seconds = states[:, 0].astype(np.float64)
    steps = np.diff(seconds)
    if not np.isfinite(seconds).all() or seconds[0] < 0 or (steps < 0).any() or np.median(steps) <= 0:
        return None
    # A clock's steps are alike; a joint that happens to move one way is not.
    if steps.max() > 10 * np.median(steps):
        return None
    return np.round(seconds * 1e9).astype(np.int64)


def _median_step(stamps: "np.ndarray | None") -> float | None:
    import numpy as np

    return None if stamps is None else float(np.median(np.diff(stamps))) or None


def _names(layout: Layout, dataset: str, width: int, has_clock: bool) -> tuple[str, ...]:  # noqa: FBT001
    if layout.format == "hdf5_aloha" and width == len(_ALOHA_NAMES):
        return _ALOHA_NAMES
    stem = dataset.rpartition("/")[2].removesuffix("s" if dataset in ("states", "actions") else "")
    names = [f"{stem}_{index}" for index in range(width)]
    if dataset == "states" and has_clock:
        names[0] = "time"
    return tuple(names)


def _task(layout: Layout) -> str:
    for name in ("language_instruction", "task", "task_description", "instruction"):
        value = layout.attrs.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return layout.env or ""
