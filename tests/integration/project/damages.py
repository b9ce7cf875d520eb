"""Damages of a whole project: each makes one thing wrong and says exactly what must be found."""

from collections.abc import Callable

from tests.integration.project.whole_project import Found, Raw, Whole

Damage = Callable[[Whole], Found]
DAMAGES: dict[str, Damage] = {}


def damage(function: Damage) -> Damage:
    """One thing that is made wrong, and exactly what must be found."""
    DAMAGES[function.__name__.replace("_", " ")] = function
    return function


def first_run(whole: Whole) -> Raw:
    return whole.one("workflow_runs", _id={"$ne": "run_again"})


@damage
def a_run_summary_that_counts_wrong(whole: Whole) -> Found:
    run = first_run(whole)
    whole.set("workflow_runs", run["_id"], summary__artifactCount=99)
    return {("run-state", "workflow_runs", run["_id"], "summary")}


@damage
def a_run_that_says_failed(whole: Whole) -> Found:
    run = first_run(whole)
    whole.set("workflow_runs", run["_id"], status="failed")
    return {("run-state", "workflow_runs", run["_id"], "status")}


@damage
def a_run_that_says_cancelled_with_a_queued_task(whole: Whole) -> Found:
    run = first_run(whole)
    task = whole.one("run_tasks", workflowRunId=run["_id"], nodeId="publish")
    whole.set("workflow_runs", run["_id"], status="cancelled")
    whole.set("run_tasks", task["_id"], status="queued")
    return {
        ("run-state", "workflow_runs", run["_id"], "status"),
        ("run-state", "workflow_runs", run["_id"], "summary"),
    }


@damage
def a_run_that_never_ended(whole: Whole) -> Found:
    run = first_run(whole)
    whole.set("workflow_runs", run["_id"], finishedAt=None)
    return {("run-state", "workflow_runs", run["_id"], "finishedAt")}


@damage
def a_run_that_started_before_its_tasks(whole: Whole) -> Found:
    run = first_run(whole)
    whole.set("workflow_runs", run["_id"], startedAt=run["createdAt"], durationMs=None)
    return {("run-state", "workflow_runs", run["_id"], "startedAt")}


@damage
def a_duration_that_is_none(whole: Whole) -> Found:
    run = first_run(whole)
    whole.set("workflow_runs", run["_id"], durationMs=run["durationMs"] + 1)
    return {("run-state", "workflow_runs", run["_id"], "durationMs")}


@damage
def a_task_that_says_failed(whole: Whole) -> Found:
    run = first_run(whole)
    task = whole.one("run_tasks", workflowRunId=run["_id"], nodeId="publish")
    whole.set("run_tasks", task["_id"], status="failed")
    return {
        ("run-state", "workflow_runs", run["_id"], "status"),
        ("run-state", "workflow_runs", run["_id"], "summary"),
    }


@damage
def a_failed_task_above_a_successful_one(whole: Whole) -> Found:
    run = first_run(whole)
    task = whole.one("run_tasks", workflowRunId=run["_id"], nodeId="episodes")
    below = [whole.one("run_tasks", workflowRunId=run["_id"], nodeId=n)["_id"] for n in ("again", "publish")]
    whole.set("run_tasks", task["_id"], status="failed")
    return {
        ("run-state", "workflow_runs", run["_id"], "status"),
        ("run-state", "workflow_runs", run["_id"], "summary"),
        ("task-state", "run_tasks", task["_id"], "outputArtifactIds"),
        *(("task-state", "run_tasks", id_, "upstreamNodeIds") for id_ in below),
    }


@damage
def a_finished_task_without_an_end(whole: Whole) -> Found:
    task = whole.one("run_tasks", nodeId="demos")
    whole.set("run_tasks", task["_id"], finishedAt=None)
    return {("task-state", "run_tasks", task["_id"], "finishedAt")}


