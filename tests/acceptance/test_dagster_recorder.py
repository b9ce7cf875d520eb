"""The recorder against a real Dagster instance: what no step could write is written, once, from its log."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.events import JobFailureData
from dagster._core.execution.plan.objects import StepFailureData, StepSuccessData
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.client import DagsterGrpcClient
from dagster._utils.error import SerializableErrorInfo

from emboflow_dagster import EmboFlow, build_definitions
from emboflow_dagster.model.run import WAITING, RunStatus
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration import keys, observed, orphans
from emboflow_dagster.orchestration.catalog import Place, catalog_of
from emboflow_dagster.orchestration.discovered import record_unseen
from emboflow_dagster.orchestration.recorder import end_left_over, record, settle
from emboflow_dagster.runtime import lost
from tests.acceptance import served as serving
from tests.acceptance.chains import chain

FAILED = dg.DagsterEventType.STEP_FAILURE


@pytest.fixture
def queued(ef, asset):
    """Requests a run of one workflow."""
    ef.workflows.publish(chain())

    def make():
        return ef.runs.request("triage", assets=[asset.id])

    return make


def statuses(ef, run):
    return {task.node_id: task.status.value for task in ef.runs.tasks(run)}


def asked(instance, ef, run, **more):
    """A Dagster run as the queue asks for it."""
    generation = str(len(ef.runs.get(run.id).dagster_run_ids))
    place = f"{ef.scope.workspace_slug}/{ef.scope.project_slug}"
    tags = {keys.TAG_RUN_ID: run.id, keys.TAG_GENERATION: generation, "emboflow/place": place}
    return instance.add_run(dg.DagsterRun("x", tags=tags, **more))


def claimed(instance, ef, run, *nodes):
    """A Dagster run that has a document, and tasks of it."""
    dagster_run = asked(instance, ef, run, status=dg.DagsterRunStatus.STARTED)
    ef.runs.claim(run.id, dagster_run.run_id)
    for node in nodes:
        ef.runs.recorder.claim(run.id, node, lost.owner_of(dagster_run.run_id, node))
    return dagster_run


def step(ef, node):
    return keys.op_name(Place(ef.scope.workspace_slug, ef.scope.project_slug), "triage", node)


def event(type_, step_key, message=""):
    """An event as Dagster logs it."""
    error = SerializableErrorInfo(message, [], None)
    data = {
        dg.DagsterEventType.STEP_FAILURE: StepFailureData(error, None),
        dg.DagsterEventType.STEP_SUCCESS: StepSuccessData(1.0),
        dg.DagsterEventType.RUN_FAILURE: JobFailureData(error),
    }
    return dg.DagsterEvent(
        type_.value, job_name="x", step_key=step_key, event_specific_data=data.get(type_), message=message
    )


def log(instance, dagster_run, type_, step_key, message="killed by signal 9"):
    instance.report_dagster_event(event(type_, step_key, message), dagster_run.run_id)


def age(ef, run, seconds=60):
    """As if nobody had written to the run for so long, on the server's clock."""
    earlier = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": seconds}}
    ef.mongo["workflow_runs"].update_one({"_id": run.id}, [{"$set": {"updatedAt": earlier}}])
    fields = {"heartbeatAt": {"$cond": ["$heartbeatAt", earlier, None]}}
    ef.mongo["run_tasks"].update_many({"workflowRunId": run.id}, [{"$set": fields}])


# ------------------------------------------------------------------------------------------------ the fold


def events(*rows):
    return [event(*row) for row in rows]


def test_a_step_that_is_tried_again_has_not_failed():
    types = dg.DagsterEventType
    rows = events(
        (types.STEP_FAILURE, "a", "first"), (types.STEP_FAILURE, "b", "no"), (types.STEP_RESTARTED, "a", "")
    )

    told = observed.fold(observed.Told(), rows)

    assert told.failed == {"b": "no"}


def test_the_fold_of_a_log_is_the_fold_of_its_parts():
    types = dg.DagsterEventType
    rows = events(
        (types.STEP_FAILURE, "a", "one"),
        (types.STEP_FAILURE, "b", "two"),
        (types.STEP_SUCCESS, "b", ""),
        (types.RUN_FAILURE, None, "the run"),
    )
    whole = observed.fold(observed.Told(), rows)

    for cut in range(len(rows) + 1):
        assert observed.fold(observed.fold(observed.Told(), rows[:cut]), rows[cut:]) == whole
    assert (whole.failed, whole.ended) == ({"a": "one"}, "the run")


