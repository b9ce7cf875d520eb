"""Every dataset of an HDF5 file, with what is known of it without reading its numbers.

Hard links are followed, and soft links that lead to what hard links of the same file lead to. An external
link, a virtual dataset and a dataset whose bytes stand in another file could read something outside of the
recording: they are named and never opened. What cannot be read costs itself and not the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.formats.hdf5_mended import Damage, damage_of, readable_rows

if TYPE_CHECKING:
    import h5py

MAX_DEPTH: Final = 32
MAX_OBJECTS: Final = 2_000_000
#: Objects that are met again by a second link: each link doubles what is below it.
MAX_AGAIN: Final = 100_000
MAX_NAMED: Final = 50
MAX_SOFT_LINKS: Final = 20_000
MAX_COLUMNS: Final = 500
_MAX_TYPE_CHARS: Final = 300

#: Filters that files of robots have, by the number that the HDF Group registered.
FILTERS: Final = {
    4: "szip",
    305: "lzo",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32026: "blosc2",
}
_PLAIN: Final = ("float", "int", "uint", "bool")


@dataclass(frozen=True, slots=True)
class Field:
    """One dataset, or one column of a table (a dataset of a compound type).

    Attributes:
        path: Without leading slash; of a column its dataset's.
        shape: As the file has it; of a damaged file with the rows that can be read.
        dtype: Name of the type.
        foreign: Whether its bytes are elsewhere.
        missing: The filter that would unpack it, where it is not installed.
        column: Name of the column.
        declared: Rows that the file speaks of, where fewer can be read.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    foreign: bool = False
    missing: str = ""
    column: str = ""
    declared: int | None = None

    @property
    def width(self) -> int | None:
        """Numbers per row of a ``(rows, width)`` dataset, ``None`` for another rank."""
        return self.shape[1] if len(self.shape) == 2 else None  # noqa: PLR2004 - rows and columns

    @property
    def closed(self) -> bool:
        """Whether its numbers cannot be had: they stand elsewhere, or are packed by what is not there."""
        return self.foreign or bool(self.missing)

    @property
    def zero_width(self) -> bool:
        """Rows without numbers, as old robosuite files have for an arm that is not there."""
        return len(self.shape) > 1 and self.shape[0] > 0 and 0 in self.shape[1:]

    @property
    def is_numeric(self) -> bool:
        """Whether each row is a vector of numbers that the canonical dataset can hold."""
        return self.dtype.startswith(_PLAIN) and len(self.shape) in (1, 2)


@dataclass(slots=True)
class Found:
    """What a walk met.

    Attributes:
        fields: Every dataset, in the file's order; those behind soft links last.
        columns: Columns of tables, by ``<dataset>/<column>``.
        links: Path to the reason of links that were not followed, at most 50.
        again: Path to the first path of groups that several hard links lead to, at most 50.
        unreadable: Path to the reason of what cannot be read, at most 50.
        groups: Paths of all groups.
        complete: False where the walk stopped at its bounds.
        damage: What is wrong with the file as a whole.
    """

    fields: list[Field] = field(default_factory=list)
    columns: dict[str, Field] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    complete: bool = True
    damage: Damage | None = None


def walk(file: "h5py.File") -> Found:
    """Walk an open file.

    Raises:
        OSError: Not even its root can be read.
    """
    found = Found(damage=damage_of(file))
    soft: dict[str, str] = {}
    found.fields.extend(_hard(file, found, soft))
    _follow(found, soft)
    return found


def _hard(file: "h5py.File", found: Found, soft: dict[str, str]) -> Iterator[Field]:
    # By h5py's own identifiers: its objects cost three times as much, and a file may have a million.
    from h5py import h5d, h5g, h5o  # pyright: ignore[reportAttributeAccessIssue] - no stubs

    first: dict[Any, str] = {}
    budget, again = MAX_OBJECTS, MAX_AGAIN
    root = h5o.get_info(h5o.open(file.id, b"/"))
    pending: list[tuple[Any, str, tuple[Any, ...], bool]] = [
        (file.id, "", ((root.fileno, root.addr),), False)
    ]
    while pending:
        group, prefix, above, repeated = pending.pop()
        children = []
        try:
            links = _links(group)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            if not prefix:
                raise
            _note(found.unreadable, prefix.rstrip("/"), str(error))
            continue
        for raw, kind in links:
            name, known = _name(raw)
            if not known or kind:
                _not_hard(group, raw, prefix + name, known and kind, found, soft)
                continue
            budget, again = budget - 1, again - repeated
            if budget < 0 or again < 0:
                found.complete = False
                if budget < 0:
                    return
                break
            try:
                item = h5o.open(group, raw)
                if isinstance(item, h5g.GroupID):
                    info = h5o.get_info(item)
                    place = (info.fileno, info.addr)
                    if place in above:
                        continue  # its own grandchild
                    known_as = first.setdefault(place, prefix + name)
                    twice = known_as != prefix + name
                    if twice and not repeated:
                        _note(found.again, prefix + name, known_as)
                    found.groups.add(prefix + name)
                    if len(above) <= MAX_DEPTH:
                        children.append((item, f"{prefix}{name}/", (*above, place), repeated or twice))
                    else:
                        found.complete = False
                elif isinstance(item, h5d.DatasetID):
                    yield _field(prefix + name, item, found)
            except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
                _note(found.unreadable, prefix + name, str(error))
        pending.extend(reversed(children))


