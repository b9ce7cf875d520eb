"""`emboflow run`: executions of workflow versions."""

from typing import Annotated

import typer

from emboflow_dagster.cli import execution, figures, output, run_page
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.options import Limit, one_of
from emboflow_dagster.cli.state import noun, verb

app = noun("Runs: executions of a workflow version over assets.")
Id = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or its last eight characters.")]


@verb(app, "show", example="emboflow run show run_01JD3ZK4Q8X5V7N2M9B6C0T1RW")
def show(run: Id) -> None:
    """One run with its tasks."""
    with opened() as ef:
        value = ef.runs.show(full_id(ef.runs.documents, run))
        found = ef.runs.get(value["_id"])
        tasks = ef.runs.tasks(found)
    output.emit(value, lambda: run_page.show(found, tasks))


@verb(app, "list", example="emboflow run list --workflow triage --status failed")
def list_(
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="SLUG", help="Only of one workflow.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only in one status: queued, running, success, failed, cancelled.",
        ),
    ] = None,
    limit: Limit = 50,
) -> None:
    """The project's runs, newest first."""
    from emboflow_dagster.model.run import RunStatus

    one_of(RunStatus, status, "--status")
    with opened() as ef:
        runs = ef.runs.list(workflow=workflow, status=status, limit=limit)
    rows = [
        (
            output.short(r.id),
            r.runtime_snapshot.workflow_slug,
            r.runtime_snapshot.version_number,
            r.status.value,
            f"{r.summary.completed_task_count}/{r.summary.total_task_count}",
            len(r.asset_ids),
            figures.duration(r.duration_ms),
            figures.age(r.created_at),
            r.triggered_by,
        )
        for r in runs
    ]
    output.emit(
        [r.to_json() for r in runs],
        lambda: output.listing(
            ("RUN", "WORKFLOW", ">VERSION?", "STATUS", ">TASKS", ">ASSETS?", ">TOOK?", "REQUESTED?", "BY?"),
            rows,
            empty="no run: `emboflow workflow run SLUG --asset ASSET` requests one",
            limit=limit,
        ),
    )


@verb(app, "wait", example="emboflow run wait run_01JD3ZK4Q8X5V7N2M9B6C0T1RW --timeout 600")
def wait(
    run: Id,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0.1, metavar="S", help="Give up after S seconds.")
    ] = None,
) -> None:
    """Wait until a run is over and print it with its tasks. Exit 1 when it did not succeed.

    The run itself goes on when this gives up.
    """
    with opened() as ef:
        found = ef.runs.get(full_id(ef.runs.documents, run))
        with execution.watched(ef, found):
            found = ef.runs.wait(found.id, timeout_s=timeout)
        tasks = ef.runs.tasks(found)
        value = ef.runs.show(found.id)
    output.emit(value, lambda: run_page.show(found, tasks))
    execution.require_success(found, tasks)
