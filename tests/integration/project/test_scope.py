"""Nothing of one workspace can be read, written, counted or bound through another."""

from pathlib import Path

import pytest

from emboflow_dagster.errors import ForbiddenError, ImmutableError, NotFoundError
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flows import SMALL


def test_two_workspaces_with_equal_names_do_not_meet(opener, asset_file: Path) -> None:
    one, two = opener("acme", "shared"), opener("rival", "shared")
    asset = one.assets.register(asset_file, type="raw_file", name="rows")
    one.assets.probe("rows")
    one.workflows.publish(SMALL)
    run = one.runs.request("small", assets=["rows"])
    one.runs.work(run.id)
    task = one.runs.tasks(run)[0]
    artifact = one.artifacts.list()[0]

    for read in (
        lambda: two.assets.get(asset.id),
        lambda: two.assets.get("rows"),
        lambda: two.assets.reports(asset.id),
        lambda: two.workflows.get("small"),
        lambda: two.runs.get(run.id),
        lambda: two.tasks.get(run.id, task.node_id),
        lambda: two.artifacts.get(artifact.id),
        lambda: two.blobs.get(artifact.storage_ref.object_id or ""),
        lambda: two.runs.settle_lost(run.id, "x"),
        lambda: two.runs.claim(run.id, "d"),
    ):
        with pytest.raises(NotFoundError):
            read()

    assert two.assets.list() == []
    assert two.artifacts.list(producer_type="run_task", producer_id=task.id) == []
    assert [row.resource_type for row in two.audit.list()] == ["projects", "workspaces"]
    two.workflows.publish(SMALL)
    with pytest.raises(NotFoundError):
        two.runs.request("small", assets=[asset.id])


def test_a_sibling_project_is_another_scope(opener, asset_file: Path) -> None:
    one, two = opener("acme", "one"), opener("acme", "two")
    asset = one.assets.register(asset_file, type="raw_file")

    with pytest.raises(NotFoundError):
        two.assets.get(asset.id)


def test_a_document_of_another_scope_is_not_written(opener, asset_file: Path) -> None:
    one, two = opener("acme"), opener("rival")
    asset = one.assets.register(asset_file, type="raw_file")

    with pytest.raises(ForbiddenError, match="outside of this scope"):
        two.assets.documents.insert(asset.model_copy(update={"id": "ast_other"}))
    with pytest.raises(ImmutableError, match="workspaceId"):
        one.assets.documents.change(asset.id, {"workspaceId": two.scope.workspace_id})


def test_opening_again_finds_the_same_workspace_project_and_user(opener) -> None:
    first, again = opener(), opener()

    assert again.scope == first.scope
    assert first.mongo["users"].count_documents({}) == 1
    assert first.mongo["memberships"].count_documents({"role": "owner"}) == 1


def test_an_archived_project_is_refused(ef: EmboFlow, opener) -> None:
    ef.mongo["projects"].update_one({"_id": ef.scope.project_id}, {"$set": {"status": "archived"}})

    with pytest.raises(ForbiddenError, match="archived"):
        opener()
