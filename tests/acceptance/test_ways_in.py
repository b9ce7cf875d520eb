"""Every way in, without a daemon: one document each, with the right tasks and the right ``triggeredBy``."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from emboflow_dagster import build_definitions
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.run import CachePolicy, RunStatus
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place, catalog_of
from emboflow_dagster.orchestration.direct import execute_queued
from emboflow_dagster.orchestration.resources import EmboFlowResource
from emboflow_dagster.orchestration.schedules import (
    added_schedule_name,
    evaluate_tick,
    file_schedule_name,
    take_due,
)
from tests.acceptance.chains import chain

NOBODY_OFF = frozenset()
TICK = datetime(2026, 1, 2, 3, tzinfo=UTC)


@pytest.fixture
def more(ef, asset, tmp_path):
    """A second asset."""
    path = tmp_path / "more.csv"
    path.write_text("time,joint\n0,1\n")
    return ef.assets.register(path, type="raw_file", name="more")


def statuses(ef, run):
    return {task.node_id: task.status.value for task in ef.runs.tasks(run)}


@pytest.fixture
def launch(ef, instance):
    """Launches the graph's own job, as Materialize and the launchpad do."""

    def launched(selection=None, job=None, config=None, **tags):
        definitions = dg.Definitions.merge(
            build_definitions(catalog_of(ef)), dg.Definitions(executor=dg.in_process_executor)
        )
        found = (
            definitions.resolve_job_def(job) if job else definitions.resolve_implicit_global_asset_job_def()
        )
        return found.execute_in_process(
            instance=instance, asset_selection=selection, run_config=config, tags=tags, raise_on_error=False
        )

    return launched


def options(**said):
    return {"resources": {"emboflow_run": {"config": said}}}


def why_first(result):
    """What the first step that failed says."""
    failures = [e for e in result.all_events if e.event_type is dg.DagsterEventType.STEP_FAILURE]
    return failures[0].step_failure_data.user_failure_data.description


# ---------------------------------------------------------------------------------------- the launchpad


def test_the_launchpad_gives_what_the_command_gives(ef, asset, more, launch):
    ef.workflows.publish(chain())

    result = launch(
        job=keys.job_name(Place(ef.scope.workspace_slug, ef.scope.project_slug), "triage"),
        config=options(assets=["more"], version=1, cachePolicy="refresh", label="new gripper"),
    )

    [run] = ef.runs.list()
    asked = ef.workflows.run(
        "triage", assets=["more"], version=1, cache_policy="refresh", label="new gripper"
    )
    assert result.success
    assert (run.asset_ids, run.config, run.workflow_version_id) == (
        asked.asset_ids,
        asked.config,
        asked.workflow_version_id,
    )
    assert run.triggered_by == "dagster-ui"
    assert run.status is RunStatus.SUCCESS
    assert set(statuses(ef, run)) == {"take", "look", "count"}
    assert run.config.cache_policy is CachePolicy.REFRESH


def test_the_launchpad_takes_selectors_for_the_assets_of_a_subset(ef, asset, more, launch, place):
    ef.workflows.publish(chain())

    launch([keys.artifact_key(place, "triage", "take")], config=options(assets=["type=raw_file,name=mo*"]))

    [run] = ef.runs.list()
    assert run.asset_ids == [more.id]
    assert statuses(ef, run) == {"take": "success"}


def test_an_earlier_version_with_the_same_nodes_is_executed_as_it_was(ef, asset, launch):
    ef.workflows.publish(chain())
    newer = chain(source="def run(ctx, inputs):\n    raise ValueError('newer')\n")
    ef.workflows.publish(newer)

    result = launch(config=options(version=1))

    [run] = ef.runs.list()
    assert result.success
    assert run.runtime_snapshot.version_number == 1
    assert run.status is RunStatus.SUCCESS


