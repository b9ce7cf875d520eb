"""Runs on random graphs against a small model; the invariants of the state machine hold after every step.

Machines that are broken on purpose are told from ours: each break is a test.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from emboflow_dagster.errors import ErrorKind, TransitionError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import (
    RUN_TRANSITIONS,
    TASK_TRANSITIONS,
    RunStatus,
    RunTask,
    TaskStatus,
    TaskSummary,
)
from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.verify.report import VerifyReport, View
from emboflow_dagster.project.verify.runs import check_runs
from emboflow_dagster.runtime import advance, control, machine, record
from emboflow_dagster.runtime.node import Narrowing
from emboflow_dagster.runtime.outputs import Outputs
from emboflow_dagster.runtime.plan import plan_run
from emboflow_dagster.runtime.record import Claimed, Recorder

ASSETS = ["a1", "a2", "a3"]
NARROWINGS: dict[str, Narrowing | None] = {
    "plain": None,
    "union": Narrowing.UNION,
    "intersection": Narrowing.INTERSECTION,
    "difference": Narrowing.DIFFERENCE,
}
OURS = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
HUNT = settings(
    OURS,
    max_examples=150,
    phases=(Phase.generate,),
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
)


class Node(NamedTuple):
    kind: str
    after: tuple[str, ...]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Node]:
    """2 to 6 nodes; each after some of those before it."""
    nodes: dict[str, Node] = {}
    for number in range(draw(st.integers(2, 6))):
        after = draw(st.lists(st.sampled_from(sorted(nodes)), unique=True, max_size=3)) if nodes else []
        kind = draw(st.sampled_from(sorted(NARROWINGS))) if after else "plain"
        nodes[f"n{number}"] = Node(kind, tuple(after))
    return nodes


PICK = st.integers(0, 5)
SUBSETS = st.sets(st.sampled_from(ASSETS)).map(lambda s: [a for a in ASSETS if a in s])


class Runs(RuleBasedStateMachine):
    """One run; the model is a status and a set of assets a node."""

    ef: EmboFlow

    def __init__(self) -> None:
        super().__init__()
        self.recorder = Recorder(self.ef.mongo, self.ef.scope, NARROWINGS)
        self.status: dict[str, str] = {}
        self.assets: dict[str, list[str]] = {}
        self.attempt: dict[str, int] = {}
        self.claims: dict[str, Claimed] = {}
        self.old: list[Claimed] = []
        self.run_status = "queued"
        self.before: dict[str, RunTask] = {}
        self.run_before = RunStatus.QUEUED

    @initialize(nodes=graphs())
    def request(self, nodes: dict[str, Node]) -> None:
        self.nodes, unique, now = nodes, uuid4().hex[:12], utc_now()
        own = {
            "workspace_id": self.ef.scope.workspace_id,
            "project_id": self.ef.scope.project_id,
            "created_by": "ada",
            "created_at": now,
        }
        head = WorkflowDefinition.checked(
            id=f"wf_{unique}", name="W", slug=f"w-{unique}", status="published", updated_at=now, **own
        )
        version = WorkflowDefinitionVersion.checked(
            id=f"wfv_{unique}",
            workflow_definition_id=head.id,
            version_number=1,
            logic_graph={
                "nodes": [{"id": n, "type": node.kind} for n, node in nodes.items()],
                "edges": [{"from": up, "to": n} for n, node in nodes.items() for up in node.after],
            },
            runtime_graph={"nodeConfigs": {}},
            **own,
        )
        run, tasks = plan_run(self.ef.scope, head, version, ASSETS, triggered_by="user:ada")
        self.recorder.request(run, tasks)
        self.run_id, self.snapshot = run.id, run.runtime_snapshot
        for task in tasks:
            self.status[task.node_id] = "pending" if nodes[task.node_id].after else "queued"
            self.assets[task.node_id] = ASSETS
            self.attempt[task.node_id] = 1

    # -------------------------------------------------------------------------------------- the model

    def node(self, pick: int) -> str:
        return f"n{pick % len(self.nodes)}"

    def active(self) -> bool:
        return self.run_status in ("queued", "running")

    def promote(self) -> None:
        for name, node in self.nodes.items():
            if self.status[name] == "pending" and all(self.status[up] == "success" for up in node.after):
                self.status[name] = "queued"
                if not node.after:
                    continue
                first, *rest = (set(self.assets[up]) for up in node.after)
                match node.kind:
                    case "intersection":
                        kept = first.intersection(*rest)
                    case "difference":
                        kept = first.difference(*rest)
                    case _:
                        kept = first.union(*rest)
                self.assets[name] = [a for a in ASSETS if a in kept]

    def settle(self) -> None:
        found = set(self.status.values())
        if self.active() and found == {"success"}:
            self.run_status = "success"
        elif self.active() and "failed" in found and not found & {"queued", "running"}:
            self.run_status = "failed"

    # --------------------------------------------------------------------------------------- the steps

    @rule(pick=PICK, worker=st.sampled_from(["w1", "w2"]))
    def claim(self, pick: int, worker: str) -> None:
        name = self.node(pick)
        if not self.active() or self.status[name] != "queued":
            with pytest.raises(TransitionError):
                self.recorder.claim(self.run_id, name, worker)
            return
        claimed = self.recorder.claim(self.run_id, name, worker)
        assert (claimed.task.node_id, claimed.task.lease_owner, claimed.task.status) == (
            name,
            worker,
            "running",
        )
        self.claims[name] = claimed
        self.status[name], self.run_status = "running", "running"

    @rule(pick=PICK, kept=SUBSETS, lines=st.integers(0, 3))
    def succeed(self, pick: int, kept: list[str], lines: int) -> None:
        name = self.node(pick)
        if name not in self.claims:
            return
        claimed = self.claims.pop(name)
        self.old.append(claimed)
        assets = [a for a in claimed.task.asset_ids if a in kept]
        summary = TaskSummary(
            executor="python", outcome="done", asset_count=len(assets), stdout_line_count=lines
        )
        fields = {"assetIds": assets, "summary": summary.to_mongo()}
        if self.status[name] != "running":
            self.refused(lambda: self.recorder.succeed(claimed, fields, Outputs()))
            return
        self.recorder.succeed(claimed, fields, Outputs())
        self.status[name], self.assets[name] = "success", assets
        if self.active():
            self.promote()
        self.settle()

    @rule(pick=PICK)
    def fail(self, pick: int) -> None:
        name = self.node(pick)
        if name not in self.claims:
            return
        claimed = self.claims.pop(name)
        self.old.append(claimed)
        if self.status[name] != "running":
            self.refused(lambda: self.recorder.fail(claimed, {}, "no"))
            return
        self.recorder.fail(claimed, {}, "no")
        self.status[name] = "cancelled" if self.run_status == "cancelled" else "failed"
        self.settle()

    @rule(pick=PICK)
    def try_again(self, pick: int) -> None:
        """The node's own retry policy."""
        name = self.node(pick)
        if name not in self.claims:
            return
        claimed = self.claims[name]
        if self.status[name] != "running" or not self.active():
            with pytest.raises(TransitionError):
                self.recorder.again(claimed, "w3")
            return
        self.claims[name] = self.recorder.again(claimed, "w3")
        self.old.append(claimed)
        self.attempt[name] += 1

    @rule(pick=PICK, failed=st.booleans())
    def finish_late(self, pick: int, failed: bool) -> None:
        """A worker that was given up comes back: nothing changes."""
        if not self.old:
            return
        claimed = self.old[pick % len(self.old)]
        if failed:
            self.refused(lambda: self.recorder.fail(claimed, {}, "late"))
        else:
            self.refused(lambda: self.recorder.succeed(claimed, {"assetIds": []}, Outputs()))

    @rule(pick=st.integers(0, 9), cancelled=st.booleans())
    def lose(self, pick: int, cancelled: bool) -> None:
        """The Dagster run ended without saying so; one time in five."""
        if pick > 1:
            return
        self.recorder.settle_lost(self.run_id, "gone", cancelled=cancelled)
        if not self.active() and not (cancelled and self.run_status == "cancelled"):
            return
        for name, status in self.status.items():
            if status in ("running", "queued") or (cancelled and status == "pending"):
                self.status[name] = "cancelled" if cancelled else "failed"
        if cancelled:
            self.run_status = "cancelled"
        self.settle()

    def refused(self, call: Callable[[], object]) -> None:
        with pytest.raises(TransitionError) as caught:
            call()
        assert caught.value.kind == ErrorKind.FENCED

    # ---------------------------------------------------------------------------------- what must hold

    @invariant()
    def the_database_is_the_model_and_sound(self) -> None:
        if not self.status:
            return
        run = self.recorder.runs.get(self.run_id)
        tasks = {t.node_id: t for t in self.recorder.in_order(run)}
        assert {n: t.status.value for n, t in tasks.items()} == self.status
        assert run.status == self.run_status
        assert {n: t.asset_ids for n, t in tasks.items()} == self.assets
        assert {n: t.attempt for n, t in tasks.items()} == self.attempt
        assert run.runtime_snapshot == self.snapshot  # I15
        self.aggregate_by_the_server(run.summary.to_mongo())
        for name, task in tasks.items():
            was = self.before.get(name, task)
            assert task.status == was.status or task.status in reachable(TASK_TRANSITIONS, was.status), name
            assert task.attempt >= was.attempt  # I12
        assert run.status == self.run_before or run.status in reachable(RUN_TRANSITIONS, self.run_before)
        self.before, self.run_before = tasks, run.status
        report = VerifyReport()
        check_runs(View(self.ef._opened, everything=False), report)
        assert report.problems == []  # I1-I14

    def aggregate_by_the_server(self, summary: Mapping[str, Any]) -> None:
        lines = {"$sum": {"$ifNull": ["$summary.stdoutLineCount", 0]}}
        rows = self.ef.mongo["run_tasks"].aggregate(
            [
                {"$match": {"workflowRunId": self.run_id}},
                {"$group": {"_id": "$status", "n": {"$sum": 1}, "lines": lines, "ids": {"$push": "$_id"}}},
            ]
        )
        found = {row["_id"]: row for row in rows}
        counts = {status.value: found.get(status.value, {}).get("n", 0) for status in TaskStatus}
        assert summary["taskCounts"] == counts
        assert summary["totalTaskCount"] == len(self.nodes)
        assert summary["completedTaskCount"] == counts["success"] + counts["failed"] + counts["cancelled"]
        assert summary["stdoutLineCount"] == sum(row["lines"] for row in found.values())
        assert sorted(summary["failedTaskIds"]) == sorted(found.get("failed", {}).get("ids", []))

    def teardown(self) -> None:
        if self.status:
            self.ef.mongo["run_tasks"].delete_many({"workflowRunId": self.run_id})
            self.ef.mongo["workflow_runs"].delete_one({"_id": self.run_id})


