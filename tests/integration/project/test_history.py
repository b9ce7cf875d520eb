"""The history of runs: every filter and every page gives the right rows, and reads no more than it gives."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from emboflow_dagster.errors import InvalidInputError, NotFoundError
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.project.handle import EmboFlow

START = datetime(2026, 3, 1, tzinfo=UTC)
MANY = 600
WAYS = (
    "user:ada",
    "dagster-ui",
    "schedule:nightly@{n:06}",
    "schedule:weekly@{n:06}",
    "sensor:bags",
    "retry:r{n}",
)


@pytest.fixture
def runs(ef: EmboFlow, asset_file: Any) -> list[dict[str, Any]]:
    """Runs of two workflows, one of two versions; two a second, so that ids decide; newest last."""
    assets = []
    for number in range(3):
        asset_file.write_text(f"t\n{number}\n")
        assets.append(ef.assets.register(asset_file, type="raw_file", name=f"a{number}").id)
    nodes = [{"id": "src", "type": "source"}]
    ef.workflows.publish({"workflow": "one", "nodes": nodes})
    ef.workflows.publish({"workflow": "two", "nodes": nodes})
    old = ef.runs.request("one", assets=assets[:1])
    ef.workflows.publish({"workflow": "one", "nodes": [*nodes, {"id": "more", "type": "source"}]})
    templates = [old, *(ef.runs.request(name, assets=assets[:1]) for name in ("one", "two"))]
    ef.mongo["workflow_runs"].delete_many({})
    rows = []
    for n in range(MANY):
        row = templates[n % 3].to_mongo()
        rows.append(
            {
                **row,
                "_id": f"run_{n:026}",
                "createdAt": START + timedelta(seconds=n // 2),
                "status": ("success", "success", "failed", "success", "cancelled")[n % 5],
                "finishedAt": START,
                "assetIds": [assets[0], *([assets[1]] if n % 7 == 0 else [])],
                "triggeredBy": WAYS[n // 3 % len(WAYS)].format(n=n),
                **({"config": {"label": f"gripper {n % 2}"}} if n % 11 == 0 else {}),
            }
        )
    ef.mongo["workflow_runs"].insert_many(rows)
    return rows


FILTERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any], EmboFlow], bool]]] = {
    "nothing": ({}, lambda r, ef: True),
    "status": ({"status": "failed"}, lambda r, ef: r["status"] == "failed"),
    "workflow": ({"workflow": "one"}, lambda r, ef: r["runtimeSnapshot"]["workflowSlug"] == "one"),
    "version": (
        {"workflow": "one", "version": 2},
        lambda r, ef: r["workflowVersionId"] == ef.workflows.version("one", 2).id,
    ),
    "workflow and status": (
        {"workflow": "two", "status": "cancelled"},
        lambda r, ef: (r["runtimeSnapshot"]["workflowSlug"], r["status"]) == ("two", "cancelled"),
    ),
    "asset": ({"asset": "a1"}, lambda r, ef: ef.assets.get("a1").id in r["assetIds"]),
    "a person": ({"triggered_by": "user:ada"}, lambda r, ef: r["triggeredBy"] == "user:ada"),
    "anybody": ({"triggered_by": "user"}, lambda r, ef: r["triggeredBy"].startswith("user:")),
    "the user interface": ({"triggered_by": "dagster-ui"}, lambda r, ef: r["triggeredBy"] == "dagster-ui"),
    "any schedule": ({"triggered_by": "schedule"}, lambda r, ef: r["triggeredBy"].startswith("schedule:")),
    "one schedule": (
        {"triggered_by": "schedule:weekly"},
        lambda r, ef: r["triggeredBy"].startswith("schedule:weekly@"),
    ),
    "retries": ({"triggered_by": "retry"}, lambda r, ef: r["triggeredBy"].startswith("retry:")),
    "a label": ({"label": "gripper 1"}, lambda r, ef: r.get("config") == {"label": "gripper 1"}),
    "a label and status": (
        {"label": "gripper 0", "status": "failed"},
        lambda r, ef: (r.get("config"), r["status"]) == ({"label": "gripper 0"}, "failed"),
    ),
    "a minute": (
        {"since": START + timedelta(seconds=60), "until": START + timedelta(seconds=120)},
        lambda r, ef: 60 <= (r["createdAt"] - START).seconds < 120,
    ),
    "one schedule, failed": (
        {"triggered_by": "schedule:nightly", "status": "failed"},
        lambda r, ef: r["triggeredBy"].startswith("schedule:nightly@") and r["status"] == "failed",
    ),
}  # fmt: skip
#: One index for two filters at once would be one for each pair: these read a few rows more.
NOT_EXACT = {"one schedule, failed", "a label and status"}


@pytest.fixture
def examined(database: Mongo) -> Iterator[Callable[[Callable[[], Any]], int]]:
    """How many runs the server looked at while something was asked; no scan, no page sorted in memory."""

    def count(call: Callable[[], Any], *, sorts: bool = False) -> int:
        database.db.drop_collection("system.profile")
        database.db.command("profile", 2)
        try:
            call()
        finally:
            database.db.command("profile", 0)
        [asked] = database["system.profile"].find({"ns": f"{database.db.name}.workflow_runs"})
        assert "COLLSCAN" not in asked["planSummary"]
        assert asked.get("hasSortStage", False) in (False, sorts)
        return int(asked.get("docsExamined", 0))

    yield count
    database.db.drop_collection("system.profile")


def test_every_filter_gives_its_runs_page_by_page_and_reads_those_alone(
    ef: EmboFlow, runs: list[dict[str, Any]], examined: Callable[..., int]
) -> None:
    for name, (how, holds) in FILTERS.items():
        wanted = [row["_id"] for row in reversed(runs) if holds(row, ef)]
        which = ef.runs.filter(**how)
        pages: list[str] = []
        while page := ef.runs.history.lines(which, after=pages[-1] if pages else None, limit=17):
            pages += [line.id for line in page]
        assert (name, pages) == (name, wanted)
        assert [run.id for run in ef.runs.list(limit=0, **how)] == wanted, name
        assert ef.runs.count(**how) == (len(wanted), False), name
        if name not in NOT_EXACT:
            first: list[WorkflowRun] = []
            read = examined(lambda w=which, f=first: f.extend(ef.runs.history.page(w, limit=20)))
            assert (name, read) == (name, len(first))


def test_a_page_from_the_middle_reads_what_one_from_the_start_reads(
    ef: EmboFlow, runs: list[dict[str, Any]], examined: Callable[..., int]
) -> None:
    middle = ef.runs.get(runs[MANY // 2]["_id"])
    filter_ = ef.runs.history._filter(ef.runs.filter(), middle.id)

    # Two of the same moment stand above it.
    assert examined(lambda: ef.runs.documents.find(filter_, limit=20)) in {20, 21, 22}


def test_a_run_that_comes_meanwhile_moves_no_page(ef: EmboFlow, runs: list[dict[str, Any]]) -> None:
    first = ef.runs.list(limit=10)
    ef.runs.request("one", assets=["a0"])
    second = ef.runs.list(limit=10, after=first[-1].id)

    assert [run.id for run in second] == [row["_id"] for row in reversed(runs)][10:20]


def test_counting_ends_at_its_limit_and_counts_keys(
    ef: EmboFlow, runs: list[dict[str, Any]], examined: Callable[..., int]
) -> None:
    count = ef.runs.history.count

    assert str(count(ef.runs.filter(), limit=100)) == "100+"
    assert str(ef.runs.count(status="failed")) == "120"
    assert examined(lambda: count(ef.runs.filter())) == 0
    assert examined(lambda: count(ef.runs.filter(status="failed"))) == 0


def test_a_line_says_what_its_run_says(ef: EmboFlow, runs: list[dict[str, Any]]) -> None:
    [line] = ef.runs.history.lines(ef.runs.filter(), limit=1)
    run = ef.runs.get(line.id)

    assert (line.workflow, line.version) == (
        run.runtime_snapshot.workflow_slug,
        run.runtime_snapshot.version_number,
    )
    assert (line.label, ef.runs.history.lines(ef.runs.filter(label="gripper 0"), limit=1)[0].label) == (
        None,
        "gripper 0",
    )
    assert (line.status, line.summary, line.assets, line.triggered_by, line.created_at) == (
        run.status,
        run.summary,
        len(run.asset_ids),
        run.triggered_by,
        run.created_at,
    )


def test_another_project_sees_none_of_it(ef: EmboFlow, runs: list[dict[str, Any]], opener: Any) -> None:
    other = opener(project="elsewhere")

    assert other.runs.list() == []
    assert other.runs.count() == (0, False)
    with pytest.raises(NotFoundError):
        other.runs.list(after=runs[0]["_id"])


def test_what_cannot_be_meant_is_refused(ef: EmboFlow, runs: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidInputError, match="of which workflow"):
        ef.runs.list(version=1)
    with pytest.raises(InvalidInputError, match="allowed are queued"):
        ef.runs.list(status="done")
    with pytest.raises(InvalidInputError, match="not later"):
        ef.runs.list(since=START, until=START)
    with pytest.raises(NotFoundError):
        ef.runs.list(asset="nothing")


def test_what_is_not_over_is_asked_of_an_index_of_that_alone(
    ef: EmboFlow, runs: list[dict[str, Any]], examined: Callable[..., int]
) -> None:
    """The sensors' questions, among hundreds of runs that are over."""
    queued = ef.runs.request("one", assets=["a0"])
    held = ef.runs.request("one", assets=["a0"])
    ef.runs.claim(held.id, "5b1f7a52-6f3e-4b0c-9d7e-0c1d2e3f4a5b")
    ended = ef.runs.request("one", assets=["a0"])
    ef.runs.recorder.claim(ended.id, "src", "w")
    ef.runs.cancel(ended.id)
    questions: dict[str, tuple[Callable[[], list[WorkflowRun]], list[str]]] = {
        "queued": (ef.runs.queued, [queued.id]),
        "active": (ef.runs.active, [held.id]),
        "draining": (ef.runs.draining, [ended.id]),
    }
    for name, (ask, wanted) in questions.items():
        found: list[WorkflowRun] = []
        read = examined(lambda ask=ask, found=found: found.extend(ask()), sorts=True)
        assert (name, [run.id for run in found]) == (name, wanted)
        assert (name, read <= 4) == (name, True)
