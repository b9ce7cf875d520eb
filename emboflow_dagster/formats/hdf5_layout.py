"""What stands in one HDF5 file: its datasets, and which of the known demonstration layouts they follow.

Only hard links are followed. A soft or external link, a virtual dataset and a dataset whose bytes stand in
another file could all read something outside of the recording: they are named and never opened.

Sources: robosuite ``DataCollectionWrapper`` (``data/demo_N/{states,actions}``), robomimic datasets
(``data/demo_N/{actions,obs/*}``), ACT/ALOHA episodes (``action``, ``observations/{qpos,qvel,images}``).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.hdf5_heaps import check_heaps

if TYPE_CHECKING:
    import h5py

MAX_DEPTH = 32
MAX_OBJECTS = 2_000_000
MAX_LINKS_NAMED = 50
MAX_ATTR_CHARS = 2_000
MAX_JSON_CHARS = 20_000
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Field:
    """One dataset: path without leading slash, shape, dtype name; `foreign` where its bytes are elsewhere."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    foreign: bool = False

    @property
    def width(self) -> int | None:
        """Numbers per row of a ``(rows, width)`` dataset, ``None`` for another rank."""
        return self.shape[1] if len(self.shape) == 2 else None  # noqa: PLR2004 - rows and columns

    @property
    def zero_width(self) -> bool:
        """Rows without numbers, as old robosuite files have for an arm that is not there."""
        return len(self.shape) > 1 and self.shape[0] > 0 and 0 in self.shape[1:]

    @property
    def is_numeric(self) -> bool:
        """Whether each row is a vector of numbers that the canonical dataset can hold."""
        return self.dtype.startswith(("float", "int", "uint", "bool")) and len(self.shape) in (1, 2)


@dataclass(frozen=True, slots=True)
class Demo:
    """One episode: its group (``""`` where the file is the episode), its datasets by relative path."""

    group: str
    fields: dict[str, Field]

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
        """Camera name to its pictures: raw ``(n, h, w, c)`` or encoded ``(n, bytes)`` uint8."""
        found = {}
        for name, item in self.fields.items():
            head, _, leaf = name.rpartition("/")
            raw = item.dtype == "uint8" and len(item.shape) == 4 and item.shape[-1] in (1, 3, 4)  # noqa: PLR2004
            if (head in ("obs", "observations") and raw) or head == "observations/images":
                found[leaf.removesuffix("_image") or leaf] = item
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
        links: Paths of soft and external links, at most 50; never opened.
        attrs: Attributes of the root and of ``data`` as bounded text, JSON where they hold JSON.
        complete: False where the walk stopped at its bounds.
    """

    format: str = "hdf5"
    fields: list[Field] = field(default_factory=list)
    demos: list[Demo] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)
    complete: bool = True

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
        return layout_of(file)


def open_hdf5(path: Path) -> "h5py.File":
    """Open for reading, without the lock that a read-only file system refuses."""
    import h5py

    check_heaps(path)
    return h5py.File(path, "r", locking=False)


def layout_of(file: "h5py.File") -> Layout:
    """The layout of an open file."""
    layout = Layout()
    layout.fields = list(_walk(file, layout))
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
        layout.demos = [Demo(group, known[group]) for group in sorted(known, key=natural_key)]
        has_obs = any(name.startswith("obs/") for fields in known.values() for name in fields)
        layout.format = "hdf5_robomimic" if has_obs else "hdf5_robosuite_raw"
    elif any(name in by_path for name in ("observations/qpos", "observations/qvel")):
        layout.demos = [Demo("", by_path)]
        layout.format = "hdf5_aloha"
    return layout


def _walk(file: "h5py.File", layout: Layout) -> Iterator[Field]:
    # By h5py's own identifiers: its objects cost three times as much, and a file may have a million.
    from h5py import h5, h5d, h5g, h5l, h5o, h5p  # pyright: ignore[reportAttributeAccessIssue] - no stubs

    seen: set[Any] = set()
    budget = MAX_OBJECTS
    pending: list[tuple[Any, str, int]] = [(file.id, "", 0)]
    while pending:
        group, prefix, depth = pending.pop()
        children = []
        links: list[tuple[bytes, bool]] = []
        tracked = group.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_TRACKED
        # Names and kinds in one pass: asked one by one, each is looked for in the group again.
        group.links.iterate(
            lambda raw, info, links=links: links.append((raw, info.type == h5l.TYPE_HARD)),
            idx_type=h5.INDEX_CRT_ORDER if tracked else h5.INDEX_NAME,
            info=True,
        )
        for raw, hard in links:
            name, known = _name(raw)
            if not known or not hard:
                if len(layout.links) < MAX_LINKS_NAMED:
                    layout.links.append(prefix + name)
                continue
            budget -= 1
            if budget < 0:
                layout.complete = False
                return
            item = h5o.open(group, raw)
            if isinstance(item, h5g.GroupID):
                # A group may be its own grandchild through a second hard link: each is entered once.
                info = h5o.get_info(item)
                if (info.fileno, info.addr) in seen:
                    continue
                seen.add((info.fileno, info.addr))
                if depth < MAX_DEPTH:
                    children.append((item, f"{prefix}{name}/", depth + 1))
                else:
                    layout.complete = False
            elif isinstance(item, h5d.DatasetID):
                yield _field(prefix + name, item)
        pending.extend(reversed(children))


def _name(raw: bytes) -> tuple[str, bool]:
    """The name of a link, and whether it is text; one that is not is named and never opened."""
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return str(raw), False


def _field(path: str, dataset: Any) -> Field:
    return Field(path, tuple(dataset.shape or ()), dataset.dtype.name, _foreign(dataset))


def _foreign(dataset: Any) -> bool:
    from h5py import h5d  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs

    # What has a place in this file stands there; to ask how it was created takes fifteen times as long.
    if dataset.get_offset() is not None:
        return False
    made = dataset.get_create_plist()
    return made.get_external_count() > 0 or made.get_layout() == h5d.VIRTUAL


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
