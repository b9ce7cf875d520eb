"""From what a node returned to documents: payloads first, then one transaction with everything else."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emboflow_dagster.blobs.listing import put_folder, write_listing
from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.blobs.trees import put_files
from emboflow_dagster.errors import AlreadyExistsError
from emboflow_dagster.formats.canonical.episode_files import OBJECTS
from emboflow_dagster.model.artifact import Artifact, Lineage, ProducerType
from emboflow_dagster.model.asset import Asset, AssetProbeReport, AssetStatus
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.dataset import Dataset, DatasetStatus, DatasetVersion
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import LISTING_TYPE, MANIFEST_TYPE
from emboflow_dagster.mongo import audit, objects
from emboflow_dagster.mongo.client import Mongo, Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.runtime.forgotten import refuse_new, refuse_version
from emboflow_dagster.runtime.node import DatasetDraft, NodeOutput, NodeResult
from emboflow_dagster.runtime.probe_report import store_probe


@dataclass(slots=True)
class Outputs:
    """Everything a finished task leaves, ready to be written at once."""

    artifacts: list[Artifact] = field(default_factory=list)
    probes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    dataset: Dataset | None = None
    new_dataset: bool = False
    version: DatasetVersion | None = None
    unchanged: bool = False
    """The dataset's latest version has this content already; ``version`` is that one."""
    tombstones: frozenset[str] = frozenset()
    """Those that the task heeded; one that came since keeps what it left from being written."""
    beside: Callable[[Session, RunTask], None] | None = None
    """Is called in the transaction that writes these, with the settled task."""


def store_outputs(
    mongo: Mongo,
    blobs: Blobs,
    scope: Scope,
    run: WorkflowRun,
    task: RunTask,
    result: NodeResult,
    lineage: Lineage,
    tombstones: frozenset[str] = frozenset(),
) -> Outputs:
    """Put every payload and draw up the documents that will refer to them.

    Raises:
        ForbiddenError: A version has an episode that was forgotten (kind `episode-forgotten`).
    """
    probes = {asset_id: store_probe(blobs, probe) for asset_id, probe in result.probes.items()}
    out = Outputs(probes=probes, tombstones=tombstones)
    if result.dataset is not None:
        _dataset(mongo, blobs, scope, run, task, result.dataset, out)
    for output in result.outputs:
        out.artifacts.append(_artifact(blobs, scope, task, output, lineage))
    return out


def write_outputs(mongo: Mongo, scope: Scope, outputs: Outputs, task: RunTask, session: Session) -> None:
    """Insert the documents and claim their blobs, in the transaction that settles the task.

    Raises:
        ForbiddenError: An episode of its recordings was forgotten meanwhile (kind `episode-forgotten`).
    """
    refuse_new(mongo, scope, session, outputs.tombstones, lambda: _recordings(mongo, scope, task, session))
    artifacts: Documents[Artifact] = Documents(mongo, scope, Artifact)
    artifacts.insert(*outputs.artifacts, session=session)
    for artifact in outputs.artifacts:
        _own(mongo, scope, session, artifact.storage_ref, "artifacts", "storageRef", artifact.id)
    for asset_id, probe in outputs.probes.items():
        add_probe_report(mongo, scope, session, asset_id, probe)
    if outputs.dataset is not None and outputs.version is not None and not outputs.unchanged:
        _write_version(mongo, scope, session, outputs, task)
    if outputs.beside is not None:
        outputs.beside(session, task)


def _recordings(mongo: Mongo, scope: Scope, task: RunTask, session: Session) -> set[str]:
    assets: Documents[Asset] = Documents(mongo, scope, Asset)
    found = assets.find({"_id": {"$in": task.asset_ids}}, limit=0, session=session)
    return {asset.storage_ref.sha256 for asset in found}


