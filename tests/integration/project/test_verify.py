"""`verify` finds each damage where it is and blames nothing else; it never fails itself."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import WriteError

from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import COLLECTIONS, META, Reference
from emboflow_dagster.model.storage import LISTING_TYPE, MANIFEST_TYPE
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.mongo.setup import set_up
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from emboflow_dagster.project.verify.documents import _NESTED
from tests.integration.project.whole_project import build

Raw = dict[str, Any]
Found = set[tuple[str, str, str, str | None]]
NAMES = [*COLLECTIONS, META]
GONE = "gone_1"


@dataclass
class Whole:
    """The project, everything that is stored of it, and ways to damage that behind the library's back."""

    ef: EmboFlow
    folder: Path
    before: dict[str, list[Raw]]

    def rows(self, name: str) -> list[Raw]:
        return list(self.ef.mongo[name].find().sort("_id", 1))

    def one(self, name: str, **where: Any) -> Raw:
        row = self.ef.mongo[name].find_one(
            {k.replace("__", "."): v for k, v in where.items()}, sort=[("_id", 1)]
        )
        assert row is not None, (name, where)
        return row

    def set(self, name: str, id_: Any, **fields: Any) -> None:
        changes = {k.replace("__", "."): v for k, v in fields.items()}
        done = self.ef.mongo[name].update_one(
            {"_id": id_}, {"$set": changes}, bypass_document_validation=True
        )
        assert done.modified_count == 1

    def drop(self, name: str, id_: Any) -> None:
        assert self.ef.mongo[name].delete_one({"_id": id_}).deleted_count == 1

    def add(self, name: str, row: Raw) -> None:
        self.ef.mongo[name].insert_one(row, bypass_document_validation=True)

    def payload(self, blob: Raw) -> Path:
        path = self.ef.store.path_of(blob["storage_ref"]["key"])
        assert path is not None
        path.chmod(0o644)
        return path

    def found(self) -> Found:
        report = self.ef.verify(all=True)
        assert report.ok == (not report.problems)
        assert json.loads(json.dumps(report.to_json()))["ok"] == report.ok
        return {(p.code, p.collection, p.id, p.field) for p in report.problems}

    def restore(self) -> None:
        for name in NAMES:
            if self.rows(name) != self.before[name]:
                self.ef.mongo[name].delete_many({})
                if self.before[name]:
                    self.ef.mongo[name].insert_many(self.before[name], bypass_document_validation=True)


