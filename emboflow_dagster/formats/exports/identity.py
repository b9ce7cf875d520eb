"""Which version a canonical folder is: the hash of its manifest, of its tree, and the line of every episode.

A folder of a published version brings its tree along. For a package that no version was made of yet, the tree
is made here, by the same code as when it is published: both have the same hashes.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.pages import Page
from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.formats.canonical.compose import VERSION_MANIFEST
from emboflow_dagster.formats.canonical.episode_files import OBJECTS
from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.schema import MANIFEST_FILE
from emboflow_dagster.formats.canonical.split import split


@dataclass(frozen=True, slots=True)
class Identity:
    """The hashes of a version.

    Attributes:
        version_sha256: Of the version's manifest: its checksum in the database, its data version in Dagster.
        tree_sha256: Of the first page: over every episode with its data and labels.
        read: Gives a page.
        root: The first page.
    """

    version_sha256: str
    tree_sha256: str
    read: pages.Read
    root: Page

    def episodes(self) -> Iterator[dict[str, Any]]:
        """The line of every episode in order."""
        for one in pages.episodes(self.read, self.root):
            yield {"episode": one.index, **one.entry}


@contextmanager
def identified(dataset: CanonicalDataset, folder: Path) -> Iterator[Identity]:
    """Which version the dataset in ``folder`` is.

    Raises:
        IntegrityError: Its pages are missing or damaged.
        InvalidInputError: Its tables do not agree.
    """
    if "version" in dataset.manifest.document:
        payload = (folder / VERSION_MANIFEST).read_bytes()
        yield _identity(payload, lambda sha256: folder / pages.FOLDER / f"{sha256}.jsonl")
        return
    with tempfile.TemporaryDirectory(prefix="identity-") as scratch:
        split(dataset, Path(scratch, "version"))
        payload = Path(scratch, "version", MANIFEST_FILE).read_bytes()
        yield _identity(payload, lambda sha256: Path(scratch, "version", OBJECTS, sha256))


def _identity(payload: bytes, place: Any) -> Identity:
    root = pages.root_of(json.loads(payload))
    if root is None:
        raise IntegrityError("the version's manifest names no tree", kind=ErrorKind.DOCUMENT_INVALID)

    def read(sha256: str, size: int) -> bytes:
        path: Path = place(sha256)
        page = path.read_bytes() if path.is_file() else b""
        if (hashlib.sha256(page).hexdigest(), len(page)) != (sha256, size):
            raise IntegrityError(f"page {sha256} is missing or damaged", kind=ErrorKind.HASH_MISMATCH)
        return page

    return Identity(hashlib.sha256(payload).hexdigest(), root.sha256, read, root)