def test_a_log_is_read_on_from_where_it_was_left(ef, queued, instance):
    run = queued()
    dagster_run = claimed(instance, ef, run, "take")
    log(instance, dagster_run, FAILED, "mine")
    first, cursor = observed.read(instance, dagster_run.run_id, None)
    log(instance, dagster_run, FAILED, "other")

    second, later = observed.read(instance, dagster_run.run_id, cursor)
    third, same = observed.read(instance, dagster_run.run_id, later)

    assert (set(first.failed), set(second.failed), third.failed) == ({"mine"}, {"other"}, {})
    assert (later != cursor, same == later) == (True, True)


# ------------------------------------------------------------------------------------- what died is settled


def test_a_killed_step_is_settled_while_its_run_goes_on(ef, queued, instance):
    run = queued()
    dagster_run = claimed(instance, ef, run, "take")
    assert settle(ef, instance) == []
    log(instance, dagster_run, FAILED, step(ef, "take"))

    [written] = settle(ef, instance)

    assert written.run_id == run.id
    task = ef.tasks.get(run.id, "take")
    assert (task.status.value, task.error_message) == ("failed", "killed by signal 9")
    assert ef.runs.get(run.id).recorded_up_to.keys() == {dagster_run.run_id}
    assert settle(ef, instance) == []
    assert ef.verify().problems == []


def test_a_terminated_run_is_cancelled_although_its_step_logs_a_failure(ef, queued, instance):
    run = queued()
    dagster_run = claimed(instance, ef, run, "take")
    log(instance, dagster_run, FAILED, step(ef, "take"), "DagsterExecutionInterruptedError")
    instance.report_run_canceled(dagster_run)

    settle(ef, instance)

    assert ef.runs.get(run.id).status is RunStatus.CANCELLED
    assert set(statuses(ef, run).values()) == {"cancelled"}
    assert ef.verify().problems == []


def test_a_day_without_a_recorder_is_caught_up_in_one_look(ef, queued, instance):
    runs = [queued() for _ in range(12)]
    ended = {}
    for number, run in enumerate(runs):
        dagster_run = claimed(instance, ef, run, "take")
        for _ in range(30):
            log(instance, dagster_run, dg.DagsterEventType.STEP_SUCCESS, "of somebody else")
        if number % 3 == 0:
            log(instance, dagster_run, FAILED, step(ef, "take"))
        (instance.report_run_canceled if number % 3 == 1 else instance.report_run_failed)(dagster_run)
        ended[run.id] = "cancelled" if number % 3 == 1 else "failed"

    written = settle(ef, instance)

    assert {one.run_id for one in written} == set(ended)
    assert {run.id: ef.runs.get(run.id).status.value for run in runs} == ended
    assert settle(ef, instance) == []
    assert ef.verify().problems == []


def test_a_run_whose_dagster_run_was_deleted_is_settled_when_nobody_works_at_it(ef, queued, instance):
    run = queued()
    dagster_run = claimed(instance, ef, run, "take")
    instance.delete_run(dagster_run.run_id)
    assert settle(ef, instance) == []
    age(ef, run)

    assert len(settle(ef, instance)) == 1

    assert ef.runs.get(run.id).status is RunStatus.FAILED
    assert "is gone" in ef.tasks.get(run.id, "take").error_message
    assert ef.verify().problems == []


def test_with_another_dagster_home_what_was_open_is_settled_and_what_waits_is_asked_for(
    ef, queued, instance, tmp_path
):
    worked_at, waits = queued(), queued()
    claimed(instance, ef, worked_at, "take")
    asked(instance, ef, waits)
    age(ef, worked_at)

    with dagster_instance.opened(tmp_path / "another") as fresh:
        record(ef, fresh)

    assert ef.runs.get(worked_at.id).status is RunStatus.FAILED
    assert [run.id for run in ef.runs.queued()] == [waits.id]
    assert ef.verify().problems == []


def test_what_a_dagster_run_that_succeeded_has_left_out_is_settled(ef, queued, instance):
    run = queued()
    dagster_run = claimed(instance, ef, run)
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job_name="x"), dagster_run.run_id
    )
    assert settle(ef, instance) == []
    age(ef, run)

    settle(ef, instance)

    assert ef.runs.get(run.id).status is RunStatus.FAILED
    assert "ended without it" in ef.tasks.get(run.id, "take").error_message


