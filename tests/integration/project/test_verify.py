"""`verify` finds each damage where it is and blames nothing else; it never fails itself."""

import contextlib
import shutil
from collections.abc import Iterator
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
from tests.integration.project.damages import DAMAGES
from tests.integration.project.whole_project import NAMES, Raw, Whole, build

GONE = "gone_1"


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