class Controlled(Runs):
    """... and people cancel it, and retry tasks of it."""

    @rule(pick=st.integers(0, 9))
    def cancel(self, pick: int) -> None:
        """One time in five."""
        if pick > 1:
            return
        if self.run_status in ("success", "failed"):
            with pytest.raises(TransitionError) as caught:
                control.cancel(self.recorder, self.run_id)
            assert caught.value.kind == ErrorKind.RUN_FINISHED
            return
        control.cancel(self.recorder, self.run_id)
        for name, status in self.status.items():
            if status in ("queued", "pending"):
                self.status[name] = "cancelled"
        self.run_status = "cancelled"

    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        name = self.node(pick)
        below = self.below(name)
        fine = (
            self.status[name] in ("success", "failed", "cancelled")
            and all(self.status[up] == "success" for up in self.nodes[name].after)
            and not any(self.status[n] in ("queued", "running") for n in below)
        )
        if not fine:
            with pytest.raises(TransitionError) as caught:
                control.retry_tasks(self.recorder, self.run_id, [name])
            assert caught.value.kind == ErrorKind.TASK_NOT_RETRYABLE
            return
        control.retry_tasks(self.recorder, self.run_id, [name])
        for lower in below:
            self.status[lower], self.assets[lower] = "pending", ASSETS
        self.status[name], self.assets[name] = "pending", ASSETS
        self.attempt[name] += 1
        self.promote()
        self.run_status = "running" if "running" in self.status.values() else "queued"

    def below(self, name: str) -> set[str]:
        found: set[str] = set()
        for lower, node in self.nodes.items():  # a node comes after those it follows
            if {name, *found}.intersection(node.after):
                found.add(lower)
        return found


