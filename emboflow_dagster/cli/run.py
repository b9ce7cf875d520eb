"""`emboflow run`: executions of workflow versions."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import amounts, execution, figures, output, run_page, state, watch
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.options import Limit, one_of
from emboflow_dagster.cli.state import noun, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emboflow_dagster.project.history import RunLine
    from emboflow_dagster.runtime.compare import Change

app = noun("Runs: executions of a workflow version over assets.")
Id = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or its last eight characters.")]


@verb(app, "show", example="emboflow run show run_01JD3ZK4Q8X5V7N2M9B6C0T1RW")
def show(
    run: Id,
    watch_: Annotated[
        bool,
        typer.Option("--watch", help="Follow it until it is over. Exit 1 when it did not succeed."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every task and every message, however many.")
    ] = False,
) -> None:
    """One run with its tasks; of many those that failed first.

    Watching works from any machine; ctrl-c ends the watching, not the run.
    """
    with opened() as ef:
        found = ef.runs.get(full_id(ef.runs.documents, run))
        if watch_:
            watch.until_over(ef, found)
            found = ef.runs.refreshed(found)
        tasks = ef.runs.recorder.in_order(found)
        value = ef.runs.show(found.id) if state.current().json else None
    if value is not None or not watch_ or sys.stdout.isatty():
        output.emit(value, lambda: run_page.show(found, tasks, everything=everything))
    if watch_:
        execution.require_success(found, tasks)


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
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, metavar="N", help="With --workflow: only of one version."),
    ] = None,
    asset: Annotated[
        str | None, typer.Option("--asset", metavar="ASSET", help="Only with one asset, by name or id.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="WHO",
            help="Only requested so: user:ada, schedule:nightly, dagster-ui, "
            "or any user, schedule, sensor, retry.",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="Only requested with this label.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="Only requested on or after this date.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="DATE", help="Only requested before this date.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="RUN", help="The next page: the runs before this one.")
    ] = None,
    limit: Limit = 50,
) -> None:
    """The project's runs, newest first, a page at a time."""
    from emboflow_dagster.model.run import RunStatus

    one_of(RunStatus, status, "--status")
    if version is not None and workflow is None:
        raise typer.BadParameter("needs --workflow", param_hint="'--version'")
    first, last = amounts.moment_of(since, "--since"), amounts.moment_of(until, "--until")
    with opened() as ef:
        which = ef.runs.filter(
            workflow=workflow,
            version=version,
            status=status,
            asset=asset,
            triggered_by=by,
            label=label,
            since=first,
            until=last,
        )
        if after is not None:
            after = full_id(ef.runs.documents, after)
        if state.current().json:
            page = ef.runs.history.page(which, after=after, limit=limit)
            output.emit([r.to_json() for r in page], lambda: None)
            return
        found = ef.runs.history.lines(which, after=after, limit=limit)
        total = ef.runs.history.count(which) if len(found) == limit else None
    _listed(found, f"{len(found)} of {total}" if total and (after or total.runs > limit) else None)


@verb(app, "cancel", example="emboflow run cancel run_01JD3ZK4Q8X5V7N2M9B6C0T1RW")
def cancel(run: Id) -> None:
    """Cancel a run: nothing of it starts any more, and what runs is terminated.

    Cancelling a cancelled run again is no error.
    """
    from emboflow_dagster.orchestration import termination

    with opened() as ef:
        found = ef.runs.cancel(full_id(ef.runs.documents, run))
        told = termination.terminate(ef, found)
        found = ef.runs.get(found.id)
        tasks = ef.runs.tasks(found)
    output.emit(found.to_json(), lambda: run_page.show(found, tasks))
    running = sum(task.status == "running" for task in tasks)
    if running:
        how = "was told to end" if told else "ends by itself"
        output.note(f"{running} of its tasks still {'runs' if running == 1 else 'run'}; the run {how}")


@verb(app, "retry", example="emboflow run retry run_01JD3ZK4Q8X5V7N2M9B6C0T1RW --wait")
def retry(
    run: Id,
    latest: Annotated[
        bool,
        typer.Option(
            "--latest", help="The workflow's newest version, not the one that the run was frozen with."
        ),
    ] = False,
    wait: execution.Wait = False,
    timeout: execution.Timeout = None,
) -> None:
    """Request a new run that repeats one that is over: same version, same assets. The old one stays."""
    execution.check_timeout(timeout, wait=wait)
    with opened() as ef:
        old = ef.runs.get(full_id(ef.runs.documents, run))
        if latest:
            _say_changes(ef.runs.compare(old))
        execution.finish(ef, ef.runs.retry(old.id, latest=latest), wait=wait, timeout_s=timeout)


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
            found = execution.waited(ef, found, timeout)
        tasks = ef.runs.tasks(found)
        value = ef.runs.show(found.id)
    output.emit(value, lambda: run_page.show(found, tasks))
    execution.require_success(found, tasks)


def _listed(found: "Sequence[RunLine]", of_all: str | None) -> None:
    labelled = any(r.label for r in found)
    rows = [
        (
            output.short(r.id),
            r.workflow,
            r.version,
            r.status.value,
            f"{r.summary.completed_task_count}/{r.summary.total_task_count}",
            r.assets,
            figures.duration(r.duration_ms),
            figures.age(r.created_at),
            r.triggered_by,
            *([r.label] if labelled else []),
        )
        for r in found
    ]
    columns = ("RUN", "WORKFLOW", ">VERSION?", "STATUS", ">TASKS", ">ASSETS?", ">TOOK?", "REQUESTED?", "BY?")
    columns = (*columns, *(["LABEL?"] if labelled else []))
    output.listing(
        columns, rows, empty="no such run: `emboflow workflow run SLUG --asset ASSET` requests one"
    )
    if of_all:
        output.note(f"{of_all} are shown; the next: --after {found[-1].id}")


def _say_changes(changes: "list[Change]") -> None:
    if not changes:
        output.note("the newest version executes the same")
    for change in changes:
        output.note(f"{change.node_id} {change.change}: {change.detail}")