def add_probe_report(
    mongo: Mongo, scope: Scope, session: Session, asset_id: str, probe: Mapping[str, Any]
) -> AssetProbeReport:
    """Append the next probe report of an asset and note its formats on the asset.

    Args:
        mongo: The open database.
        scope: Where the asset is.
        session: The transaction this belongs to.
        asset_id: Which asset.
        probe: What :func:`~emboflow_dagster.runtime.probe_report.store_probe` gave.
    """
    assets: Documents[Asset] = Documents(mongo, scope, Asset)
    reports: Documents[AssetProbeReport] = Documents(mongo, scope, AssetProbeReport)
    asset = assets.get(asset_id, session=session)
    last = reports.find({"assetId": asset.id}, sort=[("reportVersion", -1)], limit=1, session=session)
    now = utc_now()
    report = AssetProbeReport.from_mongo(
        {
            **probe,
            "_id": new_id("prb"),
            "assetId": asset.id,
            "reportVersion": last[0].report_version + 1 if last else 1,
            "createdAt": now,
        }
    )
    reports.insert(report, session=session)
    whole = report.raw_report_ref
    if whole is not None:
        _own(mongo, scope, session, whole, "asset_probe_reports", "rawReport", report.id)
    formats = [c.format for c in report.detected_format_candidates if c.format != "unknown"][:32]
    assets.change(
        asset.id,
        {"status": AssetStatus.READY.value, "detectedFormats": formats, "updatedAt": now},
        session=session,
    )
    return report


def _artifact(blobs: Blobs, scope: Scope, task: RunTask, output: NodeOutput, lineage: Lineage) -> Artifact:
    payload, content_type, summary = output.payload, output.content_type, dict(output.summary)
    with blobs.writing():  # from the first file on to the listing that names it
        if isinstance(payload, Path) and payload.is_dir():
            entries = put_folder(blobs, payload)
            payload, content_type = write_listing(entries), LISTING_TYPE
            summary |= {"fileCount": len(entries), "totalBytes": sum(e.size for e in entries)}
        blob = blobs.put(
            payload,
            type="artifact",
            content_type=content_type,
            custom_metadata={"artifactType": output.type, "nodeId": task.node_id},
            owner=("artifacts", "storageRef"),
        )
    if output.title or task.artifact_title:
        summary["title"] = output.title or task.artifact_title
    return Artifact.checked(
        id=new_id("art"),
        workspace_id=scope.workspace_id,
        project_id=scope.project_id,
        type=output.type,
        producer_type=ProducerType.RUN_TASK,
        producer_id=task.id,
        storage_ref=blobs.ref(blob),
        previewable=output.previewable,
        summary=summary or None,
        lineage=lineage,
        created_by=scope.actor,
        created_at=utc_now(),
    )


def content_digest(manifest: Mapping[str, Any]) -> str:
    """What makes two manifests the same dataset content: everything but id, tag and producer."""
    body = {k: v for k, v in manifest.items() if k not in ("datasetId", "versionTag", "producer")}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _dataset(
    mongo: Mongo,
    blobs: Blobs,
    scope: Scope,
    run: WorkflowRun,
    task: RunTask,
    draft: DatasetDraft,
    out: Outputs,
) -> None:
    datasets: Documents[Dataset] = Documents(mongo, scope, Dataset)
    versions: Documents[DatasetVersion] = Documents(mongo, scope, DatasetVersion)
    now = utc_now()
    found = datasets.find_one({"name": draft.name})
    latest = versions.get(found.latest_version_id) if found and found.latest_version_id else None
    manifest = json.loads((draft.package / "manifest.json").read_bytes())
    refuse_version(mongo, scope, draft.package, manifest)
    digest = content_digest(manifest)
    if found and latest and (latest.summary or {}).get("contentDigest") == digest:
        out.dataset, out.version, out.unchanged = found, latest, True
        return
    out.new_dataset = found is None
    out.dataset = found or Dataset.checked(
        id=new_id("ds"),
        workspace_id=scope.workspace_id,
        project_id=scope.project_id,
        name=draft.name,
        type=draft.type,
        status=DatasetStatus.DRAFT,
        created_by=scope.actor,
        created_at=now,
        updated_at=now,
    )
    tag = draft.tag or next_tag(versions, out.dataset.id)
    with blobs.writing():  # from the first file on to the manifest that names it
        put_files(blobs, (draft.package / OBJECTS).iterdir())
        body = {**manifest, "datasetId": out.dataset.id, "versionTag": tag}
        blob = blobs.put(
            json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n",
            type="dataset_snapshot",
            content_type=MANIFEST_TYPE,
            custom_metadata={"dataset": draft.name, "versionTag": tag},
            owner=("dataset_versions", "manifestRef"),
        )
    out.version = DatasetVersion.checked(
        id=new_id("dsv"),
        dataset_id=out.dataset.id,
        workspace_id=scope.workspace_id,
        project_id=scope.project_id,
        source_asset_id=draft.source_asset_id,
        parent_version_id=latest.id if latest else None,
        version_tag=tag,
        canonical_schema_version=draft.canonical_schema_version,
        manifest_ref=blobs.ref(blob),
        stats=draft.stats,
        summary={**draft.summary, "contentDigest": digest, "workflowRunId": run.id, "nodeId": task.node_id},
        created_by=scope.actor,
        created_at=now,
    )


