"""Datasets and their versions, as a project sees them."""

import json
from pathlib import Path
from typing import Any

from emboflow_dagster.blobs.listing import payload_ref
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.lookup import by_id_or_name
from emboflow_dagster.project.opened import Opened


class Datasets:
    """The datasets of one project."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.documents: Documents[Dataset] = Documents(opened.mongo, opened.scope, Dataset)
        self._versions: Documents[DatasetVersion] = Documents(opened.mongo, opened.scope, DatasetVersion)

    def create(self, name: str, *, type: str) -> Dataset:  # noqa: A002 - the contract's word
        """A new dataset without versions.

        Raises:
            AlreadyExistsError: The name is taken in this project.
            InvalidInputError: The name is no slug or the type no type name.
        """
        now = utc_now()
        scope = self._opened.scope
        dataset = Dataset.checked(
            id=new_id("ds"),
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            name=name,
            type=type,
            created_by=scope.actor,
            created_at=now,
            updated_at=now,
        )

        def body(session: Session) -> None:
            self.documents.insert(dataset, session=session)
            after = {"name": name, "type": type}
            audit.record(
                self._opened.mongo, scope, session, "dataset.create", "datasets", dataset.id, after=after
            )

        self._opened.mongo.in_transaction(body)
        return dataset

    def get(self, dataset: str) -> Dataset:
        """A dataset by name or id.

        Raises:
            NotFoundError: There is none in this project.
        """
        return by_id_or_name(self.documents, dataset, "name", what="dataset")

    def versions(self, dataset: str, *, limit: int = 100) -> list[DatasetVersion]:
        """A dataset's versions, newest first."""
        return self._versions.find({"datasetId": self.get(dataset).id}, limit=limit)

    def version(self, dataset: str, tag: str | None = None) -> DatasetVersion:
        """One version by tag or id, by default the latest.

        Raises:
            NotFoundError: The dataset has no such version.
        """
        found = self.get(dataset)
        if tag is None:
            version = (
                self._versions.find_one({"_id": found.latest_version_id}) if found.latest_version_id else None
            )
        else:
            version = self._versions.find_one(
                {"datasetId": found.id, "$or": [{"versionTag": tag}, {"_id": tag}]}
            )
        if version is None:
            tags = [v.version_tag for v in self.versions(found.id, limit=5)]
            raise NotFoundError(
                f"dataset {found.name}: no version {tag or ''}".rstrip(),
                hint=f"there are: {', '.join(tags)}" if tags else "it has no version yet",
            )
        return version

    def manifest(self, version: DatasetVersion) -> dict[str, Any]:
        """A version's manifest, read and verified.

        Raises:
            IntegrityError: Its bytes are gone or changed.
        """
        return json.loads(self._opened.blobs.read_ref(version.manifest_ref))

    def export(self, dataset: str, out: Path, *, tag: str | None = None) -> Path:
        """Write a version as files below ``out``, each verified; returns the folder.

        The manifest comes last, so a folder that has one is complete.
        """
        version = self.version(dataset, tag)
        manifest = self.manifest(version)
        for row in manifest["files"]:
            ref = payload_ref(version.manifest_ref, row["sha256"], row["size"])
            self._opened.blobs.fetch_ref(ref, out / row["path"])
        self._opened.blobs.fetch_ref(version.manifest_ref, out / "manifest.json")
        return out

    def list(self, *, limit: int = 100) -> list[Dataset]:
        """Datasets, newest first."""
        return self.documents.find(limit=limit)
