"""Runs through Dagster, without a daemon: every way in ends as one document with its tasks."""

import json
import socket
import tempfile
from datetime import UTC, datetime

import dagster as dg
import pytest

from emboflow_dagster import build_definitions
from emboflow_dagster.errors import TransitionError
from emboflow_dagster.model.run import RunStatus, TaskStatus
from emboflow_dagster.orchestration import keys, recorder
from emboflow_dagster.orchestration.catalog import catalog_of
from emboflow_dagster.orchestration.definitions import launchables
from emboflow_dagster.orchestration.direct import daemon_is_alive, execute_queued
from emboflow_dagster.orchestration.orphans import SERVER_TAG
from emboflow_dagster.orchestration.resources import EmboFlowResource
from emboflow_dagster.orchestration.scrub import SCRUB_JOB
from emboflow_dagster.orchestration.sensors import request_of
from tests.acceptance.chains import BROKEN, chain


@pytest.fixture
def queued(ef, asset):
    """Publishes a workflow and requests a run of it."""

    def make(file=None):
        slug = ef.workflows.publish(file or chain()).definition.slug
        return ef.runs.request(slug, assets=[asset.id])

    return make


def statuses(ef, run):
    return {task.node_id: task.status.value for task in ef.runs.tasks(run)}


def materialization(instance, key):
    event = instance.get_latest_materialization_event(key)
    return event.asset_materialization if event else None


def events_of(instance, dagster_run_id, *types):
    rows = instance.all_logs(dagster_run_id, of_type=set(types) or None)
    return [row.dagster_event for row in rows if row.dagster_event]


def test_a_queued_run_is_executed_and_recorded(ef, queued, instance):
    run = execute_queued(ef, queued().id)

    assert run.status is RunStatus.SUCCESS
    assert statuses(ef, run) == {"take": "success", "look": "success", "count": "success"}
    [dagster_run_id] = run.dagster_run_ids
    dagster_run = instance.get_run_by_id(dagster_run_id)
    assert dagster_run.status is dg.DagsterRunStatus.SUCCESS
    assert dagster_run.tags["emboflow/run_id"] == run.id
    assert dagster_run.tags["emboflow/workflow_version"] == run.workflow_version_id
    assert dagster_run.tags["emboflow/triggered_by"] == "user:ada"
    assert dagster_run.remote_job_origin.location_name == "emboflow"


def test_the_page_of_an_artifact_equals_what_mongodb_holds(ef, queued, instance, place):
    run = execute_queued(ef, queued().id)
    task = ef.tasks.get(run.id, "count")
    artifact = ef.artifacts.get(task.output_artifact_ids[0])

    event = materialization(instance, keys.artifact_key(place, "triage", "count"))

    shown = {name: value.value for name, value in event.metadata.items()}
    ref = artifact.storage_ref
    assert event.tags["dagster/data_version"] == ref.sha256
    assert shown["object_id"] == ref.object_id
    assert shown["version"] == ref.version
    assert shown["uri"] == ref.uri
    assert shown["checksum"] == ref.checksum
    assert shown["size"] == ref.size
    assert shown["task_id"] == task.id
    assert shown["workflow_run_id"] == run.id
    assert shown["cacheKey"] == task.cache_key
    assert shown["cacheHit"] is task.cache_hit


def test_an_artifact_of_a_node_is_an_input_of_a_users_asset(ef, queued, instance, place):
    execute_queued(ef, queued().id)
    loaded = []

    @dg.asset(ins={"count": dg.AssetIn(key=keys.artifact_key(place, "triage", "count"))})
    def mine(count):
        loaded.append(count)

    definitions = dg.Definitions.merge(
        build_definitions(catalog_of(ef)), dg.Definitions(assets=[mine], executor=dg.in_process_executor)
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("mine")])

    assert loaded == [{"assets": 1}]


