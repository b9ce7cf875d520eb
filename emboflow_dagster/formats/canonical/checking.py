"""An exported folder, checked by what is in it: no database, no store, no network.

Three questions, one after the other: are the files those of `manifest.json`; is the tree below the version's
manifest whole; and is every episode in the tables and videos the one that the tree says, number for number.
The third needs no trust in how the tables were written: see :mod:`...canonical.content`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.pages import Page
from emboflow_dagster.errors import (
    EmboflowError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
from emboflow_dagster.formats.canonical.compose import VERSION_MANIFEST
from emboflow_dagster.formats.canonical.reader import CanonicalDataset, read_manifest
from emboflow_dagster.formats.canonical.schema import (
    EPISODES_FILE,
    FRAMES_FILE,
    MANIFEST_FILE,
    TASKS_FILE,
    Manifest,
)
from emboflow_dagster.formats.canonical.split import entries
from emboflow_dagster.formats.canonical.writer import file_sha256
from emboflow_dagster.formats.report import json_safe
from emboflow_dagster.model.text import CHECKSUM_PATTERN

MAX_PROBLEMS: Final = 1_000
#: What a line of the tree says of an episode, and the tables say too.
_TOLD: Final = ("content", "length", "tasks", "source", "t0Ns", "success", "flags", "sync", "stats")
_SHARED: Final = ("schemaVersion", "datasetId", "versionTag", "sourceAssets", "fps", "features", "stats")


@dataclass(slots=True)
class FolderReport:
    """What the check of a folder found."""

    path: str
    dataset_id: str | None = None
    version_tag: str | None = None
    version_sha256: str | None = None
    """sha256 of the version's own manifest: its data version in Dagster, its checksum in the database."""
    episodes: int = 0
    frames: int = 0
    files: int = 0
    by_episode: bool = False
    """Whether there is a tree, and every episode was held against it."""
    problems: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.problems

    def add(self, code: ErrorKind, message: str, episode: int | None = None) -> None:
        """Note one thing that is wrong."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append({"code": code.value, "episode": episode, "message": message})

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "ok": self.ok,
            "path": self.path,
            "datasetId": self.dataset_id,
            "versionTag": self.version_tag,
            "versionSha256": self.version_sha256,
            "episodes": self.episodes,
            "frames": self.frames,
            "files": self.files,
            "byEpisode": self.by_episode,
            "problems": self.problems,
        }


def check_folder(folder: Path, *, expect: str | None = None) -> FolderReport:
    """Hold a folder that `emboflow dataset export` wrote against its manifests, its tree and itself.

    Args:
        folder: The exported folder.
        expect: sha256 (with or without ``sha256:``) that the version's manifest must have; who knows it from
            elsewhere knows that the folder is that version and no other.

    Raises:
        NotFoundError: There is no dataset in the folder.
        InvalidInputError: Its manifest is of another schema, or ``expect`` is no sha256.
    """
    report = FolderReport(str(folder.absolute()))
    wanted = _digest(expect)
    if not (folder / MANIFEST_FILE).is_file():
        raise NotFoundError(f"{folder}: no {MANIFEST_FILE}, so no canonical dataset (or half of one)")
    manifest = read_manifest(folder / MANIFEST_FILE)
    document = manifest.document
    package = _files(report, folder, manifest)
    report.dataset_id, report.version_tag = document.get("datasetId"), document.get("versionTag")
    report.files = len(document.get("files", ())) + 1
    report.episodes, report.frames = document.get("episodes", 0), document.get("frames", 0)
    own = folder / (VERSION_MANIFEST if "version" in document else MANIFEST_FILE)
    payload = own.read_bytes() if own.is_file() else b""
    report.version_sha256 = hashlib.sha256(payload).hexdigest()
    if wanted not in (None, report.version_sha256):
        report.add(
            ErrorKind.HASH_MISMATCH,
            f"{own.relative_to(folder)} has sha256 {report.version_sha256}, expected is {wanted}: "
            "this is not that version",
        )
    if "version" in document and package is not None:
        report.by_episode = True
        try:
            _check_version(report, folder, package, payload)
        except (EmboflowError, ValueError, KeyError, TypeError) as error:
            kind = error.kind if isinstance(error, EmboflowError) else ErrorKind.FILE_CORRUPT
            report.add(kind, str(error) or type(error).__name__)
    return report


def _files(report: FolderReport, folder: Path, manifest: Manifest) -> CanonicalDataset | None:
    """Every file held against the manifest; the dataset when all are right."""
    files: dict[str, Path] = {}
    for entry in manifest.files:
        path = folder / entry["path"]
        if not path.is_file():
            report.add(ErrorKind.PAYLOAD_MISSING, f"{entry['path']} is missing")
            continue
        found = (file_sha256(path), path.stat().st_size)
        if found != (entry["sha256"], entry["size"]):
            kind = ErrorKind.HASH_MISMATCH if found[1] == entry["size"] else ErrorKind.SIZE_MISMATCH
            text = f"{entry['path']}: {found[1]} bytes with sha256 {found[0]}, recorded are {entry['size']}"
            report.add(kind, f"{text} with {entry['sha256']}")
        files[entry["path"]] = path
    for name in (FRAMES_FILE, EPISODES_FILE, TASKS_FILE):
        if name not in files and report.ok:
            report.add(ErrorKind.PAYLOAD_MISSING, f"{MANIFEST_FILE} does not name {name}")
    return CanonicalDataset(manifest, files) if report.ok else None


def _check_version(report: FolderReport, folder: Path, package: CanonicalDataset, payload: bytes) -> None:
    document, version = package.manifest.document, json.loads(payload)
    for name in _SHARED:
        if document.get(name) != version.get(name):
            report.add(ErrorKind.REF_MISMATCH, f"{MANIFEST_FILE} and {VERSION_MANIFEST} differ in {name}")
    root = pages.root_of(version)
    if root is None:
        raise InvalidInputError(f"{VERSION_MANIFEST} names no tree")

    def read(sha256: str, size: int) -> bytes:
        path = folder / pages.FOLDER / f"{sha256}.jsonl"
        if not path.is_file():
            text = f"page {sha256} is missing"
            raise IntegrityError(text, kind=ErrorKind.PAYLOAD_MISSING)
        page = path.read_bytes()
        if (hashlib.sha256(page).hexdigest(), len(page)) != (sha256, size):
            raise IntegrityError(f"page {sha256} has other bytes than its name says")
        return page

    told = pages.episodes(read, root)
    found = entries(package, None)
    _check_episodes(report, folder, told, found, root)


def _check_episodes(
    report: FolderReport,
    folder: Path,
    told: Iterator[pages.Located],
    found: Iterator[dict[str, Any]],
    root: Page,
) -> None:
    count = frames = files = size = 0
    for one in told:
        entry, there = one.entry, next(found, None)
        if there is None:
            report.add(ErrorKind.PAYLOAD_MISSING, "the tables end before it", one.index)
            return
        there = json_safe(there)
        for name in _TOLD:
            if entry[name] != there[name]:
                what = "its data is other data" if name == "content" else f"{name} is another one"
                report.add(ErrorKind.HASH_MISMATCH, f"{what} than the version's tree says", one.index)
        for kind, file in pages.files_of(entry):
            files, size = files + 1, size + file["size"]
            if kind.startswith("videos/"):
                _check_video(report, folder / kind / f"episode_{one.index:06d}.mp4", file, one.index)
        count, frames = count + 1, frames + entry["length"]
    if next(found, None) is not None:
        report.add(ErrorKind.REF_MISMATCH, f"the tables have more than the version's {count} episodes")
    sums = (root.episodes, root.frames, root.files, root.bytes)
    if (count, frames, files, size) != sums:
        report.add(ErrorKind.REF_MISMATCH, f"the tree says {sums}, found are {(count, frames, files, size)}")


def _check_video(report: FolderReport, path: Path, file: dict[str, Any], episode: int) -> None:
    # Its hash was compared with the manifest's a moment ago: only the names are left to compare.
    if not path.is_file():
        report.add(ErrorKind.PAYLOAD_MISSING, f"{path.name} of {path.parent.name} is missing", episode)
    elif path.stat().st_size != file["size"]:
        report.add(ErrorKind.SIZE_MISMATCH, f"{path.name} of {path.parent.name} has another size", episode)


def _digest(expect: str | None) -> str | None:
    if expect is None:
        return None
    import re

    digest = expect.strip().lower()
    digest = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    if not re.fullmatch(CHECKSUM_PATTERN[1:-1], digest):
        raise InvalidInputError(
            f"expected checksum: found {expect!r}; needed are 64 of 0-9 a-f", kind=ErrorKind.HASH
        )
    return digest.removeprefix("sha256:")