def reachable(table: Mapping[Any, frozenset[Any]], status: Any) -> set[Any]:
    """One step of a caller may be two of the table: promoted and lost, taken and lost."""
    first = set(table[status])
    return first | {further for step in first for further in table[step]}


def check(ef: EmboFlow, how: settings, machine: type[Runs] = Runs) -> None:
    run_state_machine_as_test(type("Machine", (machine,), {"ef": ef}), settings=how)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [Runs, Controlled])
def test_runs_are_the_model(ef: EmboFlow, machine: type[Runs]) -> None:
    check(ef, OURS, machine)


# --------------------------------------------------------------------- machines that are broken on purpose

PROMOTIONS, RUN_CHANGES, RUN_STATUS, FENCE = (
    machine.promotions,
    machine.run_changes,
    machine.run_status,
    record.fence,
)
SUMMARISE, CHANGE, EFFECTIVE = machine.summarise, Documents.change, machine.effective


def promotes_when_any_upstream_is_done(
    recorder: Recorder, run: Any, done: RunTask, below: Sequence[RunTask], session: Any
) -> list[RunTask]:
    return [child.model_copy(update={"upstream_node_ids": [done.node_id]}) for child in below]


def promotes_all_assets(
    tasks: Sequence[RunTask], bound: Sequence[str], narrowings: Any
) -> dict[str, list[str]]:
    return {id_: list(bound) for id_ in PROMOTIONS(tasks, bound, narrowings)}


