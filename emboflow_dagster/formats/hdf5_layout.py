"""What stands in one HDF5 file: its datasets, and which of the known demonstration layouts they follow.

Sources: robosuite ``DataCollectionWrapper`` (``data/demo_N/{states,actions}``), robomimic datasets
(``data/demo_N/{actions,obs/*}``, ``mask/*``), ACT/ALOHA episodes (``action``,
``observations/{qpos,qvel,images}``).
"""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.hdf5_mended import Damage, open_hdf5
from emboflow_dagster.formats.hdf5_walk import Field, Found, walk

__all__ = [
    "Demo",
    "Field",
    "Layout",
    "as_far_as_read",
    "layout_of",
    "natural_key",
    "open_hdf5",
    "raw_pictures",
    "read_layout",
]

if TYPE_CHECKING:
    import h5py

MAX_ATTR_CHARS = 2_000
MAX_JSON_CHARS = 20_000
MAX_FILTER_KEYS = 100
MAX_KEY_NAMES = 1_000_000
#: Rows and columns below which a block of numbers is no picture.
MIN_PICTURE = 8
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Demo:
    """One episode: its group (``""`` where the file is the episode), its datasets by relative path.

    `declared` are its frames as its attribute ``num_samples`` says, ``None`` where it has none.
    """

    group: str
    fields: dict[str, Field]
    declared: int | None = None

    @property
    def action(self) -> Field | None:
        """The actions with at least one row and one number, by the names the three layouts give them."""
        for name in ("actions", "action"):
            found = self.fields.get(name)
            if found is not None and found.width and found.shape[0]:
                return found
        return None

    @property
    def state(self) -> Field | None:
        """The robot's or simulator's state vector."""
        for name in ("states", "observations/qpos", "obs/robot0_proprio-state"):
            found = self.fields.get(name)
            if found is not None and found.width:
                return found
        return None

    @property
    def observations(self) -> list[Field]:
        """Datasets below ``obs`` or ``observations``."""
        return [f for name, f in self.fields.items() if name.startswith(("obs/", "observations/"))]

    @property
    def cameras(self) -> dict[str, Field]:
        """Camera name to its pictures: raw ones as :func:`raw_pictures` knows them, or encoded ones."""
        found = {}
        for name, item in self.fields.items():
            head, _, leaf = name.rpartition("/")
            if (head in ("obs", "observations") and raw_pictures(item)) or (
                head == "observations/images" and name not in self.no_video
            ):
                found[leaf.removesuffix("_image") or leaf] = item
        return found

    @property
    def no_video(self) -> dict[str, str]:
        """Observations that are pictures and have no form as video: relative path to the reason."""
        found = {}
        for name, item in self.fields.items():
            if not name.startswith(("obs/", "observations/")) or raw_pictures(item) or item.dtype == "uint8":
                continue
            size = item.shape[1:3] if len(item.shape) in (3, 4) else ()
            if size and min(size) >= MIN_PICTURE and item.dtype.startswith(("float", "int", "uint")):
                what = "depth" if len(item.shape) == 3 or item.shape[-1] == 1 else "pictures"  # noqa: PLR2004
                found[name] = f"{what} of {item.dtype}: only pictures of 8 bits have a form as video"
        return found

    @property
    def length(self) -> int:
        """Frames: rows of the actions, else of the state, else of the longest numeric dataset."""
        for item in (self.action, self.state):
            if item is not None:
                return item.shape[0]
        return max((f.shape[0] for f in self.fields.values() if f.is_numeric and f.shape), default=0)


