"""How a Python value becomes bytes and comes back: one handler a type, in one table.

Pickle is not among them: what happens when a payload is read is decided by the reader, not by the
payload. To add a type, add a row to :data:`HANDLERS`.
"""

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, Any, Final

from emboflow_dagster.errors import InvalidInputError, shown
from emboflow_dagster.model.storage import LISTING_TYPE, MANIFEST_TYPE

JSON: Final = "application/json"
PARQUET: Final = "application/vnd.apache.parquet"
TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes to store, or the file that holds them, and what is known about them."""

    source: bytes | Path
    content_type: str
    serializer: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """``row_count`` and ``columns`` where the value has them."""


@dataclass(frozen=True, slots=True)
class Handler:
    """Stores and loads the values of one type.

    Attributes:
        name: The type, for people.
        stores: Whether it stores a value.
        makes: Whether it loads values for an annotation.
        reads: The stored content types it loads when nothing is annotated.
        dump: A value as bytes.
        load: A value out of a verified stream; the path is where a file may be written.
    """

    name: str
    stores: Callable[[object], bool]
    makes: Callable[[object], bool]
    reads: frozenset[str]
    dump: Callable[[Any], Payload]
    load: Callable[[IO[bytes], Path], Any]


def _is_frame(value: object) -> bool:
    # By name: a value of another type must not make pandas load.
    return any(
        kind.__name__ == "DataFrame" and kind.__module__.split(".")[0] == "pandas"
        for kind in type(value).__mro__
    )


def _dump_frame(value: Any) -> Payload:
    buffer = io.BytesIO()
    value.to_parquet(buffer, engine="pyarrow")
    columns = {str(name): str(kind) for name, kind in value.dtypes.items()}
    facts = {"row_count": len(value), "columns": columns}
    return Payload(buffer.getvalue(), PARQUET, "parquet", facts)


def _load_frame(stream: IO[bytes], path: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(_load_path(stream, path), engine="pyarrow")


def _dump_json(value: Any) -> Payload:
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the value cannot be written as JSON: {error}") from None
    facts = {"row_count": len(value)} if isinstance(value, list) else {}
    return Payload(text.encode(), JSON, "json", facts)


def _dump_path(value: Path) -> Payload:
    if not value.is_file():
        raise InvalidInputError(f"{value} is not a file; an output of type Path names one file")
    return Payload(value, _TYPES.get(value.suffix.lower(), BYTES), facts={"name": value.name})


def _load_path(stream: IO[bytes], path: Path) -> Path:
    with path.open("wb") as out:
        while chunk := stream.read(_CHUNK):
            out.write(chunk)
    return path


def _plain(value: object) -> object:
    """Numpy scalars and dates as JSON has them."""
    item = getattr(value, "item", None)
    if callable(item):
        found = item()
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError("NaN and infinity have no JSON")
        return found
    if isinstance(value, date):
        return value.isoformat()
    raise ValueError(f"{type(value).__name__} has no JSON")


_TYPES: Final = {".json": JSON, ".parquet": PARQUET, ".txt": TEXT, ".md": "text/markdown", ".csv": "text/csv"}
_BYTES: Final = Handler(
    name="bytes",
    stores=lambda value: isinstance(value, bytes | bytearray | memoryview),
    makes=lambda kind: kind is bytes,
    reads=frozenset(),
    dump=lambda value: Payload(bytes(value), BYTES),
    load=lambda stream, _path: stream.read(),
)
# Asked in this order.
HANDLERS: Final[tuple[Handler, ...]] = (
    Handler(
        name="DataFrame",
        stores=_is_frame,
        makes=lambda kind: getattr(kind, "__name__", "") == "DataFrame",
        reads=frozenset({PARQUET}),
        dump=_dump_frame,
        load=_load_frame,
    ),
    Handler(
        name="Path",
        stores=lambda value: isinstance(value, Path),
        makes=lambda kind: isinstance(kind, type) and issubclass(kind, Path),
        reads=frozenset(),
        dump=_dump_path,
        load=_load_path,
    ),
    Handler(
        name="str",
        stores=lambda value: isinstance(value, str),
        makes=lambda kind: kind is str,
        reads=frozenset({"text/plain", "text/markdown", "text/csv"}),
        dump=lambda value: Payload(value.encode(), TEXT, "text"),
        load=lambda stream, _path: stream.read().decode(),
    ),
    _BYTES,
    Handler(
        name="dict, list, number",
        stores=lambda value: isinstance(value, dict | list | tuple | int | float),
        makes=lambda kind: getattr(kind, "__origin__", kind) in (dict, list, int, float, bool),
        reads=frozenset({JSON, MANIFEST_TYPE}),
        dump=_dump_json,
        load=lambda stream, _path: json.loads(stream.read()),
    ),
    Handler(
        name="listing of a folder",
        stores=lambda _value: False,
        makes=lambda _kind: False,
        reads=frozenset({LISTING_TYPE}),
        dump=lambda _value: Payload(b"", LISTING_TYPE),
        load=lambda stream, _path: [json.loads(line) for line in stream],
    ),
)


def dump(value: object) -> Payload:
    """A value as bytes.

    Raises:
        InvalidInputError: No handler stores this type, or the value cannot be written.
    """
    for handler in HANDLERS:
        if handler.stores(value):
            return handler.dump(value)
    known = ", ".join(handler.name for handler in HANDLERS[:-1])
    raise InvalidInputError(
        f"an output of type {type(value).__name__} cannot be stored: {shown(value)}",
        hint=f"return one of: {known}; others are stored when they are written to a file first",
    )


def loader(content_type: str, expected: object) -> Handler:
    """Who loads a payload: the handler of the annotation, else of the stored type, else bytes."""
    for handler in HANDLERS:
        if handler.makes(expected):
            return handler
    plain = content_type.partition(";")[0].strip()
    return next((handler for handler in HANDLERS if plain in handler.reads), _BYTES)