@damage
def a_task_that_is_gone(whole: Whole) -> Found:
    task = whole.one("run_tasks", nodeId="less", workflowRunId="run_again")
    whole.drop("run_tasks", task["_id"])
    return {
        ("run-state", "workflow_runs", "run_again", "selectedNodeIds"),
        ("run-state", "workflow_runs", "run_again", "summary"),
    }


@damage
def assets_of_a_task_in_another_order(whole: Whole) -> Found:
    task = next(r for r in whole.rows("run_tasks") if len(r["assetIds"]) > 1)
    whole.set("run_tasks", task["_id"], assetIds=task["assetIds"][::-1])
    return {("task-state", "run_tasks", task["_id"], "assetIds")}


@damage
def an_output_that_the_task_does_not_name(whole: Whole) -> Found:
    task = next(r for r in whole.rows("run_tasks") if r["outputArtifactIds"])
    whole.set("run_tasks", task["_id"], outputArtifactIds=[])
    return {
        ("task-state", "run_tasks", task["_id"], "outputArtifactIds"),
        ("run-state", "workflow_runs", task["workflowRunId"], "summary"),
    }


@damage
def an_edited_audit_row(whole: Whole) -> Found:
    row = whole.rows("audit_logs")[3]
    whole.set("audit_logs", row["_id"], actorId="eve")
    return {("audit-chain", "audit_logs", row["_id"], "metadata.chain")}


@damage
def an_edited_chain_value(whole: Whole) -> Found:
    row = whole.rows("audit_logs")[3]
    whole.set("audit_logs", row["_id"], metadata__chain="0" * 64)
    return {("audit-chain", "audit_logs", row["_id"], "metadata.chain")}


@damage
def a_deleted_audit_row(whole: Whole) -> Found:
    rows = sorted(whole.rows("audit_logs"), key=lambda r: r["metadata"]["sequence"])
    whole.drop("audit_logs", rows[4]["_id"])
    return {("audit-gap", "audit_logs", rows[5]["_id"], "metadata.sequence")}


@damage
def the_last_audit_row_deleted(whole: Whole) -> Found:
    rows = sorted(whole.rows("audit_logs"), key=lambda r: r["metadata"]["sequence"])
    whole.drop("audit_logs", rows[-1]["_id"])
    return {("audit-gap", "audit_logs", rows[0]["workspaceId"], "metadata.sequence")}


@damage
def an_audit_row_written_by_hand(whole: Whole) -> Found:
    rows = sorted(whole.rows("audit_logs"), key=lambda r: r["metadata"]["sequence"])
    metadata = {"sequence": rows[-1]["metadata"]["sequence"] + 1, "chain": "0" * 64}
    whole.add("audit_logs", {**rows[-1], "_id": "aud_forged", "metadata": metadata})
    return {
        ("audit-chain", "audit_logs", "aud_forged", "metadata.chain"),
        ("audit-gap", "audit_logs", rows[0]["workspaceId"], "metadata.sequence"),
    }


@damage
def a_workflow_version_that_is_gone(whole: Whole) -> Found:
    head = whole.one("workflow_definitions")
    whole.drop("workflow_definition_versions", "wfv_plugged")
    return {("version-gap", "workflow_definitions", head["_id"], "latestVersionNumber")}


@damage
def a_workflow_head_behind_its_versions(whole: Whole) -> Found:
    head = whole.one("workflow_definitions")
    whole.set("workflow_definitions", head["_id"], latestVersionNumber=2)
    return {("version-gap", "workflow_definitions", head["_id"], "latestVersionNumber")}


@damage
def a_dataset_head_at_an_older_version(whole: Whole) -> Found:
    head, oldest = whole.one("datasets"), whole.one("dataset_versions", parentVersionId=None)
    whole.set("datasets", head["_id"], latestVersionId=oldest["_id"])
    return {("ref-mismatch", "datasets", head["_id"], "latestVersionId")}


@damage
def a_dataset_head_without_its_version(whole: Whole) -> Found:
    head = whole.one("datasets")
    whole.set("datasets", head["_id"], latestVersionId=None)
    return {("ref-mismatch", "datasets", head["_id"], "latestVersionId")}


