"""HDF5 files of no known layout, and of old ones: which groups are episodes, what makes a feature."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.formats.hdf5_layout import Demo, Field, Layout, as_far_as_read, natural_key
from emboflow_dagster.formats.nearest import instead

if TYPE_CHECKING:
    import numpy as np

#: Joins datasets whose columns stand side by side in one feature.
JOIN: Final = "+"
#: The feature name under which a mapping names the episode's own stamps.
TIMESTAMP: Final = "timestamp"
NS: Final = 1_000_000_000


def parts(dataset: str) -> list[str]:
    """The datasets of a mapping's key.

    >>> parts("joint_velocities+gripper_actuations")
    ['joint_velocities', 'gripper_actuations']
    """
    return [part.strip().strip("/") for part in dataset.split(JOIN)]


def mapped_demos(layout: Layout, mapping: Mapping[str, str]) -> list[Demo]:
    """The groups that hold every dataset of the mapping, in natural order; the file itself where it does."""
    wanted = [part for dataset in mapping for part in parts(dataset)]
    if not wanted:
        return []
    by_path = {item.path: item for item in layout.fields} | layout.columns
    suffix = f"/{wanted[0]}"
    groups = ["" for path in by_path if path == wanted[0]]
    groups += [path.removesuffix(suffix) for path in by_path if path.endswith(suffix)]
    found = [
        group for group in groups if all((f"{group}/{name}" if group else name) in by_path for name in wanted)
    ]
    demos = [Demo(group, _below(by_path.items(), group)) for group in sorted(found, key=natural_key)]
    return demos if layout.damage is None else [as_far_as_read(demo) for demo in demos]


def why_none_is_mapped(layout: Layout, mapping: Mapping[str, str]) -> str:
    """What keeps every group from being an episode: the dataset that none has, else that none has all."""
    wanted = [part for dataset in mapping for part in parts(dataset)]
    if not wanted:
        return ""
    ends = {"/".join(path.split("/")[at:]) for path in paths_of(layout) for at in range(path.count("/") + 1)}
    absent = [name for name in wanted if name not in ends]
    more = instead(absent[0], _shared(layout) or ends) if absent else " side by side"
    return f" that hold {', '.join(absent or wanted)}{more}"


def paths_of(layout: Layout) -> list[str]:
    """The paths of all datasets, and of the columns of tables."""
    return [*(item.path for item in layout.fields), *layout.columns]


def _shared(layout: Layout) -> set[str]:
    """What the datasets of groups that look alike are called below those groups."""
    counts = Counter(
        "/".join(path.split("/")[at:]) for path in paths_of(layout) for at in range(1, path.count("/") + 1)
    )
    most = max(counts.values(), default=0)
    return {name for name, count in counts.items() if count == most} if most > 1 else set()


def _below(items: Iterable[tuple[str, Field]], group: str) -> dict[str, Field]:
    prefix = f"{group}/" if group else ""
    return {path.removeprefix(prefix): item for path, item in items if path.startswith(prefix)}


def robosuite_030(demo: Demo) -> dict[str, str]:
    """What robosuite 0.3.0 and older recorded instead of ``actions``: its own playback joins the same two.

    Differences of the hands' poses are kept beside it; an arm that is not there has datasets without width.
    """
    names = ("joint_velocities", "gripper_actuations")
    if not all(name in demo.fields and demo.fields[name].width for name in names):
        return {}
    found = {JOIN.join(names): "action"}
    for side in ("right", "left"):
        for what in ("dpos", "dquat"):
            item = demo.fields.get(f"{side}_{what}")
            if item is not None and item.width:
                found[f"{side}_{what}"] = f"action.{side}_{what}"
    return found


def stamps_of(values: "np.ndarray") -> "np.ndarray | str":
    """Recorded stamps as int64 ns: whole numbers are ns, others seconds; else why they are none."""
    import numpy as np

    flat = np.asarray(values).reshape(len(values), -1)
    if flat.shape[1] != 1:
        return f"{flat.shape[1]} numbers are no stamp"
    if flat.dtype.kind in "iu":
        return flat[:, 0].astype(np.int64)
    if not np.isfinite(flat).all():
        return "not every stamp is a number"
    return np.round(flat[:, 0].astype(np.float64) * NS).astype(np.int64)


def left_out_of(
    demos: Sequence[Demo], source: Mapping[str, Any], mapping: Mapping[str, str] | None, *, videos: bool
) -> list[dict[str, Any]]:
    """What demonstrations hold and no episode of theirs takes, with the reason; each name once.

    Without a mapping these are observations; a mapping says by itself what is wanted.
    """
    if mapping is not None:
        return []
    found: dict[str, tuple[str, int]] = {}
    for demo in demos:
        reasons = demo.no_video if videos else {}
        for name, item in demo.fields.items():
            if not name.startswith(("obs/", "observations/")) or name in reasons:
                continue
            plain = item.dtype in ("object", "unknown") or item.dtype.startswith(
                ("bytes", "compound", "void")
            )
            if plain and not _is_picture(demo, item):
                reasons = {**reasons, name: f"{item.dtype} is no number"}
            elif item.closed and not item.foreign:
                reasons = {**reasons, name: f"packed with {item.missing}, which is not installed"}
        for name, item in demo.cameras.items() if videos else ():
            if item.shape and item.shape[0] != demo.length:
                reasons = {**reasons, name: f"{item.shape[0]} pictures for {demo.length} frames"}
        for name, reason in reasons.items():
            first, count = found.get(name, (reason, 0))
            found[name] = (first, count + 1)
    return [
        {
            "source": {**source, "ref": name},
            "reason": f"{name}: {reason}, in {count} of {len(demos)} episodes",
        }
        for name, (reason, count) in found.items()
    ]


def _is_picture(demo: Demo, item: Field) -> bool:
    return any(item is camera for camera in demo.cameras.values())