def test_a_version_with_other_nodes_is_refused_with_the_job_that_executes_it(ef, asset, launch):
    ef.workflows.publish(chain())
    ef.workflows.publish(chain(nodes=("count", "after")))

    refused = launch(config=options(version=1))
    left = ef.runs.list()
    executed = launch(
        job=keys.ANY_VERSION_JOB,
        config={
            "ops": {
                "work_run": {
                    "config": {
                        "place": f"{ef.scope.workspace_slug}/{ef.scope.project_slug}",
                        "workflow": "triage",
                        "version": 1,
                    }
                }
            },
            **options(label="as it was"),
        },
    )

    assert not refused.success
    assert "version 1 of triage has other nodes than version 2" in why_first(refused)
    assert keys.ANY_VERSION_JOB in why_first(refused)
    assert left == []
    [run] = ef.runs.list()
    assert executed.success
    assert run.triggered_by == "dagster-ui"
    assert run.config.label == "as it was"
    assert statuses(ef, run) == {"take": "success", "look": "success", "count": "success"}
    assert run.runtime_snapshot.version_number == 1


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"assets": ["nosuch"]}, "error[not-found]: asset 'nosuch'"),
        ({"assets": ["type=rosbag"]}, "error[not-found]: no asset matches type=rosbag"),
        ({"assets": ["typ=rosbag"]}, "error[selector]: assets[0]: unknown key 'typ'"),
        ({"version": 9}, "error[not-found]: workflow triage: no version 9"),
    ],
)
def test_what_the_launchpad_cannot_do_is_said_and_nothing_is_written(ef, asset, launch, said, code):
    ef.workflows.publish(chain())

    result = launch(config=options(**said))

    assert not result.success
    assert code in why_first(result)
    assert ef.runs.list() == []


def test_the_launchpad_refuses_another_word_before_anything_starts(ef, asset, launch):
    ef.workflows.publish(chain())

    with pytest.raises(dg.DagsterInvalidConfigError, match="cachePolicy"):
        launch(config=options(cachePolicy="maybe"))


def test_one_downstream_node_is_one_task_over_what_was_passed_on(ef, asset, launch, place):
    ef.workflows.publish(chain())
    launch()

    result = launch([keys.artifact_key(place, "triage", "count")])

    run = ef.runs.list()[0]
    assert result.success
    assert statuses(ef, run) == {"count": "success"}
    assert (run.selected_node_ids, run.triggered_by, run.asset_ids) == (["count"], "dagster-ui", [asset.id])


# ------------------------------------------------------------------------------- a team's own schedules


def test_a_tick_of_a_teams_own_schedule_is_one_run_however_many_dagster_runs_it_has(ef, asset, launch):
    ef.workflows.publish(chain())
    tags = {"dagster/schedule_name": "nightly", ".dagster/scheduled_execution_time": TICK.isoformat()}

    first, second = launch(**tags), launch(**tags)
    other = launch(**{**tags, ".dagster/scheduled_execution_time": (TICK + timedelta(days=1)).isoformat()})

    newest, run = ef.runs.list()
    assert (first.success, second.success, other.success) == (True, False, True)
    assert run.triggered_by == "schedule:nightly@2026-01-02T03:00:00Z"
    assert (run.scheduled_for, run.dagster_run_ids) == (TICK, [first.run_id])
    assert newest.scheduled_for == TICK + timedelta(days=1)
    assert f"Dagster run {first.run_id} executes it" in why_first(second)


def test_a_run_of_a_tick_that_is_executed_again_is_a_run_of_its_own(ef, asset, launch):
    ef.workflows.publish(chain())
    tags = {"dagster/schedule_name": "nightly", ".dagster/scheduled_execution_time": TICK.isoformat()}
    first = launch(**tags)

    parent = {"dagster/parent_run_id": first.run_id, "dagster/root_run_id": first.run_id}
    again = launch(**tags, **parent)

    newest, run = ef.runs.list()
    assert again.success
    assert (newest.triggered_by, newest.scheduled_for) == ("dagster-ui", None)
    assert run.dagster_run_ids == [first.run_id]


def test_a_sensor_of_a_team_is_named(ef, asset, launch):
    ef.workflows.publish(chain())

    launch(**{"dagster/sensor_name": "new_bags"})

    assert [run.triggered_by for run in ef.runs.list()] == ["sensor:new_bags"]


# ----------------------------------------------------------------------------------------- our schedules


def evaluated(ef, instance, name, tick):
    repository = build_definitions(catalog_of(ef)).get_repository_def()
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=tick,
        repository_def=repository,
        resources={"emboflow": EmboFlowResource()},
    ) as context:
        return repository.get_schedule_def(name).evaluate_tick(context).skip_message


def test_an_added_schedule_is_one_of_dagsters_too(ef, asset, instance, place):
    ef.workflows.publish({**chain(), "schedule": {"cron": "0 5 * * *", "assets": [asset.display_name]}})
    added = ef.schedules.add("triage", cron="0 3 * * *", timezone="Europe/Berlin", name="triage")

    said = [evaluated(ef, instance, added_schedule_name(place, "triage"), TICK) for _ in range(2)]
    own = evaluated(ef, instance, file_schedule_name(place, "triage"), TICK)

    runs = {run.id: run for run in ef.runs.list()}
    assert len(runs) == 2
    assert said[0] == said[1] == ef.schedules.get(added.id).last.message
    assert all(any(run_id in text for run_id in runs) for text in (*said, own))
    assert {run.triggered_by for run in runs.values()} == {"schedule:triage@2026-01-02T03:00:00Z"}
    definition = build_definitions(catalog_of(ef)).get_repository_def()
    found = definition.get_schedule_def(added_schedule_name(place, "triage"))
    assert (found.cron_schedule, found.execution_timezone) == ("0 3 * * *", "Europe/Berlin")


