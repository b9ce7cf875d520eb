"""What is measured, and what the server says it read for it."""

import gc
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import dagster as dg
import fill

from emboflow_dagster.orchestration import recorder
from emboflow_dagster.orchestration.catalog import Place, catalog_of
from emboflow_dagster.orchestration.definitions import launchables
from emboflow_dagster.orchestration.sensors import request_of
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.outputs import Outputs

PAGE = 50


class Read(NamedTuple):
    """What the server did for one call."""

    examined: int
    returned: int
    plans: str


class Row(NamedTuple):
    """One line of the table."""

    name: str
    small_ms: float
    large_ms: float
    read: Read
    """At the large size."""


Call = Callable[[], Any]


def measured(small: EmboFlow, large: EmboFlow, rounds: int) -> list[Row]:
    """Every operation at both sizes, in turn."""
    sides = (_operations(small), _operations(large))
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in sides[0]}
    gc.disable()
    for turn in range(rounds + 3):
        for name, both in times.items():
            for side, taken in zip(sides, both, strict=True):
                before = side[name]()
                start = time.perf_counter()
                if callable(before):  # what has to be made first is not measured
                    before()
                took = time.perf_counter() - start
                if turn > 2:
                    taken.append(took * 1e3)
        gc.collect()
    gc.enable()
    return [
        Row(name, statistics.median(a), statistics.median(b), _profiled(large, sides[1][name]))
        for name, (a, b) in times.items()
        if name != "clear"
    ]


def _operations(ef: EmboFlow) -> dict[str, Callable[[], Call]]:
    """Name to what makes the next call of it."""
    runs = ef.mongo["workflow_runs"].estimated_document_count()
    place = Place("acme", "bench")
    catalog = launchables(catalog_of(ef))
    instance = dg.DagsterInstance.ephemeral()
    shown = _places(runs)
    middle, oldest = f"run_{runs // 2:026}", f"run_{PAGE + 10:026}"
    day = fill.EPOCH + (runs // 2) * fill.STEP
    asset = ef.assets.list(limit=1)[0].display_name
    fresh: list[Any] = []

    def tick() -> list[dg.RunRequest]:
        queued = [ef.runs.to_execute(run) for run in ef.runs.queued()]
        return [request_of(one, catalog, place) for one in queued]

    def ask() -> list[dg.RunRequest]:
        requests = tick()
        if len(requests) < fill.OPEN:
            raise SystemExit(f"the queue has {len(requests)}")
        return requests

    def recorder_tick() -> None:
        recorder.settle(ef, instance)

    def stuck() -> None:
        ef.runs.draining()
        ef.runs.active()
        ef.runs.queued()

    def claim() -> Call:
        run = ef.runs.request("flow-03", assets=[asset])
        fresh.append(run)
        return lambda: fresh.append(ef.runs.recorder.claim(run.id, "take", "bench"))

    def settle() -> Call:
        run = ef.runs.request("flow-03", assets=[asset])
        claimed = ef.runs.recorder.claim(run.id, "take", "bench")

        def call() -> None:
            ef.runs.recorder.succeed(claimed, {}, Outputs())
            fresh.append(run)

        return call

    def clear() -> Call:
        """What claim and settle left goes, so that the queue stays as it was."""
        for run in fresh:
            ef.mongo["workflow_runs"].delete_one({"_id": getattr(run, "run", run).id})
            ef.mongo["run_tasks"].delete_many({"workflowRunId": getattr(run, "run", run).id})
        fresh.clear()
        return lambda: None

    def page(name: str, **how: Any) -> tuple[str, Callable[[], Call]]:
        which = {key: value for key, value in how.items() if key != "after"}
        chosen = ef.runs.filter(**which)

        def call() -> None:
            found = ef.runs.history.lines(chosen, after=how.get("after"), limit=PAGE)
            if len(found) != PAGE:
                raise SystemExit(f"{name}: {len(found)} runs at {runs:,}")

        return name, lambda: call

    return {
        "queue sensor's tick": lambda: ask,
        "recorder: what is not over": lambda: stuck,
        "claim": claim,
        "settle and promote": settle,
        "clear": clear,
        "run show": lambda: lambda: ef.runs.show(next(shown)),
        "list, whole documents": lambda: lambda: ef.runs.list(limit=PAGE),
        **dict(
            (
                page("history: first page"),
                page("history: from the middle on", after=middle),
                page("history: the oldest", after=oldest),
                page("status=failed", status="failed"),
                page("status=failed, from the middle on", status="failed", after=middle),
                page("workflow", workflow="flow-05"),
                page("workflow and status=failed", workflow="flow-00", status="failed"),
                page("workflow, version", workflow="flow-05", version=1),
                page("by user:ada", triggered_by="user:ada"),
                page("by any user", triggered_by="user"),
                page("by any schedule", triggered_by="schedule"),
                page("by schedule:nightly-3", triggered_by="schedule:nightly-3"),
                page("an asset", asset="asset-009"),
                page("an asset of one workflow", asset=f"asset-{fill.ASSETS - 1:03}"),
                page("a day, in the middle", since=day, until=day + timedelta(days=1)),
                page("asset and status=failed", asset="asset-014", status="failed"),
            )
        ),
        "count, all (to 10,000)": lambda: ef.runs.count,
    }


def _places(runs: int) -> Any:
    """Ids of runs all over the history, for ever."""
    place = 17
    while True:
        place = (place * 48_271 + 11) % (runs - 100)
        yield f"run_{place:026}"


def _profiled(ef: EmboFlow, make: Callable[[], Call]) -> Read:
    call = make()
    database = ef.mongo.db
    database.drop_collection("system.profile")
    database.command("profile", 2)
    try:
        call()
    finally:
        database.command("profile", 0)
    rows = list(database["system.profile"].find({"planSummary": {"$exists": True}}))
    plans = sorted({row["planSummary"].split(" ")[0] for row in rows})
    return Read(
        sum(row.get("docsExamined", 0) for row in rows),
        sum(row.get("nreturned", row.get("nMatched", 0)) for row in rows),
        ", ".join(plans),
    )
