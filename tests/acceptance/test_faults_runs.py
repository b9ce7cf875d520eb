"""Daemon, run workers, steps and code servers are killed while a queue drains: every run is started once.

The long version is `make faults-runs`: 200 runs, 50 kills, two daemons at once on one instance.
"""

import os

import pytest

from tests.acceptance import killing
from tests.acceptance.served import Deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
LONG = os.environ.get("EMBOFLOW_FAULTS") == "all"
RUNS = int(os.environ.get("EMBOFLOW_FAULTS_RUNS", "200" if LONG else "8"))
KILLS = int(os.environ.get("EMBOFLOW_FAULTS_KILLS", "50" if LONG else "5"))
SEED = int(os.environ.get("EMBOFLOW_FAULTS_SEED", "1"))


def test_whatever_is_killed_every_queued_run_is_started_once_and_ends(
    ef, settings, instance, tmp_path, capsys
):
    forked = RUNS // 4
    killing.prepared(ef, tmp_path, quick=RUNS - forked, forked=forked)
    deployment = Deployment(tmp_path, {**os.environ, **settings.environment()})

    with capsys.disabled(), killing.supervised(deployment, daemons=2 if LONG else 1) as processes:
        outcome = killing.hunt(ef, instance, processes, kills=KILLS, seed=SEED, pause_s=5.0 if LONG else 3.0)

    ended = [run.status.value for run in ef.runs.list(limit=0)]
    with capsys.disabled():
        killing.say(f"{len(ended)} runs, seed {SEED}: {ended.count('success')} succeeded; {outcome}")
    assert killing.wrong(ef, instance) == []
    assert len(ended) == RUNS
    assert sum(outcome.kills.values()) == KILLS
    # Only what executed it takes a run with it.
    assert ended.count("failed") <= outcome.kills["worker"] + outcome.kills["step"]
    assert set(ended) <= {"success", "failed"}
