"""`emboflow schedule`: workflows that run by themselves."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import figures, output, progress
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.options import Cache, Label, one_of
from emboflow_dagster.cli.state import noun, verb

if TYPE_CHECKING:
    from datetime import datetime

    from emboflow_dagster.model.run_schedule import RunSchedule
    from emboflow_dagster.project.handle import EmboFlow

NEXT: Final = 3
app = noun("Schedules: workflows that run by themselves, at times or with new assets.")
Name = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Name or id of a schedule.")]


@verb(
    app,
    "add",
    example=(
        "emboflow schedule add triage --cron '0 3 * * *' --timezone Europe/Berlin "
        "--asset type=rosbag,status=ready,since=last-run"
    ),
)
def add(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Slug or id of a workflow.")],
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron", metavar="CRON", help="When: five fields, minute hour day-of-month month weekday."
        ),
    ] = None,
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="IANA zone that the fields are read in.")
    ] = "UTC",
    on_asset: Annotated[
        str | None,
        typer.Option(
            "--on-asset",
            metavar="SELECTOR",
            help="Instead of --cron: one run for each asset that comes to match: type=rosbag,status=ready.",
        ),
    ] = None,
    assets: Annotated[
        list[str] | None,
        typer.Option(
            "--asset",
            metavar="ASSET",
            help="What to bind: a name, an id, or a selector such as type=rosbag,since=last-run. Repeat it. "
            "Without: all that the workflow's sources take.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Its name; else made from the workflow's.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            "--version", min=1, metavar="N", help="Stay with a version; else the published one at each tick."
        ),
    ] = None,
    catch_up: Annotated[
        str,
        typer.Option(
            "--catch-up",
            metavar="POLICY",
            help="Ticks that passed while no daemon was there: skip them, run the latest, or run all.",
        ),
    ] = "latest",
    max_catch_up: Annotated[
        int,
        typer.Option(
            "--max-catch-up",
            min=1,
            max=1000,
            metavar="N",
            help="With --catch-up all: how many, newest first.",
        ),
    ] = 24,
    existing: Annotated[
        bool,
        typer.Option("--existing", help="With --on-asset: those that match already start a run each, too."),
    ] = False,
    cache: Cache = None,
    label: Label = None,
) -> None:
    """Let a workflow run by itself: at the times of a cron expression, or once with each new asset."""
    from emboflow_dagster.model.run import CachePolicy
    from emboflow_dagster.model.run_schedule import CatchUp

    with opened() as ef:
        made = ef.schedules.add(
            full_id(ef.workflows.documents, workflow),
            cron=cron,
            timezone=timezone,
            on_asset=on_asset,
            assets=[full_id(ef.assets.documents, asset) for asset in assets or ()],
            name=name,
            version=version,
            catch_up=str(one_of(CatchUp, catch_up, "--catch-up")),
            max_catch_up=max_catch_up,
            cache_policy=one_of(CachePolicy, cache, "--cache"),
            label=label,
            existing=existing,
        )
        _tell(ef)
        coming = _coming(ef, made)
    output.emit(_value(made, coming), lambda: _page(made, coming))


@verb(app, "list", example="emboflow schedule list")
def list_() -> None:
    """The project's schedules: those that were added, and those in workflow files."""
    with opened() as ef:
        found = ef.schedules.list()
    rows = [
        (
            s.name,
            s.workflow_slug,
            s.when,
            s.status.value,
            ", ".join(s.assets) or _without_assets(s),
            s.last.outcome.value if s.last else None,
            figures.age(s.last.decided_at) if s.last else None,
            "its file" if s.origin == "workflow" else s.created_by,
        )
        for s in found
    ]
    output.emit(
        [s.to_json() for s in found],
        lambda: output.listing(
            ("NAME", "WORKFLOW", "WHEN", "STATUS", "ASSETS?", "LAST?", "DECIDED?", "BY?"),
            rows,
            empty="no schedule: `emboflow schedule add WORKFLOW --cron '0 3 * * *'` makes one",
        ),
    )


@verb(app, "show", example="emboflow schedule show triage")
def show(schedule: Name) -> None:
    """One schedule, what its newest tick came to, and its next ticks."""
    with opened() as ef:
        found = ef.schedules.get(schedule)
        coming = _coming(ef, found)
    output.emit(_value(found, coming), lambda: _page(found, coming))


@verb(app, "pause", example="emboflow schedule pause triage")
def pause(schedule: Name) -> None:
    """Let its ticks pass by from now on; new assets wait until it is resumed."""
    with opened() as ef:
        found = ef.schedules.pause(schedule)
    output.emit(found.to_json(), lambda: _page(found, []))


@verb(app, "resume", example="emboflow schedule resume triage")
def resume(schedule: Name) -> None:
    """Let it run again; ticks that passed while it was paused stay past."""
    with opened() as ef:
        found = ef.schedules.resume(schedule)
        coming = _coming(ef, found)
    output.emit(found.to_json(), lambda: _page(found, coming))


@verb(app, "remove", example="emboflow schedule remove triage")
def remove(schedule: Name) -> None:
    """Take a schedule away. Runs that it has requested stay, also those in the queue."""
    with opened() as ef:
        gone = ef.schedules.remove(schedule)
        _tell(ef)
    output.emit(gone.to_json(), lambda: output.lines([f"{gone.name} is removed"]))


def _tell(ef: "EmboFlow") -> None:
    """Show it in the running Dagster; it works without, too."""
    from emboflow_dagster.orchestration.sync import sync

    with progress.waiting("showing it to Dagster"):
        told = sync(ef.settings.dagster_home)
    if told.url is not None and not told.reloaded:
        output.note(f"done, but {told.url} does not show it yet: {told.message}")


def _coming(ef: "EmboFlow", schedule: "RunSchedule") -> "list[datetime]":
    if schedule.cron is None:
        return []
    from emboflow_dagster.orchestration.ticks import coming

    return coming(schedule.cron, schedule.timezone, after=ef.ticking.now(), count=NEXT)


def _value(schedule: "RunSchedule", coming: "list[datetime]") -> dict[str, Any]:
    return {**schedule.to_json(), "nextTicks": [tick.isoformat() for tick in coming]}


def _page(schedule: "RunSchedule", coming: "list[datetime]") -> None:
    config, last = schedule.config, schedule.last
    policy = schedule.catch_up.value
    output.pairs(
        [
            ("schedule", output.styled(schedule.name, "bold")),
            ("id", schedule.id),
            ("workflow", schedule.workflow_slug),
            ("version", schedule.version_number or "the published one"),
            ("when", schedule.when),
            ("status", schedule.status.value),
            ("assets", ", ".join(schedule.assets) or _without_assets(schedule)),
            ("catch-up", None if schedule.cron is None else _bounded(policy, schedule.max_catch_up)),
            ("cache", config.cache_policy.value if config and config.cache_policy else None),
            ("label", config.label if config else None),
            ("next", ", ".join(f"{tick:%Y-%m-%d %H:%M}" for tick in coming) + " UTC" if coming else None),
            ("last", f"{last.outcome.value}: {last.message}" if last else None),
            ("decided", figures.moment(last.decided_at) if last else None),
            ("missed", schedule.missed_count or None),
            ("added", f"{figures.moment(schedule.created_at)} by {schedule.created_by}"),
        ]
    )


def _without_assets(schedule: "RunSchedule") -> str:
    return "the new one" if schedule.cron is None else "all that its sources take"


def _bounded(policy: str, most: int) -> str:
    return f"all, at most {most}" if policy == "all" else policy
