"""What a step asks of the database, counted in commands: its cost that does not depend on the machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient, monitoring

from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.tenancy import open_scope
from tests.integration.project.test_put_cost import Counting

CLAIM = ["aggregate", "findAndModify", "update", "commitTransaction"]
SETTLE = ["aggregate", "findAndModify", "find", "update", "update", "commitTransaction"]  # was any forgotten?


@pytest.fixture
def counted(ef: EmboFlow, mongo_uri: str) -> Iterator[tuple[EmboFlow, list[str]]]:
    """The project over a connection of its own, and the commands that it sends."""
    listener: monitoring.CommandListener = Counting()
    client: MongoClient = MongoClient(mongo_uri, event_listeners=[listener], retryWrites=True, tz_aware=True)
    mongo = Mongo(client, ef.mongo.db.name, mongo_uri)
    yield EmboFlow(Opened(ef.settings, mongo, ef.store, ef.scope)), listener.names  # type: ignore[attr-defined]
    client.close()


@pytest.fixture
def run_id(ef: EmboFlow, asset_file: Path) -> str:
    """A chain of three, queued; an equal run was executed before."""
    nodes = [{"id": "n0", "type": "source"}]
    nodes += [{"id": f"n{n}", "type": "set-union", "after": [f"n{n - 1}"]} for n in (1, 2)]
    asset = ef.assets.register(asset_file, type="raw_file")
    ef.workflows.publish({"workflow": "chain", "nodes": nodes})
    first = ef.workflows.run("chain", assets=[asset.id])
    assert ef.runs.work(first.id).status == "success"
    return ef.workflows.run("chain", assets=[asset.id]).id


def test_who_opens_a_handle_is_found_by_one_command(counted: tuple[EmboFlow, list[str]]) -> None:
    ef, commands = counted
    where = ef.settings

    scope = open_scope(ef.mongo, where.workspace, where.project, where.actor, create=False)

    assert scope == ef.scope
    assert commands == ["aggregate"]


def test_a_step_whose_run_is_known_sends_fourteen_commands(
    counted: tuple[EmboFlow, list[str]], run_id: str
) -> None:
    """Ten are the two transactions that claim and settle; only what was forgotten is asked twice."""
    ef, commands = counted
    ef.runs.claim(ef.runs.get(run_id), "dagster-run")
    ef.tasks.work(run_id, "n0")
    commands.clear()

    run = ef.runs.claim(ef.runs.get(run_id), "dagster-run")
    worked = ef.tasks.work(run.id, "n1")

    assert worked.task.cache_hit
    before, upstream_assets_forgotten_cache = ["find"], ["find"] * 4
    assert commands == [*before, *CLAIM, *upstream_assets_forgotten_cache, *SETTLE]


def test_a_step_that_executes_its_node_sends_three_more(
    counted: tuple[EmboFlow, list[str]], ef: EmboFlow, asset_file: Path
) -> None:
    """Its key stands in the task before it begins, the turn is taken, and the result is left for others."""
    mine, commands = counted
    asset = ef.assets.register(asset_file, type="raw_file")
    ef.workflows.publish({"workflow": "one", "nodes": [{"id": "n0", "type": "source"}]})
    run = mine.workflows.run("one", assets=[asset.id])
    mine.runs.claim(run, "dagster-run")
    commands.clear()

    worked = mine.tasks.work(run.id, "n0")

    assert not worked.task.cache_hit
    assert len(commands) <= 20, commands
