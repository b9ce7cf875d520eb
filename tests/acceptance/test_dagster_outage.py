"""A daemon that is killed and stays away over real ticks: no duplicate, nothing lost beyond the policy.

Three minutes and more of waiting for the clock: only with ``EMBOFLOW_FAULTS=all``.
"""

import os
import signal
from datetime import timedelta

import pytest

from emboflow_dagster import EmboFlow
from tests.acceptance import served as serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]
if os.environ.get("EMBOFLOW_FAULTS") != "all":
    pytest.skip("waits for real minutes: EMBOFLOW_FAULTS=all", allow_module_level=True)

MINUTE = timedelta(minutes=1)
POLICIES = ("skip", "latest", "all")


@pytest.fixture
def deployment(tmp_path):
    """A project of its own."""
    return serving.Deployment.in_folder(tmp_path)


@pytest.fixture
def ef(deployment):
    """An open handle on it, with a schedule for every policy that ticks each minute."""
    with EmboFlow.from_env(
        workspace="acme", project="pick-place", actor="user:ada", home=deployment.home
    ) as handle:
        path = deployment.folder / "rows.csv"
        path.write_text("t,x\n0,1\n")
        handle.assets.register(path, type="raw_file", name="rows")
        handle.workflows.publish({"workflow": "tick", "nodes": [{"id": "take", "type": "source"}]})
        for policy in POLICIES:
            handle.schedules.add("tick", name=policy, cron="* * * * *", assets=["rows"], catch_up=policy)
        yield handle


def ticks(ef, policy):
    """The ticks of a schedule that have a run, in order."""
    runs = [run for run in ef.runs.list(limit=0) if run.triggered_by.startswith(f"schedule:{policy}@")]
    found = sorted(run.scheduled_for for run in runs)
    assert len(set(found)) == len(found), f"a tick of {policy} has two runs"
    return found


def killed(running):
    """End everything that `emboflow dev` runs, at once and without a word."""
    processes = [*serving.descendants(running.process.pid), running.process.pid]
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    running.process.wait()


def test_a_daemon_down_over_two_ticks_loses_and_doubles_nothing(deployment, ef):
    with serving.serve(deployment) as running:
        serving.until(lambda: all(ticks(ef, policy) for policy in POLICIES) or None, 900)
        killed(running)
    down = ef.ticking.now()
    serving.until(lambda: True if ef.ticking.now() - down > 3 * MINUTE else None, 900)
    begun = ef.ticking.now()
    with serving.serve(deployment):
        up = ef.ticking.now()
        serving.until(lambda: all(ticks(ef, policy)[-1] > up for policy in POLICIES) or None, 900)

    for schedule in ef.schedules.list():
        had = ticks(ef, schedule.name)
        first = schedule.created_at.replace(second=0, microsecond=0) + MINUTE
        passed = (schedule.ticked_at - first) // MINUTE + 1
        # Every tick since it was added has its run, or was counted as missed: none is both or neither.
        assert len(had) + schedule.missed_count == passed, schedule.name
        during = [tick for tick in had if down + MINUTE < tick < begun - MINUTE]
        assert (len(during) >= 1) is (schedule.name == "all"), schedule.name
    assert {one.name for one in ef.schedules.list() if one.missed_count} == {"skip", "latest"}
    assert ef.verify().problems == []
