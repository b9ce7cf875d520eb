"""`emboflow task`: the nodes of a run, each with its log."""

from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import execution, output, run_page, run_tasks, state, task_logs
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
        tasks = ef.tasks.list(full_id(ef.runs.documents, run))
    rows = [row.cells for row in run_tasks.rows(tasks)]
    output.emit([t.to_json() for t in tasks], lambda: output.table(run_tasks.COLUMNS, rows))


@verb(app, "show", example="emboflow task show run_01JD3ZK4Q8X5V7N2M9B6C0T1RW:probe")
def show(task: Where) -> None:
    """One task: what it was given, what it left, why it failed."""
    with opened() as ef:
        run_id, node_id = _parts(ef, task)
        found = ef.tasks.get(run_id, node_id)
    output.emit(found.to_json(), lambda: run_page.task_page(found))


@verb(app, "logs", example="emboflow task logs run_01JD3ZK4Q8X5V7N2M9B6C0T1RW:probe --follow")
def logs(
    task: Where,
    follow: task_logs.Follow = False,
    stdout: task_logs.Stdout = False,
    stderr: task_logs.Stderr = False,
    log: task_logs.Log = False,
    stream: task_logs.Stream = None,
    lines: task_logs.Lines = None,
    attempt: task_logs.Attempt = None,
    raw: task_logs.Raw = False,
) -> None:
    """All lines of a task's output, in the order they came; --json gives stream and line.

    --follow shows what comes until the task is over, also while it runs elsewhere; with --json each line is
    then a JSON value of its own. What EmboFlow has to say about a log goes to stderr.
    """
    wanted = task_logs.streams(stdout=stdout, stderr=stderr, log=log, stream=stream)
    task_logs.check(wanted, raw=raw, follow=follow, lines=lines)
    with opened() as ef:
        run_id, node_id = _parts(ef, task)
        if raw:
            for chunk in ef.tasks.output(run_id, node_id, wanted[0], attempt=attempt):
                output.write_bytes(chunk)
            output.flush()
            return
        if follow:
            task_logs.waiting(ef.tasks.get(run_id, node_id))
        rows = ef.tasks.logs(
            run_id,
            node_id,
            follow=follow,
            streams=wanted,
            attempt=attempt,
            lines=lines,
            unfinished=not state.current().json,
        )
        task_logs.show(rows, follow=follow)


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