def promotes_in_another_order(
    tasks: Sequence[RunTask], bound: Sequence[str], narrowings: Any
) -> dict[str, list[str]]:
    return {id_: ids[::-1] for id_, ids in PROMOTIONS(tasks, bound, narrowings).items()}


def never_promotes(tasks: Sequence[RunTask], bound: Sequence[str], narrowings: Any) -> dict[str, list[str]]:
    return {}


def keeps_the_old_summary(run: Any, tasks: Any, now: Any) -> dict[str, Any]:
    return {k: v for k, v in RUN_CHANGES(run, tasks, now).items() if k != "summary"}


def never_finishes(run: Any, tasks: Any, now: Any) -> dict[str, Any]:
    return {k: v for k, v in RUN_CHANGES(run, tasks, now).items() if k != "finishedAt"}


def ends_at_now_instead_of_with_its_tasks(run: Any, tasks: Any, now: Any) -> dict[str, Any]:
    changes = RUN_CHANGES(run, tasks, now)
    return {**changes, "durationMs": changes["durationMs"] + 1} if "durationMs" in changes else changes


def fails_at_once(tasks: Sequence[RunTask], current: RunStatus) -> RunStatus:
    failed = any(t.status == TaskStatus.FAILED for t in tasks)
    return RunStatus.FAILED if failed and current == RunStatus.RUNNING else RUN_STATUS(tasks, current)


def forgets_the_attempt(claimed: Claimed) -> dict[str, Any]:
    return {"status": "running"}


def forgets_the_fence(claimed: Claimed) -> dict[str, Any]:
    return {}


def counts_running_as_done(tasks: Sequence[RunTask]) -> Any:
    summary = SUMMARISE(tasks)
    return summary.model_copy(
        update={"completed_task_count": summary.completed_task_count + summary.task_counts["running"]}
    )


def compares_nothing(self: Any, document_id: str, changes: Any, *, expected: Any = None, **how: Any) -> Any:
    return CHANGE(self, document_id, changes, **how)


BROKEN: list[tuple[Any, str, Callable[..., Any]]] = [
    (advance, "ready", promotes_when_any_upstream_is_done),
    (advance, "promotions", promotes_all_assets),
    (advance, "promotions", promotes_in_another_order),
    (advance, "promotions", never_promotes),
    (record, "run_changes", keeps_the_old_summary),
    (record, "run_changes", never_finishes),
    (record, "run_changes", ends_at_now_instead_of_with_its_tasks),
    (machine, "run_status", fails_at_once),
    (record, "fence", forgets_the_attempt),
    (record, "fence", forgets_the_fence),
    (machine, "summarise", counts_running_as_done),
    (Documents, "change", compares_nothing),
]


@pytest.mark.parametrize(
    ("place", "name", "broken"), BROKEN, ids=[getattr(row[2], "__name__", row[1]) for row in BROKEN]
)
def test_a_broken_machine_is_caught(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, broken: Callable[..., Any]
) -> None:
    monkeypatch.setattr(place, name, broken)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(ef, HUNT)
