"""Every read of the handle uses an index: the server's own profiler saw no collection scan."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flows import SMALL

# Small for ever, or read whole on purpose.
ALLOWED = {"workspaces", "users"}


@pytest.fixture
def profiled(database: Mongo) -> Iterator[Mongo]:
    """The database with every operation recorded."""
    database.db.command("profile", 2)
    yield database
    database.db.command("profile", 0)
    database.db.drop_collection("system.profile")


def scans(database: Mongo) -> list[str]:
    """Collections that were scanned whole, with what was asked."""
    rows = database["system.profile"].find({"planSummary": {"$regex": "COLLSCAN"}})
    found = [(row["ns"].split(".", 1)[1], str(row.get("command", {}).get("filter"))[:200]) for row in rows]
    return [f"{name}: {asked}" for name, asked in found if name in COLLECTIONS and name not in ALLOWED]


def test_no_read_scans_a_collection(ef: EmboFlow, profiled: Mongo, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file", name="rows")
    ef.assets.probe("rows")
    ef.workflows.publish(SMALL)
    run = ef.workflows.run("small", assets=["rows"])
    ef.runs.queued()
    ef.runs.active()
    ef.runs.work(run.id)
    task = ef.tasks.get(run.id, "count")

    ef.assets.list(type="raw_file", status="ready")
    ef.assets.reports(asset.id)
    ef.workflows.list()
    ef.workflows.versions("small")
    ef.runs.list(workflow="small", status="success")
    ef.runs.list()
    ef.runs.show(run.id)
    ef.runs.last_success(run.workflow_definition_id, "count")
    ef.artifacts.list(producer_type="run_task", producer_id=task.id)
    ef.artifacts.list()
    ef.datasets.list()
    ef.audit.list(action="run.create")
    ef.blobs.history(ef.artifacts.list()[0].storage_ref.object_id or "")
    ef.blobs.list_objects(workflow_id=run.id)
    ef.blobs.list_objects(type="artifact")
    ef.blobs.object_report()
    ef.blobs.update_object_metadata(ef.blobs.save_or_update_object(b"x"), tags=["t"])
    ef.ticking.look(ef.schedules.add("small", on_asset="type=raw_file"))
    ef.ticking.tick(
        ef.schedules.add("small", cron="0 3 * * *", assets=["type=raw_file,since=last-run"]), utc_now()
    )
    ef.schedules.list()
    ef.catalog()

    assert scans(profiled) == []


def test_a_page_of_history_reads_no_more_than_it_shows(
    ef: EmboFlow, profiled: Mongo, asset_file: Path
) -> None:
    asset = ef.assets.register(asset_file, type="raw_file", name="rows")
    ef.workflows.publish(SMALL)
    run = ef.runs.work(ef.workflows.run("small", assets=["rows"]).id)
    made = {"assets": asset.id, "workflow_runs": run.id, "artifacts": ef.artifacts.list()[0].id}
    for collection, document_id in made.items():
        row = ef.mongo[collection].find_one({"_id": document_id})
        assert row is not None
        ef.mongo[collection].insert_many(
            [
                {
                    **row,
                    "_id": f"{document_id}-{i}",
                    "createdAt": row["createdAt"] - timedelta(seconds=i // 2),
                }
                for i in range(300)
            ]
        )
    profiled.db.command("profile", 0)
    profiled.db.drop_collection("system.profile")
    profiled.db.command("profile", 2)

    pages: dict[str, list[str]] = {
        "assets": [row.id for row in ef.assets.list(limit=20)],
        "workflow_runs": [row.id for row in ef.runs.list(limit=20)],
        "artifacts": [row.id for row in ef.artifacts.list(limit=20)],
    }

    for collection, page in pages.items():
        [asked] = profiled["system.profile"].find({"ns": f"{profiled.db.name}.{collection}", "op": "query"})
        assert (len(page), asked["docsExamined"], asked.get("hasSortStage", False)) == (20, 20, False)
        assert page == [
            row["_id"] for row in ef.mongo[collection].find().sort({"createdAt": -1, "_id": -1}).limit(20)
        ]


def test_the_profiler_does_see_a_scan(ef: EmboFlow, profiled: Mongo, asset_file: Path) -> None:
    ef.assets.register(asset_file, type="raw_file")
    list(ef.mongo["assets"].find({"sizeBytes": 12}))

    assert len(scans(profiled)) == 1
