"""What a handler is: it stores the values of one type, and loads them again.

The built-in ones are listed in :mod:`~emboflow_dagster.orchestration.payloads.routing`; those of a user come
before them (``BlobIOManager(handlers=["my_project.handlers:GraspHandler"])``).
"""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.object_storage.payload import Source
from emboflow_dagster.object_storage.verified import save
from emboflow_dagster.orchestration.payloads.piped import Piped

BYTES: Final = "application/octet-stream"
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Column:
    """One column of a table, as the asset page shows it."""

    name: str
    type: str
    nullable: bool = True
    description: str | None = None


@dataclass(slots=True)
class Facts:
    """What the asset page shows of a value beside its bytes; may be filled while the bytes are written."""

    row_count: int | None = None
    columns: list[Column] | None = None
    preview: str | None = None
    """Markdown."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More entries: numbers, texts, ``{"table": rows}``, ``{"json": value}``."""


@dataclass(slots=True)
class Payload:
    """A value as bytes: what is to be stored, and how it is read again.

    Attributes:
        source: Bytes, a file, an open binary file, or chunks of bytes.
        content_type: MIME type, for other programs.
        serializer: How the bytes were made; who loads them when nothing is annotated. By default the
            handler's name.
        facts: For the asset page.
        name: A file's own name.
    """

    source: Source
    content_type: str = BYTES
    serializer: str | None = None
    facts: Facts = field(default_factory=Facts)
    name: str | None = None


class Draft:
    """What a handler may use while it stores a value; temporary files go when it is closed.

    Attributes:
        format: ``parquet`` or ``arrow``: what tables are written as.
        preview_rows: How many rows the asset page shows; 0 for none.
    """

    def __init__(
        self,
        *,
        format: str = "parquet",  # noqa: A002 - the word of the configuration
        preview_rows: int = 10,
        put_folder: Callable[[Path], bytes] | None = None,
    ) -> None:
        self.format: Final = format
        self.preview_rows: Final = preview_rows
        self._put_folder: Final = put_folder
        self._cleanup: Final = ExitStack()

    def stream(self, write: Callable[[IO[bytes]], object]) -> Iterator[bytes]:
        """What ``write`` writes to a file, at constant memory: it runs in a thread beside the put."""
        return self._cleanup.enter_context(Piped(write))

    def temporary(self, name: str = "payload") -> Path:
        """Where a file may be written that is to be stored."""
        folder = Path(tempfile.mkdtemp(prefix="emboflow-output-"))
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder / name

    def put_folder(self, folder: Path) -> bytes:
        """Store every file of a folder; returns its listing, which is the payload.

        Raises:
            InvalidInputError: Folders cannot be stored here.
        """
        if self._put_folder is None:
            raise InvalidInputError(f"{folder} is a folder; only files can be stored here")
        return self._put_folder(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()


@dataclass(slots=True)
class Stored:
    """A stored payload that is to become a value; every way to its bytes is verified.

    Attributes:
        content_type: As stored.
        serializer: As stored; ``None`` when no IO manager stored it.
        size: In bytes.
        annotation: The type that the input is annotated with, ``Optional`` taken off, or ``None``.
        name: The name of the file that it was, if it was one.
        opener: Opens a stream that is verified as it is read.
        scratch: Gives a fresh folder that lives as long as the process.
        local: The payload's own file on this machine, for reading only.
        restore: Brings a stored folder back below a path.
    """

    content_type: str
    serializer: str | None
    size: int
    opener: Callable[[], IO[bytes]]
    scratch: Callable[[], Path]
    annotation: Any = None
    name: str | None = None
    local: Path | None = None
    restore: Callable[[Path], Path] | None = None

    def open(self) -> IO[bytes]:
        """A stream; reading to its end verifies it, and raises when the bytes are not the stored ones."""
        return self.opener()

    def read(self) -> bytes:
        """All bytes, verified."""
        with self.open() as stream:
            return stream.read()

    def file(self) -> Path:
        """A verified file for reading only: the store's own where it is on this machine."""
        if self.local is None:
            return self.copy()
        with self.open() as stream:
            while stream.read(_CHUNK):
                pass
        return self.local

    def copy(self) -> Path:
        """A verified file of the caller's own."""
        with self.open() as stream:
            return save(stream, self.place())

    def place(self) -> Path:
        """Where a file or folder of the caller's own may be, under the name that it had."""
        return self.scratch() / _file_name(self.name)


_CHUNK: Final = 1 << 20
_MAX_NAME: Final = 200


def _file_name(name: str | None) -> str:
    # A name out of a document never leads out of the folder.
    plain = Path(name or "").name
    return plain if plain.strip(".") and plain.isprintable() and len(plain) < _MAX_NAME else "payload"


class Handler(ABC):
    """Stores and loads the values of one type; subclass it for a type of your own.

    Attributes:
        name: The type, for people; stored as the blob's ``serializer``.
        reads: Content types that it loads when nothing is annotated and no serializer is known.
    """

    name: str
    reads: frozenset[str] = frozenset()

    @abstractmethod
    def stores(self, value: object) -> bool:
        """Whether it stores this value."""

    def makes(self, annotation: Any) -> bool:
        """Whether it loads values for an input that is annotated with this type."""
        del annotation
        return False

    @abstractmethod
    def dump(self, value: Any, draft: Draft) -> Payload:
        """The value as bytes; the same bytes for equal values.

        Raises:
            InvalidInputError: The value cannot be written without changing it.
        """

    @abstractmethod
    def load(self, stored: Stored) -> Any:
        """The value again."""

    def recognises(self, serializer: str) -> bool:
        """Whether it wrote what has this serializer."""
        return serializer.partition(":")[0] == self.name


def is_named(value: type, *names: str) -> bool:
    """Whether a class is one of ``module.Class``, told without importing the library.

    Only the first part of the module counts: where a library keeps a class is its own business.
    """
    module = getattr(value, "__module__", "").partition(".")[0]
    return f"{module}.{getattr(value, '__name__', '')}" in names
