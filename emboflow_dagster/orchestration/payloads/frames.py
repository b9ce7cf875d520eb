"""pandas DataFrames as tables that give back the very same frame, or are refused.

Arrow and pandas' own metadata bring back most of a frame. What they would change without a word is written
beside the table, in the schema's metadata, and put right on loading: object columns, column labels that are
no unique texts, categories, kinds of text columns, a range without columns, the frequency of an index. Other
programs read the file as they read every other one.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.orchestration.payloads import labels, tables
from emboflow_dagster.orchestration.payloads.handler import Draft, Handler, Payload, Stored, is_named
from emboflow_dagster.orchestration.payloads.objects import as_codes, changed, note_of, restored

_KEY: Final = b"emboflow"


class PandasHandler(Handler):
    """``pandas.DataFrame``."""

    name = "pandas"
    reads = frozenset({tables.PARQUET})

    def stores(self, value: object) -> bool:
        """Whether it is a frame; a subclass's own state would be lost, so those are others' to store."""
        return is_named(type(value), "pandas.DataFrame")

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants a frame."""
        return isinstance(annotation, type) and is_named(annotation, "pandas.DataFrame")

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The frame in the format of the manager.

        Raises:
            InvalidInputError: Something in it would not come back as it is; the message names it.
        """
        table = to_table(value)
        _check(value, to_frame(_without_rows(table, draft, self.name)))
        facts = tables.facts_of(table, draft)
        for column, dtype in zip(facts.columns or [], value.dtypes, strict=False):
            column.type = str(dtype)
        return tables.payload(table, draft, self.name, facts)

    def load(self, stored: Stored) -> Any:
        """The frame."""
        return to_frame(tables.read(stored))


def to_table(frame: Any) -> Any:
    """A frame as an Arrow table whose metadata says what Arrow and pandas would lose.

    Raises:
        InvalidInputError: Something in it has no place in such a table.
    """
    import pandas as pd
    import pyarrow as pa

    notes: dict[str, Any] = {"names": labels.names_of(frame.index)}
    plain = frame
    if not labels.native(frame.columns):
        notes["labels"] = labels.to_json(frame.columns)
        plain = frame.set_axis(labels.texts(frame.columns), axis=1)
    index = frame.index
    levels: list[Any] = []
    if isinstance(index, pd.RangeIndex):
        notes["range"] = [index.start, index.stop, index.step]
    else:
        levels = [index.get_level_values(level) for level in range(index.nlevels)]
        if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) and index.freq is not None:
            notes["freq"] = index.freqstr
    if frame.attrs:
        notes["attrs"] = _attrs(frame.attrs)
    if any(type(name) is not str for name in index.names if name is not None):
        plain = plain.set_axis(index.set_names([n if type(n) is str else None for n in index.names]))
    coded = [position for position, dtype in enumerate(frame.dtypes) if as_codes(dtype)]
    if coded:
        plain = plain.copy(deep=False)
        for position in coded:
            codes = frame.iloc[:, position].cat.codes.astype("Int32")
            plain.isetitem(position, codes.where(codes >= 0))
    columns = [frame.iloc[:, position] for position in range(len(frame.columns))]
    try:
        table = pa.Table.from_pandas(plain)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise changed(f"{_culprit(frame, columns)}{error}") from None
    notes["columns"] = _notes(columns, table.columns, [f"column {shown(c)}" for c in frame.columns])
    notes["levels"] = _notes(
        levels, table.columns[len(columns) :], [f"index level {n}" for n in range(len(levels))]
    )
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(notes, sort_keys=True).encode()}
    return table.replace_schema_metadata(metadata)


def to_frame(table: Any) -> Any:
    """The frame of a table: as it was when :func:`to_table` made it, as pandas reads it otherwise."""
    import pandas as pd

    frame = table.to_pandas()
    written = (table.schema.metadata or {}).get(_KEY)
    if written is None:
        return frame
    notes = json.loads(written)
    for text, note in notes["columns"].items():
        position = int(text)
        values = restored(frame.iloc[:, position], table.column(position), note)
        frame.isetitem(position, pd.Series(values, index=frame.index, dtype=values.dtype))
    if "range" in notes:
        index: Any = pd.RangeIndex(*notes["range"])
    else:
        index = frame.index
        if notes["levels"]:
            levels = [index.get_level_values(level) for level in range(index.nlevels)]
            for text, note in notes["levels"].items():
                column = table.column(len(frame.columns) + int(text))
                values = restored(levels[int(text)], column, note)
                levels[int(text)] = pd.Index(values, dtype=values.dtype)
            multi = isinstance(index, pd.MultiIndex)
            index = pd.MultiIndex.from_arrays(levels) if multi else levels[0]
    frame = pd.DataFrame(index=index, columns=frame.columns) if frame.shape[1] == 0 else frame.set_axis(index)
    frame.index.names = notes["names"]
    if "freq" in notes:
        frame.index.freq = notes["freq"]  # pyright: ignore[reportAttributeAccessIssue] - it is one of times
    if "labels" in notes:
        frame.columns = labels.from_json(notes["labels"])
    frame.attrs.update(notes.get("attrs", {}))
    return frame


def _notes(columns: Sequence[Any], arrow: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    found = {str(n): note_of(columns[n], arrow[n], names[n]) for n in range(len(columns))}
    return {position: note for position, note in found.items() if note is not None}


def _without_rows(table: Any, draft: Draft, serializer: str) -> Any:
    """What the table without its rows comes back as; nothing is said of rows there."""
    empty = tables.without_rows(table, draft, serializer)
    notes = json.loads(empty.schema.metadata[_KEY])
    notes.pop("freq", None)
    if "range" in notes:
        notes["range"] = [0, 0, 1]
    metadata = {**empty.schema.metadata, _KEY: json.dumps(notes).encode()}
    return empty.replace_schema_metadata(metadata)


def _check(frame: Any, back: Any) -> None:
    """What comes back without rows must be what this frame is without its rows."""
    for position, (dtype, found) in enumerate(zip(frame.dtypes, back.dtypes, strict=True)):
        if dtype != found:
            name = shown(frame.columns[position])
            raise changed(f"column {name} has dtype {dtype} and would come back as {found}")
    for level in range(frame.index.nlevels):
        dtype, found = (f.index.get_level_values(level).dtype for f in (frame, back))
        if dtype != found:
            raise changed(f"index level {level} has dtype {dtype} and would come back as {found}")
    if not labels.same(frame.columns, back.columns):
        raise changed(f"the column labels {shown(list(frame.columns)[:5])} would come back as others")


def _culprit(frame: Any, columns: Sequence[Any]) -> str:
    """The column that Arrow refuses: its own message does not always say."""
    import pyarrow as pa

    for label, column in zip(frame.columns, columns, strict=True):
        try:
            pa.Array.from_pandas(column)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return f"column {shown(label)}: "
    return ""


def _attrs(attrs: dict[Any, Any]) -> Any:
    try:
        text = json.dumps(attrs, allow_nan=False)
    except (TypeError, ValueError):
        text = ""
    if not text or json.loads(text) != attrs:
        raise InvalidInputError(
            "the DataFrame cannot be stored unchanged: its attrs are not plain JSON",
            kind=ErrorKind.VALUE_TYPE,
        )
    return json.loads(text)
