"""A task's log in Dagster: bounded events, what was printed, a link; in a bucket where configured."""

import dagster as dg
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType

from emboflow_dagster import build_definitions
from emboflow_dagster.orchestration import compute_logs, keys, step_log
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration.catalog import catalog_of
from emboflow_dagster.orchestration.direct import execute_queued
from tests.acceptance.chains import chain
from tests.integration.s3.server import ENVIRONMENT, Server

TALKS = (
    "import sys\n"
    "def run(ctx, inputs):\n"
    "    for n in range(200):\n"
    "        ctx.log(f'event {n} of 100%')\n"
    "    print('printed by a child')\n"
    "    print('and an error of it', file=sys.stderr)\n"
    "    return {'assets': len(ctx.assets)}\n"
)
FAILS = TALKS.replace("return {'assets': len(ctx.assets)}", "raise ValueError('no gripper')")


def publish(ef, source):
    return ef.workflows.publish(chain(source=source)).definition.slug


def events(instance, dagster_run_id, kind):
    rows = instance.all_logs(dagster_run_id, of_type={kind})
    return [row.dagster_event for row in rows]


def said(instance, dagster_run_id):
    return [row.user_message for row in instance.all_logs(dagster_run_id) if not row.is_dagster_event]


def test_a_step_says_where_its_log_is_and_how_to_read_it(ef, asset, instance, place):
    run = execute_queued(ef, ef.runs.request(publish(ef, TALKS), assets=[asset.id]).id)
    task = ef.tasks.get(run.id, "count")
    event = instance.get_latest_materialization_event(keys.artifact_key(place, "triage", "count"))
    shown = {name: value.value for name, value in event.asset_materialization.metadata.items()}

    assert shown["log_command"] == f"emboflow task logs {run.id}:count --attempt 1"
    assert shown["log_ref"] == task.log_ref.uri
    assert shown["log"]["checksum"] == task.log_ref.checksum
    assert shown["log"]["object_id"] == f"log.{task.id}.1"


def test_a_chatty_task_does_not_fill_the_event_log(ef, asset, instance):
    run = execute_queued(ef, ef.runs.request(publish(ef, FAILS), assets=[asset.id]).id)
    [dagster_run_id] = run.dagster_run_ids
    lines = [text for text in said(instance, dagster_run_id) if "event" in text or "log" in text]

    assert lines[: step_log.EVENTS] == [f"event {n} of 100%" for n in range(step_log.EVENTS)]
    assert lines[step_log.EVENTS :] == [
        f"more lines came; all are shown by: emboflow task logs {run.id}:count --follow"
    ]
    assert any(text.startswith("error[node-failed]") for text in said(instance, dagster_run_id))
    [failed] = events(instance, dagster_run_id, dg.DagsterEventType.STEP_FAILURE)
    metadata = failed.step_failure_data.user_failure_data.metadata
    assert metadata["log_command"].value == f"emboflow task logs {run.id}:count --attempt 1"
    assert metadata["log_ref"].value == ef.tasks.get(run.id, "count").log_ref.uri
    assert sum(1 for row in ef.tasks.logs(run.id, "count", streams=["log"])) > 200


@pytest.fixture
def bucket(monkeypatch):
    with Server() as server, server.bucket("logs") as made:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": server.url}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(compute_logs.VARIABLE, f"s3://{made}/team/steps")
        yield server, made


def materialize(ef, instance):
    """What the Materialize button does, in this process."""
    definitions = dg.Definitions.merge(
        build_definitions(catalog_of(ef)), dg.Definitions(executor=dg.in_process_executor)
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, raise_on_error=False)


def captured(instance, dagster_run_id):
    [event] = events(instance, dagster_run_id, dg.DagsterEventType.LOGS_CAPTURED)
    key = event.logs_captured_data.file_key
    return instance.compute_log_manager.build_log_key_for_run(dagster_run_id, key)


def test_what_a_step_prints_goes_to_the_bucket_and_is_shown_from_there(ef, asset, bucket, settings):
    publish(ef, TALKS)
    with dagster_instance.opened(settings.dagster_home) as instance:
        done = materialize(ef, instance)
        key = captured(instance, done.run_id)

    assert done.success
    # What a step of more than 30 s had printed by then stays beside it, in objects of Dagster's own.
    server, where = bucket
    names = [name for name in server.objects(where) if not name.endswith(".partial")]
    assert [name.rpartition(".")[2] for name in names] == ["err", "out"]
    assert all(name.startswith(f"team/steps/storage/{done.run_id}/") for name in names)
    assert list((settings.dagster_home / compute_logs.FOLDER).rglob("*.out")) == []
    with dagster_instance.opened(settings.dagster_home) as elsewhere:
        read = elsewhere.compute_log_manager.get_log_data_for_type
        assert b"printed by a child\n" in read(key, ComputeIOType.STDOUT, 0, None)[0]
        assert b"and an error of it\n" in read(key, ComputeIOType.STDERR, 0, None)[0]


def test_a_bucket_that_is_away_costs_no_step(ef, asset, bucket, settings, monkeypatch):
    publish(ef, TALKS)
    monkeypatch.setenv(compute_logs.VARIABLE, "s3://not-there-at-all/team/steps")
    with dagster_instance.opened(settings.dagster_home) as instance:
        done = materialize(ef, instance)
        read = instance.compute_log_manager.get_log_data_for_type
        text, _ = read(captured(instance, done.run_id), ComputeIOType.STDOUT, 0, None)

    assert done.success
    assert b"printed by a child\n" in text