def down_since(ef, schedule, moment):
    """No daemon has looked at the schedule since then."""
    row = {"scheduleId": schedule.id, "kind": "schedule"}
    ef.mongo[META].update_one(row, {"$set": {"tickedAt": moment}})


@pytest.mark.parametrize(("policy", "count"), [("skip", 0), ("latest", 1), ("all", 3)])
def test_a_daemon_that_was_down_over_ticks_catches_up_as_the_policy_says(
    ef, asset, instance, place, policy, count
):
    ef.workflows.publish(chain())
    now = ef.mongo.server_time()
    # Each day at noon of another day's half: never within minutes of now.
    hour = (now + timedelta(hours=12)).hour
    schedule = ef.schedules.add("triage", cron=f"0 {hour} * * *", catch_up=policy)
    down_since(ef, schedule, now - timedelta(days=3))

    first = take_due(ef, place, NOBODY_OFF)
    # What Dagster itself evaluates when it comes up: the newest tick of those that passed.
    newest = (
        max((d.tick for _, d in first if d.tick), default=None) or ef.schedules.get(schedule.id).ticked_at
    )
    evaluated(ef, instance, added_schedule_name(place, schedule.name), newest)
    second = take_due(ef, place, NOBODY_OFF)

    runs = ef.runs.list()
    after = ef.schedules.get(schedule.id)
    assert len(first) == count
    assert second == []
    assert len({run.scheduled_for for run in runs}) == len(runs) == count
    assert after.missed_count == 3 - count
    assert after.ticked_at == newest


def test_dagsters_tick_brings_those_before_it_along(ef, asset, instance, place):
    ef.workflows.publish(chain())
    schedule = ef.schedules.add("triage", cron="0 3 * * *", catch_up="all")
    down_since(ef, schedule, TICK - timedelta(days=2, hours=1))

    evaluate_tick(ef, schedule.id, TICK)

    assert sorted(run.scheduled_for for run in ef.runs.list()) == [
        TICK - timedelta(days=2),
        TICK - timedelta(days=1),
        TICK,
    ]


def test_a_schedule_that_is_off_in_the_ui_lets_its_ticks_pass(ef, asset, place):
    ef.workflows.publish(chain())
    schedule = ef.schedules.add("triage", cron="0 3 * * *", catch_up="all")
    down_since(ef, schedule, ef.mongo.server_time() - timedelta(days=3))

    off = take_due(ef, place, frozenset({added_schedule_name(place, "triage")}))
    on = take_due(ef, place, NOBODY_OFF)

    assert (off, on, ef.runs.list()) == ([], [], [])


def test_a_paused_or_removed_schedule_says_so_at_its_tick(ef, asset, instance, place):
    ef.workflows.publish(chain())
    schedule = ef.schedules.add("triage", cron="0 3 * * *")
    ef.schedules.pause("triage")

    paused = evaluated(ef, instance, added_schedule_name(place, "triage"), TICK)
    ef.schedules.remove("triage")
    removed = evaluate_tick(ef, schedule.id, TICK)

    assert paused == "paused; `emboflow schedule resume triage`"
    assert removed.startswith("this schedule was removed")
    assert ef.runs.list() == []


def test_the_sensor_takes_new_assets_and_the_queue_executes_them(ef, asset, instance, place, more):
    ef.workflows.publish(chain())
    ef.schedules.add("triage", on_asset="type=raw_file,status=ready", name="intake")
    ef.assets.probe(more.id)
    repository = build_definitions(catalog_of(ef)).get_repository_def()
    sensor = repository.get_sensor_def(keys.place_name(place, "schedules"))

    def look():
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources={"emboflow": EmboFlowResource()}
        ) as context:
            return sensor.evaluate_tick(context).skip_message

    first, second = look(), look()

    [run] = ef.runs.list()
    assert first == f"intake: queued {run.id}; the queue starts it"
    assert second == "nothing is due"
    assert (run.triggered_by, run.asset_ids) == ("sensor:intake", [more.id])
    assert execute_queued(ef, run.id).status is RunStatus.SUCCESS