@dataclass(slots=True)
class Layout:
    """Everything found in one file.

    Attributes:
        format: ``hdf5_robomimic``, ``hdf5_robosuite_raw``, ``hdf5_aloha`` or ``hdf5``.
        fields: Every dataset, in the file's order.
        demos: Episodes in natural order (``demo_2`` before ``demo_10``).
        columns: Columns of tables by ``<dataset>/<column>``.
        links: Paths of links that were not followed, with the reason, at most 50.
        again: Groups that another hard link led to before, with its path, at most 50.
        unreadable: Objects that cannot be read, with the reason, at most 50.
        filter_keys: robomimic's filter keys: the demonstrations that each names.
        empty: Groups below ``data`` that hold no demonstration.
        damage: What is wrong with the file as a whole, ``None`` where it is closed and complete.
        attrs: Attributes of the root and of ``data`` as bounded text, JSON where they hold JSON.
        complete: False where the walk stopped at its bounds.
    """

    format: str = "hdf5"
    fields: list[Field] = field(default_factory=list)
    demos: list[Demo] = field(default_factory=list)
    columns: dict[str, Field] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    filter_keys: dict[str, list[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)
    complete: bool = True
    damage: Damage | None = None
    _named: dict[str, list[str]] | None = field(default=None, repr=False)

    def keys_of(self, demo: Demo) -> list[str]:
        """The filter keys that name a demonstration, in the file's order."""
        if self._named is None:
            self._named = {}
            for key, names in self.filter_keys.items():
                for name in names:
                    self._named.setdefault(f"data/{name}", []).append(key)
        return self._named.get(demo.group, [])

    @property
    def env(self) -> str | None:
        """The simulated environment's name."""
        for name in ("env_args", "env_info"):
            info = self.attrs.get(name)
            if isinstance(info, dict) and isinstance(info.get("env_name"), str):
                return info["env_name"]
        found = self.attrs.get("env")
        return found if isinstance(found, str) else None

    @property
    def robot_type(self) -> str | None:
        """The robot's name, several joined with ``+``."""
        sources = [self.attrs]
        for name in ("env_info", "env_args"):
            info = self.attrs.get(name)
            if isinstance(info, dict):
                kwargs = info.get("env_kwargs")
                sources += [info, kwargs if isinstance(kwargs, dict) else {}]
        for source in sources:
            for key in ("robots", "robot_type", "robot"):
                value = source.get(key)
                if isinstance(value, str) and value:
                    return value
                if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
                    return "+".join(value)
        return None

    @property
    def control_hz(self) -> float | None:
        """Frames per second as the environment's arguments say."""
        for name in ("env_args", "env_info"):
            info = self.attrs.get(name)
            if isinstance(info, dict):
                kwargs = info.get("env_kwargs")
                for source in (info, kwargs if isinstance(kwargs, dict) else {}):
                    hz = source.get("control_freq")
                    if isinstance(hz, (int, float)) and 0 < hz < 100_000:  # noqa: PLR2004 - a plausible rate
                        return float(hz)
        return None


def raw_pictures(item: Field) -> str:
    """How the axes of pictures of 8 bits stand: ``hwc``, ``chw``, ``hw``; empty for anything else."""
    if item.dtype != "uint8":
        return ""
    if len(item.shape) == 4:  # noqa: PLR2004 - frame, row, column, channel
        if item.shape[-1] in (1, 3, 4):
            return "hwc"
        return "chw" if item.shape[1] in (1, 3, 4) and min(item.shape[2:]) >= MIN_PICTURE else ""
    return "hw" if len(item.shape) == 3 and min(item.shape[1:]) >= MIN_PICTURE else ""  # noqa: PLR2004


def natural_key(text: str) -> list[Any]:
    """Sort key under which ``demo_2`` comes before ``demo_10``.

    >>> sorted(["demo_10", "demo_2"], key=natural_key)
    ['demo_2', 'demo_10']
    """
    return [int(part) if part.isdecimal() else part for part in _DIGITS.split(text)]


def read_layout(path: Path) -> Layout:
    """Walk one file without reading its data.

    Raises:
        OSError: Not an HDF5 file, or one that is cut off.
    """
    with open_hdf5(path) as file:
        return layout_of(file, declared=True)


def layout_of(file: "h5py.File", *, declared: bool = False) -> Layout:
    """The layout of an open file.

    Args:
        file: It.
        declared: Whether it is also read what each demonstration says of its own length.

    Raises:
        OSError: Not even its root can be read.
    """
    found = walk(file)
    layout = Layout(
        fields=found.fields,
        columns=found.columns,
        links=found.links,
        again=found.again,
        unreadable=found.unreadable,
        complete=found.complete,
        damage=found.damage,
    )
    layout.attrs = _attributes(file)
    by_path = {item.path: item for item in layout.fields}
    demos: dict[str, dict[str, Field]] = {}
    for path, item in by_path.items():
        parts = path.split("/", 2)
        if len(parts) == 3 and parts[0] == "data":  # noqa: PLR2004 - data / demo / dataset
            demos.setdefault(f"data/{parts[1]}", {})[parts[2]] = item
    known = {
        group: fields
        for group, fields in demos.items()
        if "states" in fields or "actions" in fields or any(name.startswith("obs/") for name in fields)
    }
    if known:
        layout.demos = [
            Demo(group, known[group], _declared(file, group) if declared else None)
            for group in sorted(known, key=natural_key)
        ]
        has_obs = any(name.startswith("obs/") for fields in known.values() for name in fields)
        layout.format = "hdf5_robomimic" if has_obs else "hdf5_robosuite_raw"
        layout.filter_keys = _filter_keys(file, found)
    elif any(name in by_path for name in ("observations/qpos", "observations/qvel")):
        layout.demos = [Demo("", by_path)]
        layout.format = "hdf5_aloha"
    elif "data" in found.groups and layout.env is not None:
        # The simulator's own words stand there, and no demonstration does.
        layout.format = "hdf5_robosuite_raw"
    layout.empty = sorted(
        (g for g in found.groups if g.startswith("data/") and g.count("/") == 1 and g not in known),
        key=natural_key,
    )
    if layout.damage is not None:
        layout.demos = [demo for demo in map(as_far_as_read, layout.demos) if demo.fields]
    return layout


def as_far_as_read(demo: Demo) -> Demo:
    """A demonstration of a damaged file: the rows that all of its streams have; those with none are none."""
    kept = {name: item for name, item in demo.fields.items() if not item.shape or item.shape[0]}
    spoken = {name: item.declared or item.shape[0] for name, item in kept.items() if item.shape}
    most = max(spoken.values(), default=0)
    streams = [name for name, rows in spoken.items() if 2 * rows > most]
    rows = min((kept[name].shape[0] for name in streams), default=0)
    for name in streams:
        item = kept[name]
        if item.shape[0] > rows:
            kept[name] = replace(item, shape=(rows, *item.shape[1:]), declared=spoken[name])
    return replace(demo, fields=kept)


def _declared(file: "h5py.File", group: str) -> int | None:
    """Frames as the demonstration's own attribute says."""
    import numpy as np
    from h5py import h5a  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs

    try:
        place = group.encode()
        if not h5a.exists(file.id, b"num_samples", obj_name=place):
            return None
        said = h5a.open(file.id, b"num_samples", obj_name=place)
        if said.shape not in ((), (1,)) or said.dtype.kind not in "iu":
            return None
        value = np.empty(said.shape, said.dtype)
        said.read(value)
        return int(value.reshape(-1)[0])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        return None


def _filter_keys(file: "h5py.File", found: Found) -> dict[str, list[str]]:
    """robomimic's filter keys: the names of demonstrations below ``mask``."""
    keys: dict[str, list[str]] = {}
    for item in found.fields:
        head, _, name = item.path.partition("/")
        if head != "mask" or not name or item.closed or len(item.shape) != 1:
            continue
        if item.shape[0] > MAX_KEY_NAMES or not item.dtype.startswith(("object", "bytes", "str")):
            continue
        if len(keys) >= MAX_FILTER_KEYS:
            break
        try:
            held: Any = file[item.path]
            values = held[: item.shape[0]]
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            found.unreadable[item.path] = str(error)[:300]
            continue
        keys[name] = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
    return keys


def _attributes(file: "h5py.File") -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}
    holders: list[Any] = [file]
    link = file.get("data", getlink=True)
    if isinstance(link, h5py.HardLink) and isinstance(file["data"], h5py.Group):
        holders.append(file["data"])
    for holder in holders:
        for name in list(holder.attrs)[:100]:
            try:
                value = holder.attrs[name]
            except (OSError, TypeError, ValueError):
                continue
            found[name] = _attribute_value(value)
    return found


def _attribute_value(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        if value[:1] in ("{", "[") and len(value) <= MAX_JSON_CHARS:
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                pass
        return value[:MAX_ATTR_CHARS]
    if hasattr(value, "tolist"):
        return value.tolist() if value.size <= 100 else str(value)[:MAX_ATTR_CHARS]  # noqa: PLR2004
    return str(value)[:MAX_ATTR_CHARS]
