"""A bound on the size of a payload that a deployment sets (P-37)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.object_storage.payload import Source, filling

_CHUNK: Final = 1 << 20


def refuse_above(size: int, most: int | None) -> None:
    """Say so when a payload is larger than this deployment takes.

    Raises:
        InvalidInputError: It is (kind ``blob-quota``).
    """
    if most is not None and size > most:
        raise InvalidInputError(
            f"BLOB size quota exceeded (max {most} bytes allowed); nothing was stored",
            kind=ErrorKind.BLOB_QUOTA,
            hint="EMBOFLOW_MAX_BLOB_BYTES sets it for this deployment",
        )


def bounded(source: Source, most: int | None) -> Source:
    """``source``, which raises as soon as it has given more than ``most`` bytes; ``None``: no bound.

    Raises:
        InvalidInputError: It is known to be larger (kind ``blob-quota``); from the stream: it has become so.
    """
    if most is None or isinstance(source, str):  # text is refused by who reads it
        return source
    if isinstance(source, bytes | bytearray):
        refuse_above(len(source), most)
        return source
    if isinstance(source, memoryview):
        refuse_above(source.nbytes, most)
        return source
    if isinstance(source, Path) and source.is_file():  # too large: not a byte is read
        refuse_above(source.stat().st_size, most)
    return _counted(source, most)


def _counted(source: Source, most: int) -> Iterator[bytes]:
    size = 0
    with filling(source) as fill:
        buffer = memoryview(bytearray(min(_CHUNK, most + 1)))
        while filled := fill(buffer):
            size += filled
            refuse_above(size, most)
            yield bytes(buffer[:filled])
