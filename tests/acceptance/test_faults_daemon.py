"""The daemon is killed and stays away over two ticks of three schedules, nine minutes; `make faults-runs`.

The ticks are whole minutes that really pass. `skip` takes a tick that is at most five minutes late, so the
daemon stays away for longer than that after the second one.
"""

import os
import signal
import time
from datetime import datetime, timedelta

import pytest

from emboflow_dagster.model.run import RUN_TERMINAL
from emboflow_dagster.project.ticking import ON_TIME
from tests.acceptance import killing
from tests.acceptance.served import Deployment, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="nine minutes: make faults-runs"),
]
#: Which of the two ticks that passed have a run afterwards.
POLICIES = {"skip": [], "latest": [2], "all": [1, 2]}
MINUTE = timedelta(minutes=1)


def wait_until(ef, moment: datetime) -> None:
    """Until the server's clock says so."""
    time.sleep(max(0.0, (moment - ef.mongo.server_time()).total_seconds()))


def ticks_of(ef, policy):
    """The ticks of a schedule that have a run, each as often as it has one."""
    return sorted(run.scheduled_for for run in ef.runs.list(triggered_by=f"schedule:on-{policy}", limit=0))


def over(ef, count):
    """Whether there are so many runs and all of them are over."""
    runs = ef.runs.list(limit=0)
    return runs if len(runs) >= count and all(run.status in RUN_TERMINAL for run in runs) else None


def test_over_two_ticks_without_a_daemon_no_run_is_doubled_and_none_lost_beyond_policy(
    ef, instance, settings, tmp_path, capsys
):
    killing.prepared(ef, tmp_path, quick=0, forked=0)
    now = ef.mongo.server_time().replace(second=0, microsecond=0)
    # The daemon needs a while until it looks; then one tick with it, and two without.
    ticks = [now + n * MINUTE for n in (2, 3, 4)]
    cron = f"{','.join(str(tick.minute) for tick in ticks)} * * * *"
    for policy in POLICIES:
        ef.schedules.add(killing.QUICK, cron=cron, catch_up=policy, name=f"on-{policy}")
    deployment = Deployment(tmp_path, {**os.environ, **settings.environment()})

    with killing.supervised(deployment) as processes:
        until(lambda: over(ef, len(POLICIES)), 240)
        before = {policy: ticks_of(ef, policy) for policy in POLICIES}
        [daemon] = processes.victims("daemon")
        os.kill(daemon, signal.SIGKILL)
        processes.processes["daemon-0"].wait()
        killed = ef.mongo.server_time()
        wait_until(ef, ticks[2] + ON_TIME + timedelta(seconds=10))
        meanwhile = len(ef.runs.list(limit=0))

        processes.look()
        until(lambda: over(ef, 2 * len(POLICIES)), 240)
        # Dagster's own schedules and the sensor have both looked several times by then.
        time.sleep(45)
        runs = until(lambda: over(ef, 2 * len(POLICIES)), 240)

    with capsys.disabled():
        killing.say(f"killed {killed:%H:%M:%S}, ticks {[f'{t:%H:%M}' for t in ticks]}, {len(runs)} runs")
    assert killed < ticks[1]
    assert before == dict.fromkeys(POLICIES, ticks[:1])
    assert meanwhile == len(POLICIES)
    for policy, caught_up in POLICIES.items():
        assert (policy, ticks_of(ef, policy)) == (policy, [ticks[0], *(ticks[n] for n in caught_up)])
        schedule = ef.schedules.get(f"on-{policy}")
        assert (schedule.missed_count, schedule.ticked_at) == (2 - len(caught_up), ticks[2])
    assert {run.status.value for run in runs} == {"success"}
    assert killing.wrong(ef, instance) == []
