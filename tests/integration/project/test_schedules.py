"""Schedules over a real server: what a tick requests, and that it does so once."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    TransitionError,
)
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.run import RunStatus
from emboflow_dagster.model.run_schedule import Outcome, ScheduleStatus
from emboflow_dagster.project import ticking
from tests.integration.project.flows import SMALL

READY = "type=raw_file,status=ready"
NEW = f"{READY},since=last-run"
TICKS = [datetime(2026, 3, day, 3, tzinfo=UTC) for day in range(1, 6)]


@pytest.fixture
def published(ef):
    """A published workflow."""
    return ef.workflows.publish(SMALL).definition


@pytest.fixture
def ready(ef, tmp_path):
    """Registers files that are ready, as if somebody had looked into them."""

    def make(*names):
        made = []
        for name in names:
            path = tmp_path / f"{name}.csv"
            path.write_text(f"t,x\n0,{name}\n")
            made.append(ef.assets.register(path, type="raw_file", name=name).id)
            ef.assets.documents.change(made[-1], {"status": "ready", "updatedAt": utc_now()})
        return made

    return make


def at(ef, moment):
    """The server's clock stands."""
    ef.ticking.now = lambda: moment


def bound(ef):
    """What each run binds, by tick, oldest first."""
    return [run.asset_ids for run in sorted(ef.runs.list(), key=lambda r: (r.scheduled_for, r.id))]


def seen_at(ef, schedule, moment):
    """The schedule as a daemon left it that took its last tick then."""
    row = {"scheduleId": schedule.id, "kind": "schedule"}
    ef.mongo[META].update_one(row, {"$set": {"tickedAt": moment}})
    return ef.schedules.get(schedule.id)


def test_a_tick_is_one_run_with_all_that_was_asked_for(ef, published, ready):
    [asset] = ready("rows")
    schedule = ef.schedules.add(
        "small", cron="0 3 * * *", assets=["rows"], name="nightly", cache_policy="refresh", label="by night"
    )

    first = ef.ticking.tick(schedule, TICKS[0])
    again = ef.ticking.tick(schedule, TICKS[0])

    [run] = ef.runs.list()
    assert first.run_id == again.run_id == run.id
    assert run.triggered_by == "schedule:nightly@2026-03-01T03:00:00Z"
    assert run.scheduled_for == TICKS[0]
    assert run.status is RunStatus.QUEUED
    assert run.asset_ids == [asset]
    assert (run.config.cache_policy, run.config.label) == ("refresh", "by night")
    assert [task.status.value for task in ef.runs.tasks(run)] == ["queued", "pending"]


