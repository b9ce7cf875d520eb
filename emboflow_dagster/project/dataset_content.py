"""What is in a dataset version, whatever its layout: its manifest, its episodes, its files."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emboflow_dagster.blobs import forgotten, pages
from emboflow_dagster.blobs.entries import payload_ref
from emboflow_dagster.blobs.pages import Located, Page, Read
from emboflow_dagster.blobs.trees import reading
from emboflow_dagster.formats.canonical.compose import Fetch, compose
from emboflow_dagster.formats.canonical.episode_files import OBJECTS
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.object_storage.payload import key_of
from emboflow_dagster.project.opened import Opened


@dataclass(frozen=True, slots=True)
class Content:
    """A version as a tree of episodes.

    A version of the older layout, one table of all frames, is cut into episodes when it is opened: then
    ``folder`` has the payloads, which are not in the store.
    """

    manifest: dict[str, Any]
    root: Page
    read: Read
    fetch: Fetch
    folder: Path | None = None

    def episodes(self, *, skip: pages.Skip = lambda _: False) -> Iterator[Located]:
        """Every episode in order, but those of the pages in ``skip``."""
        return pages.episodes(self.read, self.root, skip=skip)


@contextmanager
def opened_content(opened: Opened, version: DatasetVersion) -> Iterator[Content]:
    """The content of a version.

    Raises:
        IntegrityError: Its bytes are gone or changed.
    """
    ref = version.manifest_ref
    manifest = json.loads(opened.blobs.read_ref(ref))
    root = pages.root_of(manifest)
    if root is not None:

        def fetch(file: Mapping[str, Any], path: Path) -> Path:
            if not opened.store.exists(key_of(file["sha256"])):
                forgotten.refuse(opened.mongo, opened.scope.workspace_id, file["sha256"])
            return opened.blobs.fetch_ref(payload_ref(ref, file["sha256"], file["size"]), path)

        yield Content(manifest, root, reading(opened.blobs, ref), fetch)
        return
    with workdir(opened) as folder:
        yield _cut(opened, version, manifest, folder)


def _cut(opened: Opened, version: DatasetVersion, manifest: dict[str, Any], folder: Path) -> Content:
    from emboflow_dagster.formats.canonical.reader import open_canonical
    from emboflow_dagster.formats.canonical.split import split

    files(opened, version, manifest, folder / "package")
    made = split(open_canonical(folder / "package"), folder / "version")
    objects = folder / "version" / OBJECTS

    def read(sha256: str, size: int) -> bytes:  # noqa: ARG001 - made a moment ago
        return (objects / sha256).read_bytes()

    def fetch(file: Mapping[str, Any], path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(objects / file["sha256"], path)
        return path

    return Content(made, Page.from_json(made[pages.TREE]), read, fetch, folder / "version")


def export(opened: Opened, version: DatasetVersion, out: Path) -> dict[str, Any]:
    """Write a version as the documented folder, each byte of it verified; its manifest, which comes last."""
    ref = version.manifest_ref
    payload = opened.blobs.read_ref(ref)
    manifest = json.loads(payload)
    if pages.TREE not in manifest:
        files(opened, version, manifest, out)
        return manifest
    with opened_content(opened, version) as content:
        names: list[str] = []

        def read(sha256: str, size: int) -> bytes:
            page = content.read(sha256, size)
            name = f"{pages.FOLDER}/{sha256}.jsonl"
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(page)
            names.append(name)
            return page

        found = pages.episodes(read, content.root)
        return compose(payload, (one.entry for one in found), content.fetch, out, extra=names)


def files(opened: Opened, version: DatasetVersion, manifest: Mapping[str, Any], out: Path) -> None:
    """Write the files of a version of the older layout; the manifest comes last."""
    for row in manifest["files"]:
        if not opened.store.exists(key_of(row["sha256"])):
            forgotten.refuse(opened.mongo, opened.scope.workspace_id, row["sha256"])
        ref = payload_ref(version.manifest_ref, row["sha256"], row["size"])
        opened.blobs.fetch_ref(ref, out / row["path"])
    opened.blobs.fetch_ref(version.manifest_ref, out / "manifest.json")


@contextmanager
def workdir(opened: Opened) -> Iterator[Path]:
    """A folder for what is on its way, in the home; gone when the block ends."""
    place = opened.settings.home / "work"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dataset-", dir=place) as folder:
        yield Path(folder)
