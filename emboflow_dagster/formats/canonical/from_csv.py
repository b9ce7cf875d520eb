"""Episodes out of tables: a table is an episode, a record a frame.

Nothing is resampled: records are taken as they come, and the usual step of the time column is the rate. The
table's own stamps stay with the frames.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical.hdf5_plain import JOIN, TIMESTAMP
from emboflow_dagster.formats.canonical.names import kind_of
from emboflow_dagster.formats.canonical.schema import Episode, FeatureSpec
from emboflow_dagster.formats.csv_cells import numbers
from emboflow_dagster.formats.csv_file import SUFFIXES
from emboflow_dagster.formats.csv_scan import MAX_PARSED, Scan, batches, read_dialect
from emboflow_dagster.formats.csv_time import NS, Clock, clock_of, words
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.nearest import instead

if TYPE_CHECKING:
    import numpy as np

#: Numbers of one table that are read into memory.
MAX_NUMBERS: Final = 100_000_000
MAX_FILES: Final = 10_000
_ACTION: Final = frozenset(
    "action actions act cmd command commands commanded target desired goal setpoint".split()
)
_INDEX: Final = frozenset(("index", "idx", "frame", "frame_index", "row", "seq", "step", "unnamed_0", ""))


def tables(path: Path) -> list[Path]:
    """The tables of an asset in natural order: the file itself, or those below a folder.

    Raises:
        NotFoundError: There is none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(
        (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not p.is_symlink()),
        key=lambda p: natural_key(p.relative_to(path).as_posix()),
    )
    if not found:
        raise NotFoundError(f"{path.name}: no table", kind=ErrorKind.FORMAT_UNSUPPORTED)
    return found[:MAX_FILES]


def suggested_fps(path: Path) -> float | None:
    """The rate of the first table that has time."""
    for table in tables(path):
        found = Scan(read_dialect(table))
        for batch in batches(table, found):
            clock = clock_of(found.dialect.columns, batch, found.dialect.decimal)
            if clock is not None and clock.rate:
                return clock.rate
            break
    return None


