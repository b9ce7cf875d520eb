"""What people see of a run: what matters first, never more than fits, and the derived word "blocked"."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from emboflow_dagster.cli import run_tasks, watch
from emboflow_dagster.model.run import RunSummary, RunTask, WorkflowRun
from emboflow_dagster.runtime.machine import summarise
from emboflow_dagster.runtime.standing import blocked_by

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def task(node: str, status: str, after: tuple[str, ...] = (), **more: Any) -> RunTask:
    """One task of one run."""
    return RunTask.checked(
        id=f"tsk_{node}",
        workflow_run_id="run_1",
        workflow_version_id="wfv_1",
        node_id=node,
        node_type="python",
        status=status,
        asset_ids=["ast_1"],
        upstream_node_ids=list(after),
        created_at=NOW,
        **more,
    )


def seen(tasks: list[RunTask], status: str = "running", **more: Any) -> watch.Seen:
    """A run of them."""
    snapshot = {
        "workflow_slug": "flow",
        "version_number": 3,
        "execution_digest": "x",
        "node_types": {t.node_id: t.node_type for t in tasks},
        "edges": [],
        "runtime_graph": {"node_configs": {}},
    }
    run = WorkflowRun.checked(
        id="run_1",
        workflow_definition_id="wf_1",
        workflow_version_id="wfv_1",
        asset_ids=["ast_1"],
        workspace_id="ws_1",
        project_id="prj_1",
        triggered_by="user:ada",
        status=status,
        runtime_snapshot=snapshot,
        summary=summarise(tasks) if tasks else RunSummary(),
        started_at=NOW,
        created_at=NOW,
        **more,
    )
    return watch.Seen(run, tasks)


def drawn(what: watch.Seen, height: int, width: int = 100) -> list[str]:
    """The lines of a terminal."""
    console = Console(width=width, height=height, color_system=None, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(watch.picture(what, height, NOW + timedelta(seconds=12)))
    return [line.rstrip() for line in captured.get().splitlines()]


MANY = [
    *(task(f"done-{n}", "success", started_at=NOW, finished_at=NOW, duration_ms=5) for n in range(300)),
    *(task(f"wait-{n}", "pending", ("bad",)) for n in range(150)),
    task("at-work", "running", started_at=NOW, lease_owner="w"),
    task("bad", "failed", started_at=NOW, finished_at=NOW, error_message="ValueError: no"),
    task("next", "queued"),
]


def test_blocked_is_what_stands_below_a_failure_at_any_distance() -> None:
    tasks = [
        task("a", "failed"),
        task("b", "pending", ("a",)),
        task("c", "pending", ("b",)),
        task("d", "success"),
        task("e", "pending", ("d",)),
        task("f", "pending", ("d", "c")),
        task("g", "cancelled"),
        task("h", "pending", ("g",)),
    ]

    assert blocked_by(tasks) == {"b": "a", "c": "a", "f": "a", "h": "g"}


def test_of_many_tasks_those_that_need_somebody_come_first() -> None:
    shown, rest = run_tasks.chosen(run_tasks.rows(MANY), 5)

    assert [row.cells[0] for row in shown] == ["bad", "at-work", "next", "wait-0", "wait-1"]
    assert rest == "and 448 more: 148 blocked, 300 success"


def test_few_tasks_stay_in_the_order_of_the_graph() -> None:
    tasks = [task("a", "success"), task("b", "failed")]
    shown, rest = run_tasks.chosen(run_tasks.rows(tasks), 40)

    assert ([row.cells[0] for row in shown], rest) == (["a", "b"], None)


@pytest.mark.parametrize("height", [10, 24, 60])
def test_the_picture_fits_its_terminal(height: int) -> None:
    lines = drawn(seen(MANY), height)

    assert len(lines) <= height
    assert lines[0].split() == ["run_1", "flow", "version", "3", "running", "12.0", "s"]
    assert "301/453" in lines[1]
    assert lines[3].split()[:3] == ["bad", "python", "failed"]
    assert "12.0 s" in lines[4]  # what runs says how long so far
    assert lines[-1].startswith("and ")


@pytest.mark.parametrize(("hit", "expected"), [(True, "hit"), (False, "miss"), (None, None)])
def test_a_task_says_what_the_cache_had_for_it(hit: bool | None, expected: str | None) -> None:
    [row] = run_tasks.rows([task("a", "success", cache_hit=hit)])

    assert expected == dict(zip(run_tasks.COLUMNS, row.cells, strict=True))["CACHE?"]


def test_a_pipe_gets_a_line_a_change_and_none_twice(capsys: pytest.CaptureFixture[str]) -> None:
    lines = watch.Lines("run_1")
    lines.tell(seen([task("a", "running"), task("b", "pending", ("a",))]))
    lines.tell(seen([task("a", "running"), task("b", "pending", ("a",))]))
    failed = task("a", "failed", started_at=NOW, finished_at=NOW, duration_ms=1500, error_message="no\nmore")
    over = {"finished_at": NOW, "duration_ms": 1500}
    lines.tell(seen([failed, task("b", "pending", ("a",))], "failed", **over))

    assert capsys.readouterr().out.splitlines() == [
        "a running",
        "a failed after 1.5 s: no",
        "b blocked: by a",
        "run run_1 failed: 1 of 2 tasks done in 1.5 s",
    ]
