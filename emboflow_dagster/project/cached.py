"""Honest hits: what an earlier task left is used again only if all of it is there and whole.

Every payload is read and hashed, files of folders and dataset versions included: a hit that is slower than a
look at a list of names, and never a dead path. What is found wanting says so, and is computed anew.

Source: spec/beyond.md 6; decision 20.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from emboflow_dagster.errors import ConflictError, ErrorKind, NotFoundError
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.dataset import Dataset, DatasetVersion, DatasetVersionStatus
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.mongo.client import Session, translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.cache import Result
from emboflow_dagster.runtime.probe_report import newest_report_ids


class NotWholeError(ConflictError):
    """What an earlier task left cannot be used again; the message says why."""


class Blob(NamedTuple):
    """One version that a hit hands out, and on whose behalf."""

    object_id: str
    version: int
    what: str


@dataclass(frozen=True, slots=True)
class Hit:
    """What an earlier task left, found whole."""

    key: str
    result: Result
    artifacts: list[Artifact]
    dataset: Dataset | None = None
    version: DatasetVersion | None = None
    blobs: list[Blob] = field(default_factory=list)
    size: int = 0
    """Bytes of its payloads, files of folders not counted."""


class Cached:
    """Looks at what earlier tasks of one project left."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._artifacts: Documents[Artifact] = Documents(opened.mongo, opened.scope, Artifact)
        self._datasets: Documents[Dataset] = Documents(opened.mongo, opened.scope, Dataset)
        self._versions: Documents[DatasetVersion] = Documents(opened.mongo, opened.scope, DatasetVersion)

    def look(self, key: str, result: Result, asset_ids: list[str]) -> Hit:
        """All that a result names, read and hashed.

        Args:
            key: The cache key.
            result: What the entry of the key says.
            asset_ids: The assets of the task that wants to use it.

        Raises:
            NotWholeError: Something is gone, let go, damaged, or not the state of things any more.
            UnavailableError: The database or the store cannot be reached.
        """
        hit = self._documents(key, result, None)
        if result.reports is not None and newest_report_ids(self._opened.mongo, asset_ids) != result.reports:
            raise NotWholeError("an asset was probed again since")
        self._read(hit)
        return hit

    def confirm(self, hit: Hit, session: Session) -> None:
        """Look once more, in the transaction that settles the task: nothing was let go meanwhile.

        Raises:
            NotWholeError: Something was; nothing is written.
        """
        self._documents(hit.key, hit.result, session)

    def _documents(self, key: str, result: Result, session: Session | None) -> Hit:
        found = self._artifacts.find({"_id": {"$in": result.artifact_ids}}, limit=0, session=session)
        by_id = {artifact.id: artifact for artifact in found}
        for id_ in result.artifact_ids:
            if id_ not in by_id:
                raise NotWholeError(f"artifact {id_} is gone")
            if by_id[id_].lineage.cache_key != key:
                raise NotWholeError(f"artifact {id_} was made for another key")
        artifacts = [by_id[id_] for id_ in result.artifact_ids]
        refs = [(artifact.storage_ref, f"artifact {artifact.id}") for artifact in artifacts]
        dataset, version = self._dataset(result, session)
        if version is not None:
            refs.append((version.manifest_ref, f"dataset version {version.version_tag}"))
        blobs = list(_blobs(refs))
        self._refuse_noted(blobs, session)
        return Hit(key, result, artifacts, dataset, version, blobs, sum(ref.size for ref, _ in refs))

    def _dataset(
        self, result: Result, session: Session | None
    ) -> tuple[Dataset | None, DatasetVersion | None]:
        if result.dataset_version_id is None:
            return None, None
        version = self._versions.find_one({"_id": result.dataset_version_id}, session=session)
        if version is None:
            raise NotWholeError(f"dataset version {result.dataset_version_id} is gone")
        if version.status is DatasetVersionStatus.WITHDRAWN:
            raise NotWholeError(f"dataset version {version.version_tag} is withdrawn")
        dataset = self._datasets.find_one({"_id": version.dataset_id}, session=session)
        if dataset is None:
            raise NotWholeError(f"dataset {version.dataset_id} is gone")
        if dataset.latest_version_id != version.id:  # publishing would make it the newest again
            raise NotWholeError(f"dataset {dataset.name} has had another version since {version.version_tag}")
        return dataset, version

    def _refuse_noted(self, blobs: list[Blob], session: Session | None) -> None:
        """Refuse what was let go, collected or set aside: the notes that gc and readers go by."""
        if not blobs:
            return
        notes = {
            f"{kind.value}:{name_of(blob.object_id, blob.version)}": (said, blob)
            for blob in blobs
            for kind, said in _NOTES.items()
        }
        with translated():
            found = self._opened.mongo[META].find_one(
                {"_id": {"$in": sorted(notes)}}, {"_id": 1}, session=session
            )
        if found is not None:
            said, blob = notes[found["_id"]]
            raise NotWholeError(f"{blob.what}: its blob {said}")

    def _read(self, hit: Hit) -> None:
        blobs = self._opened.blobs
        for blob in hit.blobs:
            try:
                row = blobs.get(blob.object_id, blob.version)
            except NotFoundError:
                raise NotWholeError(f"{blob.what}: its blob {blob.object_id} is gone") from None
            for damage in blobs.repairs.examine(row):
                if damage.code is ErrorKind.UNAVAILABLE:
                    raise NotWholeError(f"{blob.what}: {damage.message}")
                blobs.quarantine.note(row, damage)  # so that computing it anew heals it
                raise NotWholeError(f"{blob.what}: {damage.code.value}: {damage.message}")


_NOTES: Final = {
    Mark.TOMBSTONE: "was collected",
    Mark.RELEASE: "was let go",
    Mark.QUARANTINE: "is in quarantine",
}


def _blobs(refs: Iterable[tuple[StorageRef, str]]) -> Iterable[Blob]:
    for ref, what in refs:
        if ref.object_id is None or ref.version is None:
            raise NotWholeError(f"{what}: names no blob")
        yield Blob(ref.object_id, ref.version, what)