def episodes(
    path: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    task: str = "",
    asset_id: str | None = None,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """Every table with a column of numbers.

    Without `mapping`, columns that are named after commands (``action``, ``cmd``, ``target``, ...) are
    ``action`` and all other numbers ``observation.state``, side by side in their order; counters of records
    are no feature.

    Args:
        path: A table, or a folder of them.
        mapping: Column (several joined with ``+``) to feature; ``timestamp`` names the time column.
        task: What was asked of the robot.
        asset_id: For the source reference.
        skipped: Gets ``{"source", "reason"}`` of each table and column left out.

    Raises:
        NotFoundError: No table.
    """
    left_out = skipped if skipped is not None else []
    root = path if path.is_dir() else path.parent
    for table in tables(path):
        name = table.relative_to(root).as_posix()
        source = {"assetId": asset_id, "path": name, "ref": name}
        try:
            yield _episode(table, mapping or {}, source, task, left_out)
        except InvalidInputError as error:
            left_out.append({"source": source, "reason": error.message})


def _episode(
    path: Path,
    mapping: Mapping[str, str],
    source: Mapping[str, Any],
    task: str,
    left_out: list[dict[str, Any]],
) -> Episode:
    import numpy as np

    columns, clock, found = _columns(path, {part for key in mapping for part in (key, *_parts(key))})
    reasons = {name: columns.pop(name) for name in list(columns) if isinstance(columns[name], str)}
    left_out += [{"source": {**source, "ref": n}, "reason": f"{n}: {text}"} for n, text in reasons.items()]
    if found.ragged:
        reason = f"{found.ragged} rows have other than {len(found.dialect.columns)} cells"
        left_out.append({"source": source, "reason": reason})
    if found.error:
        reason = f"not readable after {found.records} records: {found.error}"
        left_out.append({"source": source, "reason": reason})
    stamps, flags = _stamps(columns, clock, mapping)
    wanted = mapping or _usual(columns, clock)
    features: dict[str, np.ndarray] = {}
    specs: dict[str, FeatureSpec] = {}
    for key, feature in wanted.items():
        if feature == TIMESTAMP:
            continue
        names = ([key] if key in columns else _parts(key)) if mapping else key.split("\0")
        absent = [name for name in names if name not in columns]
        if absent:
            raise InvalidInputError(f"no column of numbers {absent[0]}{instead(absent[0], columns)}")
        # A number beyond float32 becomes infinite; the quality report names it.
        with np.errstate(over="ignore"):
            features[feature] = np.stack([columns[name] for name in names], axis=1).astype(np.float32)
        specs[feature] = FeatureSpec(tuple(names), kind_of(feature), None, ",".join(names)[:1000])
    if not features or not found.records:
        raise InvalidInputError("no record with a column of numbers")
    return Episode(
        source=source,
        features=features,
        specs=specs,
        source_timestamp_ns=stamps,
        t0_ns=None if stamps is None else int(stamps[0]),
        task=task,
        flags=flags,
        frames=found.records,
    )


def _parts(key: str) -> list[str]:
    return [part.strip() for part in key.split(JOIN)]


def _columns(path: Path, wanted: set[str]) -> "tuple[dict[str, Any], Clock | None, Scan]":
    """The columns of numbers as float64 (int64 where all cells are whole), or why one is none."""
    import numpy as np

    found = Scan(read_dialect(path))
    names = _distinct(found.dialect.columns)
    if len(names) > MAX_PARSED:
        raise InvalidInputError(f"{len(names)} columns; at most {MAX_PARSED} are read")
    pieces: dict[str, list[np.ndarray]] = {}
    reasons: dict[str, str] = {}
    clock: Clock | None = None
    count = 0
    first = True
    for batch in batches(path, found):
        if first:
            clock = clock_of(names, batch, found.dialect.decimal)
            first = False
        for index, name in enumerate(names):
            if name in reasons or (wanted and name not in wanted and (clock is None or index != clock.index)):
                continue
            kinds = (
                ("integer", "number", "moment") if clock and index == clock.index else ("integer", "number")
            )
            column = batch.column(index)
            values = next(
                (v for k in kinds if (v := numbers(column, k, found.dialect.decimal)) is not None), None
            )
            if values is None:
                reasons[name] = "not every cell is a number"
                pieces.pop(name, None)
                continue
            count += len(values)
            if count > MAX_NUMBERS:
                raise InvalidInputError(f"more than {MAX_NUMBERS} numbers")
            pieces.setdefault(name, []).append(values.to_numpy(zero_copy_only=False))
    made = {name: np.concatenate(held) for name, held in pieces.items()}
    empty = [name for name, values in made.items() if values.dtype.kind == "f" and np.isnan(values).all()]
    for name in empty:
        reasons[name] = "every cell is empty"
        del made[name]
    return {**made, **reasons}, clock, found


def _distinct(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Names of which no two are equal: what is named twice gets a number, what has no name its place."""
    seen: dict[str, int] = {}
    found = []
    for index, column in enumerate(columns):
        name = column or f"column_{index}"
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}.{seen[name] - 1}")
    return tuple(found)


def _stamps(
    columns: dict[str, Any], clock: Clock | None, mapping: Mapping[str, str]
) -> "tuple[np.ndarray | None, tuple[str, ...]]":
    """The frames' own stamps in ns, and what is to be known of them."""
    import numpy as np

    named = next((key for key, feature in mapping.items() if feature == TIMESTAMP), None)
    if named is not None and (clock is None or clock.column != named):
        raise InvalidInputError(f"{named} is no column of time")
    if clock is None or clock.column not in columns:
        return None, ()
    values = columns[clock.column]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return None, ("missing_stamps",)
    if values.dtype.kind == "i":
        stamps = values.astype(np.int64) * NS[clock.unit]
    else:
        stamps = np.round(values * NS[clock.unit]).astype(np.int64)
    steps = np.diff(stamps)
    flags = []
    if (steps <= 0).any():
        flags.append("time_not_monotonic")
    if clock.step > 0 and (steps > 1.5 * clock.step * NS[clock.unit]).any():
        flags.append("time_gaps")
    return stamps, tuple(flags)


def _usual(columns: Mapping[str, Any], clock: Clock | None) -> dict[str, str]:
    groups: dict[str, list[str]] = {"observation.state": [], "action": []}
    for name in columns:
        if clock is not None and name == clock.column:
            continue
        found = words(name)
        if "_".join(found) in _INDEX:
            continue
        groups["action" if _ACTION & set(found) else "observation.state"].append(name)
    return {"\0".join(names): feature for feature, names in groups.items() if names}
