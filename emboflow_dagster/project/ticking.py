"""What a tick of a schedule does: decide, select, request; once, whoever evaluates it and however often.

The id of a run follows from its schedule and its tick (or its new asset). Run, tasks, the note that its
assets are taken and the newest tick of the schedule are one transaction, which also sees that the schedule is
still there and not paused. So two daemons, one that was killed in between, and a tick that Dagster evaluates
again all end with the one run.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import (
    AlreadyExistsError,
    EmboflowError,
    ErrorKind,
    NotFoundError,
    TransitionError,
)
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.model.run_schedule import CatchUp, Decision, Outcome, RunSchedule, ScheduleStatus
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session, translated
from emboflow_dagster.project import bindings
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.runs import Runs
from emboflow_dagster.project.schedules import Schedules, key_of, taken_row
from emboflow_dagster.project.selection import Selected
from emboflow_dagster.runtime.selector import parse_selector

#: A tick that is evaluated within so long of its time is not late.
ON_TIME: Final = timedelta(minutes=5)
#: New assets that one look starts runs for; the next look goes on.
MAX_NEW: Final = 50


class Chosen(NamedTuple):
    """Of the ticks that are due: those that get a run, oldest first, and how many pass by."""

    ticks: list[datetime]
    missed: int


def choose(schedule: RunSchedule, due: Sequence[datetime], now: datetime) -> Chosen:
    """What the catch-up policy makes of the ticks that passed since the last one that was decided.

    Args:
        schedule: Whose.
        due: They, oldest first.
        now: The server's time.
    """
    if not due:
        return Chosen([], 0)
    match schedule.catch_up:
        case CatchUp.ALL:
            kept = list(due[-schedule.max_catch_up :])
        case CatchUp.LATEST:
            kept = list(due[-1:])
        case CatchUp.SKIP:
            kept = [due[-1]] if now - due[-1] <= ON_TIME else []
    return Chosen(kept, len(due) - len(kept))


def run_id_of(schedule_id: str, cause: str) -> str:
    """The id of the one run that a tick, or a new asset, of a schedule has."""
    return f"run_{hashlib.sha256(f'{schedule_id}@{cause}'.encode()).hexdigest()[:26].upper()}"


def stamp(tick: datetime) -> str:
    """A tick as ``triggeredBy`` spells it.

    >>> stamp(datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    '2026-03-29T01:00:00Z'
    """
    return f"{tick.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Ticking:
    """Takes the ticks of one project's schedules."""

    def __init__(self, opened: Opened, schedules: Schedules, runs: Runs) -> None:
        self._opened = opened
        self._schedules = schedules
        self._runs = runs

    def now(self) -> datetime:
        """The server's time, which all daemons share."""
        now: datetime = self._opened.mongo.server_time()
        return now

    def take(self, schedule: RunSchedule, due: Sequence[datetime]) -> list[Decision]:
        """Decide the ticks that are due and request what is to run.

        Args:
            schedule: An active one with a cron expression, as it was read just now.
            due: The ticks after the last one decided, oldest first.

        Returns:
            One decision for each tick that is not passed by, in order.

        Raises:
            UnavailableError: The database went away; everything can be repeated.
        """
        chosen = choose(schedule, due, self.now())
        if chosen.missed:
            self._pass_by(schedule, due, chosen)
        return [self.tick(schedule, tick) for tick in chosen.ticks]

    def tick(self, schedule: RunSchedule, tick: datetime) -> Decision:
        """Request the run of one tick, or say why there is none. Repeating it changes nothing.

        Raises:
            UnavailableError: The database went away; everything can be repeated.
        """
        tick = tick.astimezone(UTC)
        run_id = run_id_of(schedule.id, stamp(tick))
        if (known := self._run(run_id)) is not None:
            return self._requested(known, tick)
        try:
            return self._tick(schedule, tick, run_id)
        except EmboflowError as error:
            if error.kind is ErrorKind.UNAVAILABLE:
                raise
            return self._note(schedule, Outcome.FAILED, f"error[{error.kind.value}]: {error.message}", tick)

    def look(self, schedule: RunSchedule, *, most: int = MAX_NEW) -> list[Decision]:
        """Request one run for every new asset of a schedule that waits for some.

        Raises:
            UnavailableError: The database went away; everything can be repeated.
        """
        if schedule.on_asset is None:
            return []
        began = self.now()
        selector = parse_selector(schedule.on_asset)
        new = self._schedules.selection.new_to(
            schedule.id, selector, looked_at=schedule.looked_at, limit=most + 1
        )
        done: list[Decision] = []
        for asset_id in new[:most]:
            try:
                ids = [asset_id, *schedule.assets]
                run = self._request(
                    schedule, run_id_of(schedule.id, asset_id), Selected(ids, [asset_id]), {}, tick=None
                )
            except EmboflowError as error:
                if error.kind is ErrorKind.UNAVAILABLE:
                    raise
                message = f"asset {asset_id}: error[{error.kind.value}]: {error.message}"
                # It stays new: the next look tries again, this one goes no further.
                return [*done, self._note(schedule, Outcome.FAILED, message, None)]
            done.append(self._requested(run, None))
        if len(new) <= most:
            self._schedules.ensure_row(schedule)
            self._change(schedule, {"$max": {"lookedAt": began}})
        return done

    def passes(self, schedule: RunSchedule, until: datetime) -> None:
        """Let the ticks up to a moment pass by without a word: somebody has turned the schedule off."""
        self._schedules.ensure_row(schedule)
        self._change(schedule, {"$max": {"tickedAt": until}})

    def _tick(self, schedule: RunSchedule, tick: datetime, run_id: str) -> Decision:
        for _ in range(3):
            began = self.now()
            selected, by_source = self._selected(schedule, tick)
            if not selected.asset_ids:
                said = ", ".join(schedule.assets) or "what the workflow's sources take"
                return self._note(schedule, Outcome.NOTHING, f"no run: no asset matches {said}", tick, began)
            try:
                run = self._request(
                    schedule,
                    run_id,
                    selected,
                    by_source,
                    tick=tick,
                    looked_at=None if selected.left else began,
                )
            except AlreadyExistsError:
                continue  # another tick took one of the assets since we looked
            return self._requested(run, tick)
        return self._note(schedule, Outcome.NOTHING, "no run: another tick takes the assets", tick)

    def _selected(self, schedule: RunSchedule, tick: datetime) -> tuple[Selected, dict[str, list[str]]]:
        version = self._runs.version_of(schedule.workflow_definition_id, schedule.version_number)
        if schedule.assets:
            return bindings.of_schedule(
                self._schedules.selection,
                schedule.id,
                version,
                schedule.assets,
                at=tick,
                looked_at=schedule.looked_at,
            )
        bound = self._runs.bound_by_sources(version)
        return Selected(bound.asset_ids, []), bound.by_source

    def _request(
        self,
        schedule: RunSchedule,
        run_id: str,
        selected: Selected,
        by_source: Mapping[str, Sequence[str]],
        *,
        tick: datetime | None,
        looked_at: datetime | None = None,
    ) -> WorkflowRun:
        self._schedules.ensure_row(schedule)
        return self._runs.request(
            schedule.workflow_definition_id,
            assets=by_source or selected.asset_ids,
            version=schedule.version_number,
            triggered_by=(
                f"sensor:{schedule.name}" if tick is None else f"schedule:{schedule.name}@{stamp(tick)}"
            ),
            run_id=run_id,
            scheduled_for=tick,
            config=schedule.config,
            also=self._beside(schedule, selected, self._requested_now(run_id, tick), looked_at),
        )

    def _beside(
        self, schedule: RunSchedule, selected: Selected, decision: Decision, looked_at: datetime | None
    ) -> Callable[[Session], None]:
        """What is written in the transaction of a run that a schedule requests."""
        times = {"tickedAt": decision.tick, "lookedAt": looked_at}
        later = {name: moment for name, moment in times.items() if moment is not None}
        change = {"$set": {"last": decision.to_mongo()}, **({"$max": later} if later else {})}
        still = {**self._row(schedule), "status": ScheduleStatus.ACTIVE.value}

        def write(session: Session) -> None:
            meta = self._opened.mongo[META]
            with translated():
                if not meta.update_one(still, change, session=session).matched_count:
                    raise TransitionError(f"schedule {schedule.name} was paused or removed meanwhile")
                if selected.fresh:
                    rows = [taken_row(schedule.workspace_id, schedule.id, one) for one in selected.fresh]
                    meta.insert_many(rows, session=session)

        return write

    def _pass_by(self, schedule: RunSchedule, due: Sequence[datetime], chosen: Chosen) -> None:
        """Write down that ticks were missed, and how many: once, with the newest of them."""
        gone = [tick for tick in due if tick not in set(chosen.ticks)]
        self._schedules.ensure_row(schedule)
        message = f"{chosen.missed} missed: catch-up is {schedule.catch_up.value}"
        last = Decision(outcome=Outcome.MISSED, message=message, tick=gone[-1], decided_at=self.now())

        def body(session: Session) -> None:
            done = self._opened.mongo[META].update_one(
                {**self._row(schedule), "$or": [{"tickedAt": None}, {"tickedAt": {"$lt": gone[-1]}}]},
                {
                    "$set": {"tickedAt": gone[-1], "last": last.to_mongo()},
                    "$inc": {"missedCount": chosen.missed},
                },
                session=session,
            )
            if done.matched_count:
                after = {"count": chosen.missed, "first": stamp(gone[0]), "last": stamp(gone[-1])}
                audit.record(
                    self._opened.mongo,
                    self._opened.scope,
                    session,
                    "schedule.miss",
                    META,
                    schedule.id,
                    after=after,
                )

        self._opened.mongo.in_transaction(body)

    def _note(
        self,
        schedule: RunSchedule,
        outcome: Outcome,
        message: str,
        tick: datetime | None,
        looked_at: datetime | None = None,
    ) -> Decision:
        self._schedules.ensure_row(schedule)
        decision = Decision(outcome=outcome, message=message[:2_000], tick=tick, decided_at=self.now())
        times = {"tickedAt": tick, "lookedAt": looked_at}
        later = {name: moment for name, moment in times.items() if moment is not None}
        self._change(schedule, {"$set": {"last": decision.to_mongo()}, **({"$max": later} if later else {})})
        return decision

    def _change(self, schedule: RunSchedule, change: dict[str, Any]) -> None:
        with translated():
            self._opened.mongo[META].update_one(self._row(schedule), change)

    def _row(self, schedule: RunSchedule) -> dict[str, Any]:
        scope = self._opened.scope
        return {
            "_id": key_of(schedule),
            "scheduleId": schedule.id,
            "workspaceId": scope.workspace_id,
            "projectId": scope.project_id,
        }

    def _requested(self, run: WorkflowRun, tick: datetime | None) -> Decision:
        return self._requested_now(run.id, tick)

    def _requested_now(self, run_id: str, tick: datetime | None) -> Decision:
        message = f"queued {run_id}; the queue starts it"
        return Decision(
            outcome=Outcome.REQUESTED, message=message, tick=tick, run_id=run_id, decided_at=utc_now()
        )

    def _run(self, run_id: str) -> WorkflowRun | None:
        try:
            return self._runs.get(run_id)
        except NotFoundError:
            return None
