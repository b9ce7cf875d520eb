"""`emboflow workflow`: graphs published as immutable versions, and runs of them requested."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emboflow_dagster.cli import execution, figures, output, progress
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.node import known_types
from emboflow_dagster.cli.options import Cache, Label, Limit, one_of
from emboflow_dagster.cli.state import noun, verb
from emboflow_dagster.errors import InvalidInputError

if TYPE_CHECKING:
    from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion
    from emboflow_dagster.project.workflows import Published

app = noun("Workflows: published as immutable versions, run over assets.")
Slug = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Slug or id of a workflow.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A workflow file, YAML or JSON.")]
Version = Annotated[
    int | None,
    typer.Option("--version", min=1, metavar="N", help="Version number; else the published one."),
]


@verb(app, "publish", example="emboflow workflow publish triage.yaml")
def publish(file: File) -> None:
    """Check a workflow file and make it the current version; the same content again changes nothing."""
    from emboflow_dagster.orchestration.sync import sync

    with opened() as ef:
        published = ef.workflows.publish(file)
        if not published.unchanged:
            with progress.waiting("showing it to Dagster"):
                told = sync(ef.settings.dagster_home)
            if told.url is not None and not told.reloaded:
                output.note(f"published, but {told.url} does not show it yet: {told.message}")
    value = {
        **published.version.to_json(),
        "slug": published.definition.slug,
        "unchanged": published.unchanged,
    }
    output.emit(value, lambda: _published(published))


@verb(app, "validate", example="emboflow workflow validate triage.yaml")
def validate(file: File) -> None:
    """Show everything that is wrong with a workflow file. Needs no database."""
    from emboflow_dagster.runtime import validate as checks
    from emboflow_dagster.runtime import workflow_file

    try:
        problems = checks.validate(workflow_file.load(file), registry=known_types())[1]
    except InvalidInputError as error:
        problems = list(error.problems)
        if not problems:
            raise
    value = {
        "ok": not problems,
        "problems": [{"code": p.kind.value, "path": p.path, "message": p.message} for p in problems],
    }

    def page() -> None:
        if problems:
            output.table(
                ("CODE", "WHERE", "PROBLEM"),
                [(output.styled(p.kind.value, "red"), p.path, p.message) for p in problems],
            )
        else:
            output.lines([f"{file}: valid"])

    output.emit(value, page)
    if problems:
        raise InvalidInputError(
            f"{file}: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}",
            kind=problems[0].kind,
        )


@verb(app, "show", example="emboflow workflow show triage")
def show(workflow: Slug, version: Version = None) -> None:
    """One workflow and the nodes of a version."""
    with opened() as ef:
        found = ef.workflows.get(full_id(ef.workflows.documents, workflow))
        shown = ef.workflows.version(found.id, version)
    output.emit({**found.to_json(), "version": shown.to_json()}, lambda: _page(found, shown))


@verb(app, "list", example="emboflow workflow list")
def list_(limit: Limit = 100) -> None:
    """The project's workflows, newest first."""
    with opened() as ef:
        found = ef.workflows.list(limit=limit)
    rows = [
        (
            w.slug,
            w.name,
            w.status.value,
            w.published_version_number,
            w.latest_version_number,
            figures.age(w.updated_at),
            output.short(w.id),
        )
        for w in found
    ]
    output.emit(
        [w.to_json() for w in found],
        lambda: output.listing(
            ("SLUG", "NAME?", "STATUS", ">PUBLISHED", ">LATEST?", "UPDATED?", "ID?"),
            rows,
            empty="no workflow: `emboflow workflow publish FILE` makes one",
            limit=limit,
        ),
    )


@verb(app, "versions", example="emboflow workflow versions triage")
def versions(workflow: Slug, limit: Limit = 100) -> None:
    """A workflow's versions, newest first."""
    with opened() as ef:
        found = ef.workflows.versions(full_id(ef.workflows.documents, workflow), limit=limit)
    rows = [
        (
            v.version_number,
            len(v.logic_graph.nodes),
            str((v.summary or {}).get("executionDigest", ""))[:12],
            v.created_by,
            figures.age(v.created_at),
            output.short(v.id),
        )
        for v in found
    ]
    output.emit(
        [v.to_json() for v in found],
        lambda: output.listing(
            (">VERSION", ">NODES", "DIGEST?", "BY?", "PUBLISHED", "ID?"),
            rows,
            empty=f"{workflow} has no version",
            limit=limit,
        ),
    )


@verb(app, "run", example="emboflow workflow run triage --asset pick-01 --asset pick-02 --wait")
def run(
    workflow: Slug,
    assets: Annotated[
        list[str],
        typer.Option(
            "--asset",
            metavar="ASSET",
            help="Name or id of an asset to bind, or a selector: type=rosbag,status=ready. Repeatable.",
        ),
    ],
    version: Version = None,
    cache: Cache = None,
    label: Label = None,
    wait: execution.Wait = False,
    timeout: execution.Timeout = None,
) -> None:
    """Request a run and print its document; with --wait, as it ended. Exit 1 when it did not succeed."""
    from emboflow_dagster.model.run import CachePolicy

    execution.check_timeout(timeout, wait=wait)
    policy = one_of(CachePolicy, cache, "--cache")  # wrong usage needs no database
    with opened() as ef:
        names = [full_id(ef.assets.documents, asset) for asset in assets]
        queued = ef.workflows.run(
            full_id(ef.workflows.documents, workflow),
            assets=names,
            version=version,
            cache_policy=policy,
            label=label,
        )
        execution.finish(ef, queued, wait=wait, timeout_s=timeout)


def _published(published: "Published") -> None:
    definition, version, unchanged = published
    output.pairs(
        [
            ("workflow", output.styled(definition.slug, "bold")),
            ("version", f"{version.version_number}{' (unchanged)' if unchanged else ''}"),
            ("id", version.id),
            ("nodes", len(version.logic_graph.nodes)),
            ("digest", (version.summary or {}).get("executionDigest")),
        ]
    )


def _page(workflow: "WorkflowDefinition", version: "WorkflowDefinitionVersion") -> None:
    schedule = version.runtime_graph.schedule
    output.pairs(
        [
            ("workflow", output.styled(workflow.slug, "bold")),
            ("name", workflow.name),
            ("about", (version.summary or {}).get("description")),
            ("id", workflow.id),
            ("status", workflow.status.value),
            ("version", f"{version.version_number} of {workflow.latest_version_number}"),
            ("version id", version.id),
            ("schedule", f"{schedule.cron} {schedule.timezone}" if schedule else None),
            ("published", f"{figures.moment(version.created_at)} by {version.created_by}"),
        ]
    )
    upstream = version.logic_graph.upstream()
    rows: list[tuple[Any, ...]] = []
    for node in version.logic_graph.nodes:
        config = version.node(node.id)[1]
        told = ", ".join(f"{k}={v!r}" for k, v in config.config.items())
        rows.append((node.id, node.type, ", ".join(upstream[node.id]), told[:120]))
    output.table(("NODE", "TYPE", "AFTER", "CONFIG?"), rows, title="Nodes")
