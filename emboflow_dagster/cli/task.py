"""`emboflow task`: the nodes of a run, each with its log."""

from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import execution, output, run_page
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.state import noun, verb

if TYPE_CHECKING:
    from emboflow_dagster.project.handle import EmboFlow

app = noun("Tasks: one node of one run.")
Where = Annotated[str, typer.Argument(metavar="RUN:NODE", help="A run's id, a colon, a node's id.")]


@verb(app, "list", example="emboflow task list run_01JD3ZK4Q8X5V7N2M9B6C0T1RW")
def list_(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or its last eight characters.")],
) -> None:
    """A run's tasks in graph order."""
    with opened() as ef:
        tasks = ef.tasks.list(run_id := full_id(ef.runs.documents, run))
        found = ef.runs.get(run_id)
    rows = [run_page.row(t, blocked=run_page.is_blocked(found, t)) for t in tasks]
    output.emit([t.to_json() for t in tasks], lambda: output.table(run_page.TASK_COLUMNS, rows))


@verb(app, "show", example="emboflow task show run_01JD3ZK4Q8X5V7N2M9B6C0T1RW:probe")
def show(task: Where) -> None:
    """One task: what it was given, what it left, why it failed."""
    with opened() as ef:
        run_id, node_id = _parts(ef, task)
        found = ef.tasks.get(run_id, node_id)
    output.emit(found.to_json(), lambda: run_page.task_page(found))


@verb(app, "logs", example="emboflow task logs run_01JD3ZK4Q8X5V7N2M9B6C0T1RW:probe")
def logs(
    task: Where,
    stream: Annotated[
        str | None,
        typer.Option("--stream", metavar="NAME", help="Only one of log, stdout, stderr."),
    ] = None,
) -> None:
    """All lines of a task's output, in the order they came; --json gives stream and line."""
    if stream not in (None, "log", "stdout", "stderr"):
        raise typer.BadParameter(
            f"found {stream!r}; allowed are log, stdout, stderr", param_hint="'--stream'"
        )
    with opened() as ef:
        run_id, node_id = _parts(ef, task)
        rows = [line.partition("\t") for line in ef.tasks.logs(run_id, node_id)]
    wanted = [(name, line) for name, _, line in rows if stream in (None, name)]
    output.emit(
        [{"stream": name, "line": line} for name, line in wanted],
        lambda: output.lines(line for _, line in wanted),
    )


@verb(app, "retry", example="emboflow task retry run_01JD3ZK4Q8X5V7N2M9B6C0T1RW:probe --wait")
def retry(task: Where, wait: execution.Wait = False, timeout: execution.Timeout = None) -> None:
    """Execute a task of a run that is over, and all below it, again, in the same run.

    Also a task that succeeded: "again from here". Other branches stay as they are.
    """
    execution.check_timeout(timeout, wait=wait)
    with opened() as ef:
        run_id, node_id = _parts(ef, task)
        execution.finish(ef, ef.runs.retry_tasks(run_id, [node_id]), wait=wait, timeout_s=timeout)


def _parts(ef: "EmboFlow", text: str) -> tuple[str, str]:
    run, colon, node = text.partition(":")
    if not (run and colon and node):
        raise typer.BadParameter(f"found {text!r}; a task is named RUN:NODE", param_hint="'RUN:NODE'")
    run_id = full_id(ef.runs.documents, run)
    return ef.runs.get(run_id).id, node
