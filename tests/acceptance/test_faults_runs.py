"""Daemon, run workers, steps and code servers are killed while a queue drains: every run is started once.

The long version is `make faults-runs`: 200 runs, 50 kills, two daemons at once on one instance.
"""

import os

import dagster as dg
import pytest

from emboflow_dagster import build_definitions
from emboflow_dagster.errors import TransitionError
from emboflow_dagster.orchestration.catalog import catalog_of
from emboflow_dagster.orchestration.direct import execute_queued
from emboflow_dagster.runtime import record
from emboflow_dagster.runtime.outputs import Outputs
from tests.acceptance import killing
from tests.acceptance.served import Deployment

LONG = os.environ.get("EMBOFLOW_FAULTS") == "all"
RUNS = int(os.environ.get("EMBOFLOW_FAULTS_RUNS", "200"))
KILLS = int(os.environ.get("EMBOFLOW_FAULTS_KILLS", "50"))
SEED = int(os.environ.get("EMBOFLOW_FAULTS_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not LONG, reason="half an hour: make faults-runs")
def test_whatever_is_killed_every_queued_run_is_started_once_and_ends(
    ef, settings, instance, tmp_path, capsys
):
    forked = RUNS // 4
    killing.prepared(ef, tmp_path, quick=RUNS - forked, forked=forked)
    deployment = Deployment(tmp_path, {**os.environ, **settings.environment()})

    with capsys.disabled(), killing.supervised(deployment, daemons=2) as processes:
        outcome = killing.hunt(ef, instance, processes, kills=KILLS, seed=SEED, pause_s=5.0)

    ended = [run.status.value for run in ef.runs.list(limit=0)]
    with capsys.disabled():
        killing.say(f"{len(ended)} runs, seed {SEED}: {ended.count('success')} succeeded; {outcome}")
    assert killing.wrong(ef, instance) == []
    assert len(ended) == RUNS
    assert sum(outcome.kills.values()) == KILLS
    # Only what executed it takes a run with it.
    assert ended.count("failed") <= outcome.kills["worker"] + outcome.kills["step"]
    assert set(ended) <= {"success", "failed"}


# ------------------------------------------------------------------------------------- would it be seen?


@pytest.fixture
def one_run(ef, tmp_path):
    """A queue of one run."""
    killing.prepared(ef, tmp_path, quick=1, forked=0)
    [run] = ef.runs.list()
    return run


def twice(ef, instance, run):
    """A run as two daemons have it: two Dagster runs were asked for and both are executed."""
    execute_queued(ef, run.id)
    definitions = dg.Definitions.merge(
        build_definitions(catalog_of(ef)), dg.Definitions(executor=dg.in_process_executor)
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, tags={"emboflow/run_id": run.id}, raise_on_error=False)


def test_a_run_that_was_asked_for_twice_is_started_once(ef, instance, one_run):
    twice(ef, instance, one_run)

    assert killing.wrong(ef, instance) == []


def test_a_claim_that_compares_nothing_is_caught(ef, instance, one_run, monkeypatch):
    def bind(self, run_id, dagster_run_id, *, known=None):
        run = self.runs.get(run_id)
        ids = [*run.dagster_run_ids, *({dagster_run_id} - set(run.dagster_run_ids))]
        return self.runs.change(run_id, {"dagsterRunIds": ids})

    monkeypatch.setattr(record.Recorder, "bind", bind)
    twice(ef, instance, one_run)

    assert f"{one_run.id} was started 2 times" in killing.wrong(ef, instance)


@pytest.mark.parametrize("fenced", [True, False])
def test_an_orphan_that_is_not_fenced_is_caught(ef, instance, one_run, monkeypatch, fenced):
    ef.runs.claim(one_run.id, "d")
    orphan = ef.runs.recorder.claim(one_run.id, "take", "dagster:d:take")
    ef.runs.settle_lost(one_run.id, "the worker was killed")
    if fenced:
        with pytest.raises(TransitionError):
            ef.runs.recorder.succeed(orphan, {}, Outputs())
    else:
        monkeypatch.setattr(record, "fence", lambda _claimed: {})
        ef.runs.recorder.succeed(orphan, {}, Outputs())

    assert (killing.wrong(ef, instance) == []) is fenced