def _links(group: Any) -> list[tuple[bytes, str]]:
    """Name and kind (``""`` hard, ``soft``, ``external``) of each link, in the file's order.

    In one pass: asked one by one, each is looked for in the group again.
    """
    from h5py import h5, h5l, h5p  # pyright: ignore[reportAttributeAccessIssue] - no stubs

    kinds = {h5l.TYPE_HARD: "", h5l.TYPE_SOFT: "soft"}
    links: list[tuple[bytes, str]] = []
    tracked = group.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_TRACKED
    group.links.iterate(
        lambda raw, info: links.append((raw, kinds.get(info.type, "external"))),
        idx_type=h5.INDEX_CRT_ORDER if tracked else h5.INDEX_NAME,
        info=True,
    )
    return links


def _not_hard(
    group: Any,
    raw: bytes,
    path: str,
    kind: str | bool,  # noqa: FBT001 - False for a name that is no text
    found: Found,
    soft: dict[str, str],
) -> None:
    if kind == "soft" and len(soft) < MAX_SOFT_LINKS:
        try:
            value = group.links.get_val(raw).decode("utf-8")
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            _note(found.links, path, f"soft link: {error}")
            return
        base = [] if value.startswith("/") else path.split("/")[:-1]
        soft[path] = "/".join([*base, *(part for part in value.split("/") if part not in ("", "."))])
    elif kind == "external":
        _note(found.links, path, "external link: it leads to another file, which is never opened")
    else:
        _note(found.links, path, "a name that is no text" if not kind else "one soft link of too many")


def _follow(found: Found, soft: dict[str, str]) -> None:
    """Take in what soft links lead to, where hard links of this file lead there too."""
    if not soft:
        return
    by_path = {item.path: item for item in found.fields}
    left, again = dict(soft), MAX_AGAIN
    # A link may lead to what another brings: each round follows those whose ends are known by then.
    for _ in range(4):
        for path, target in list(left.items()):
            below = f"{target}/" if target else ""
            if target in by_path:
                by_path[path] = replace(by_path[target], path=path)
            elif (target in found.groups or not target) and not f"{path}/".startswith(below):
                for name, item in list(by_path.items()):
                    if name.startswith(below) and (again := again - 1) >= 0:
                        here = f"{path}/{name.removeprefix(below)}"
                        by_path[here] = replace(item, path=here)
                found.groups.add(path)
            else:
                continue
            del left[path]
    for path, target in left.items():
        _note(found.links, path, f"soft link: nothing of this file stands at /{target}")
    if again < 0:
        found.complete = False
    found.fields = list(by_path.values())


def _name(raw: bytes) -> tuple[str, bool]:
    """The name of a link, and whether it is text; one that is not is named and never opened."""
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return str(raw), False


def _field(path: str, dataset: Any, found: Found) -> Field:
    shape: tuple[int, ...] = tuple(dataset.shape or ())
    try:
        kind: Any = dataset.dtype
    except (TypeError, ValueError) as error:  # a type that numpy has none for
        _note(found.unreadable, path, f"its type has no form here: {error}")
        return Field(path, shape, "unknown")
    foreign, missing = _kept_how(dataset)
    declared = None
    if found.damage is not None and not foreign:
        rows = readable_rows(dataset, found.damage.size)
        if rows is not None and shape and rows < shape[0]:
            declared, shape = shape[0], (rows, *shape[1:])
    name = kind.name
    if kind.names:
        parts = [f"{column} {kind[column].base.name}" for column in kind.names]
        name = f"compound({', '.join(parts)})"[:_MAX_TYPE_CHARS]
        for column in kind.names:
            part = kind[column]
            if len(shape) == 1 and len(found.columns) < MAX_COLUMNS and part.base.kind in "biuf":
                found.columns[f"{path}/{column}"] = Field(
                    path, (*shape, *part.shape), part.base.name, foreign, missing, column, declared
                )
    return Field(path, shape, name, foreign, missing, "", declared)


def _kept_how(dataset: Any) -> tuple[bool, str]:
    """Whether its bytes are in another file, and which filter it needs that is not there."""
    from h5py import h5d  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs

    # What has a place in this file stands there; to ask how it was created takes fifteen times as long.
    if dataset.get_offset() is not None:
        return False, ""
    made = dataset.get_create_plist()
    if made.get_external_count() > 0 or made.get_layout() == h5d.VIRTUAL:
        return True, ""
    for index in range(made.get_nfilters()):
        number, _, _, name = made.get_filter(index)
        if not _is_there(number):
            called = FILTERS.get(number) or name.decode("utf-8", "replace").strip() or "a filter"
            return False, f"{called[:60]} ({number})"
    return False, ""


@cache
def _is_there(number: int) -> bool:
    from h5py import h5z  # pyright: ignore[reportAttributeAccessIssue] - absent from the stubs

    return bool(h5z.filter_avail(number))


def _note(where: dict[str, str], path: str, text: str) -> None:
    if len(where) < MAX_NAMED:
        where[path] = text[:300]
