"""Schedules as Dagster sees them: every tick requests one run, exactly once.

A cron schedule is a ``ScheduleDefinition``: it stands in the UI with its next tick, its history and a switch.
A sensor a project stands behind them. It takes what they cannot: ticks that passed while no daemon was there,
or while MongoDB was down; schedules that this code location does not show yet; and new assets. Both ask
:mod:`emboflow_dagster.project.ticking`, where the same tick is the same run.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError, ErrorKind
from emboflow_dagster.model.run_schedule import CatchUp, Decision, Outcome, RunSchedule, ScheduleStatus
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import (
    CatalogProject,
    CatalogSchedule,
    NamedSchedule,
    Place,
    Workflow,
)
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.jobs import Launchable
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.orchestration.ticks import due
from emboflow_dagster.project.handle import EmboFlow

INTERVAL_SECONDS: Final = 15
_SAID: Final = 20


def project_schedules(
    place: Place, project: CatalogProject, held: Mapping[str, Launchable]
) -> list[dg.ScheduleDefinition]:
    """The schedules of a project: those in the files of its workflows, and those that were added."""
    found: list[dg.ScheduleDefinition] = []
    for workflow in project["workflows"]:
        entry, said = held.get(workflow["definitionId"]), workflow["schedule"]
        if entry is not None and said is not None:
            found.append(_of_file(place, workflow, said, entry.job))
    for named in project.get("schedules", []):
        entry = held.get(named["definitionId"])
        if entry is not None:  # its workflow is archived: nothing would start
            found.append(_added(place, named, entry.job))
    return found


def file_schedule_name(place: Place, workflow: str) -> str:
    """The Dagster name of the schedule in a workflow's file."""
    return f"{keys.job_name(place, workflow)}__schedule"


def added_schedule_name(place: Place, name: str) -> str:
    """The Dagster name of a schedule that was added: never that of a file, whatever workflows are called."""
    return f"{keys.job_name(place, name)}__added_schedule"


def dagster_name(place: Place, schedule: RunSchedule) -> str:
    """The Dagster name of a cron schedule."""
    if schedule.origin == "added":
        return added_schedule_name(place, schedule.name)
    return file_schedule_name(place, schedule.workflow_slug)


def _of_file(place: Place, workflow: Workflow, said: CatalogSchedule, job: str) -> dg.ScheduleDefinition:
    return _definition(
        place,
        name=file_schedule_name(place, workflow["slug"]),
        schedule_id=workflow["definitionId"],
        cron=said["cron"],
        timezone=said["timezone"],
        job=job,
        about=f"Workflow `{workflow['slug']}` by itself, as its file says.",
    )


def _added(place: Place, named: NamedSchedule, job: str) -> dg.ScheduleDefinition:
    return _definition(
        place,
        name=added_schedule_name(place, named["name"]),
        schedule_id=named["id"],
        cron=named["cron"],
        timezone=named["timezone"],
        job=job,
        about=(
            f"Workflow `{named['workflow']}` by itself; added by {named['createdBy']}.\n\n"
            f"`emboflow schedule show {named['name']}`"
        ),
    )


def _definition(
    place: Place, *, name: str, schedule_id: str, cron: str, timezone: str, job: str, about: str
) -> dg.ScheduleDefinition:
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                return dg.SkipReason(evaluate_tick(ef, schedule_id, context.scheduled_execution_time))
        except EmboflowError as error:
            # The sensor takes the tick when the database is there again.
            raise dg.Failure(f"error[{error.kind.value}]: {error.message}") from error

    return dg.ScheduleDefinition(
        name=name,
        cron_schedule=cron,
        execution_timezone=timezone,
        execution_fn=evaluate,
        job_name=job,
        description=f"{about}\n\nProject `{place.workspace}/{place.project}`.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )


def evaluate_tick(ef: EmboFlow, schedule_id: str, tick: datetime) -> str:
    """Take a tick that Dagster evaluates, and what went missing before it; says what came of it.

    Raises:
        EmboflowError: The database cannot be reached, or a run could not be requested.
    """
    schedule = ef.schedules.find(schedule_id)
    if schedule is None or schedule.cron is None:
        return "this schedule was removed; a reload of the code location takes it from the list"
    if schedule.status is ScheduleStatus.PAUSED:
        return f"paused; `emboflow schedule resume {schedule.name}`"
    before = [one for one in _due(schedule, tick) if one < tick] if schedule.ticked_at else []
    # Dagster itself evaluates the newest of the ticks that passed: the policy is about the others, too.
    decisions = ef.ticking.take(schedule, [*before, tick])
    if not decisions:
        return f"missed: catch-up is {CatchUp(schedule.catch_up).value}"
    last = decisions[-1]
    if last.outcome is Outcome.FAILED:
        raise dg.Failure(last.message)
    return "; ".join(one.message for one in decisions)


def take_due(ef: EmboFlow, place: Place, off: frozenset[str]) -> list[tuple[RunSchedule, Decision]]:
    """Take every tick and every new asset of a project that is due.

    Args:
        ef: An open handle on it.
        place: The project.
        off: Dagster names of schedules that are switched off in the UI: their ticks pass by.
    """
    now = ef.ticking.now()
    done: list[tuple[RunSchedule, Decision]] = []
    for schedule in ef.schedules.list():
        if schedule.status is ScheduleStatus.PAUSED:
            continue
        if schedule.cron is None:
            done += [(schedule, decision) for decision in ef.ticking.look(schedule)]
            continue
        ticks = _due(schedule, now)
        if ticks and dagster_name(place, schedule) in off:
            ef.ticking.passes(schedule, ticks[-1])
        elif ticks:
            done += [(schedule, decision) for decision in ef.ticking.take(schedule, ticks)]
    return done


def _due(schedule: RunSchedule, until: datetime) -> list[datetime]:
    return due(
        str(schedule.cron), schedule.timezone, after=schedule.ticked_at or schedule.created_at, until=until
    )


def switched_off(instance: dg.DagsterInstance) -> frozenset[str]:
    """The names of schedules that somebody has stopped in the UI."""
    states = instance.all_instigator_state()
    return frozenset(
        state.instigator_name
        for state in states
        if state.instigator_type.value == "SCHEDULE" and state.status.value == "STOPPED"
    )


def schedules_sensor(place: Place) -> dg.SensorDefinition:
    """Takes the ticks and new assets of a project that nothing else has taken; no cursor, MongoDB has it."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                done = take_due(ef, place, switched_off(context.instance))
        except EmboflowError as error:
            if error.kind is not ErrorKind.UNAVAILABLE:
                raise dg.Failure(f"error[{error.kind.value}]: {error.message}") from error
            return dg.SkipReason(f"error[{error.kind.value}]: {error.message}")
        said = [f"{schedule.name}: {decision.message}" for schedule, decision in done]
        more = [f"and {len(said) - _SAID} more"] if len(said) > _SAID else []
        return dg.SkipReason("; ".join([*said[:_SAID], *more]) or "nothing is due")

    return dg.SensorDefinition(
        name=keys.place_name(place, "schedules"),
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=(
            f"Missed ticks, and runs for new assets, of the schedules of `{place.workspace}/{place.project}`."
        ),
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )
