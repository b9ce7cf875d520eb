"""Bytes, text, files, folders and streams: what is a payload already."""

import collections.abc
import io
import json
import typing
from pathlib import Path
from typing import Any, Final, get_origin

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.orchestration.payloads.handler import (
    BYTES,
    JSON,
    TEXT,
    Draft,
    Facts,
    Handler,
    Payload,
    Stored,
)
from emboflow_dagster.orchestration.payloads.preview import block

_TYPES: Final = {
    ".json": JSON,
    ".parquet": "application/vnd.apache.parquet",
    ".txt": TEXT,
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".png": "image/png",
    ".mp4": "video/mp4",
}
_SHOWN_FILES: Final = 50
_STREAMS: Final = (
    *(typing.BinaryIO, typing.IO),
    *(io.IOBase, io.BufferedIOBase, io.RawIOBase, io.BufferedReader),
)


class _OpenFile(io.BufferedReader, typing.BinaryIO):
    """An open file that passes for the ``BinaryIO`` of an annotation: Dagster asks by ``isinstance``."""


class BytesHandler(Handler):
    """``bytes``; what nobody else loads comes as this."""

    name = "bytes"

    def stores(self, value: object) -> bool:
        """Whether it is bytes."""
        return isinstance(value, bytes | bytearray | memoryview)

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants them, of whatever was stored."""
        return annotation is bytes

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The bytes."""
        del draft
        return Payload(bytes(value), BYTES, self.name)

    def load(self, stored: Stored) -> bytes:
        """The bytes."""
        return stored.read()


class TextHandler(Handler):
    """``str``, as UTF-8."""

    name = "text"
    reads = frozenset({"text/plain", "text/markdown", "text/csv"})

    def stores(self, value: object) -> bool:
        """Whether it is text."""
        return isinstance(value, str)

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants it."""
        return annotation is str

    def dump(self, value: str, draft: Draft) -> Payload:
        """The text.

        Raises:
            InvalidInputError: It has lone surrogates, which UTF-8 cannot express.
        """
        try:
            content = value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"the text cannot be written as UTF-8: a lone surrogate at {error.start}",
                kind=ErrorKind.TEXT_SURROGATE,
            ) from None
        facts = Facts(preview=block(value) if draft.preview_rows else None)
        return Payload(content, TEXT, self.name, facts)

    def load(self, stored: Stored) -> str:
        """The text.

        Raises:
            IntegrityError: The payload is not UTF-8.
        """
        try:
            return stored.read().decode()
        except UnicodeDecodeError as error:
            raise IntegrityError(
                f"the payload is no UTF-8 text: byte {error.start}", kind=ErrorKind.FILE_CORRUPT
            ) from None


class PathHandler(Handler):
    """``Path``: a file, or a folder as a listing of its files; loaded as a copy that may be changed."""

    name = "path"

    def stores(self, value: object) -> bool:
        """Whether it is a path."""
        return isinstance(value, Path)

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants a file, of whatever was stored."""
        return isinstance(annotation, type) and issubclass(annotation, Path)

    def dump(self, value: Path, draft: Draft) -> Payload:
        """The file, streamed; or the listing of a folder whose files are stored.

        Raises:
            InvalidInputError: There is no such file, or something in the folder is a link or a device.
        """
        if value.is_dir():
            listing = draft.put_folder(value)
            head = json.loads(listing.partition(b"\n")[0])
            rows = [json.loads(line) for line in listing.splitlines()[1 : _SHOWN_FILES + 1]]
            files = [{"path": row["path"], "size": row["size"]} for row in rows]
            extra = {"files": head["files"], "bytes": head["bytes"], "listing": {"table": files}}
            return Payload(listing, LISTING_TYPE, self.name, Facts(extra=extra), name=value.name)
        if not value.is_file():
            raise InvalidInputError(
                f"{value} is not a file or folder; an output of type Path names one",
                kind=ErrorKind.FILE_UNREADABLE,
            )
        kind = _TYPES.get(value.suffix.lower(), BYTES)
        return Payload(value, kind, self.name, Facts(extra={"file": value.name}), name=value.name)

    def load(self, stored: Stored) -> Path:
        """A file or folder of the step's own; it goes when the step's process ends."""
        if stored.content_type == LISTING_TYPE and stored.restore is not None:
            return stored.restore(stored.place())
        return stored.copy()


class StreamHandler(Handler):
    """Open binary files and iterators of bytes: streamed in, and out as an open file."""

    name = "stream"

    def stores(self, value: object) -> bool:
        """Whether it is a binary file, or yields chunks one after the other."""
        if isinstance(value, io.TextIOBase):
            return False
        return callable(getattr(value, "read", None)) or isinstance(value, collections.abc.Iterator)

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants an open file, of whatever was stored."""
        return annotation in _STREAMS or get_origin(annotation) is typing.IO

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The bytes from the file's position to its end; the file is left open."""
        del draft
        return Payload(value, BYTES, self.name)

    def load(self, stored: Stored) -> Any:
        """An open file, verified before its first byte is read."""
        if stored.annotation is io.RawIOBase:
            return stored.file().open("rb", buffering=0)
        return _OpenFile(io.FileIO(stored.file()))


class ListingHandler(Handler):
    """The listing of a folder that somebody else stored, as its rows."""

    name = "listing of a folder"
    reads = frozenset({LISTING_TYPE})

    def stores(self, value: object) -> bool:
        """Never: a folder is stored as a ``Path``."""
        del value
        return False

    def dump(self, value: Any, draft: Draft) -> Payload:
        """Not reached: it stores nothing."""
        del draft
        raise InvalidInputError(f"a listing is stored as a Path; found {type(value).__name__}")

    def load(self, stored: Stored) -> Any:
        """The rows of the listing."""
        return [json.loads(line) for line in stored.read().splitlines()]
