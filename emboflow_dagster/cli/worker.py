"""`emboflow worker`: executes queued runs without Dagster."""

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import execution, figures, output, state
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb
from emboflow_dagster.errors import ErrorKind, ExecutionError

if TYPE_CHECKING:
    from emboflow_dagster.model.run import WorkflowRun
    from emboflow_dagster.project.handle import EmboFlow

POLL_S: Final = 1.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "worker", example="emboflow worker --once")(worker)


def worker(
    once: Annotated[
        bool, typer.Option("--once", help="End when no run is queued, instead of waiting for more.")
    ] = False,
) -> None:
    """Execute the project's queued runs here, one after the other, without Dagster.

    With --once, exit 1 when one of them failed or was cancelled; one that waits for people is none of these.
    """
    if state.current().json and not once:
        raise typer.BadParameter("prints a value only with --once", param_hint="'--json'")
    done: list[dict[str, Any]] = []
    with opened() as ef:
        while True:
            for text in ef.runs.settle_stuck():
                output.note(text)
            done += _all_queued(ef)
            if once:
                break
            time.sleep(POLL_S)
    output.emit({"runs": done}, lambda: None if done else output.note("no run is queued"))
    bad = [run["_id"] for run in done if run["status"] in ("failed", "cancelled")]
    if bad:
        raise ExecutionError(
            f"{len(bad)} of {len(done)} runs did not succeed: {', '.join(bad[:3])}",
            kind=ErrorKind.RUN_FAILED,
            hint=f"`emboflow run show {bad[0]}` says why",
        )


def _all_queued(ef: "EmboFlow") -> list[dict[str, Any]]:
    from emboflow_dagster.runtime import stopping

    done: list[dict[str, Any]] = []
    seen: set[str] = set()
    while fresh := [run for run in ef.runs.queued() if run.id not in seen]:
        for run in fresh:
            seen.add(run.id)
            with (
                execution.watched(ef, run),
                stopping.interrupted_when(partial(stopping.is_draining, ef.runs.recorder, run.id)),
            ):
                ef.runs.work(run.id)
            ended = ef.runs.get(run.id)
            output.note(f"{ended.id} {ended.runtime_snapshot.workflow_slug}: {_how(ef, ended)}")
            done.append(ended.to_json())
    return done


def _how(ef: "EmboFlow", run: "WorkflowRun") -> str:
    """How a run was left, in words."""
    from emboflow_dagster.runtime import gates

    if run.duration_ms is not None:
        return f"{run.status.value} in {figures.duration(run.duration_ms)}"
    held = [gate for task in ef.runs.recorder.in_order(run) if (gate := gates.waits_for(task))]
    return f"waits for people: emboflow annotation show {held[0]}" if held else run.status.value
