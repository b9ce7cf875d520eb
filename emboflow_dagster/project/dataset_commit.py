"""Makes a folder of payloads the next version of a dataset: bytes first, then everything else at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.trees import put_files, reading
from emboflow_dagster.errors import ConflictError, InvalidInputError
from emboflow_dagster.formats.canonical.episode_files import OBJECTS
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.dataset import Dataset, DatasetStatus, DatasetVersion, DatasetVersionStatus
from emboflow_dagster.model.storage import MANIFEST_TYPE
from emboflow_dagster.mongo import audit, objects
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.forgotten import Forgotten, refuse_new
from emboflow_dagster.runtime.outputs import content_digest, next_tag
from emboflow_dagster.runtime.publishing import stats_of


def commit(
    opened: Opened,
    dataset: Dataset,
    parent: DatasetVersion | None,
    manifest: Mapping[str, Any],
    *,
    action: str,
    told: Mapping[str, Any],
    summary: Mapping[str, Any],
    stats: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    tag: str | None = None,
) -> DatasetVersion:
    """Write the version that follows ``parent``.

    Args:
        opened: The deployment and scope.
        dataset: Whose version.
        parent: The version it is built on; it must still be the latest.
        manifest: What it is; id and tag are filled in.
        action: For the audit log, ``dataset.<verb>``.
        told: What the audit log says of it.
        summary: For its document.
        stats: Its numbers; by default those of the manifest's tree.
        folder: Where payloads are that may not be in the store yet.
        tag: Its tag; by default the next number.

    Raises:
        ConflictError: Another version came meanwhile, or the parent was withdrawn; nothing was written.
        ForbiddenError: It has an episode that was forgotten (kind `episode-forgotten`).
        AlreadyExistsError: The tag is taken.
        InvalidInputError: The tag is no tag.
    """
    mongo, scope, blobs = opened.mongo, opened.scope, opened.blobs
    tombstones = _heeded(opened, parent, manifest, folder)
    datasets: Documents[Dataset] = Documents(mongo, scope, Dataset)
    versions: Documents[DatasetVersion] = Documents(mongo, scope, DatasetVersion)
    tag = tag or next_tag(versions, dataset.id)
    document = {**manifest, "datasetId": dataset.id, "versionTag": tag}
    sources = document.get("sourceAssets") or []
    with blobs.writing():  # from the first file on to the record that refers to the manifest
        if folder is not None:
            put_files(blobs, (folder / OBJECTS).iterdir())
        blob = blobs.put(
            json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n",
            type="dataset_snapshot",
            content_type=MANIFEST_TYPE,
            custom_metadata={"dataset": dataset.name, "versionTag": tag},
            owner=("dataset_versions", "manifestRef"),
        )
        version = DatasetVersion.checked(
            id=new_id("dsv"),
            dataset_id=dataset.id,
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            source_asset_id=sources[0]["assetId"] if len(sources) == 1 else None,
            parent_version_id=parent.id if parent else None,
            version_tag=tag,
            canonical_schema_version=document["schemaVersion"],
            manifest_ref=blobs.ref(blob),
            stats=dict(stats or stats_of(document)),
            summary={**summary, "contentDigest": content_digest(document)},
            created_by=scope.actor,
            created_at=utc_now(),
        )

        def body(session: Session) -> None:
            head = datasets.get(dataset.id, session=session)
            if head.status is DatasetStatus.ARCHIVED:
                raise InvalidInputError(f"dataset {head.name} is archived")
            before = versions.get(parent.id, session=session) if parent else None
            if head.latest_version_id != (before.id if before else None):
                raise ConflictError(
                    f"dataset {head.name}: another version came meanwhile; nothing was written",
                    hint="look at the newer version and repeat it",
                )
            if before is not None and before.status is DatasetVersionStatus.WITHDRAWN:
                raise ConflictError(f"version {before.version_tag} of {head.name} was withdrawn")
            refuse_new(mongo, scope, session, tombstones)
            versions.insert(version, session=session)
            datasets.change(
                dataset.id,
                {
                    "latestVersionId": version.id,
                    "status": DatasetStatus.ACTIVE.value,
                    "updatedAt": utc_now(),
                },
                session=session,
            )
            objects.own(
                mongo,
                scope,
                session,
                object_id=blob.object_id,
                version=blob.version,
                record="dataset_versions",
                field="manifestRef",
                record_id=version.id,
            )
            audit.record(
                mongo,
                scope,
                session,
                action,
                "dataset_versions",
                version.id,
                before={"versionTag": before.version_tag, "versionId": before.id} if before else None,
                after={"dataset": dataset.name, "versionTag": tag, **told},
            )

        mongo.in_transaction(body)
    return version


def _heeded(
    opened: Opened, parent: DatasetVersion | None, manifest: Mapping[str, Any], folder: Path | None
) -> frozenset[str]:
    """Refuse a version that has an episode that was forgotten; the tombstones that were looked at.

    Pages that the version before has are not looked into: they were when they came, or when an episode was
    forgotten. Where that is not finished, all are.
    """
    forgotten = Forgotten(opened.mongo, opened.scope)
    if not forgotten:
        return forgotten.names
    known: set[str] = set()
    if parent is not None and forgotten.finished and parent.status is not DatasetVersionStatus.WITHDRAWN:
        before = pages.root_of(json.loads(opened.blobs.read_ref(parent.manifest_ref)))
        if before is not None:
            stored = reading(opened.blobs, parent.manifest_ref)
            known = {page.sha256 for page in pages.every_page(stored, before)}

    def read(sha256: str, size: int) -> bytes:
        new = None if folder is None else folder / OBJECTS / sha256
        if new is not None and new.exists():
            return new.read_bytes()
        assert parent is not None  # noqa: S101 - what follows nothing is in the folder whole
        return reading(opened.blobs, parent.manifest_ref)(sha256, size)

    forgotten.refuse_manifest(manifest, read, skip=known.__contains__)
    return forgotten.names