def next_tag(versions: Documents[DatasetVersion], dataset_id: str) -> str:
    """The tag of a version that nobody gave one: ``v`` and its number."""
    number = versions.count({"datasetId": dataset_id}) + 1
    while versions.find_one({"datasetId": dataset_id, "versionTag": f"v{number}"}) is not None:
        number += 1  # somebody chose that tag
    return f"v{number}"


def dataset_moved(mongo: Mongo, scope: Scope, outputs: Outputs) -> bool:
    """Whether the dataset has another newest version than the one that ``outputs`` were drawn up on."""
    if outputs.dataset is None or outputs.version is None:
        return False
    datasets: Documents[Dataset] = Documents(mongo, scope, Dataset)
    found = datasets.find_one({"name": outputs.dataset.name})
    return found is not None and found.latest_version_id != outputs.version.parent_version_id


def _write_version(mongo: Mongo, scope: Scope, session: Session, outputs: Outputs, task: RunTask) -> None:
    datasets: Documents[Dataset] = Documents(mongo, scope, Dataset)
    versions: Documents[DatasetVersion] = Documents(mongo, scope, DatasetVersion)
    dataset, version = outputs.dataset, outputs.version
    if dataset is None or version is None:
        return
    if outputs.new_dataset:
        datasets.insert(dataset, session=session)
    elif datasets.get(dataset.id, session=session).latest_version_id != version.parent_version_id:
        raise AlreadyExistsError(
            f"dataset {dataset.name}: another version came while {task.node_id} ran; nothing was written",
            hint="run the node again: it will build on the newer version",
        )
    versions.insert(version, session=session)
    datasets.change(
        dataset.id,
        {"latestVersionId": version.id, "status": DatasetStatus.ACTIVE.value, "updatedAt": utc_now()},
        session=session,
    )
    _own(mongo, scope, session, version.manifest_ref, "dataset_versions", "manifestRef", version.id)
    audit.record(
        mongo,
        scope,
        session,
        "dataset.commit",
        "dataset_versions",
        version.id,
        after={"dataset": dataset.name, "versionTag": version.version_tag},
    )


def _own(
    mongo: Mongo, scope: Scope, session: Session, ref: Any, record: str, field_name: str, record_id: str
) -> None:
    objects.own(
        mongo,
        scope,
        session,
        object_id=ref.object_id,
        version=ref.version,
        record=record,
        field=field_name,
        record_id=record_id,
    )


def main_digest(outputs: Outputs, asset_ids: list[str]) -> str:
    """The data version of a task: sha256 of its manifest, else of its first artifact, else of its assets."""
    if outputs.version is not None:
        return outputs.version.manifest_ref.sha256
    if outputs.artifacts:
        return outputs.artifacts[0].storage_ref.sha256
    return hashlib.sha256("\n".join(asset_ids).encode()).hexdigest()
