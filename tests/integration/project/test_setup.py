"""The database's shape: made, repaired, and enforced by the server itself."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import Binary
from pymongo.errors import WriteError

from emboflow_dagster.errors import ConfigurationError, EmboflowError, ErrorKind
from emboflow_dagster.model.collections import CACHE, COLLECTIONS, META
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.mongo.setup import is_current, missing, set_up
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.samples_of_documents import documents

SEED = {
    "users",
    "workspaces",
    "memberships",
    "projects",
    "assets",
    "asset_probe_reports",
    "datasets",
    "custom_nodes",
    "dataset_versions",
    "workflow_definitions",
    "workflow_definition_versions",
    "workflow_runs",
    "run_tasks",
    "artifacts",
    "annotation_tasks",
    "annotations",
    "plugins",
    "storage_connections",
    "audit_logs",
    "objects",
    "object_history",
}
COMPOUND = {
    "memberships": ["workspaceId", "userId"],
    "projects": ["workspaceId", "slug"],
    "assets": ["projectId", "type", "createdAt"],
    "datasets": ["projectId", "name"],
    "dataset_versions": ["datasetId", "createdAt"],
    "workflow_definitions": ["projectId", "slug"],
    "workflow_definition_versions": ["workflowDefinitionId", "versionNumber"],
    "run_tasks": ["workflowRunId", "nodeId"],
    "artifacts": ["producerType", "producerId"],
    "annotation_tasks": ["projectId", "status"],
    "audit_logs": ["workspaceId", "createdAt"],
}
# A value that no field of these documents may have.
WRONG: tuple[Any, ...] = (Binary(b"\x00"), {"$numberDecimal": 1}, -3.5, [[]])
FIELDS = [(name, field) for name, row in COLLECTIONS.items() for field in sorted(row.fields - {"_id"})]


def test_the_collections_are_the_seeds(database: Mongo) -> None:
    assert set(COLLECTIONS) == SEED
    # The entries of the cache are there once a task has left one.
    assert set(database.db.list_collection_names()) - {CACHE} == SEED | {META}


def test_every_listed_index_is_there_with_its_keys_in_order(database: Mongo) -> None:
    for name, row in COLLECTIONS.items():
        keys = [[k for k, _ in i["key"]] for i in database[name].index_information().values()]
        for field in {"workspaceId", "projectId", "status", "createdAt"} & row.fields:
            assert [field] in keys, f"{name}.{field}"
        if name in COMPOUND:
            assert COMPOUND[name] in keys, name
        for fields in row.unique:
            assert any(
                i.get("unique") and [k for k, _ in i["key"]] == list(fields)
                for i in database[name].index_information().values()
            )


def test_setting_up_again_changes_nothing_and_repairs_what_drifted(database: Mongo) -> None:
    again = set_up(database)
    assert (again.created, again.repaired, again.conflicts) == ([], [], [])

    database["assets"].drop_index("projectId_type_createdAt")
    database["projects"].drop_index("workspaceId_slug_unique")
    database["projects"].create_index([("workspaceId", 1), ("slug", 1)], name="mine")
    database.db.command("collMod", "datasets", validator={})
    assert set(missing(database)) == {
        "assets.projectId_type_createdAt",
        "projects.workspaceId_slug_unique",
        "datasets validator",
    }
    repaired = set_up(database)

    assert sorted(repaired.repaired) == [
        "assets.projectId_type_createdAt",
        "datasets validator",
        "projects.workspaceId_slug_unique",
    ]
    assert missing(database) == []


def test_an_index_that_cannot_be_made_is_reported(ef: EmboFlow) -> None:
    ef.mongo["users"].drop_index("email_unique")
    user = ef.mongo["users"].find_one({"_id": "ada"})
    assert user is not None
    ef.mongo["users"].insert_one({**user, "_id": "eve"})
    try:
        report = set_up(ef.mongo)
        assert len(report.conflicts) == 1
        assert report.conflicts[0].startswith("users.email_unique: ")
    finally:
        ef.mongo["users"].delete_one({"_id": "eve"})
        set_up(ef.mongo)
    assert missing(ef.mongo) == []


def test_a_newer_database_is_refused(database: Mongo) -> None:
    database[META].update_one({"_id": "schema"}, {"$set": {"schemaVersion": 99}})
    try:
        with pytest.raises(ConfigurationError) as caught:
            is_current(database)
        with pytest.raises(ConfigurationError):
            set_up(database)
    finally:
        database[META].update_one({"_id": "schema"}, {"$set": {"schemaVersion": 1}})
    assert caught.value.kind == ErrorKind.SCHEMA_VERSION


def test_a_valid_document_of_every_collection_is_taken_and_read_back_equal(database: Mongo) -> None:
    for name, document in documents().items():
        raw = document.to_mongo()  # type: ignore[attr-defined]
        database[name].insert_one(raw)
        stored = database[name].find_one({"_id": raw["_id"]})
        database[name].delete_one({"_id": raw["_id"]})
        assert type(document).from_mongo(stored) == document  # type: ignore[attr-defined]


def test_large_numbers_come_back_as_they_were(database: Mongo) -> None:
    asset = documents()["assets"].model_copy(update={"size_bytes": 2**40})
    database["assets"].insert_one(asset.to_mongo())  # type: ignore[attr-defined]
    stored = database["assets"].find_one({"_id": "ast_1"})
    database["assets"].delete_one({"_id": "ast_1"})
    assert type(asset).from_mongo(stored).size_bytes == 2**40  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[f"{n}.{f}" for n, f in FIELDS])
def test_the_server_refuses_a_wrong_type_in_every_field(database: Mongo, name: str, field: str) -> None:
    raw = documents()[name].to_mongo()  # type: ignore[attr-defined]
    assert field in raw
    refused = 0
    for value in WRONG:
        try:
            database[name].insert_one({**raw, "_id": "probe", field: value})
            database[name].delete_one({"_id": "probe"})
        except WriteError:
            refused += 1
        with pytest.raises(EmboflowError, match=field):
            type(documents()[name]).from_mongo(
                {**raw, field: value if value != {"$numberDecimal": 1} else object()}
            )  # type: ignore[attr-defined]
    assert refused >= 3, f"{name}.{field}: only {refused} of {len(WRONG)} wrong values were refused"


def test_unknown_fields_are_refused_on_write_and_left_aside_on_read(ef: EmboFlow, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file")
    with pytest.raises(WriteError):
        ef.mongo["assets"].update_one({"_id": asset.id}, {"$set": {"futureField": 1}})
    ef.mongo.db.command(
        "update",
        "assets",
        updates=[{"q": {"_id": asset.id}, "u": {"$set": {"futureField": 1}}}],
        bypassDocumentValidation=True,  # as if a newer release had widened the validator
    )

    assert ef.assets.get(asset.id) == asset
    raw = ef.mongo["assets"].find_one({"_id": asset.id})
    assert raw is not None
    assert raw["futureField"] == 1


def test_a_trailing_newline_does_not_slip_through_a_pattern(database: Mongo) -> None:
    raw = documents()["projects"].to_mongo()  # type: ignore[attr-defined]

    with pytest.raises(WriteError):
        database["projects"].insert_one({**raw, "_id": "prj_2", "slug": "foo\n"})


def test_large_documents_and_bytes_are_refused_by_the_server(database: Mongo) -> None:
    raw = documents()["storage_connections"].to_mongo()  # type: ignore[attr-defined]
    with pytest.raises(WriteError):
        database["storage_connections"].insert_one({**raw, "config": {"a": "x" * (1 << 20)}})
    blob = documents()["objects"].to_mongo()  # type: ignore[attr-defined]
    database["objects"].insert_one({**blob, "_id": "fits", "object_id": "fits", "data": b"x" * (256 << 10)})
    with pytest.raises(WriteError):
        database["objects"].insert_one(
            {**blob, "_id": "over", "object_id": "over", "data": b"x" * ((256 << 10) + 1)}
        )
    database["objects"].delete_one({"_id": "fits"})


def test_dates_come_back_aware_in_utc(ef: EmboFlow) -> None:
    created = ef.assets.documents.mongo["projects"].find_one({"_id": ef.scope.project_id})
    assert created is not None
    assert created["createdAt"].tzinfo is UTC
    assert isinstance(created["createdAt"], datetime)