def test_a_failed_node_says_why_and_what_follows_stays_pending(ef, queued, instance):
    run = execute_queued(ef, queued(chain(source=BROKEN, nodes=("count", "after"))).id)

    assert run.status is RunStatus.FAILED
    assert statuses(ef, run) == {
        "take": "success",
        "look": "success",
        "count": "failed",
        "after": "pending",
    }
    assert run.summary.failed_task_ids == [ef.tasks.get(run.id, "count").id]
    [event] = events_of(instance, run.dagster_run_ids[0], dg.DagsterEventType.STEP_FAILURE)
    failure = event.step_failure_data.user_failure_data
    assert "no gripper in this recording" in failure.description
    assert failure.description.startswith("error[")
    assert failure.metadata["node"].value == "count"
    assert events_of(instance, run.dagster_run_ids[0], dg.DagsterEventType.STEP_UP_FOR_RETRY) == []


def test_a_run_is_executed_once(ef, queued):
    run = execute_queued(ef, queued().id)

    with pytest.raises(TransitionError, match="success"):
        execute_queued(ef, run.id)


def test_a_run_of_an_older_version_executes_that_version(ef, queued, instance, place):
    run = queued()
    ef.workflows.publish(chain(nodes=("other", "last")))

    run = execute_queued(ef, run.id)

    assert statuses(ef, run) == {"take": "success", "look": "success", "count": "success"}
    assert instance.get_run_by_id(run.dagster_run_ids[0]).job_name == keys.ANY_VERSION_JOB
    assert materialization(instance, keys.artifact_key(place, "triage", "count")) is not None
    assert materialization(instance, keys.artifact_key(place, "triage", "other")) is None


def test_the_job_for_any_version_fails_when_a_node_fails(ef, queued, instance):
    run = queued(chain(source=BROKEN, nodes=("count", "after")))
    ef.workflows.publish(chain(nodes=("other",)))

    run = execute_queued(ef, run.id)

    assert run.status is RunStatus.FAILED
    assert statuses(ef, run)["after"] == "pending"
    assert instance.get_run_by_id(run.dagster_run_ids[0]).status is dg.DagsterRunStatus.FAILURE


# --------------------------------------------------------------------- runs that nobody queued


def launched(ef, instance, selection=None, **tags):
    """A Dagster run of the implicit asset job, as Materialize starts one."""
    definitions = dg.Definitions.merge(
        build_definitions(catalog_of(ef)), dg.Definitions(executor=dg.in_process_executor)
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, asset_selection=selection, tags=tags, raise_on_error=False
    )


def test_materialize_makes_one_document_with_its_tasks(ef, asset, instance):
    ef.workflows.publish(chain())

    result = launched(ef, instance)

    [run] = ef.runs.list()
    assert run.triggered_by == "dagster-ui"
    assert run.dagster_run_ids == [result.run_id]
    assert run.asset_ids == [asset.id]
    assert run.status is RunStatus.SUCCESS
    assert statuses(ef, run) == {"take": "success", "look": "success", "count": "success"}
    tags = instance.get_run_by_id(result.run_id).tags
    assert tags["emboflow/run_id"] == run.id
    assert tags["emboflow/workflow_version"] == run.workflow_version_id
    assert tags["emboflow/triggered_by"] == "dagster-ui"


def test_materialize_of_some_makes_tasks_for_those_alone(ef, asset, instance, place):
    ef.workflows.publish(chain())

    launched(ef, instance, [keys.artifact_key(place, "triage", node) for node in ("take", "look")])

    [run] = ef.runs.list()
    assert statuses(ef, run) == {"take": "success", "look": "success"}
    assert run.selected_node_ids == ["take", "look"]


def test_materialize_of_one_node_needs_what_comes_before_it(ef, asset, instance, place):
    ef.workflows.publish(chain())
    count = keys.artifact_key(place, "triage", "count")

    first = launched(ef, instance, [count])
    launched(ef, instance)
    second = launched(ef, instance, [count])

    assert not first.success
    assert second.success
    [step] = events_of(instance, first.run_id, dg.DagsterEventType.STEP_FAILURE)
    assert "error[upstream-not-succeeded]" in step.step_failure_data.user_failure_data.description


def test_re_execution_does_not_trust_the_tag_it_inherits(ef, queued, instance):
    old = execute_queued(ef, queued().id)
    inherited = instance.get_run_by_id(old.dagster_run_ids[0]).tags

    again = launched(
        ef,
        instance,
        **{
            "emboflow/run_id": inherited["emboflow/run_id"],
            "dagster/parent_run_id": old.dagster_run_ids[0],
            "dagster/root_run_id": old.dagster_run_ids[0],
        },
    )

    newest, *_ = ef.runs.list()
    assert again.success
    assert newest.id != old.id
    assert newest.dagster_run_ids == [again.run_id]
    assert ef.runs.get(old.id) == old
    tags = instance.get_run_by_id(again.run_id).tags
    assert tags["emboflow/run_id"] == newest.id
    assert tags["emboflow/triggered_by"] == "dagster-ui"


