"""`emboflow annotation`: what people label, hand in and review."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import annotation_versions, execution, figures, output
from emboflow_dagster.cli.annotation_versions import From, To, which
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.options import Limit, one_of
from emboflow_dagster.cli.state import noun, verb
from emboflow_dagster.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from emboflow_dagster.model.annotation import Annotation, AnnotationTask
    from emboflow_dagster.project.handle import EmboFlow

app = noun("Annotation tasks: what people label, hand in, approve and reject.")
Id = Annotated[str, typer.Argument(metavar="TASK", help="Id of an annotation task, or its end.")]
_EXAMPLE: Final = "ant_01JD3ZK4Q8X5V7N2M9B6C0T1RW"


@verb(app, "list", example="emboflow annotation list --status in_review --mine")
def list_(
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only in one status: open, in_progress, in_review, approved, rejected, cancelled.",
        ),
    ] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of one run.")] = None,
    mine: Annotated[
        bool, typer.Option("--mine", help="Only those given to me to label or to review.")
    ] = False,
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            metavar="DATASET[:TAG]",
            help="The annotations at a dataset version instead: carried over, stale, gone.",
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state", metavar="STATE", help="With --version, only: valid, stale, removed, forgotten."
        ),
    ] = None,
    limit: Limit = 50,
) -> None:
    """The project's annotation tasks, newest first; or the annotations at a dataset version."""
    from emboflow_dagster.model.annotation import AnnotationTaskStatus

    one_of(AnnotationTaskStatus, status, "--status")
    if version is not None:
        _at(version, state, limit, tasks=(status, run, mine or None))
        return
    if state is not None:
        raise typer.BadParameter("goes with --version", param_hint="'--state'")
    with opened() as ef:
        run_id = full_id(ef.runs.documents, run) if run is not None else None
        found = ef.annotations.list(status=status, run=run_id, mine=mine, limit=limit)
    output.emit(
        [task.to_json() for task in found],
        lambda: output.listing(
            ("TASK", "LABEL", "STATUS", "TARGET", "RUN?", "LABELS?", "REVIEWS?", "OPENED?"),
            [_row(task) for task in found],
            empty="no annotation task: nodes of type `annotation` open them",
        ),
    )


def _at(version: str, state: str | None, limit: int, tasks: tuple[object, ...]) -> None:
    from emboflow_dagster.project.annotation_fates import State

    if any(one is not None for one in tasks):
        raise typer.BadParameter("goes with neither --status, --run nor --mine", param_hint="'--version'")
    one_of(State, state, "--state")
    annotation_versions.listed(version, state, limit)


@verb(app, "show", example=f"emboflow annotation show {_EXAMPLE}")
def show(task: Id) -> None:
    """One annotation task: what is labelled, what was answered, what happens next."""
    with opened() as ef:
        _told(ef, ef.annotations.get(full_id(ef.annotations.tasks, task)))


@verb(app, "open", example="emboflow annotation open pick-place:v3 --label-type segment")
def open_(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Id of an asset, dataset version or artifact; name of an asset; DATASET[:TAG].",
        ),
    ],
    label_type: Annotated[
        str, typer.Option("--label-type", metavar="WORD", help="What kind of label: segment, box, ...")
    ],
    assignees: Annotated[
        int, typer.Option("--assignees", min=1, metavar="N", help="How many people label it.")
    ] = 1,
    reviewers: Annotated[
        int, typer.Option("--reviewers", min=1, metavar="N", help="How many people must approve.")
    ] = 1,
    instructions: Annotated[
        str | None, typer.Option("--instructions", metavar="TEXT", help="What the people are told.")
    ] = None,
) -> None:
    """Ask people for labels, without a run."""
    with opened() as ef:
        made = ef.annotations.open(
            target,
            label_type=label_type,
            assignees=assignees,
            reviewers=reviewers,
            instructions=instructions,
        )
        _told(ef, made)


@verb(app, "assign", example=f"emboflow annotation assign {_EXAMPLE} --to ada --reviewer grace")
def assign(
    task: Id,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="USER", help="Who labels it. Repeat it.")
    ] = None,
    reviewer: Annotated[
        list[str] | None, typer.Option("--reviewer", metavar="USER", help="Who reviews it. Repeat it.")
    ] = None,
) -> None:
    """Give an annotation task to people; nobody else can label or review it then."""
    with opened() as ef:
        found = full_id(ef.annotations.tasks, task)
        _told(ef, ef.annotations.assign(found, assignees=to, reviewers=reviewer))


