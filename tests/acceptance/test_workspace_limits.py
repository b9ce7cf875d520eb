"""The runs of each workspace at once, with a real daemon, or two: what the queue lets through, and when."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster import EmboFlow
from emboflow_dagster.model.run import RUN_TERMINAL, WorkflowRun
from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.project.settings import Settings
from tests.acceptance import killing
from tests.acceptance.celery_machines import at_once, hook, slow
from tests.acceptance.served import Deployment, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="`make faults-runs`"),
]
LIMITS = {"narrow": 1, "wide": 2}
RUNS = 4


@pytest.fixture
def workspaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, EmboFlow]]:
    """Two workspaces of one database, each with its queue; the narrow one's is there first."""
    monkeypatch.setenv("EMBOFLOW_WORKSPACE_RUNS", ",".join(f"{slug}={n}" for slug, n in LIMITS.items()))
    home = tmp_path / "home"
    settings = Settings(
        home=home,
        mongo_uri=embedded.ensure(home).uri,
        database="limits",
        object_store=(tmp_path / "objects").as_uri(),
        workspace="narrow",
        project="pick-place",
        actor="user:ada",
        dagster_home=tmp_path / "dagster",
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    table = tmp_path / "joints.csv"
    table.write_text("time,joint\n0.1,1\n")
    with ExitStack() as stack:
        found = {
            slug: stack.enter_context(EmboFlow.open(replace(settings, workspace=slug))) for slug in LIMITS
        }
        for ef in found.values():
            asset = ef.assets.register(table, type="raw_file")
            nodes = [{"id": "take", "type": "source"}, hook("work", ["take"], slow(4), cache="off")]
            ef.workflows.publish({"workflow": "busy", "steps": "in-process", "nodes": nodes})
            for _ in range(RUNS):
                ef.runs.request("busy", assets=[asset.id])
        yield found
    embedded.stop(home)


@pytest.mark.parametrize("daemons", [1, 2])
def test_no_workspace_has_more_runs_at_once_than_it_may_and_none_waits_for_the_other(
    workspaces: dict[str, EmboFlow], tmp_path: Path, daemons: int
) -> None:
    with dagster_instance.opened(tmp_path / "dagster"):
        pass
    deployment = Deployment(tmp_path, dict(os.environ))
    with killing.supervised(deployment, daemons=daemons) as processes:

        def over() -> bool | None:
            processes.look()
            runs = [run for ef in workspaces.values() for run in ef.runs.list(limit=0)]
            return all(run.status in RUN_TERMINAL for run in runs) or None

        until(over, 900)

    ended = {slug: ef.runs.list(limit=0) for slug, ef in workspaces.items()}
    assert [run.status.value for runs in ended.values() for run in runs] == ["success"] * 2 * RUNS
    assert {slug: at_once(times(runs)) for slug, runs in ended.items()} == LIMITS
    # Those behind a full workspace are not held up by it: they were requested last, and are over first.
    last = {slug: max(run["finishedAt"] for run in times(runs)) for slug, runs in ended.items()}
    assert last["wide"] < last["narrow"]
    assert at_once(times([*ended["narrow"], *ended["wide"]])) == sum(LIMITS.values())
    assert all(ef.verify().problems == [] for ef in workspaces.values())


def times(runs: list[WorkflowRun]) -> list[dict[str, Any]]:
    return [run.to_json() for run in runs]
