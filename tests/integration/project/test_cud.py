"""`ef.cud`: all of a request or nothing of it, every violation at once, one owner a version."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboflow_dagster import BlobRef, Create, Deactivate, Update
from emboflow_dagster.errors import (
    AlreadyExistsError,
    ConflictError,
    EmboflowError,
    ErrorKind,
    ImmutableError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    TransitionError,
)
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.collections import COLLECTIONS, META
from emboflow_dagster.model.records import RECORDS, VERBS
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flows import settle

LONG = os.environ.get("EMBOFLOW_FAULTS") == "all"
ASSET = {"type": "raw_file"}


def snapshot(ef: EmboFlow) -> dict[str, list[Any]]:
    """Everything that is stored."""
    return {name: list(ef.mongo[name].find().sort("_id", 1)) for name in (*COLLECTIONS, META)}


def ref(blob: BlobObject) -> BlobRef:
    return BlobRef(object_id=blob.object_id, version=blob.version)


def asset(ef: EmboFlow, name: str, content: bytes | None = None) -> Create:
    blob = ef.blobs.put(content or name.encode())
    return Create("assets", {**ASSET, "displayName": name, "storageRef": ref(blob)})


def annotated(ef: EmboFlow, payload: Any = None) -> tuple[Any, Any, Any]:
    """An asset, a task on it, an annotation with that payload."""
    [found] = ef.cud([asset(ef, "rows")])
    task, annotation = ef.cud(
        [
            Create(
                "annotation_tasks",
                {"targetType": "asset", "targetRef": {"id": found.id}, "labelType": "segment"},
                ref="#task",
            ),
            Create(
                "annotations",
                {"annotationTaskId": "#task", "targetRef": {"id": found.id}, "payload": payload or {"n": 1}},
            ),
        ]
    )
    return found, task, annotation


def refused(ef: EmboFlow, *changes: Any) -> EmboflowError:
    """The error of a request that leaves no trace."""
    settle(ef)
    before = snapshot(ef)
    with pytest.raises(EmboflowError) as caught:
        ef.cud(list(changes))

    assert snapshot(ef) == before
    return caught.value


def kinds(error: EmboflowError) -> list[str]:
    return [problem.kind.value for problem in error.problems]


# ------------------------------------------------------------------------------------------- what is written


def test_a_record_and_the_ownership_of_its_blob_appear_together(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"rows", content_type="text/csv", owner=("assets", "storageRef"))
    ef.blobs.put(b"other", object_id=blob.object_id)
    newest = ef.blobs.put(b"newest", object_id=blob.object_id)
    history = list(ef.mongo["object_history"].find())

    [made] = ef.cud([Create("assets", {**ASSET, "displayName": "rows", "storageRef": ref(newest)})])

    head = ef.blobs.get(blob.object_id)
    assert (head.owner_record, head.owner_record_field) == ("assets", "storageRef")
    assert head.owner_record_id == made.id
    assert (head.version, head.prev_version) == (2, 1)
    assert list(ef.mongo["object_history"].find()) == history
    assert ef.assets.get("rows").storage_ref == ef.blobs.ref(head)
    assert (ef.assets.get("rows").size_bytes, ef.assets.get("rows").created_by) == (6, "ada")
    assert [row.action for row in ef.audit.list(resource_id=made.id)] == ["asset.register"]
    assert ef.verify().problems == []


def test_a_blob_that_is_meant_for_nobody_is_adopted(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"label", home="in_object")

    annotation = annotated(ef, {"objectId": blob.object_id, "version": 0})[2]

    head = ef.blobs.get(blob.object_id)
    assert (head.owner_record, head.owner_record_field) == ("annotations", "payload")
    assert head.owner_record_id == annotation.id
    assert annotation.payload == {"ref": {"objectId": blob.object_id, "version": 0}}
    assert ef.blobs.read_owned("annotations", annotation.id, "payload") == b"label"
    assert ef.verify().problems == []


def test_a_payload_that_fits_its_document_is_stored_there(ef: EmboFlow) -> None:
    annotation = annotated(ef, {"boxes": [[0, 1]]})[2]

    assert annotation.payload == {"boxes": [[0, 1]]}
    assert ef.verify().problems == []


def test_names_of_new_records_become_ids_in_reference_fields_alone(ef: EmboFlow) -> None:
    first = asset(ef, "#1")
    made = ef.cud(
        [
            Create(
                "annotations",
                {"annotationTaskId": "#2", "targetRef": {"id": "#1"}, "payload": {"said": "#1"}},
            ),
            Create(
                "annotation_tasks",
                {
                    "targetType": "asset",
                    "targetRef": {"id": "#1", "selector": {"k": "#2"}},
                    "labelType": "segment",
                    "assigneeIds": ["ada"],
                },
                ref="#2",
            ),
            Create("assets", first.fields, ref="#1"),
        ]
    )

    annotation, task, found = (row.to_mongo() for row in made)
    assert annotation["annotationTaskId"] == task["_id"]
    assert annotation["targetRef"]["id"] == task["targetRef"]["id"] == found["_id"]
    assert annotation["payload"] == {"said": "#1"}
    assert task["targetRef"]["selector"] == {"k": "#2"}
    assert found["displayName"] == "#1"
    assert ef.verify().problems == []


def test_an_update_changes_what_it_names_and_lets_the_replaced_blob_go(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    old, new = made.storage_ref.object_id, ef.blobs.put(b"longer rows", content_type="text/csv")

    [changed] = ef.cud([Update("assets", made.id, {"displayName": "lines", "storageRef": ref(new)})])

    assert (changed.display_name, changed.size_bytes) == ("lines", 11)
    assert changed.created_at == made.created_at
    assert changed.updated_at >= made.updated_at
    assert changed == ef.assets.get("lines")
    assert ef.blobs.get(new.object_id).owner_record_id == made.id
    head = ef.blobs.get(old)
    assert (head.owner_record, head.owner_record_field, head.owner_record_id) == (None, None, None)
    note = ef.mongo[META].find_one({"_id": f"{Mark.RELEASE}:{old}.v0"})
    assert note is not None
    assert (note["record"], note["field"], note["recordId"]) == ("assets", "storageRef", made.id)
    assert (note["releasedBy"], note["workspaceId"]) == ("ada", ef.scope.workspace_id)
    assert note["releasedAt"].tzinfo is not None
    assert [row.action for row in ef.audit.list(resource_id=made.id)] == ["asset.update", "asset.register"]
    assert ef.verify().problems == []


def test_what_was_let_go_is_claimed_again_by_another_record(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    old = made.storage_ref
    ef.cud([Update("assets", made.id, {"storageRef": ref(ef.blobs.put(b"x"))})])

    [other] = ef.cud(
        [
            Create(
                "artifacts",
                {
                    "type": "report",
                    "producerId": "ada",
                    "storageRef": BlobRef(object_id=old.object_id, version=0),
                },
            )
        ]
    )

    assert ef.blobs.get(old.object_id).owner_record_id == other.id
    assert ef.mongo[META].find_one({"_id": {"$regex": "^release:"}}) is None
    assert ef.verify().problems == []


def test_an_unchanged_blob_is_not_looked_at_again(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    same = BlobRef(object_id=made.storage_ref.object_id, version=0)
    ef.blobs.put(b"next", object_id=same.object_id)  # not the newest any more

    [changed] = ef.cud([Update("assets", made.id, {"displayName": "lines", "storageRef": same})])

    assert changed.storage_ref == made.storage_ref
    assert ef.verify().problems == []


def test_the_next_version_of_its_own_blob_can_be_claimed(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    following = ef.blobs.put(b"next", object_id=made.storage_ref.object_id)
    history = list(ef.mongo["object_history"].find())

    ef.cud([Update("assets", made.id, {"storageRef": ref(following)})])

    assert ef.blobs.get(following.object_id).owner_record_id == made.id
    assert ef.mongo[META].find_one({"_id": f"release:{following.object_id}.v0"}) is not None
    assert list(ef.mongo["object_history"].find()) == history
    assert ef.verify().problems == []


@pytest.mark.parametrize(
    ("collection", "fields", "status"),
    [
        ("assets", None, "archived"),
        ("datasets", {"name": "lift", "type": "canonical"}, "archived"),
        (
            "custom_nodes",
            {
                "definitionId": "custom:check",
                "name": "Check",
                "slug": "check",
                "category": "inspect",
                "contract": {},
                "source": {"kind": "docker_image", "image": "a"},
            },
            "archived",
        ),
        (
            "storage_connections",
            {"type": "object_storage", "provider": "s3", "name": "S", "config": {"region": "x"}},
            "disabled",
        ),
    ],
)
def test_put_out_of_use_a_record_has_the_status_that_means_it(
    ef: EmboFlow, collection: str, fields: Any, status: str
) -> None:
    change = Create(collection, fields) if fields else asset(ef, "rows")
    [made] = ef.cud([change])

    [ended] = ef.cud([Deactivate(collection, made.id)])

    assert ended.status == status == RECORDS[collection].inactive  # type: ignore[attr-defined]
    actions = [row.action for row in ef.audit.list(resource_id=made.id)]
    assert actions == [RECORDS[collection].deactivate, RECORDS[collection].create]
    assert kinds(refused(ef, Deactivate(collection, made.id))) == ["state"]
    assert ef.verify().problems == []


def test_labels_and_their_tasks_end_and_come_back(ef: EmboFlow) -> None:
    _, task, annotation = annotated(ef)

    ended = ef.cud([Deactivate("annotations", annotation.id), Deactivate("annotation_tasks", task.id)])
    assert [row.to_json()["status"] for row in ended] == ["rejected", "cancelled"]
    assert kinds(refused(ef, Update("annotations", annotation.id, {"payload": {}}))) == ["state"]
    [back] = ef.cud([Update("annotations", annotation.id, {"status": "submitted", "payload": {"n": 2}})])

    assert (back.to_json()["status"], back.to_json()["payload"]) == ("submitted", {"n": 2})


def test_a_record_does_not_come_back_without_its_blob(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"label")
    annotation = annotated(ef, ref(blob))[2]
    ef.cud([Deactivate("annotations", annotation.id)])
    ef.blobs.release(blob.object_id)
    [other] = ef.cud([Create("artifacts", {"type": "report", "producerId": "ada", "storageRef": ref(blob)})])
    assert ef.verify().problems == []

    error = refused(ef, Update("annotations", annotation.id, {"status": "draft"}))

    assert kinds(error) == [
        "blob-owner-not-empty",
        "blob-owner-mismatch",
        "blob-owner-field-mismatch",
    ]
    assert other.id in error.message
    [back] = ef.cud([Update("annotations", annotation.id, {"status": "draft", "payload": {}})])
    assert back.to_json()["status"] == "draft"
    assert ef.verify().problems == []


def test_a_record_comes_back_with_the_blob_that_nobody_took(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"label")
    annotation = annotated(ef, ref(blob))[2]
    ef.cud([Deactivate("annotations", annotation.id)])
    ef.blobs.release(blob.object_id)

    ef.cud([Update("annotations", annotation.id, {"status": "draft"})])

    assert ef.blobs.get(blob.object_id).owner_record_id == annotation.id
    assert ef.mongo[META].find_one({"_id": {"$regex": "^release:"}}) is None
    assert ef.verify().problems == []


def test_versions_of_datasets_move_one_way(ef: EmboFlow) -> None:
    from tests.integration.project.samples_of_documents import documents

    ef.cud([Create("datasets", {"name": "lift", "type": "canonical"})])
    version = documents()["dataset_versions"].model_copy(
        update={
            "workspace_id": ef.scope.workspace_id,
            "project_id": ef.scope.project_id,
            "dataset_id": ef.datasets.get("lift").id,
        }
    )
    ef.datasets._versions.insert(version)  # type: ignore[arg-type]

    assert kinds(refused(ef, Deactivate("dataset_versions", "dsv_1"))) == ["state"]
    assert kinds(refused(ef, Update("dataset_versions", "dsv_1", {"stats": {}}))) == ["immutable-field"]
    ef.cud([Update("dataset_versions", "dsv_1", {"status": "deprecated"})])
    assert kinds(refused(ef, Update("dataset_versions", "dsv_1", {"status": "available"}))) == ["state"]
    [ended] = ef.cud([Deactivate("dataset_versions", "dsv_1")])

    assert ended.to_json()["status"] == "withdrawn"
    assert [row.action for row in ef.audit.list(resource_id="dsv_1")] == [
        "dataset.withdraw",
        "dataset.deprecate",
    ]
    ef.mongo["dataset_versions"].delete_many({})


# ------------------------------------------------------------------------- the blobs of a request, one by one


def test_a_blob_that_is_not_there(ef: EmboFlow, opener: Any) -> None:
    foreign = opener("rival").blobs.put(b"theirs")
    for wanted in (BlobRef(object_id="nothing", version=0), ref(foreign)):
        error = refused(ef, Create("assets", {**ASSET, "displayName": "a", "storageRef": wanted}))

        assert isinstance(error, NotFoundError)
        assert kinds(error) == ["ref-not-found"]
        text = f"blob {wanted.object_id} version 0 mentioned in CUD assets.storageRef: there is none"
        assert text in error.message
    known = ef.blobs.put(b"mine")
    later = BlobRef(object_id=known.object_id, version=3)
    assert kinds(refused(ef, Create("artifacts", {"storageRef": later})))[0] == "ref-not-found"


def test_a_blob_whose_upload_is_not_complete(ef: EmboFlow) -> None:
    blob = ef.blobs.announce(owner=("assets", "storageRef"), name="rows.csv")

    error = refused(ef, Create("assets", {**ASSET, "displayName": "a", "storageRef": ref(blob)}))

    assert isinstance(error, IntegrityError)
    assert kinds(error) == ["blob-incomplete"]


def test_a_blob_that_has_an_owner(ef: EmboFlow) -> None:
    [owner] = ef.cud([asset(ef, "rows")])
    taken = BlobRef(object_id=owner.storage_ref.object_id, version=0)

    error = refused(ef, Create("assets", {**ASSET, "displayName": "b", "storageRef": taken}))

    assert isinstance(error, ConflictError)
    assert error.kind is ErrorKind.BLOB_OWNER_NOT_EMPTY
    assert error.message == (
        f"0.assets.storageRef: [blob-owner-not-empty] blob {taken.object_id} version 0 mentioned in CUD "
        f"assets.storageRef is used already in assets.{owner.id}.storageRef"
    )


def test_a_blob_that_is_meant_for_another_collection(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"x", owner=("artifacts", "storageRef"))

    error = refused(ef, Create("assets", {**ASSET, "displayName": "b", "storageRef": ref(blob)}))

    assert isinstance(error, InvalidInputError)
    assert kinds(error) == ["blob-owner-mismatch"]
    assert (
        f"[blob-owner-mismatch] blob {blob.object_id} version 0 is intended for artifacts.storageRef "
        in str(error)
    )
    assert "whereas it is being used in assets.storageRef" in str(error)


def test_a_blob_that_is_meant_for_another_field(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"x", owner=("assets", "previewRef"))

    error = refused(ef, Create("assets", {**ASSET, "displayName": "b", "storageRef": ref(blob)}))

    assert kinds(error) == ["blob-owner-field-mismatch"]
    assert f"blob {blob.object_id} version 0 is intended for assets.previewRef" in error.message


def test_a_blob_that_two_records_name(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"x")
    fields = {**ASSET, "storageRef": ref(blob)}

    error = refused(
        ef,
        Create("assets", {**fields, "displayName": "a"}),
        Create("assets", {**fields, "displayName": "b"}),
    )

    assert kinds(error) == ["blob-duplicate-reference"]
    assert error.problems[0].path == "1.assets.storageRef"
    assert "is used already in CUD assets.ast_" in error.message


def test_a_version_that_is_in_the_history(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"x")
    ef.blobs.put(b"y", object_id=blob.object_id)

    error = refused(ef, Create("assets", {**ASSET, "displayName": "a", "storageRef": ref(blob)}))

    assert isinstance(error, ConflictError)
    assert kinds(error) == ["blob-not-claimable"]


def test_a_value_that_is_no_reference_and_a_field_that_takes_none(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"x")
    small = ef.blobs.put(b"y", home="in_object")
    folder = ef.blobs.put(b"{}", content_type=LISTING_TYPE)
    whole = ef.blobs.ref(blob).to_mongo()

    error = refused(
        ef,
        Create("assets", {**ASSET, "displayName": "a", "storageRef": whole}),
        Create("assets", {**ASSET, "displayName": "a", "storageRef": ref(small)}),
        Create("assets", {**ASSET, "displayName": "a", "storageRef": ref(folder)}),
        Create("datasets", {"name": "lift", "type": "canonical", "summary": ref(blob)}),
    )

    assert kinds(error) == ["blob-field"] * 4
    assert "owner field datasets.summary is not of blob type" in error.message


def test_every_violation_of_a_request_is_told_in_its_order(ef: EmboFlow) -> None:
    [owner] = ef.cud([asset(ef, "rows")])
    taken = BlobRef(object_id=owner.storage_ref.object_id, version=0)
    meant = ef.blobs.put(b"m", owner=("annotations", "payload"))
    missing = BlobRef(object_id="nothing", version=0)

    error = refused(
        ef,
        Create("assets", {"displayName": "", "type": "no_type", "storageRef": missing}),
        Create("artifacts", {"type": "report", "producerId": "ada", "storageRef": taken}),
        Create("artifacts", {"type": "report", "producerId": "ada", "storageRef": ref(meant)}),
        Create("artifacts", {"type": "report", "producerId": "ada", "storageRef": ref(meant)}),
        Update("assets", "ast_none", {"displayName": "x"}),
        Update("assets", owner.id, {"createdAt": 1, "nonsense": 2}),
        Create("workflow_runs", {}),
        Create("annotation_tasks", {"targetType": "asset", "targetRef": {"id": "ast_9"}, "labelType": "x"}),
    )

    assert isinstance(error, NotFoundError)
    assert [(p.path.split(".")[0], p.kind.value) for p in error.problems] == [
        ("0", "ref-not-found"),
        ("0", "invalid-input"),
        ("1", "blob-owner-not-empty"),
        ("1", "blob-owner-mismatch"),
        ("2", "blob-owner-mismatch"),
        ("2", "blob-owner-field-mismatch"),
        ("3", "blob-owner-mismatch"),
        ("3", "blob-owner-field-mismatch"),
        ("3", "blob-duplicate-reference"),
        ("4", "not-found"),
        ("5", "key-reserved"),
        ("5", "invalid-input"),
        ("6", "forbidden"),
        ("7", "ref-not-found"),
    ]


# ----------------------------------------------------------------------------------------- the request itself


def test_with_the_last_change_invalid_there_is_no_trace_of_the_others(ef: EmboFlow) -> None:
    one, two = ef.cud([asset(ef, "one"), asset(ef, "two")])
    new = ef.blobs.put(b"replacement")

    error = refused(
        ef,
        asset(ef, "three"),
        asset(ef, "four"),
        Create("datasets", {"name": "lift", "type": "canonical"}),
        Update("assets", one.id, {"storageRef": ref(new)}),
        Update("assets", two.id, {"displayName": "zwei"}),
        Deactivate("assets", "ast_none"),
    )

    assert isinstance(error, NotFoundError)
    assert kinds(error) == ["not-found"]
    assert "document assets with ID ast_none not found" in error.message


def test_with_a_unique_key_taken_there_is_no_trace_of_the_others(ef: EmboFlow) -> None:
    ef.datasets.create("lift", type="canonical")

    error = refused(ef, asset(ef, "three"), Create("datasets", {"name": "lift", "type": "canonical"}))

    assert isinstance(error, AlreadyExistsError)


def test_what_has_a_verb_of_its_own_is_not_written_freely(ef: EmboFlow) -> None:
    error = refused(ef, *(Create(name, {}) for name in VERBS))

    assert kinds(error) == ["forbidden"] * len(VERBS)
    assert [problem.message for problem in error.problems] == [f"{n} {why}" for n, why in VERBS.items()]


def test_every_collection_is_written_one_way_or_the_other() -> None:
    assert set(RECORDS) | set(VERBS) == set(COLLECTIONS)
    assert {name for name, row in RECORDS.items() if row.create is None} == set(RECORDS) & set(VERBS)
    assert all(row.inactive for row in RECORDS.values() if row.deactivate)


def test_what_never_changes_is_not_changed(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"x")
    [made] = ef.cud([Create("artifacts", {"type": "report", "producerId": "ada", "storageRef": ref(blob)})])

    assert isinstance(refused(ef, Update("artifacts", made.id, {"type": "y"})), ImmutableError)
    assert isinstance(refused(ef, Deactivate("artifacts", made.id)), ImmutableError)


def test_a_record_of_another_project_is_not_there(ef: EmboFlow, opener: Any) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    for other in (opener("acme", "other"), opener("rival")):
        for change in (Update("assets", made.id, {"displayName": "x"}), Deactivate("assets", made.id)):
            assert kinds(refused(other, change)) == ["not-found"]
        task = {"targetType": "asset", "targetRef": {"id": made.id}, "labelType": "segment"}
        assert kinds(refused(other, Create("annotation_tasks", task))) == ["ref-not-found"]
    opener("rival", actor="user:eve")
    task = {
        "targetType": "asset",
        "targetRef": {"id": made.id},
        "labelType": "segment",
        "assigneeIds": ["eve"],
    }
    assert kinds(refused(ef, Create("annotation_tasks", task))) == ["ref-not-found"]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ([], "invalid-input"),
        ([Deactivate("assets", f"ast_{n}") for n in range(101)], "invalid-input"),
        ("assets", "invalid-input"),
        ([{"create": "assets"}], "invalid-input"),
        ([Create("nonsense", {})], "invalid-input"),
        ([Create("assets", 7)], "not-a-dict"),  # type: ignore[arg-type]
        ([Create("datasets", {"name": "a", "type": "b"}, ref="1")], "invalid-input"),
        ([Update("assets", 7, {})], "id-type"),  # type: ignore[arg-type]
        ([Create("datasets", {"name": "a", "type": "b", "summary": {"$where": 1}})], "key-operator"),
        ([Create("annotation_tasks", {"targetRef": {"id": "#7"}, "targetType": "asset"})], "ref-not-found"),
        ([Create("assets", {"sourceType": "registered_path"})], "invalid-input"),
        (
            [Create("storage_connections", {"type": "object_storage", "config": {"password": "x"}})],
            "invalid-input",
        ),
    ],
)
def test_a_request_that_is_none(ef: EmboFlow, changes: Any, kind: str) -> None:
    before = snapshot(ef)
    with pytest.raises(EmboflowError) as caught:
        ef.cud(changes)

    assert caught.value.kind.value == kind
    assert snapshot(ef) == before


def test_a_record_is_changed_once_in_a_request(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])

    error = refused(ef, Update("assets", made.id, {"displayName": "a"}), Deactivate("assets", made.id))

    assert kinds(error) == ["duplicate"]


def test_a_hundred_changes_are_one_transaction_and_a_hundred_audit_rows(ef: EmboFlow) -> None:
    made = ef.cud([asset(ef, f"rows {n}") for n in range(100)])

    assert [row.to_json()["displayName"] for row in made] == [f"rows {n}" for n in range(100)]
    assert ef.mongo["audit_logs"].count_documents({"action": "asset.register"}) == 100
    assert ef.verify().problems == []


def test_16_writers_claim_100_blobs_and_each_has_one_owner(ef: EmboFlow) -> None:
    blobs = [ef.blobs.put(f"{n}".encode()) for n in range(100)]

    def writer(number: int) -> Counter[str]:
        came: Counter[str] = Counter()
        for place in range(100):
            blob = blobs[(place * 7 + number * 13) % 100]
            fields = {**ASSET, "displayName": f"{number} {place}", "storageRef": ref(blob)}
            try:
                ef.cud([Create("assets", fields)])
                came["won"] += 1
            except ConflictError as error:
                came[error.kind.value] += 1
        return came

    with ThreadPoolExecutor(16) as pool:
        came = sum(pool.map(writer, range(16)), Counter[str]())

    assert came == {"won": 100, "blob-owner-not-empty": 1500}
    owners = {blob.owner_record_id for blob in (ef.blobs.get(b.object_id) for b in blobs)}
    assert owners == {found.id for found in ef.assets.list(limit=0)}
    assert len(owners) == 100
    assert ef.verify().problems == []


def test_a_state_is_a_transition_error(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    ef.cud([Deactivate("assets", made.id)])

    assert isinstance(refused(ef, Deactivate("assets", made.id)), TransitionError)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from(
        ["#1", "asset", "report", "manual", "ada", "\ud800", "$x", BlobRef(object_id="b", version=0)]
    )
    | st.builds(dict, objectId=st.text(max_size=3), version=st.integers(-1, 2)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*RECORDS, "objects", "nothing"])
FIELDS = st.dictionaries(
    st.sampled_from(
        "type displayName display_name storageRef sourceType payload targetRef targetType annotationTaskId "
        "labelType lineage producerType producerId name status summary config contract source _id".split()
    ),
    JUNK,
    max_size=5,
)
CHANGES = st.lists(
    st.builds(Create, NAMES, FIELDS | JUNK, st.none() | st.just("#1") | JUNK)
    | st.builds(Update, NAMES | JUNK, JUNK, FIELDS)
    | st.builds(Deactivate, NAMES, JUNK | st.just("ast_1")),
    min_size=1,
    max_size=4,
)


def test_whatever_is_asked_for_is_refused_as_one_of_our_errors(ef: EmboFlow) -> None:
    before = snapshot(ef)

    @settings(max_examples=600 if LONG else 80, deadline=None, database=None, derandomize=True)
    @given(changes=CHANGES)
    def ask(changes: list[Any]) -> None:
        with pytest.raises(EmboflowError) as caught:
            ef.cud(changes)
        assert caught.value.message
        assert "\n" not in caught.value.message

    ask()
    assert snapshot(ef) == before