def test_a_tick_that_many_take_at_once_is_one_run(ef, opener, published, ready):
    ready("a", "b")
    schedule = ef.schedules.add("small", cron="0 3 * * *", assets=[NEW])
    handles = [opener() for _ in range(6)]
    begin = threading.Barrier(len(handles))
    found = []

    def take(handle):
        begin.wait()
        found.append(handle.ticking.tick(schedule, TICKS[0]).run_id)

    threads = [threading.Thread(target=take, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [run] = ef.runs.list()
    assert found == [run.id] * len(handles)
    assert len(run.asset_ids) == 2
    assert [row.action for row in ef.audit.list(action="run.create")] == ["run.create"]


@pytest.mark.parametrize(
    ("policy", "most", "late", "run", "missed"),
    [
        ("latest", 24, timedelta(hours=9), [3], 3),
        ("latest", 24, timedelta(seconds=20), [3], 3),
        ("all", 24, timedelta(hours=9), [0, 1, 2, 3], 0),
        ("all", 2, timedelta(hours=9), [2, 3], 2),
        ("skip", 24, timedelta(hours=9), [], 4),
        ("skip", 24, timedelta(seconds=20), [3], 3),
    ],
)
def test_ticks_that_passed_are_caught_up_as_the_policy_says(
    ef, published, ready, policy, most, late, run, missed
):
    ready("rows")
    schedule = ef.schedules.add(
        "small", cron="0 3 * * *", assets=["rows"], catch_up=policy, max_catch_up=most
    )
    schedule = seen_at(ef, schedule, TICKS[0] - timedelta(days=1))
    at(ef, TICKS[3] + late)

    ef.ticking.take(schedule, TICKS[:4])
    ef.ticking.take(schedule, TICKS[:4])  # another daemon, from the same reading of the schedule

    assert sorted(r.scheduled_for for r in ef.runs.list()) == [TICKS[i] for i in run]
    after = ef.schedules.get(schedule.id)
    assert after.missed_count == missed
    assert after.ticked_at == TICKS[3]
    rows = [row.after_summary["count"] for row in ef.audit.list(action="schedule.miss")]
    assert rows == ([missed] if missed else [])


def test_since_the_last_run_every_asset_is_bound_once(ef, published, ready):
    first = ready("a", "b")
    schedule = ef.schedules.add("small", cron="0 3 * * *", assets=[NEW])

    def tick(number):
        return ef.ticking.tick(ef.schedules.get(schedule.id), TICKS[number]).outcome

    one, nothing = tick(0), tick(1)
    second = ready("c")
    unready = ef.assets.register(__file__, type="raw_file", name="not-looked-into").id
    two = tick(2)
    ef.assets.probe(unready)
    three = tick(3)

    assert [one, nothing, two, three] == [Outcome.REQUESTED, Outcome.NOTHING, *[Outcome.REQUESTED] * 2]
    assert bound(ef) == [first, second, [unready]]


def test_no_asset_is_no_run_and_says_why(ef, published):
    schedule = ef.schedules.add("small", cron="0 3 * * *", assets=[NEW])

    ef.ticking.tick(schedule, TICKS[0])

    last = ef.schedules.get(schedule.id).last
    assert ef.runs.list() == []
    assert (last.outcome, last.tick) == (Outcome.NOTHING, TICKS[0])
    assert last.message == f"no run: no asset matches {NEW}"


def test_without_assets_a_tick_binds_all_that_the_sources_take(ef, published, ready):
    assets = ready("a", "b")

    ef.ticking.tick(ef.schedules.add("small", cron="0 3 * * *"), TICKS[0])

    assert bound(ef) == [assets]


def test_an_asset_that_is_gone_fails_the_tick_and_says_so(ef, published, ready):
    ready("rows")
    schedule = ef.schedules.add("small", cron="0 3 * * *", assets=["rows"])
    ef.mongo["assets"].delete_many({})

    decision = ef.ticking.tick(schedule, TICKS[0])

    assert decision.outcome is Outcome.FAILED
    assert decision.message.startswith("error[not-found]: asset 'rows'")
    assert ef.schedules.get(schedule.id).last.outcome is Outcome.FAILED


# ------------------------------------------------------------------------------------------- new assets


def test_every_new_asset_starts_one_run(ef, published, ready):
    ready("old")
    schedule = ef.schedules.add("small", on_asset=READY, name="intake", label="fresh")
    assert ef.ticking.look(schedule) == []

    new = ready("a", "b")
    for _ in range(3):
        ef.ticking.look(ef.schedules.get("intake"))
    late = ef.assets.register(__file__, type="raw_file", name="late").id
    ef.ticking.look(ef.schedules.get("intake"))
    ef.assets.probe(late)
    ef.assets.probe(new[0])  # looked into again: no new asset
    ef.ticking.look(ef.schedules.get("intake"))

    runs = ef.runs.list()
    assert sorted(run.asset_ids for run in runs) == sorted([[new[0]], [new[1]], [late]])
    assert {(run.triggered_by, run.config.label) for run in runs} == {("sensor:intake", "fresh")}


def test_assets_that_were_there_start_runs_when_that_is_asked(ef, published, ready):
    [old] = ready("old")

    ef.ticking.look(ef.schedules.add("small", on_asset=READY, existing=True))

    assert [run.asset_ids for run in ef.runs.list()] == [[old]]


def test_new_assets_beyond_one_look_are_taken_by_the_next(ef, published, ready):
    schedule = ef.schedules.add("small", on_asset=READY)
    assets = ready("a", "b", "c")

    first = ef.ticking.look(schedule, most=2)
    second = ef.ticking.look(ef.schedules.get(schedule.id), most=2)

    assert (len(first), len(second)) == (2, 1)
    assert sorted(run.asset_ids for run in ef.runs.list()) == sorted([a] for a in assets)


def test_an_asset_of_a_machine_whose_clock_is_late_is_seen(ef, published, ready):
    schedule = ef.schedules.add("small", on_asset=READY)
    ef.ticking.look(schedule)
    [asset] = ready("a")
    hours_ago = ef.mongo.server_time() - timedelta(hours=3)
    ef.mongo["assets"].update_one({"_id": asset}, {"$set": {"createdAt": hours_ago, "updatedAt": hours_ago}})

    ef.ticking.look(ef.schedules.get(schedule.id))

    assert [run.asset_ids for run in ef.runs.list()] == [[asset]]


class Killed(BaseException):
    """The process ends here."""


def killed_after_the_run(ef, look):
    """Look, and die where the run is written and the transaction is not committed."""
    request = ef.runs.recorder.tasks.insert

    def dies(*documents, session=None):
        request(*documents, session=session)
        raise Killed

    ef.runs.recorder.tasks.insert = dies
    with pytest.raises(Killed):
        look()
    ef.runs.recorder.tasks.insert = request


def test_a_daemon_killed_while_it_requests_leaves_nothing_and_the_next_look_does_it(ef, published, ready):
    schedule = ef.schedules.add("small", on_asset=READY)
    [asset] = ready("a")

    killed_after_the_run(ef, lambda: ef.ticking.look(schedule))
    left = (ef.runs.list(), ef.mongo[META].count_documents({"kind": "taken"}))
    for _ in range(2):
        ef.ticking.look(ef.schedules.get(schedule.id))

    assert left == ([], 0)
    assert [run.asset_ids for run in ef.runs.list()] == [[asset]]


def story(ef, ready):
    """A daemon that is killed right after it requested a run, and another one that ticks and looks."""
    schedule = ef.schedules.add("small", cron="0 3 * * *", assets=[NEW])
    ready("a")
    ef.ticking.tick(schedule, TICKS[0])
    ef.ticking.tick(schedule, TICKS[0])
    ef.ticking.tick(ef.schedules.get(schedule.id), TICKS[1])
    return len(ef.runs.list())


def test_the_story_of_two_daemons_is_one_run(ef, published, ready):
    assert story(ef, ready) == 1


def test_a_run_id_of_its_own_each_time_would_be_noticed(ef, published, ready, monkeypatch):
    numbers = iter(range(100))
    monkeypatch.setattr(ticking, "run_id_of", lambda *_: f"run_{next(numbers):026}")
    monkeypatch.setattr(type(ef.ticking), "_beside", lambda *_: None)

    assert story(ef, ready) > 1


def test_assets_that_nobody_notes_as_taken_would_be_noticed(ef, published, ready, monkeypatch):
    monkeypatch.setattr(type(ef.ticking), "_beside", lambda *_: None)

    assert story(ef, ready) > 1


# -------------------------------------------------------------------------------- pause, resume, remove


def test_a_paused_schedule_requests_nothing_also_for_who_read_it_before(ef, published, ready):
    ready("rows")
    schedule = ef.schedules.add("small", cron="0 3 * * *", assets=["rows"])
    ef.schedules.pause(schedule.name)

    decision = ef.ticking.tick(schedule, TICKS[0])

    assert ef.runs.list() == []
    assert decision.outcome is Outcome.FAILED
    assert "paused or removed" in decision.message
    assert ef.schedules.pause(schedule.name).status is ScheduleStatus.PAUSED


def test_ticks_of_the_pause_stay_past_and_new_assets_wait(ef, published, ready):
    cron = ef.schedules.add("small", cron="0 3 * * *", name="nightly")
    intake = ef.schedules.add("small", on_asset=READY, name="intake")
    seen_at(ef, cron, TICKS[0])
    for name in ("nightly", "intake"):
        ef.schedules.pause(name)
    [asset] = ready("a")

    before = ef.mongo.server_time()
    resumed = [ef.schedules.resume(name) for name in ("nightly", "intake")]

    assert resumed[0].ticked_at >= before
    ef.ticking.look(resumed[1])
    assert [run.asset_ids for run in ef.runs.list()] == [[asset]]
    assert intake.id == resumed[1].id


def test_a_removed_schedule_is_gone_with_its_notes_and_its_runs_stay(ef, published, ready):
    ready("a")
    schedule = ef.schedules.add("small", cron="0 3 * * *", assets=[NEW], name="nightly")
    ef.ticking.tick(schedule, TICKS[0])

    ef.schedules.remove("nightly")
    late = ef.ticking.tick(schedule, TICKS[1])

    assert late.outcome is not Outcome.REQUESTED
    assert len(ef.runs.list()) == 1
    assert ef.mongo[META].count_documents({"kind": {"$in": ["taken", "schedule"]}}) == 0
    with pytest.raises(NotFoundError, match="nightly"):
        ef.schedules.remove("nightly")


def test_a_schedule_added_again_is_another_one(ef, published, ready):
    ready("a")
    for _ in range(2):
        schedule = ef.schedules.add("small", cron="0 3 * * *", assets=[NEW], name="nightly")
        ef.ticking.tick(schedule, TICKS[0])
        ef.schedules.remove("nightly")

    assert len(ef.runs.list()) == 2


def test_who_did_what_is_in_the_audit_log(ef, published):
    schedule = ef.schedules.add("small", cron="0 3 * * *", name="nightly")
    ef.schedules.pause("nightly")
    ef.schedules.resume("nightly")
    ef.schedules.remove("nightly")

    rows = [row for row in reversed(ef.audit.list()) if row.action.startswith("schedule.")]
    assert [row.action.partition(".")[2] for row in rows] == ["add", "pause", "resume", "remove"]
    assert {(row.actor_id, row.resource_id) for row in rows} == {("ada", schedule.id)}
    assert rows[0].after_summary == {"name": "nightly", "workflow": "small", "when": "0 3 * * * UTC"}
    assert ef.verify().problems == []


# ------------------------------------------------------------------------------------ in workflow files


def with_schedule(cron="0 3 * * *", **more):
    return {**SMALL, "schedule": {"cron": cron, "timezone": "UTC", **more}}


def test_the_schedule_of_a_file_is_listed_beside_the_others(ef, ready):
    ready("a")
    ef.workflows.publish(with_schedule(assets=READY))
    ef.schedules.add("small", cron="0 4 * * *", name="extra")

    [extra, own] = ef.schedules.list()

    assert (extra.name, own.name, own.origin, own.assets) == ("extra", "small", "workflow", [READY])
    assert ef.ticking.tick(own, TICKS[0]).run_id == ef.runs.list()[0].id
    assert ef.runs.list()[0].triggered_by == "schedule:small@2026-03-01T03:00:00Z"
    with pytest.raises(TransitionError, match="part of workflow small's file"):
        ef.schedules.remove("small")
    assert ef.schedules.pause("small").status is ScheduleStatus.PAUSED
    ef.workflows.publish(SMALL)
    assert [one.name for one in ef.schedules.list()] == ["extra"]


def test_another_version_at_the_same_times_goes_on_where_the_one_before_was(ef, ready):
    ready("a")
    ef.workflows.publish(with_schedule())
    schedule = ef.schedules.get("small")
    ef.ticking.tick(schedule, schedule.created_at + timedelta(days=1))
    seen = ef.schedules.get("small").ticked_at

    ef.workflows.publish({**with_schedule(), "description": "another"})
    same = ef.schedules.get("small").ticked_at
    ef.workflows.publish({**with_schedule("0 4 * * *")})
    other = ef.schedules.get("small")

    assert same == seen
    assert other.created_at > schedule.created_at
    assert other.cron == "0 4 * * *"


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({}, ErrorKind.INVALID_INPUT, "either a cron expression or a selector"),
        ({"cron": "* * * * *", "on_asset": READY}, ErrorKind.INVALID_INPUT, "either a cron expression"),
        ({"cron": "@daily"}, ErrorKind.CRON, "write '0 0 \\* \\* \\*'"),
        ({"cron": "* * * * *", "timezone": "europe/berlin"}, ErrorKind.TZ, "did you mean 'Europe/Berlin'"),
        ({"cron": "* * * * *", "assets": ["typ=x"]}, ErrorKind.SELECTOR, r"assets\[0\]: unknown key 'typ'"),
        ({"cron": "* * * * *", "assets": ["nosuch"]}, ErrorKind.NOT_FOUND, "asset 'nosuch'"),
        ({"cron": "* * * * *", "version": 7}, ErrorKind.NOT_FOUND, "no version 7"),
        ({"cron": "* * * * *", "name": "A b"}, ErrorKind.SLUG, "name: found 'A b'"),
        ({"cron": "* * * * *", "catch_up": "some"}, ErrorKind.INVALID_INPUT, "skip, latest, all"),
        ({"cron": "* * * * *", "max_catch_up": 0}, ErrorKind.INVALID_INPUT, "allowed is 1 to 1000"),
        ({"cron": "* * * * *", "cache_policy": "maybe"}, ErrorKind.INVALID_INPUT, "use, refresh, off"),
        ({"cron": "* * * * *", "label": "a\tb"}, ErrorKind.NAME_CONTROL, "label"),
        ({"on_asset": NEW}, ErrorKind.SELECTOR, "each asset comes once"),
        ({"cron": "* * * * *", "existing": True}, ErrorKind.INVALID_INPUT, "about new assets"),
    ],
)
def test_a_schedule_that_could_not_work_is_refused_when_it_is_added(ef, published, asked, kind, said):
    with pytest.raises((InvalidInputError, NotFoundError), match=said) as caught:
        ef.schedules.add("small", **asked)

    assert caught.value.kind is kind
    assert ef.schedules.list() == []