@verb(app, "add", example=f"emboflow annotation add {_EXAMPLE} labels.json")
def add(
    task: Id,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="JSON: an object is one annotation, a list of objects one each."),
    ],
    episode: Annotated[
        str | None,
        typer.Option(
            "--episode",
            metavar="E",
            help="Episode of a dataset version, by place or id; bound to its hash.",
        ),
    ] = None,
    from_: From = None,
    to: To = None,
) -> None:
    """Add annotations as drafts; `submit` hands them in.

    An object with the two keys `selector` and `payload` says itself what it is about:
    {"selector": {"episode": 3, "from": 1.5, "to": 2.0}, "payload": {"label": "grasp"}}.
    """
    if episode is None and (from_, to) != (None, None):
        raise typer.BadParameter("goes with --episode", param_hint="'--from'")
    given = {"episode": None if episode is None else which(episode), "from": from_, "to": to}
    common = {key: value for key, value in given.items() if value is not None}
    rows = [_about(row, common) for row in _payloads(file)]
    with opened() as ef:
        found = full_id(ef.annotations.tasks, task)
        made = [ef.annotations.add(found, payload, selector=selector) for payload, selector in rows]
    output.emit(
        [row.to_json() for row in made],
        lambda: output.lines(
            [f"{len(made)} draft{'s' * (len(made) != 1)}; hand in: emboflow annotation submit {found}"]
        ),
    )


@verb(app, "submit", example=f"emboflow annotation submit {_EXAMPLE}")
def submit(task: Id) -> None:
    """Hand in my drafts; when enough people have, the task is in review."""
    with opened() as ef:
        _told(ef, ef.annotations.submit(full_id(ef.annotations.tasks, task)))


@verb(app, "approve", example=f"emboflow annotation approve {_EXAMPLE} --comment 'all grasps marked'")
def approve(
    task: Id,
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Kept in the audit log.")] = "",
) -> None:
    """Approve what was handed in; a run that waits for it goes on."""
    with opened() as ef:
        approved = ef.annotations.approve(full_id(ef.annotations.tasks, task), comment)
        _told(ef, approved)
        run = (approved.target_ref.selector or {}).get("run")
        if run:
            output.note(f"{execution.outlook(ef)}: emboflow run wait {run['runId']}")


@verb(app, "reject", example=f"emboflow annotation reject {_EXAMPLE} --comment 'a grasp is missing'")
def reject(
    task: Id,
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Why.")],
) -> None:
    """Reject what was handed in; the task of a run that waits for it fails with the comment."""
    with opened() as ef:
        _told(ef, ef.annotations.reject(full_id(ef.annotations.tasks, task), comment))


@verb(app, "cancel", example=f"emboflow annotation cancel {_EXAMPLE}")
def cancel(task: Id) -> None:
    """Close a task that people opened, without a decision."""
    with opened() as ef:
        _told(ef, ef.annotations.cancel(full_id(ef.annotations.tasks, task)))


def _about(row: dict[str, Any], common: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Payload and selector of one object of a file."""
    if set(row) == {"selector", "payload"} and all(isinstance(part, dict) for part in row.values()):
        return row["payload"], {**common, **row["selector"]}
    return row, common


def _payloads(file: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{file}: there is no such file") from None
    except ValueError as error:
        raise InvalidInputError(f"{file}: not JSON: {error}") from None
    rows = value if isinstance(value, list) else [value]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InvalidInputError(f"{file}: a JSON object, or a list of them, is needed")
    return rows


def _row(task: "AnnotationTask") -> tuple[object, ...]:
    run = (task.target_ref.selector or {}).get("run") or {}
    return (
        output.short(task.id),
        task.label_type,
        task.status.value,
        output.short(task.target_ref.id),
        f"{output.short(run['runId'])}:{run['nodeId']}" if run else None,
        ", ".join(task.assignee_ids) or None,
        ", ".join(task.reviewer_ids) or None,
        figures.age(task.created_at),
    )


def _told(ef: "EmboFlow", task: "AnnotationTask") -> None:
    rows = ef.annotations.of(task.id)
    value = {**task.to_json(), "annotations": [row.to_json() for row in rows]}
    output.emit(value, lambda: _page(task, rows))


def _page(task: "AnnotationTask", rows: "list[Annotation]") -> None:
    said = task.target_ref.selector or {}
    run = said.get("run") or {}
    output.pairs(
        [
            ("task", output.styled(task.id, "bold")),
            ("label", task.label_type),
            ("status", task.status.value),
            ("target", f"{task.target_type.value} {task.target_ref.id}"),
            ("run", f"{run['runId']}:{run['nodeId']}" if run else None),
            ("told", said.get("instructions")),
            ("labels", f"{', '.join(task.assignee_ids) or 'anybody'} ({said.get('assignees', 1)} needed)"),
            ("reviews", f"{', '.join(task.reviewer_ids) or 'anybody'} ({said.get('reviewers', 1)} needed)"),
            ("opened", f"{figures.moment(task.created_at)} by {task.created_by}"),
        ]
    )
    if rows:
        output.table(
            ("ANNOTATION", "STATUS", "BY", "ADDED?"),
            [(output.short(r.id), r.status.value, r.created_by, figures.age(r.created_at)) for r in rows],
            title=f"Annotations ({len(rows)})",
        )
    then = {"open": "add", "in_progress": "submit", "in_review": "approve"}.get(task.status.value)
    if then:
        output.note(f"next: emboflow annotation {then} {task.id}{' FILE' if then == 'add' else ''}")


annotation_versions.register(app)