# --------------------------------------------------------------------------------- asked for, never started


def test_a_request_that_died_before_it_took_anything_is_asked_for_again(ef, queued, instance):
    run = queued()
    for generation in range(lost.MAX_ASKED_AGAIN):
        instance.report_run_failed(asked(instance, ef, run))
        [written] = settle(ef, instance)
        assert "asked for again" in written.message
        assert ef.runs.get(run.id).dagster_run_ids == [WAITING] * (generation + 1)
        assert settle(ef, instance) == []
    instance.report_run_failed(asked(instance, ef, run))

    settle(ef, instance)

    assert ef.runs.get(run.id).status is RunStatus.FAILED
    assert statuses(ef, run) == {"take": "failed", "look": "pending", "count": "pending"}
    assert ef.verify().problems == []


def test_a_dagster_run_whose_document_is_over_is_ended(ef, queued, instance):
    run = queued()
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="x"), location_name="x")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "x"), "x")
    waits = asked(instance, ef, run, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin)
    ef.runs.cancel(run.id)
    assert end_left_over(ef, instance) == []
    earlier = datetime(2026, 1, 1, tzinfo=UTC)
    ef.mongo["workflow_runs"].update_one({"_id": run.id}, {"$set": {"finishedAt": earlier}})

    assert len(end_left_over(ef, instance)) == 1

    assert instance.get_run_by_id(waits.run_id).status is dg.DagsterRunStatus.CANCELED


# ----------------------------------------------------------------------------------- runs nobody asked for