@damage
def a_parent_of_another_dataset(whole: Whole) -> Found:
    version = whole.one("dataset_versions", parentVersionId={"$ne": None})
    first = whole.one("dataset_versions", parentVersionId=None)
    dataset = whole.one("datasets")
    whole.add("datasets", {**dataset, "_id": "ds_other", "name": "other", "latestVersionId": first["_id"]})
    whole.set("dataset_versions", first["_id"], datasetId="ds_other")
    return {("ref-mismatch", "dataset_versions", version["_id"], "parentVersionId")}


@damage
def parents_in_a_circle(whole: Whole) -> Found:
    head, first = whole.one("datasets"), whole.one("dataset_versions", parentVersionId=None)
    whole.set("dataset_versions", first["_id"], parentVersionId=head["latestVersionId"])
    return {("ref-mismatch", "datasets", head["_id"], "latestVersionId")}


@damage
def a_flipped_byte(whole: Whole) -> Found:
    path = whole.payload(whole.one("objects", _id="model"))
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    return {("hash-mismatch", "objects", "model", "storage_ref")}


@damage
def a_truncated_payload_of_an_older_version(whole: Whole) -> Found:
    row = whole.one("object_history", version=0)
    path = whole.payload(row)
    path.write_bytes(path.read_bytes()[:-1])
    return {("size-mismatch", "object_history", row["_id"], "storage_ref")}


@damage
def a_deleted_payload(whole: Whole) -> Found:
    whole.payload(whole.one("objects", _id="model")).unlink()
    return {("payload-missing", "objects", "model", "storage_ref")}


@damage
def a_deleted_file_of_a_folder(whole: Whole) -> Found:
    listing = whole.one("assets", displayName="logs")["storageRef"]["objectId"]
    path = whole.ef.store.path_of("sha256/ca/978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")
    assert path is not None
    path.unlink()
    return {("payload-missing", "objects", listing, "storage_ref")}


@damage
def a_damaged_file_of_a_dataset_version(whole: Whole) -> Found:
    version = whole.ef.datasets.version("lift")
    file = whole.ef.datasets.manifest(version)["files"][0]
    blob = whole.one("objects", _id=version.manifest_ref.object_id)
    key = f"sha256/{file['sha256'][:2]}/{file['sha256'][2:]}"
    path = whole.ef.store.path_of(key)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(b"x" * file["size"])
    packages = {
        row["storageRef"]["objectId"]
        for row in whole.rows("artifacts")
        if file["sha256"].encode() in whole.ef.blobs.read(row["storageRef"]["objectId"])
    }
    return {("hash-mismatch", "objects", id_, "storage_ref") for id_ in {blob["_id"], *packages}}


@damage
def a_recorded_hash_that_is_another(whole: Whole) -> Found:
    whole.set("objects", "model", data_sha256="0" * 64)
    return {("hash-recorded-wrong", "objects", "model", "data_sha256")}


@damage
def a_reference_of_a_blob_that_has_another_hash(whole: Whole) -> Found:
    whole.set("objects", "model", storage_ref__checksum=f"sha256:{'0' * 64}")
    return {("hash-recorded-wrong", "objects", "model", "storage_ref.checksum")}


@damage
def a_reference_of_a_blob_that_has_another_size(whole: Whole) -> Found:
    whole.set("objects", "model", storage_ref__size=1, object_size_bytes=1)
    return {("ref-mismatch", "objects", "model", "storage_ref.size")}


@damage
def a_recorded_size_that_is_another(whole: Whole) -> Found:
    whole.set("objects", "model", object_size_bytes=1)
    return {("ref-mismatch", "objects", "model", "object_size_bytes")}


@damage
def a_version_without_a_payload(whole: Whole) -> Found:
    whole.set("objects", "model", storage_ref=None)
    return {("payload-missing", "objects", "model", "data")}


