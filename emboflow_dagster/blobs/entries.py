"""The listing of a folder: which files it has, and which bytes each of them is.

A listing is JSON Lines: a head with the counts, then one ``{path, sha256, size}`` a file, sorted by
path. The same folder gives the same listing; files it shares with others are stored once.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.model.storage import LISTING_TYPE, StorageRef
from emboflow_dagster.model.text import check_entry_path, check_sha256

SCHEMA = "emboflow-listing/1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a folder: its path below it, its hash, its size in bytes."""

    path: str
    sha256: str
    size: int


def write_listing(entries: list[Entry]) -> bytes:
    """The listing's bytes; the same for the same entries."""
    head = {"schema": SCHEMA, "files": len(entries), "bytes": sum(e.size for e in entries)}
    rows = [
        {"path": e.path, "sha256": e.sha256, "size": e.size} for e in sorted(entries, key=lambda e: e.path)
    ]
    return b"".join(
        json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in [head, *rows]
    )


def read_listing(stream: IO[bytes]) -> Iterator[Entry]:
    """The entries of a listing, one at a time.

    Raises:
        IntegrityError: It is no listing this release can read.
    """
    head: dict[str, Any] | None = None
    for number, line in enumerate(stream, start=1):
        try:
            row = json.loads(line)
            if head is None:
                head = row
                if row["schema"] != SCHEMA:
                    raise IntegrityError(f"a listing of schema {row['schema']!r}; known is {SCHEMA}")
                continue
            entry = Entry(str(row["path"]), check_sha256(row["sha256"]), int(row["size"]))
            check_entry_path(entry.path)
        except InvalidInputError as error:
            text = f"line {number} of the listing is refused: {error.message}"
            raise IntegrityError(text, kind=error.kind) from None
        except (ValueError, KeyError, TypeError) as error:
            text = f"line {number} of the listing is none: {type(error).__name__}"
            raise IntegrityError(text, kind=ErrorKind.FILE_CORRUPT) from None
        yield entry
    if head is None:
        raise IntegrityError("the listing is empty", kind=ErrorKind.FILE_CORRUPT)


def payload_ref(ref: StorageRef, sha256: str, size: int) -> StorageRef:
    """The reference of a file that a listing or manifest at ``ref`` names, in the store that holds it.

    It names the blob that the file is a part of: damage is that blob's.
    """
    key = f"sha256/{sha256[:2]}/{sha256[2:]}"
    return StorageRef(
        bucket=ref.bucket,
        key=key,
        uri=ref.uri[: -len(ref.key)] + key,
        checksum=f"sha256:{sha256}",
        content_type="application/octet-stream",
        size=size,
        object_id=ref.object_id,
        version=ref.version,
    )


def is_listing(ref: StorageRef) -> bool:
    """Whether a reference names a folder."""
    return ref.content_type == LISTING_TYPE
