"""The state machine against its specification (state-machines.md 4.2-4.4), row by row."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import (
    RUN_ACTIVE,
    RUN_TERMINAL,
    RUN_TRANSITIONS,
    TASK_TERMINAL,
    TASK_TRANSITIONS,
    RunStatus,
    RunTask,
    TaskStatus,
    TaskSummary,
    WorkflowRun,
)
from emboflow_dagster.runtime.machine import promotions, run_changes, run_status, summarise
from emboflow_dagster.runtime.node import Narrowing

NOW = utc_now()
LETTERS = {"p": "pending", "q": "queued", "r": "running", "s": "success", "f": "failed", "c": "cancelled"}


def task(node: str, status: str, *, after: Sequence[str] = (), **fields: Any) -> RunTask:
    fields = {"asset_ids": ["a1", "a2"], "node_type": "python"} | fields
    return RunTask.checked(
        id=f"tsk_{node}",
        workflow_run_id="run_1",
        workflow_version_id="wfv_1",
        node_id=node,
        status=LETTERS.get(status, status),
        upstream_node_ids=list(after),
        created_at=NOW,
        **fields,
    )


def tasks_of(letters: str) -> list[RunTask]:
    return [task(f"n{i}", letter) for i, letter in enumerate(letters)]


def run_of(status: str, tasks: Sequence[RunTask] = (), **fields: Any) -> WorkflowRun:
    snapshot = {
        "workflowSlug": "w", "versionNumber": 1, "executionDigest": "d", "edges": [],
        "nodeTypes": {t.node_id: t.node_type for t in tasks}, "runtimeGraph": {"nodeConfigs": {}},
    }  # fmt: skip
    return WorkflowRun.checked(
        id="run_1", workflow_definition_id="wf_1", workflow_version_id="wfv_1", workspace_id="ws_1",
        project_id="prj_1", asset_ids=["a1", "a2"], triggered_by="user:ada", status=status,
        runtime_snapshot=snapshot, summary={}, created_at=NOW, **fields,
    )  # fmt: skip


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


# ------------------------------------------------------------------------------------ the tables (4.2, 4.3)


def test_every_status_has_a_row_and_rows_lead_to_statuses() -> None:
    assert set(TASK_TRANSITIONS) == set(TaskStatus)
    assert set(RUN_TRANSITIONS) == set(RunStatus)
    assert all(to <= set(TaskStatus) for to in TASK_TRANSITIONS.values())
    assert all(to <= set(RunStatus) for to in RUN_TRANSITIONS.values())
    assert set(RunStatus) == RUN_ACTIVE | RUN_TERMINAL
    assert not RUN_ACTIVE & RUN_TERMINAL
    ended = {"success", "failed", "cancelled"}
    assert ended.symmetric_difference(TASK_TERMINAL) == set()
    assert "skipped" not in set(TaskStatus)


@pytest.mark.parametrize(
    ("state", "to"), [("p", "qc"), ("q", "rc"), ("r", "rsfc"), ("s", "qp"), ("f", "qp"), ("c", "qp")]
)
def test_the_task_table(state: str, to: str) -> None:
    assert TASK_TRANSITIONS[TaskStatus(LETTERS[state])] == {LETTERS[letter] for letter in to}


@pytest.mark.parametrize(("state", "to"), [("q", "rc"), ("r", "sfcq"), ("s", "q"), ("f", "q"), ("c", "q")])
def test_the_run_table(state: str, to: str) -> None:
    assert RUN_TRANSITIONS[RunStatus(LETTERS[state])] == {LETTERS[letter] for letter in to}


# --------------------------------------------------------------------------------------- the run's status


@pytest.mark.parametrize(
    ("current", "letters", "status"),
    [
        ("q", "qpp", "queued"),
        ("r", "rpp", "running"),
        ("r", "sqp", "running"),
        ("r", "sss", "success"),
        ("r", "ssf", "failed"),
        ("r", "sfp", "failed"),  # a task below a failed one stays pending
        ("r", "fff", "failed"),
        ("r", "fqp", "running"),  # the other branch goes on
        ("r", "frp", "running"),
        ("r", "fsr", "running"),
        ("q", "fff", "failed"),  # lost before anything started
        ("q", "s", "success"),
        ("r", "scc", "cancelled"),
        ("r", "fcc", "failed"),
        ("c", "scc", "cancelled"),
        ("c", "sss", "cancelled"),  # what ran to its end after the cancel does not undo it
        ("c", "src", "cancelled"),
        ("s", "ssf", "success"),
        ("f", "sss", "failed"),
    ],
)
def test_the_status_of_a_run_follows_from_its_tasks(current: str, letters: str, status: str) -> None:
    assert run_status(tasks_of(letters), RunStatus(LETTERS[current])) == status


STATES = st.lists(st.sampled_from(list(TaskStatus)), min_size=1, max_size=8)


@given(STATES, st.sampled_from(sorted(RUN_ACTIVE)))
def test_a_runs_status_never_contradicts_its_tasks(states: list[TaskStatus], current: RunStatus) -> None:
    tasks = [task(f"n{i}", state.value) for i, state in enumerate(states)]
    status = run_status(tasks, current)

    if status == RunStatus.SUCCESS:  # I7
        assert set(states) == {TaskStatus.SUCCESS}
    if status == RunStatus.FAILED:  # I8
        assert TaskStatus.FAILED in states
        assert not {TaskStatus.RUNNING, TaskStatus.QUEUED} & set(states)
    if {TaskStatus.RUNNING, TaskStatus.QUEUED} & set(states):
        assert status == current
    if set(states) <= TASK_TERMINAL:
        assert status in RUN_TERMINAL
    assert run_status(tasks, status) == status


# ------------------------------------------------------------------------------------------- the summary


@given(
    st.lists(st.tuples(st.sampled_from(list(TaskStatus)), st.integers(0, 3), st.integers(0, 9)), max_size=8)
)
def test_the_summary_is_the_aggregate_of_the_tasks(rows: list[tuple[TaskStatus, int, int]]) -> None:
    tasks = [
        task(
            f"n{i}",
            status.value,
            output_artifact_ids=[f"art_{i}_{k}" for k in range(artifacts)],
            summary=TaskSummary(
                executor="python",
                outcome="x",
                asset_count=2,
                stdout_line_count=lines,
                stderr_line_count=lines * 2,
            )
            if status in TASK_TERMINAL
            else None,
        )
        for i, (status, artifacts, lines) in enumerate(rows)
    ]
    summary = summarise(tasks)
    ended = [row for row in rows if row[0] in TASK_TERMINAL]

    assert sum(summary.task_counts.values()) == summary.total_task_count == len(rows)  # I1
    assert set(summary.task_counts) == set(TaskStatus)
    assert summary.completed_task_count == len(ended)  # I2
    assert summary.artifact_count == sum(row[1] for row in rows)  # I3
    assert summary.stdout_line_count == sum(row[2] for row in ended)  # I4
    assert summary.stderr_line_count == 2 * summary.stdout_line_count
    assert summary.failed_task_ids == [f"tsk_n{i}" for i, row in enumerate(rows) if row[0] == "failed"]  # I5


# --------------------------------------------------------------------------------------------- promotion


def test_a_task_is_promoted_when_the_last_of_its_upstreams_has_succeeded() -> None:
    tasks = [task("a", "s"), task("b", "r"), task("c", "p", after=["a"]), task("d", "p", after=["a", "b"])]
    assert promotions(tasks, ["a1", "a2"], {}) == {"tsk_c": ["a1", "a2"]}

    tasks[1] = task("b", "s")
    assert set(promotions(tasks, ["a1", "a2"], {})) == {"tsk_c", "tsk_d"}


@pytest.mark.parametrize("status", "qrfc")
def test_nothing_is_promoted_below_what_has_not_succeeded(status: str) -> None:
    assert promotions([task("a", status), task("b", "p", after=["a"])], ["a1"], {}) == {}


@pytest.mark.parametrize("status", "qrsfc")
def test_only_pending_tasks_are_promoted(status: str) -> None:
    assert promotions([task("a", "s"), task("b", status, after=["a"])], ["a1"], {}) == {}


def test_a_pending_root_is_promoted_with_all_bound_assets() -> None:
    assert promotions([task("a", "p"), task("b", "p", after=["a"])], ["a1", "a2"], {}) == {
        "tsk_a": ["a1", "a2"]
    }


@pytest.mark.parametrize(
    ("narrowing", "expected"),
    [(Narrowing.DIFFERENCE, ["a1"]), (Narrowing.INTERSECTION, ["a2"]), (Narrowing.UNION, ["a1", "a2", "a3"])],
)
def test_a_node_below_both_kinds_of_upstream_combines_all_sides(
    narrowing: Narrowing, expected: list[str]
) -> None:
    frozen = {"executor_config": {"outside": {"x": ["a1", "a2"]}}}
    tasks = [
        task("y", "s", asset_ids=["a2", "a3"]),
        task("z", "p", after=["x", "y"], node_type="t", **frozen),
    ]
    assert promotions(tasks, ["a1", "a2", "a3"], {"t": narrowing}) == {"tsk_z": expected}


def test_an_upstream_outside_of_the_run_counts_as_done() -> None:
    tasks = [task("a", "s"), task("b", "p", after=["outside", "a"])]
    assert set(promotions(tasks, ["a1", "a2"], {})) == {"tsk_b"}


@pytest.mark.parametrize(
    ("narrowing", "expected"),
    [
        (Narrowing.UNION, ["a1", "a2", "a3"]),
        (Narrowing.INTERSECTION, ["a2"]),
        (Narrowing.DIFFERENCE, ["a3"]),
        (None, ["a1", "a2", "a3"]),
    ],
)
def test_promotion_narrows_in_the_order_of_the_run(narrowing: Narrowing | None, expected: list[str]) -> None:
    tasks = [
        task("x", "s", asset_ids=["a3", "a2"]),
        task("y", "s", asset_ids=["a2", "a1"]),
        task("z", "p", after=["x", "y"], node_type="t", asset_ids=["a1", "a2", "a3"]),
    ]
    assert promotions(tasks, ["a1", "a2", "a3"], {"t": narrowing}) == {"tsk_z": expected}


# --------------------------------------------------------------------------- what changes with the tasks


def test_the_first_taken_task_makes_a_run_running() -> None:
    tasks = [task("a", "r", started_at=at(1)), task("b", "p", after=["a"])]
    changes = run_changes(run_of("queued", tasks), tasks, at(2))

    assert changes["status"] == "running"
    assert changes["startedAt"] == at(1)
    assert "finishedAt" not in changes
    assert changes["summary"] == summarise(tasks).to_mongo()


def test_a_run_that_ends_has_the_times_of_its_tasks() -> None:
    ended = {"finished_at": at(3.5)}
    tasks = [
        task("a", "s", started_at=at(1), finished_at=at(2)),
        task("b", "f", started_at=at(2), **ended),
        task("c", "p", after=["b"]),
    ]
    changes = run_changes(run_of("running", tasks, started_at=at(1)), tasks, at(9))

    assert changes["status"] == "failed"
    assert (changes["startedAt"], changes["finishedAt"], changes["durationMs"]) == (
        at(1),
        at(3.5),
        2500,
    )  # I6


def test_a_cancelled_run_finishes_when_its_last_running_task_has() -> None:
    running = [task("a", "r", started_at=at(1)), task("b", "c", finished_at=at(2))]
    cancelled = run_of("cancelled", running, started_at=at(1))
    assert "finishedAt" not in run_changes(cancelled, running, at(3))

    drained = [task("a", "c", started_at=at(1), finished_at=at(5)), running[1]]
    changes = run_changes(cancelled, drained, at(6))
    assert "status" not in changes
    assert (changes["finishedAt"], changes["durationMs"]) == (at(5), 4000)


def test_a_run_cancelled_before_it_started_has_an_end_and_no_duration_of_work() -> None:
    tasks = [task("a", "c", finished_at=at(2)), task("b", "c", finished_at=at(2))]
    changes = run_changes(run_of("cancelled", tasks), tasks, at(2))

    assert "startedAt" not in changes
    assert (changes["finishedAt"], changes["durationMs"]) == (at(2), 0)


def test_nothing_but_the_summary_changes_between() -> None:
    tasks = [task("a", "s", started_at=at(1), finished_at=at(2)), task("b", "q", after=["a"])]
    changes = run_changes(run_of("running", tasks, started_at=at(1)), tasks, at(3))

    assert set(changes) == {"summary", "updatedAt", "startedAt"}


@given(STATES)
def test_what_changes_is_one_of_the_tables_steps_and_stable(states: list[TaskStatus]) -> None:
    """Applied twice, nothing moves further; a run never jumps."""
    tasks = [
        task(
            f"n{i}",
            state.value,
            started_at=at(i) if state in {"running", "success", "failed"} else None,
            finished_at=at(i + 1) if state in TASK_TERMINAL else None,
        )
        for i, state in enumerate(states)
    ]
    for current in sorted(RUN_ACTIVE):
        run = run_of(current.value, tasks)
        changes = run_changes(run, tasks, at(99))
        after = run_of(changes.get("status", current.value), tasks, started_at=changes.get("startedAt"))
        assert run_changes(after, tasks, at(99)).get("status") is None
        if "status" in changes and any(t.started_at for t in tasks) and current == RunStatus.RUNNING:
            assert changes["status"] in RUN_TRANSITIONS[current]