@damage
def a_gap_in_the_versions_of_a_blob(whole: Whole) -> Found:
    row = whole.one("object_history", version=1)
    whole.drop("object_history", row["_id"])
    return {("version-gap", "objects", "model", "version")}


@damage
def a_blob_head_that_skips_a_version(whole: Whole) -> Found:
    whole.set("objects", "model", version=3)
    return {
        ("version-gap", "objects", "model", "version"),
        ("version-gap", "objects", "model", "prev_version"),
    }


@damage
def a_predecessor_that_is_none(whole: Whole) -> Found:
    row = whole.one("object_history", version=1)
    whole.set("object_history", row["_id"], prev_version=None)
    return {("version-gap", "object_history", row["_id"], "prev_version")}


@damage
def an_owner_that_refers_to_something_else(whole: Whole) -> Found:
    artifact = whole.one("artifacts")
    blob = artifact["storageRef"]["objectId"]
    whole.set("objects", blob, owner_record_id=whole.rows("artifacts")[1]["_id"])
    return {
        ("owner-mismatch", "objects", blob, "owner_record_id"),
        ("owner-mismatch", "artifacts", artifact["_id"], "storageRef"),
    }


@damage
def a_record_whose_blob_nobody_owns(whole: Whole) -> Found:
    version = whole.one("dataset_versions")
    whole.set("objects", version["manifestRef"]["objectId"], owner_record_id=None)
    return {("owner-mismatch", "dataset_versions", version["_id"], "manifestRef")}


@damage
def a_reference_to_a_version_that_is_not_there(whole: Whole) -> Found:
    artifact = whole.one("artifacts")
    whole.set("artifacts", artifact["_id"], storageRef__version=7)
    return {
        ("ref-not-found", "artifacts", artifact["_id"], "storageRef.version"),
        ("owner-mismatch", "objects", artifact["storageRef"]["objectId"], "owner_record_id"),
    }


@damage
def a_reference_with_another_checksum(whole: Whole) -> Found:
    artifact = whole.one("artifacts")
    whole.set("artifacts", artifact["_id"], storageRef__checksum=f"sha256:{'0' * 64}")
    return {("ref-mismatch", "artifacts", artifact["_id"], "storageRef.checksum")}


@damage
def a_file_registered_in_place_that_changed(whole: Whole) -> Found:
    (whole.folder / "src" / "kept.csv").write_text("other")
    return {("hash-mismatch", "assets", whole.one("assets", displayName="kept-file")["_id"], "storageRef")}


@damage
def a_file_of_a_folder_registered_in_place_that_is_gone(whole: Whole) -> Found:
    (whole.folder / "src" / "kept" / "c.txt").unlink()
    return {
        ("payload-missing", "assets", whole.one("assets", displayName="kept-folder")["_id"], "storageRef")
    }


@damage
def a_field_of_a_wrong_type(whole: Whole) -> Found:
    asset = whole.one("assets")
    whole.set("assets", asset["_id"], sizeBytes="many")
    return {("document-invalid", "assets", asset["_id"], "assets.sizeBytes")}


@damage
def a_free_form_dict_with_an_operator(whole: Whole) -> Found:
    row = whole.one("storage_connections")
    whole.set("storage_connections", row["_id"], config={"a": float("nan")})
    return {("document-invalid", "storage_connections", row["_id"], "storage_connections.config.a")}


@damage
def an_owner_who_is_no_member_any_more(whole: Whole) -> Found:
    space = whole.one("workspaces")
    member = whole.one("memberships", workspaceId=space["_id"], userId=space["ownerId"])
    whole.drop("memberships", member["_id"])
    return {("membership-missing", "workspaces", space["_id"], "ownerId")}


@damage
def a_probe_report_with_a_later_one_that_is_gone(whole: Whole) -> Found:
    last = whole.one("asset_probe_reports", reportVersion=2)
    first = whole.one("asset_probe_reports", assetId=last["assetId"], reportVersion=1)
    whole.drop("asset_probe_reports", first["_id"])
    return {("version-gap", "assets", last["assetId"], "reportVersion")}