@pytest.fixture(scope="module")
def built(database: Mongo, mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    settings = Settings.from_env(
        home=folder / "home",
        mongo_uri=mongo_uri,
        database=database.db.name,
        workspace="acme",
        project="pick-place",
        actor="user:ada",
    )
    with EmboFlow.open(settings) as ef:
        try:
            build(ef, folder / "src")
            yield Whole(ef, folder, {name: list(database[name].find().sort("_id", 1)) for name in NAMES})
        finally:
            for name in COLLECTIONS:
                database[name].delete_many({})
            database[META].delete_many({"_id": {"$ne": "schema"}})


@pytest.fixture
def whole(built: Whole) -> Iterator[Whole]:
    """The project as it was built; what a test damages is whole again for the next."""
    for name in ("home/objects", "src"):
        shutil.copytree(built.folder / name, built.folder / "kept" / name)
    yield built
    for name in ("home/objects", "src"):
        shutil.rmtree(built.folder / name)
        shutil.move(built.folder / "kept" / name, built.folder / name)
    built.restore()


def test_a_project_with_everything_in_it_is_clean(whole: Whole) -> None:
    for everything in (False, True):
        report = whole.ef.verify(all=everything)
        assert report.problems == []
        assert set(report.counts) >= set(COLLECTIONS) | {"payloads", "bytes"}
        assert report.counts["run_tasks"] == 27
        assert report.counts["dataset_versions"] == 2
    assert all(whole.before[name] for name in COLLECTIONS)


# ------------------------------------------------------------------------------------------- references

REFERENCES = [
    (name, reference)
    for name, row in COLLECTIONS.items()
    for reference in (*row.references, *_NESTED.get(name, ()))
] + [
    ("artifacts", Reference("producerId", "run_tasks")),
    ("annotation_tasks", Reference("targetRef.id", "assets")),
]


def value_at(row: Any, path: str) -> Any:
    for part in path.split("."):
        row = [item.get(part) for item in row] if isinstance(row, list) else (row or {}).get(part)
    return row


def ids_in(row: Any) -> set[str]:
    if isinstance(row, dict):
        return set().union(*(ids_in(v) for v in row.values()))
    if isinstance(row, list):
        return set().union(*map(ids_in, row))
    return {row} if isinstance(row, str) else set()


@pytest.mark.parametrize(
    ("name", "reference"), REFERENCES, ids=[f"{name}.{reference.field}" for name, reference in REFERENCES]
)
def test_every_reference_without_an_end_is_named(whole: Whole, name: str, reference: Reference) -> None:
    row = next(r for r in whole.rows(name) if value_at(r, reference.field))
    value = value_at(row, reference.field)
    many = isinstance(value, list)
    path = "pluginRefs.0.pluginId" if reference.field == "pluginRefs.pluginId" else reference.field
    damage = [*value, GONE] if many and path == reference.field else GONE
    near = ids_in(row) | {r["_id"] for other in NAMES for r in whole.rows(other) if row["_id"] in ids_in(r)}

    whole.set(name, row["_id"], **{path: damage})
    found = whole.found()

    assert ("ref-not-found", name, row["_id"], reference.field) in found
    for problem in found:
        chained = name == "audit_logs" and problem[:2] == ("audit-gap", "audit_logs")
        assert problem[2] in near or chained, problem


@pytest.mark.parametrize(
    "name", ["assets", "artifacts", "dataset_versions", "workflow_runs", "users", "objects", "plugins"]
)
def test_every_reference_to_a_document_that_was_deleted_is_named(whole: Whole, name: str) -> None:
    row, expected = next((r, e) for r in whole.rows(name) if (e := referring(whole, name, r["_id"])))

    whole.drop(name, row["_id"])
    found = whole.found()

    assert {f[1:] for f in found if f[0] == "ref-not-found"} >= expected


def referring(whole: Whole, target: str, id_: str) -> set[tuple[str, str, str]]:
    """Collection, id and field of what refers to a document."""
    return {
        (name, row["_id"], reference.field)
        for name, reference in REFERENCES
        if reference.target == target
        for row in whole.rows(name)
        if id_ in ids_in([value_at(row, reference.field)]) and row["_id"] != id_
    }


def test_a_reference_into_another_workspace_has_no_end(whole: Whole) -> None:
    asset, run = whole.one("assets"), whole.one("workflow_runs", _id="run_again")
    space = whole.one("workspaces")
    whole.add("workspaces", {**space, "_id": "ws_other", "slug": "other"})
    whole.add("assets", {**asset, "_id": "ast_other", "workspaceId": "ws_other", "displayName": "other"})
    whole.set("workflow_runs", run["_id"], assetIds=[*run["assetIds"], "ast_other"])

    assert ("ref-not-found", "workflow_runs", "run_again", "assetIds") in whole.found()
    report = whole.ef.verify()
    assert {(p.code, p.id, p.field) for p in report.problems} == {("ref-not-found", "run_again", "assetIds")}


# ------------------------------------------------------------------------------------------- invariants

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
    return {("ref-mismatch", "objects", "model", "data_sha256")}


@damage
def a_recorded_size_that_is_another(whole: Whole) -> Found:
    whole.set("objects", "model", object_size_bytes=1)
    return {("ref-mismatch", "objects", "model", "object_size_bytes")}


@damage
def a_version_without_a_payload(whole: Whole) -> Found:
    whole.set("objects", "model", storage_ref=None)
    return {("payload-missing", "objects", "model", "storage_ref")}


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


@pytest.mark.parametrize("name", list(DAMAGES))
def test_exactly_the_damage_is_found(whole: Whole, name: str) -> None:
    expected = DAMAGES[name](whole)
    assert whole.found() == expected


def test_the_damages_are_many() -> None:
    assert len(DAMAGES) >= 20


def test_an_index_a_validator_and_a_collection_that_are_gone(whole: Whole) -> None:
    whole.ef.mongo["assets"].drop_index("projectId_type_createdAt")
    whole.ef.mongo.db.command("collMod", "datasets", validator={})
    whole.ef.mongo["plugins"].drop()
    try:
        found = whole.found()
    finally:
        set_up(whole.ef.mongo)
    assert found == {
        ("index", "assets", "-", "projectId_type_createdAt"),
        ("collection", "datasets", "-", None),
        ("collection", "plugins", "-", None),
        ("ref-not-found", "workflow_definition_versions", "wfv_plugged", "pluginRefs.pluginId"),
    }


# ------------------------------------------------------------------------------------------ never fails


@pytest.mark.parametrize("value", [None, [], {"a": [None]}, "x", -1.5], ids=str)
@pytest.mark.parametrize("turn", range(4))
def test_wrong_values_anywhere_are_findings_and_no_failure(whole: Whole, value: Any, turn: int) -> None:
    """In every document every fourth field is wrong; each wrong document is one finding at least."""
    for name, row in COLLECTIONS.items():
        for stored in whole.rows(name):
            for field in sorted(row.fields - {"_id"})[turn::4]:
                damage_field(whole, name, stored["_id"], {"$set": {field: value}})
    report = whole.ef.verify(all=True)

    assert not report.ok
    assert {p.collection for p in report.problems if p.code == "document-invalid"} >= {
        "assets",
        "artifacts",
        "objects",
    }
    whole.ef.verify()


def damage_field(whole: Whole, name: str, id_: Any, update: Raw) -> None:
    """What a unique or compound index refuses stays as it was."""
    with contextlib.suppress(WriteError):
        whole.ef.mongo[name].update_one({"_id": id_}, update, bypass_document_validation=True)


@pytest.mark.parametrize("turn", range(4))
def test_missing_fields_anywhere_are_findings_and_no_failure(whole: Whole, turn: int) -> None:
    for name, row in COLLECTIONS.items():
        for stored in whole.rows(name):
            for field in sorted(row.fields - {"_id"})[turn::4]:
                damage_field(whole, name, stored["_id"], {"$unset": {field: ""}})
    assert not whole.ef.verify(all=True).ok
    whole.ef.verify()


@pytest.mark.parametrize("content_type", [LISTING_TYPE, MANIFEST_TYPE])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\n", b"[]\n[]", b'{"schema": "emboflow-listing/1"}\n{"path": 1}', b'{"files": 3}']
)
def test_bytes_that_only_claim_to_be_a_listing_are_a_finding(
    whole: Whole, content_type: str, content: bytes
) -> None:
    whole.ef.blobs.put(content, object_id="claims", content_type=content_type)
    try:
        assert {(i, f) for _, c, i, f in whole.found() if c == "objects"} == {("claims", "storage_ref")}
    finally:
        whole.drop("objects", "claims")


@pytest.mark.parametrize(
    "tail", ["x", ["x"], [None], [{}], [{"version": "1"}], [{"version": 1}], {"version": 2}]
)
def test_an_outbox_of_nonsense_is_a_finding(whole: Whole, tail: Any) -> None:
    whole.set("objects", "model", tail=tail)
    assert {i for _, _, i, _ in whole.found()} == {"model"}


def test_a_document_with_a_strange_id_is_a_finding(whole: Whole) -> None:
    whole.add("assets", {**whole.one("assets"), "_id": 7})
    whole.add("users", {"_id": {"a": 1}, "email": utc_now()})
    whole.add(META, {"_id": "audit:ws_gone", "sequence": "many"})

    assert {(c, i) for c, _, i, _ in whole.found()} >= {
        ("document-invalid", "7"),
        ("document-invalid", "{'a': 1}"),
    }
