"""One valid document of every collection."""

from typing import Any

from pydantic import BaseModel

from emboflow_dagster.model.annotation import Annotation, AnnotationTask
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.asset import Asset, AssetProbeReport
from emboflow_dagster.model.audit import AuditLog
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.model.plugin import CustomNode, Plugin, StorageConnection
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion
from emboflow_dagster.model.workspace import Membership, Project, User, Workspace

SHA = "ab" * 32
REF = {
    "bucket": "local",
    "key": f"sha256/ab/{SHA[2:]}",
    "uri": f"file:///store/sha256/ab/{SHA[2:]}",
    "checksum": f"sha256:{SHA}",
    "contentType": "application/json",
    "size": 3,
    "objectId": "obj_1",
    "version": 0,
}
NOW = utc_now()
TIMES = {"created_at": NOW, "updated_at": NOW}
IN = {"workspace_id": "ws_1", "project_id": "prj_1"}
NODE = {"id": "src", "type": "source"}
SNAPSHOT = {
    "workflowSlug": "small",
    "versionNumber": 1,
    "executionDigest": SHA,
    "nodeTypes": {"src": "source"},
    "edges": [{"from": "src", "to": "src"}],
    "runtimeGraph": {"nodeConfigs": {"src": {}}, "defaults": {}, "schedule": None},
}