def test_a_name_is_taken_once(ef, published):
    ef.schedules.add("small", cron="0 3 * * *")
    second = ef.schedules.add("small", cron="0 3 * * *")

    assert [one.name for one in ef.schedules.list()] == ["small", "small-2"]
    assert second.name == "small-2"
    with pytest.raises(AlreadyExistsError, match="schedule small:"):
        ef.schedules.add("small", cron="0 4 * * *", name="small")


def test_a_schedule_is_seen_in_its_project_alone(ef, opener, published):
    ef.schedules.add("small", cron="0 3 * * *", name="nightly")
    other = opener(project="elsewhere")

    assert other.schedules.list() == []
    with pytest.raises(NotFoundError):
        other.schedules.remove("nightly")


# --------------------------------------------------------------------------------------- runs by hand


def test_a_run_by_hand_takes_selectors_and_what_else_is_asked(ef, published, ready):
    assets = ready("a", "b")

    run = ef.workflows.run("small", assets=["b", READY], version=1, cache_policy="off", label="by hand")

    assert run.asset_ids == [assets[1], assets[0]]
    assert run.config.to_mongo() == {"cachePolicy": "off", "label": "by hand"}
    with pytest.raises(NotFoundError, match="no asset matches type=rosbag"):
        ef.workflows.run("small", assets=["type=rosbag"])
    with pytest.raises(InvalidInputError, match="since=last-run is for schedules"):
        ef.workflows.run("small", assets=[NEW])


def test_a_repeated_run_keeps_what_was_asked_of_it(ef, published, ready):
    ready("a")
    run = ef.workflows.run("small", assets=["a"], cache_policy="off", label="by hand")
    ef.runs.cancel(run.id)

    again, latest = ef.runs.retry(run.id), ef.runs.retry(run.id, latest=True)

    assert run.config == again.config == latest.config