def materialized(ef, instance, selection=None, **tags):
    """A Dagster run as Materialize makes one, before any of its steps."""
    definitions = dg.Definitions.merge(
        build_definitions(catalog_of(ef)), dg.Definitions(executor=dg.in_process_executor)
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    chosen = frozenset(selection) if selection else None
    return instance.create_run_for_job(
        job_def=job.get_subset(asset_selection=chosen) if chosen else job, asset_selection=chosen, tags=tags
    )


def test_a_materialization_that_was_cancelled_before_its_first_step_is_one_run(ef, asset, instance):
    ef.workflows.publish(chain())
    dagster_run = materialized(ef, instance)
    assert record_unseen(ef, instance) == []
    instance.report_run_canceled(dagster_run)

    for _ in range(2):
        record(ef, instance)

    [run] = ef.runs.list()
    assert (run.status, run.triggered_by) == (RunStatus.CANCELLED, "dagster-ui")
    assert run.dagster_run_ids == [dagster_run.run_id]
    assert statuses(ef, run) == dict.fromkeys(("take", "look", "count"), "cancelled")
    assert ef.verify().problems == []


def test_of_a_subset_only_its_nodes_are_recorded(ef, asset, instance):
    ef.workflows.publish(chain())
    place = Place(ef.scope.workspace_slug, ef.scope.project_slug)
    selection = [keys.artifact_key(place, "triage", node) for node in ("take", "look")]
    dagster_run = materialized(ef, instance, selection)
    instance.report_run_failed(dagster_run)

    record(ef, instance)

    [run] = ef.runs.list()
    assert run.status is RunStatus.FAILED
    assert run.selected_node_ids == ["take", "look"]
    assert statuses(ef, run) == {"take": "failed", "look": "pending"}


def test_what_another_projects_runs_were_is_not_recorded_here(ef, asset, instance, settings):
    ef.workflows.publish(chain())
    instance.report_run_failed(materialized(ef, instance))

    with EmboFlow.open(replace(settings, project="elsewhere")) as elsewhere:
        assert record(elsewhere, instance) == []
        assert elsewhere.runs.list() == []


# ------------------------------------------------------------------------------------------------- orphans


def test_a_worker_lives_on_where_its_code_server_does_not(ef, queued, instance, tmp_path):
    run = queued()
    tags = {orphans.SERVER_TAG: f'{{"host": "localhost", "socket": "{tmp_path}/none"}}'}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        dagster_run = claimed(instance, ef, run, "take")
        instance.add_run_tags(dagster_run.run_id, tags)
        instance.report_engine_event(
            f"Started process for run (pid: {worker.pid}).", instance.get_run_by_id(dagster_run.run_id)
        )
        assert settle(ef, instance) == []
        worker.kill()

    [written] = settle(ef, instance)

    assert written.run_id == run.id
    assert instance.get_run_by_id(dagster_run.run_id).status is dg.DagsterRunStatus.FAILURE
    assert ef.runs.get(run.id).status is RunStatus.FAILED


def test_a_process_that_began_after_it_was_logged_is_another_one():
    started = datetime.now(UTC).timestamp()

    assert orphans._lived_at(os.getpid(), started)
    assert not orphans._lived_at(os.getpid(), started - 86_400)
    assert not orphans._lived_at(999_999_999, started)


def test_a_run_that_a_killed_daemon_was_about_to_start_is_asked_for_again(ef, queued, instance, monkeypatch):
    run = queued()
    dagster_run = asked(instance, ef, run, status=dg.DagsterRunStatus.STARTING)
    assert settle(ef, instance) == []
    monkeypatch.setattr(orphans, "START_SECONDS", -1)

    [written] = settle(ef, instance)

    assert "asked for again" in written.message
    assert instance.get_run_by_id(dagster_run.run_id).status is dg.DagsterRunStatus.FAILURE
    assert [waiting.id for waiting in ef.runs.queued()] == [run.id]


@pytest.mark.parametrize("known", [True, False])
def test_a_slow_start_that_its_code_server_knows_of_is_waited_for(
    ef, queued, instance, monkeypatch, tmp_path, known
):
    run = queued()
    dagster_run = asked(instance, ef, run, status=dg.DagsterRunStatus.STARTING)
    tags = {orphans.SERVER_TAG: f'{{"host": "localhost", "socket": "{tmp_path}/s"}}'}
    instance.add_run_tags(dagster_run.run_id, tags)
    monkeypatch.setattr(orphans, "START_SECONDS", -1)
    monkeypatch.setattr(orphans, "_is_silent", lambda _path: False)
    monkeypatch.setattr(orphans, "_is_known", lambda _c, run_id, **_: known and run_id == dagster_run.run_id)

    written = settle(ef, instance)

    assert len(written) == (0 if known else 1)
    assert instance.get_run_by_id(dagster_run.run_id).is_finished is not known


def test_a_code_server_that_does_not_answer_is_not_taken_to_know_nothing(tmp_path):
    client = DagsterGrpcClient(socket=str(tmp_path / "none"))

    assert orphans._is_known(client, "x", silent=True)
    assert not orphans._is_known(client, "x", silent=False)


def elsewhere(instance, dagster_run):
    """Notes a code server at an address where nobody listens."""
    note = f'{{"host": "127.0.0.1", "port": {serving.free_port()}}}'
    instance.add_run_tags(dagster_run.run_id, {orphans.SERVER_TAG: note})


@pytest.mark.parametrize("nobody", [True, False])
def test_a_run_on_another_machine_is_lost_when_nobody_works_at_it_and_nobody_knows_of_it(
    ef, asset, instance, monkeypatch, nobody
):
    ef.workflows.publish(
        {"workflow": "wide", "nodes": [{"id": n, "type": "source"} for n in ("take", "wait")]}
    )
    run = ef.runs.request("wide", assets=[asset.id])
    dagster_run = claimed(instance, ef, run, "take")
    elsewhere(instance, dagster_run)
    monkeypatch.setattr(orphans, "START_SECONDS", -1)
    if nobody:
        long_ago = ef.mongo.server_time() - timedelta(seconds=40)
        ef.mongo["run_tasks"].update_one(
            {"workflowRunId": run.id, "nodeId": "take"}, {"$set": {"heartbeatAt": long_ago}}
        )

    written = settle(ef, instance)

    assert len(written) == nobody
    assert instance.get_run_by_id(dagster_run.run_id).is_finished is nobody
    assert ef.runs.get(run.id).status is (RunStatus.FAILED if nobody else RunStatus.RUNNING)
    left = {"take": "failed", "wait": "failed"} if nobody else {"take": "running", "wait": "queued"}
    assert statuses(ef, run) == left
    assert end_left_over(ef, instance) == []


def test_a_run_that_another_machine_was_to_start_is_asked_for_again(ef, queued, instance, monkeypatch):
    run = queued()
    dagster_run = asked(instance, ef, run, status=dg.DagsterRunStatus.STARTING)
    elsewhere(instance, dagster_run)
    assert settle(ef, instance) == []
    monkeypatch.setattr(orphans, "START_SECONDS", -1)

    [written] = settle(ef, instance)

    assert "asked for again" in written.message
    assert [waiting.id for waiting in ef.runs.queued()] == [run.id]