def documents() -> dict[str, BaseModel]:
    """Collection name to one valid document with every optional field set."""
    blob: dict[str, Any] = {
        "object_id": "obj_1",
        "version": 1,
        "prev_version": 0,
        "type": "artifact",
        "task_id": "t",
        "workflow_id": "w",
        "custom_metadata": {"a": 1},
        "tags": ["x"],
        **TIMES,
        "created_by": "ada",
        "updated_by": "ada",
        "object_size_bytes": 3,
        "data_sha256": SHA,
        "serializer": "json",
        "storage_ref": REF,
        "owner_record": "artifacts",
        "owner_record_field": "storageRef",
        "owner_record_id": "art_1",
        **IN,
    }
    rows: list[BaseModel] = [
        User.checked(
            id="ada",
            email="ada@x",
            display_name="Ada",
            avatar_url="https://x/a.png",
            last_login_at=NOW,
            **TIMES,
        ),
        Workspace.checked(
            id="ws_1", type="team", name="Acme", slug="acme", owner_id="ada", settings={"a": 1}, **TIMES
        ),
        Membership.checked(id="mbr_1", user_id="ada", role="owner", **IN, **TIMES),
        Project.checked(id="prj_1", workspace_id="ws_1", name="P", slug="p", created_by="ada", **TIMES),
        Asset.checked(
            id="ast_1",
            type="rosbag",
            source_type="upload",
            display_name="a",
            storage_ref=REF,
            size_bytes=3,
            file_count=1,
            top_level_paths=["a"],
            detected_formats=["mcap"],
            summary={"a": 1},
            created_by="ada",
            **IN,
            **TIMES,
        ),
        AssetProbeReport.checked(
            id="prb_1",
            asset_id="ast_1",
            report_version=1,
            created_at=NOW,
            structure_summary={"topics": {"/a.b": 1}},
            detected_format_candidates=[{"format": "mcap", "confidence": 0.9, "evidence": ["magic"]}],
            warnings=[{"code": "x", "message": "y", "path": "z"}],
            recommended_next_nodes=["filter"],
            raw_report={"a": 1},
        ),
        Dataset.checked(
            id="ds_1",
            name="lift",
            type="canonical",
            latest_version_id="dsv_1",
            summary={"a": 1},
            created_by="ada",
            **IN,
            **TIMES,
        ),
        DatasetVersion.checked(
            id="dsv_1",
            dataset_id="ds_1",
            source_asset_id="ast_1",
            parent_version_id="dsv_0",
            version_tag="v1",
            canonical_schema_version="emboflow-canonical/1",
            manifest_ref=REF,
            stats={"episodes": 1, "durationSec": 0.5},
            summary={"a": 1},
            created_by="ada",
            created_at=NOW,
            **IN,
        ),
        CustomNode.checked(
            id="cn_1",
            definition_id="custom:check",
            name="Check",
            slug="check",
            category="inspect",
            contract={"inputs": {}, "outputs": {"report": "json"}, "configSchema": {}, "category": "inspect"},
            source={"kind": "docker_image", "image": "a@sha256:" + SHA},
            created_by="ada",
            **IN,
            **TIMES,
        ),
        WorkflowDefinition.checked(
            id="wf_1",
            name="Small",
            slug="small",
            status="published",
            latest_version_number=1,
            published_version_number=1,
            created_by="ada",
            **IN,
            **TIMES,
        ),
        WorkflowDefinitionVersion.checked(
            id="wfv_1",
            workflow_definition_id="wf_1",
            version_number=1,
            visual_graph={"a": 1},
            plugin_refs=[{"pluginId": "plg_1", "version": "1"}],
            logic_graph={"nodes": [NODE], "edges": []},
            runtime_graph={"nodeConfigs": {"src": {}}},
            summary={"a": 1},
            created_by="ada",
            created_at=NOW,
            **IN,
        ),
        WorkflowRun.checked(
            id="run_1",
            workflow_definition_id="wf_1",
            workflow_version_id="wfv_1",
            asset_ids=["ast_1"],
            triggered_by="user:ada",
            runtime_snapshot=SNAPSHOT,
            summary={},
            started_at=NOW,
            finished_at=NOW,
            duration_ms=0,
            retry_of_run_id="run_0",
            dagster_run_ids=["d"],
            selected_node_ids=["src"],
            scheduled_for=NOW,
            **IN,
            **TIMES,
        ),
        RunTask.checked(
            id="tsk_1",
            workflow_run_id="run_1",
            workflow_version_id="wfv_1",
            node_id="src",
            node_type="source",
            node_definition_id="source@1",
            executor_config={"a": 1},
            code_hook_spec={"entrypoint": "f", "source": "x"},
            artifact_type="preview_bundle",
            artifact_title="A",
            status="success",
            asset_ids=["ast_1"],
            upstream_node_ids=["up"],
            output_artifact_ids=["art_1"],
            log_ref=REF,
            cache_key=f"sha256:{SHA}",
            cache_hit=False,
            log_lines=["a"],
            stdout_lines=["a"],
            stderr_lines=["a"],
            error_message="x",
            summary={"executor": "python", "outcome": "done", "assetCount": 1},
            last_result_preview={"a": 1},
            started_at=NOW,
            finished_at=NOW,
            duration_ms=1,
            lease_owner="w",
            heartbeat_at=NOW,
            **TIMES,
        ),
        Artifact.checked(
            id="art_1",
            type="preview_bundle",
            producer_type="run_task",
            producer_id="tsk_1",
            storage_ref=REF,
            summary={"a": 1},
            lineage={
                "inputArtifactIds": ["art_0"],
                "assetIds": ["ast_1"],
                "workflowRunId": "run_1",
                "nodeId": "src",
                "attempt": 1,
            },
            created_by="ada",
            created_at=NOW,
            **IN,
        ),
        AnnotationTask.checked(
            id="ant_1",
            target_type="asset",
            target_ref={"id": "ast_1", "selector": {"a": 1}},
            label_type="segment",
            assignee_ids=["ada"],
            reviewer_ids=["ada"],
            created_by="ada",
            **IN,
            **TIMES,
        ),
        Annotation.checked(
            id="ann_1",
            annotation_task_id="ant_1",
            target_ref={"id": "ast_1"},
            payload={"a": 1},
            created_by="ada",
            **IN,
            **TIMES,
        ),
        Plugin.checked(
            id="plg_1",
            workspace_id="ws_1",
            scope="workspace",
            name="P",
            current_version="1",
            permissions=["read"],
            metadata={"a": 1},
            versions=[{"version": "1", "digest": f"sha256:{SHA}", "createdAt": NOW}],
            **TIMES,
        ),
        StorageConnection.checked(
            id="stc_1",
            workspace_id="ws_1",
            type="object_storage",
            provider="s3",
            name="S",
            config={"region": "x"},
            secret_ref="env:EMBOFLOW_SECRET_X",  # noqa: S106 - the name of one, which is the point
            created_by="ada",
            **TIMES,
        ),
        AuditLog.checked(
            id="aud_1",
            actor_id="ada",
            resource_type="assets",
            resource_id="ast_1",
            action="asset.register",
            before_summary={"a": 1},
            after_summary={"a": 1},
            metadata={"sequence": 1},
            created_at=NOW,
            **IN,
        ),
        BlobObject.checked(id="obj_1", **blob),
    ]
    found: dict[str, BaseModel] = {row.collection: row for row in rows}  # type: ignore[attr-defined]
    found["object_history"] = BlobObject.checked(
        id="obj_1.v0", **{**blob, "version": 0, "prev_version": None}
    )
    return found
