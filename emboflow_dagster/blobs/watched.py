"""Reads under watch: named after their blob, refused when it is in quarantine, which damage puts it into."""

from collections.abc import Iterator
from typing import IO, Any, Self, cast

from emboflow_dagster.blobs.examine import Content
from emboflow_dagster.blobs.quarantine import Quarantine, named
from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.model.storage import StorageRef


class Watch:
    """Around a read: refuses what is in quarantine, names the blob of a failure, sets damage aside."""

    def __init__(
        self,
        quarantine: Quarantine,
        object_id: str | None,
        version: int | None,
        ref: StorageRef | None,
        recorded: Content,
    ) -> None:
        self._quarantine = quarantine
        self._blob = (object_id, version)
        self._key = ref.key if ref else None
        self._recorded = recorded
        self._opened = False

    def __enter__(self) -> None:
        object_id, version = self._blob
        if not self._opened and object_id is not None:
            self._quarantine.refuse(object_id, version, self._key)
        self._opened = True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        object_id, version = self._blob
        if object_id is None or not isinstance(error, IntegrityError):
            return
        if error.kind is ErrorKind.BLOB_QUARANTINED:
            return
        told = self._quarantine.collected(object_id, version, error)
        if told is not None:
            raise told from error
        found = named(error, f"{object_id} version {version}", self._key, self._recorded)
        self._quarantine.saw(object_id, version, self._key, self._recorded, found)
        raise found from error


class NamedStream:
    """A verified stream whose failures name the blob; everything else is the stream's own."""

    def __init__(self, stream: IO[bytes], watch: Watch) -> None:
        self._stream = stream
        self._watch = watch

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; all of them by default."""
        with self._watch:
            return self._stream.read(size)

    def read1(self, size: int = -1) -> bytes:
        """What is there already, at most ``size`` bytes."""
        with self._watch:
            return cast("Any", self._stream).read1(size)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; the number of bytes."""
        with self._watch:
            return cast("Any", self._stream).readinto(buffer)

    def readline(self, size: int = -1) -> bytes:
        """The next line."""
        with self._watch:
            return self._stream.readline(size)

    def readlines(self, hint: int = -1) -> list[bytes]:
        """The lines that are left."""
        with self._watch:
            return self._stream.readlines(hint)

    def __iter__(self) -> Iterator[bytes]:
        with self._watch:
            yield from self._stream

    def __next__(self) -> bytes:
        with self._watch:
            return next(self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
