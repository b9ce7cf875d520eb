"""The runs of each workspace at once, with a real daemon, or two: what the queue lets through, and when."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from emboflow_dagster import EmboFlow
from emboflow_dagster.model.run import RUN_TERMINAL
from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.project.settings import Settings
from tests.acceptance import killing
from tests.acceptance.celery_machines import at_once, hook
from tests.acceptance.served import Deployment, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_500),
    pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="`make faults-runs`"),
]
LIMITS = {"narrow": 1, "wide": 2}
RUNS = 3
#: At work until it is told to go on: however slow the machine is, those that may be at once are.
HELD = """
import time, uuid
from pathlib import Path
def run(ctx, inputs):
    mark = Path(ctx.config["folder"]) / uuid.uuid4().hex
    mark.touch()
    while not mark.with_suffix(".go").exists():
        time.sleep(0.1)
    return {}
"""


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
        for slug, ef in found.items():
            (tmp_path / slug).mkdir()
            asset = ef.assets.register(table, type="raw_file")
            work = hook("work", ["take"], HELD, cache="off", config={"folder": str(tmp_path / slug)})
            nodes = [{"id": "take", "type": "source"}, work]
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

        def at_work(slug: str) -> list[Path]:
            """Those that were not told to go on."""
            marks = [mark for mark in (tmp_path / slug).iterdir() if not mark.suffix]
            held = [mark for mark in marks if not mark.with_suffix(".go").exists()]
            assert len(held) <= LIMITS[slug]
            return held

        def over(slug: str) -> bool | None:
            """Whether the workspace has done all: whoever is at work there is let go."""
            processes.look()
            for mark in at_work(slug):
                mark.with_suffix(".go").touch()
            return all(run.status in RUN_TERMINAL for run in workspaces[slug].runs.list()) or None

        def full() -> bool | None:
            processes.look()
            return {slug: len(at_work(slug)) for slug in LIMITS} == LIMITS or None

        until(full, 400)
        time.sleep(10)  # for those that must not come
        assert full()
        # A full workspace holds nobody up: the other one's queue is emptied beside it.
        until(lambda: over("wide"), 400)
        assert len(at_work("narrow")) == 1
        assert [run.status for run in workspaces["narrow"].runs.list() if run.status in RUN_TERMINAL] == []
        until(lambda: over("narrow"), 400)

    ended = {slug: [run.to_json() for run in ef.runs.list()] for slug, ef in workspaces.items()}
    assert [run["status"] for runs in ended.values() for run in runs] == ["success"] * 2 * RUNS
    assert {slug: at_once(runs) for slug, runs in ended.items()} == LIMITS
    assert all(ef.verify().problems == [] for ef in workspaces.values())
