"""A machine is lost with its code server, its run workers and all their steps at once; `make faults-runs`.

The server is on a port, as on another machine: nobody here can look at its processes. While it is down its
sensors do not tick either, so `emboflow recorder` runs beside the daemon, as the page on runs advises.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from emboflow_dagster.model.run import RUN_TERMINAL, TaskStatus
from tests.acceptance import killing
from tests.acceptance.served import EMBOFLOW, Deployment, descendants, free_port, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="minutes: make faults-runs"),
]
SLEEPS = "import time\ndef go(ctx, inputs):\n    time.sleep(600)\n"
# More than run at once, so that some wait.
WIDE = 4 + 2 * (os.cpu_count() or 1)
BOUND_S = 60.0


@pytest.fixture
def machines(settings, tmp_path):
    """A daemon here, a code server on a port, and a recorder beside the daemon."""
    deployment = Deployment(tmp_path, {**os.environ, **settings.environment()})
    port = free_port()
    with (
        killing.supervised(deployment, port=port) as processes,
        (tmp_path / "recorder.out").open("wb") as out,
    ):
        recorder = subprocess.Popen(
            [str(EMBOFLOW), "recorder"], env=deployment.environment, cwd=tmp_path, stdout=out, stderr=out
        )
        yield processes
        recorder.kill()
        recorder.wait()


def lose(processes):
    """Everything of the other machine, at once."""
    server = processes.processes["server"]
    gone = [server.pid, *descendants(server.pid)]
    for sent in (signal.SIGSTOP, signal.SIGKILL):  # none of them can react to the end of another
        for pid in gone:
            with suppress(ProcessLookupError):
                os.kill(pid, sent)
    server.wait()


def test_a_lost_machine_leaves_nothing_open_and_its_successor_works(ef, instance, machines, tmp_path, capsys):
    killing.prepared(ef, tmp_path, quick=0, forked=0)
    hook = {"language": "python", "entrypoint": "go", "source": SLEEPS}
    work = {"type": "python", "after": ["take"], "codeHook": hook, "cache": "off"}
    nodes = [{"id": "take", "type": "source"}, *({"id": f"work-{n}", **work} for n in range(WIDE))]
    ef.workflows.publish({"workflow": "wide", "nodes": nodes})
    run = ef.runs.request("wide", assets=["rows"])

    def begun():
        states = [task.status for task in ef.runs.tasks(ef.runs.get(run.id))]
        at_work = states.count(TaskStatus.RUNNING) > 1
        return states if at_work and TaskStatus.QUEUED in states else None

    states = until(begun, 240)
    lose(machines)
    lost_at = time.monotonic()

    over = until(lambda: next((r for r in [ef.runs.get(run.id)] if r.status in RUN_TERMINAL), None), 240)
    took = time.monotonic() - lost_at
    with capsys.disabled():
        killing.say(
            f"lost with {states.count('queued')} queued and {states.count('running')} running tasks: "
            f"settled after {took:.0f} s"
        )

    assert took < BOUND_S
    ended = {task.status.value for task in ef.runs.tasks(over)}
    assert (over.status.value, ended) == ("failed", {"success", "failed"})
    assert {one.is_finished for one in instance.get_runs()} == {True}
    assert ef.verify().problems == []

    machines.look()  # it is put up again, at the same address
    later = ef.runs.request(killing.QUICK, assets=["rows"])
    later = until(lambda: next((r for r in [ef.runs.get(later.id)] if r.status in RUN_TERMINAL), None), 240)
    assert later.status.value == "success"
    until(lambda: True if all(one.is_finished for one in instance.get_runs()) else None, 60)
    assert killing.wrong(ef, instance) == []