def test_a_second_dagster_run_for_a_claimed_run_ends_doing_nothing(ef, queued, instance):
    run = execute_queued(ef, queued().id)

    second = launched(ef, instance, **{"emboflow/run_id": run.id})

    assert not second.success
    assert ef.runs.get(run.id) == run
    assert len(ef.runs.list()) == 1


# ---------------------------------------------------------------------- queue, schedule, recorder


def test_the_queue_asks_for_a_runs_own_job_and_never_for_one_it_does_not_hold(ef, queued, place):
    known = launchables(catalog_of(ef))
    first = queued()
    waiting = ef.runs.to_execute(first)
    request = request_of(waiting, launchables(catalog_of(ef)), place)
    unknown = request_of(waiting, known, place)

    assert request.job_name == keys.job_name(place, "triage")
    assert request.run_key == f"{first.id}:0"
    assert request.tags["emboflow/run_id"] == first.id
    assert unknown.job_name == keys.ANY_VERSION_JOB


@pytest.fixture
def sensor(ef, place, instance):
    """Evaluates a sensor of the project as the daemon does."""

    def evaluate(suffix, cursor=None):
        definitions = build_definitions(catalog_of(ef))
        repository = definitions.get_repository_def()
        found = repository.get_sensor_def(keys.place_name(place, suffix))
        with dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            repository_def=repository,
            resources={"emboflow": EmboFlowResource()},
        ) as context:
            return found.evaluate_tick(context)

    return evaluate


def test_the_queue_sensor_requests_what_is_queued_and_nothing_else(ef, queued, sensor):
    run = queued()

    first, again = sensor("queue"), sensor("queue")
    execute_queued(ef, run.id)
    after = sensor("queue")

    assert [request.run_key for request in first.run_requests] == [f"{run.id}:0"]
    assert [request.run_key for request in again.run_requests] == [f"{run.id}:0"]
    assert list(after.run_requests or []) == []
    assert after.skip_message == "nothing is queued"


def test_raw_inputs_are_told_once_and_again_when_they_are_probed(ef, asset, sensor, place):
    first = sensor("raw_events")
    again = sensor("raw_events", first.cursor)
    ef.assets.probe(asset.id)
    probed = sensor("raw_events", first.cursor)

    [event] = first.asset_events
    assert event.asset_key == keys.raw_key(place, "joints-csv")
    assert event.tags["dagster/data_version"] == asset.storage_ref.sha256
    assert list(again.asset_events) == []
    assert [e.metadata["formats"].value for e in probed.asset_events] == ["csv"]


def test_a_run_reads_raw_inputs_at_the_version_that_they_have(ef, asset, queued, instance, sensor, place):
    raw = keys.raw_key(place, "joints-csv")
    sensor("queue")
    untold = instance.get_latest_materialization_event(raw)
    run = queued()

    for _ in range(2):
        sensor("queue")
    execute_queued(ef, run.id)

    assert untold is None
    [told] = instance.fetch_materializations(raw, limit=10).records
    source = instance.get_latest_materialization_event(keys.artifact_key(place, "triage", "take"))
    assert told.asset_materialization.tags["dagster/data_version"] == asset.storage_ref.sha256
    assert (
        source.asset_materialization.tags[f"dagster/input_data_version/{raw.to_user_string()}"]
        == asset.storage_ref.sha256
    )


def test_a_run_that_nobody_queued_for_a_daemon_does_so_too(ef, asset, queued, instance, place):
    execute_queued(ef, queued().id)

    [told] = instance.fetch_materializations(keys.raw_key(place, "joints-csv"), limit=10).records
    assert told.asset_materialization.tags["dagster/data_version"] == asset.storage_ref.sha256


def test_a_schedules_tick_is_one_run_however_often_it_is_evaluated(ef, asset, instance):
    schedule = {"cron": "0 3 * * *", "timezone": "UTC", "assets": [asset.display_name]}
    ef.workflows.publish({**chain(), "schedule": schedule})
    repository = build_definitions(catalog_of(ef)).get_repository_def()
    [found] = [one for one in repository.schedule_defs if not one.name.startswith(SCRUB_JOB)]
    tick = datetime(2026, 1, 2, 3, tzinfo=UTC)

    for _ in range(2):
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=tick,
            repository_def=repository,
            resources={"emboflow": EmboFlowResource()},
        ) as context:
            answer = found.evaluate_tick(context)

    [run] = ef.runs.list()
    assert run.id in answer.skip_message
    assert run.triggered_by == "schedule:triage@2026-01-02T03:00:00Z"
    assert run.scheduled_for == tick
    assert run.status is RunStatus.QUEUED


def test_the_recorder_settles_what_a_dead_run_left(ef, queued, instance):
    run = queued()
    lost = instance.add_run(dg.DagsterRun("x", tags={"emboflow/run_id": run.id}))
    ef.runs.claim(run.id, lost.run_id)
    ef.runs.recorder.claim(run.id, "take", "dagster:x")
    assert recorder.settle(ef, instance) == []

    instance.report_run_failed(lost)
    [settled] = recorder.settle(ef, instance)

    assert settled.run_id == run.id
    assert ef.runs.get(run.id).status is RunStatus.FAILED
    task = ef.tasks.get(run.id, "take")
    assert task.status is TaskStatus.FAILED
    assert lost.run_id in task.error_message
    assert recorder.settle(ef, instance) == []


@pytest.mark.parametrize("claimed", [True, False])
def test_the_recorder_ends_a_run_whose_code_server_is_gone(ef, queued, instance, claimed):
    run = queued()
    with tempfile.TemporaryDirectory() as folder:  # short: a socket's path has at most 107 characters
        path = f"{folder}/s"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            tags = {"emboflow/run_id": run.id, SERVER_TAG: json.dumps({"host": "localhost", "socket": path})}
            lost = instance.add_run(dg.DagsterRun("x", status=dg.DagsterRunStatus.STARTED, tags=tags))
            if claimed:
                ef.runs.claim(run.id, lost.run_id)
            assert recorder.settle(ef, instance) == []
        [settled] = recorder.settle(ef, instance)

    assert settled.run_id == run.id
    # Of the other nothing was executed: it is asked for again.
    assert ef.runs.get(run.id).status is (RunStatus.FAILED if claimed else RunStatus.QUEUED)
    assert instance.get_run_by_id(lost.run_id).status is dg.DagsterRunStatus.FAILURE
    assert recorder.settle(ef, instance) == []


def test_a_run_that_another_machine_executes_is_left_alone(ef, queued, instance):
    run = queued()
    for note in ('{"host": "db1", "port": 4000}', "[]", "no json", "{}"):
        tags = {"emboflow/run_id": run.id, SERVER_TAG: note}
        instance.add_run(dg.DagsterRun("x", status=dg.DagsterRunStatus.STARTED, tags=tags))

    assert recorder.settle(ef, instance) == []
    assert ef.runs.get(run.id).status is RunStatus.QUEUED


def test_the_recorder_cancels_what_was_cancelled_before_it_started(ef, queued, instance):
    run = queued()
    request = instance.add_run(dg.DagsterRun("x", tags={"emboflow/run_id": run.id}))
    instance.report_run_canceled(request)

    recorder.settle(ef, instance)

    assert ef.runs.get(run.id).status is RunStatus.CANCELLED
    assert set(statuses(ef, run).values()) == {"cancelled"}


def test_a_queued_run_that_is_still_asked_for_is_left_alone(ef, queued, instance):
    run = queued()
    failed = instance.add_run(dg.DagsterRun("x", tags={"emboflow/run_id": run.id}))
    instance.report_run_failed(failed)
    instance.add_run(dg.DagsterRun("x", tags={"emboflow/run_id": run.id}))

    assert recorder.settle(ef, instance) == []
    assert ef.runs.get(run.id).status is RunStatus.QUEUED


def test_without_a_daemon_nobody_is_said_to_start_runs(ef, instance):
    assert not daemon_is_alive(ef)
