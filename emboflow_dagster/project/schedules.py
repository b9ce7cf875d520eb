"""Schedules: added, listed, paused and removed. What their ticks do is :mod:`.ticking`'s.

A schedule that was added is a row of ``_emboflow_meta``, its name unique in the project. The one in a
workflow's file is its published version's; its row, under the workflow's id, has only what became of it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    TransitionError,
    shown,
)
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.run_schedule import (
    MAX_ASSETS,
    MAX_CATCH_UP,
    STATE,
    CatchUp,
    RunSchedule,
    ScheduleStatus,
)
from emboflow_dagster.model.text import check_slug, refuse
from emboflow_dagster.model.workflow import WorkflowStatus
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Raw, Session, translated
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project import bindings, file_schedules
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.run_config import run_config
from emboflow_dagster.project.selection import Selection, taken_key
from emboflow_dagster.project.workflows import Workflows
from emboflow_dagster.runtime.cron import check_cron, check_timezone
from emboflow_dagster.runtime.selector import LAST_RUN, Selector, parse_selector

MAX_SCHEDULES: Final = 1_000
_PORTION: Final = 1_000


class Schedules:
    """The schedules of one project."""

    def __init__(self, opened: Opened, workflows: Workflows) -> None:
        self._opened = opened
        self._workflows = workflows
        self.selection = Selection(opened)

    def add(
        self,
        workflow: str,
        *,
        cron: str | None = None,
        timezone: str = "UTC",
        on_asset: str | None = None,
        assets: Sequence[str] = (),
        name: str | None = None,
        version: int | None = None,
        catch_up: str = "latest",
        max_catch_up: int = 24,
        cache_policy: str | None = None,
        label: str | None = None,
        existing: bool = False,
    ) -> RunSchedule:
        """Let a workflow run by itself: at the ticks of a cron expression, or once with each new asset.

        Args:
            workflow: Slug or id.
            cron: Five fields: minute, hour, day of month, month, weekday.
            timezone: IANA name of the zone that the fields are read in.
            on_asset: A selector instead of ``cron``: every asset that comes to match it starts one run.
            assets: What a run binds: names, ids and selectors, ``NODE=ASSET`` for one source. None: what the
                workflow binds itself, else all that its sources take. With ``on_asset`` they are bound
                beside the new asset, which goes to every source that is not named.
            name: Unique in the project; by default made from the workflow's.
            version: A version to stay with; the published one at each tick when omitted.
            catch_up: ``skip``, ``latest`` or ``all`` of the ticks that passed while no daemon was there.
            max_catch_up: With ``all``: how many, the newest first, 1 to 1000.
            cache_policy: ``use``, ``refresh`` or ``off``, for all nodes of its runs.
            label: Label of its runs.
            existing: With ``on_asset``: the assets that match already start a run each, too.

        Raises:
            NotFoundError: No such workflow, version or asset.
            InvalidInputError: What is wrong with the rest; kinds ``cron...``, ``tz``, ``selector``.
            AlreadyExistsError: The name is taken.
            TransitionError: The workflow was never published, or is archived.
        """
        head = self._workflows.get(workflow)
        if head.status != WorkflowStatus.PUBLISHED:
            raise TransitionError(f"workflow {head.slug} is {head.status}; only a published one runs")
        bindings.check(self.selection, self._workflows.version(head.id, version), assets)
        selector = self._checked(cron, timezone, on_asset, assets, existing=existing)
        scope, now = self._opened.scope, utc_now()
        if len(self._rows()) >= MAX_SCHEDULES:
            raise InvalidInputError(f"the project has {MAX_SCHEDULES} schedules, as many as are allowed")
        made = RunSchedule.checked(
            id=new_id("sch"),
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            name=check_slug(name, "name") if name is not None else self._free_name(head.slug),
            workflow_definition_id=head.id,
            workflow_slug=head.slug,
            cron=cron,
            timezone=timezone,
            on_asset=selector.text if selector else None,
            assets=list(assets),
            version_number=version,
            config=run_config(cache_policy, label),
            catch_up=_catch_up(catch_up),
            max_catch_up=_bound(max_catch_up),
            created_by=scope.actor,
            created_at=now,
            updated_at=now,
            ticked_at=self._opened.mongo.server_time(),
        )
        if selector is not None and not existing:
            # Before the schedule is there: what comes in between is new.
            self._take(made.id, self.selection.all_matching(selector))
        self._insert(made)
        return made

    def _checked(
        self, cron: str | None, timezone: str, on_asset: str | None, assets: Sequence[str], *, existing: bool
    ) -> Selector | None:
        if (cron is None) == (on_asset is None):
            raise InvalidInputError(
                "a schedule has either a cron expression or a selector of new assets",
                hint="--cron '0 3 * * *', or --on-asset type=rosbag,status=ready",
            )
        if len(assets) > MAX_ASSETS:
            raise InvalidInputError(f"assets: found {len(assets)}; at most {MAX_ASSETS} are allowed")
        if cron is not None:
            if existing:
                raise InvalidInputError("`existing` is about new assets; a cron schedule has none")
            check_cron(cron)
            check_timezone(timezone)
            return None
        if any(f"since={LAST_RUN}" in entry for entry in assets):
            raise refuse(
                ErrorKind.SELECTOR, "assets", "since=last-run beside new assets: they are bound as they come"
            )
        selector = parse_selector(on_asset, "on_asset")
        if selector.since_last_run or selector.younger_than:
            raise refuse(ErrorKind.SELECTOR, "on_asset", "each asset comes once: leave `since` out")
        return selector

    def _insert(self, made: RunSchedule) -> None:
        def body(session: Session) -> None:
            try:
                with translated():
                    self._opened.mongo[META].insert_one(row_of(made), session=session)
            except AlreadyExistsError:
                raise AlreadyExistsError(
                    f"schedule {made.name}: there is one of that name", hint="choose another --name"
                ) from None
            after = {"name": made.name, "workflow": made.workflow_slug, "when": made.when}
            self._audit(session, "schedule.add", made, after=after)

        self._opened.mongo.in_transaction(body)

    def added(self) -> list[RunSchedule]:
        """Those that were added, by name."""
        return [from_row(row) for row in self._rows() if row.get("origin") == "added"]

    def get(self, schedule: str) -> RunSchedule:
        """A schedule by name or id; one that was added before one of a file with the same name.

        Raises:
            NotFoundError: There is none in this project.
        """
        found = self.find(schedule)
        if found is None:
            names = ", ".join(one.name for one in self.list()[:10])
            raise NotFoundError(
                f"schedule {shown(schedule)}: there is none in this project",
                hint=f"there are: {names}"
                if names
                else "`emboflow schedule add WORKFLOW --cron ...` makes one",
            )
        return found

    def find(self, schedule: str) -> RunSchedule | None:
        """A schedule by name or id, or ``None``."""
        return next((one for one in self.list() if schedule in (one.id, one.name)), None)

    def pause(self, schedule: str) -> RunSchedule:
        """Let its ticks pass by from now on; new assets wait until it is resumed. Again is no error."""
        return self._turn(self.get(schedule), ScheduleStatus.PAUSED, "schedule.pause")

    def resume(self, schedule: str) -> RunSchedule:
        """Let it run again; ticks that passed while it was paused stay past. Again is no error."""
        return self._turn(self.get(schedule), ScheduleStatus.ACTIVE, "schedule.resume")

    def remove(self, schedule: str) -> RunSchedule:
        """Take a schedule away; runs that it has requested stay.

        Raises:
            NotFoundError: There is none of that name.
            TransitionError: It is part of a workflow's file.
        """
        found = self.get(schedule)
        if found.origin == "workflow":
            raise TransitionError(
                f"schedule {found.name} is part of workflow {found.workflow_slug}'s file",
                hint=f"publish the file without `schedule`, or `emboflow schedule pause {found.name}`",
            )

        def body(session: Session) -> None:
            gone = self._opened.mongo[META].delete_one(
                {"_id": key_of(found), "scheduleId": found.id}, session=session
            )
            if not gone.deleted_count:
                raise NotFoundError(f"schedule {found.name}: somebody removed it meanwhile")
            self._audit(session, "schedule.remove", found, before={"name": found.name, "when": found.when})

        self._opened.mongo.in_transaction(body)
        with translated():
            # Its id never comes back: what a crash leaves of these is read by nobody.
            start = taken_key(found.id, "")
            self._opened.mongo[META].delete_many({"_id": {"$gte": start, "$lt": f"{start}\uffff"}})
        return found

    def ensure_row(self, schedule: RunSchedule) -> None:
        """Make the row that keeps what became of a schedule in a workflow's file, if there is none."""
        if schedule.origin == "added":
            return
        row = {
            **STATE,
            "kind": Mark.SCHEDULE.value,
            "scheduleId": schedule.id,
            "origin": schedule.origin,
            "name": schedule.name,
            "workspaceId": schedule.workspace_id,
            "projectId": schedule.project_id,
            "tickedAt": schedule.ticked_at,
            "createdAt": utc_now(),
        }
        with translated():
            self._opened.mongo[META].update_one({"_id": key_of(schedule)}, {"$setOnInsert": row}, upsert=True)

    def _turn(self, found: RunSchedule, status: ScheduleStatus, action: str) -> RunSchedule:
        if found.status is status:
            return found
        self.ensure_row(found)
        now = self._opened.mongo.server_time()
        changes: dict[str, Any] = {"$set": {"status": status.value, "updatedAt": utc_now()}}
        if status is ScheduleStatus.ACTIVE:
            changes["$max"] = {"tickedAt": now}

        def body(session: Session) -> None:
            done = self._opened.mongo[META].update_one(
                {"_id": key_of(found), "scheduleId": found.id, "status": found.status.value},
                changes,
                session=session,
            )
            if not done.matched_count:
                raise TransitionError(f"schedule {found.name}: somebody else changed it; nothing was changed")
            self._audit(
                session, action, found, before={"status": found.status.value}, after={"status": status.value}
            )

        self._opened.mongo.in_transaction(body)
        return self.get(found.id)

    def _take(self, schedule_id: str, portions: Iterable[list[str]]) -> None:
        for portion in portions:
            rows = [taken_row(self._opened.scope.workspace_id, schedule_id, one) for one in portion]
            with translated():
                self._opened.mongo[META].insert_many(rows, ordered=False)

    def _rows(self) -> list[Raw]:
        scope = self._opened.scope
        start = f"{Mark.SCHEDULE.value}:{scope.project_id}:"
        with translated():
            return list(
                self._opened.mongo[META]
                .find(
                    {
                        "_id": {"$gte": start, "$lt": f"{start}\uffff"},
                        "workspaceId": scope.workspace_id,
                        "projectId": scope.project_id,
                    }
                )
                .sort("_id", 1)
            )

    def _free_name(self, slug: str) -> str:
        taken = {one.name for one in self.list()}
        for number in range(1, MAX_SCHEDULES + 2):
            candidate = slug if number == 1 else f"{slug[:58]}-{number}"
            if candidate not in taken:
                return candidate
        raise AlreadyExistsError(f"schedule {slug}: too many have that name", hint="choose a --name")

    def _audit(
        self,
        session: Session,
        action: str,
        schedule: RunSchedule,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        audit.record(
            self._opened.mongo,
            self._opened.scope,
            session,
            action,
            META,
            schedule.id,
            before=before,
            after=after,
        )

    def list(self) -> list[RunSchedule]:
        """Every schedule of the project, by name; those in workflow files among them."""
        rows = self._rows()
        added = [from_row(row) for row in rows if row.get("origin") == "added"]
        states = {row["scheduleId"]: row for row in rows if row.get("origin") != "added"}
        own = file_schedules.of_project(self._opened, states)
        return sorted([*added, *own], key=lambda s: (s.name, s.origin))


def key_of(schedule: RunSchedule) -> str:
    """The ``_id`` of its row: names are unique in a project."""
    name = schedule.name if schedule.origin == "added" else schedule.workflow_definition_id
    return f"{Mark.SCHEDULE.value}:{schedule.project_id}:{name}"


def row_of(schedule: RunSchedule) -> Raw:
    """A schedule as its row."""
    raw = schedule.to_mongo()
    return {**raw, "_id": key_of(schedule), "scheduleId": raw["_id"], "kind": Mark.SCHEDULE.value}


def from_row(row: Raw) -> RunSchedule:
    """The schedule in a row."""
    return RunSchedule.from_mongo({**row, "_id": row["scheduleId"]})


def taken_row(workspace_id: str, schedule_id: str, asset_id: str) -> Raw:
    """The note that a run of the schedule has bound the asset."""
    return {
        "_id": taken_key(schedule_id, asset_id),
        "kind": Mark.TAKEN.value,
        "workspaceId": workspace_id,
        "createdAt": utc_now(),
    }


def _catch_up(text: str) -> CatchUp:
    if text not in list(CatchUp):
        raise refuse(
            ErrorKind.INVALID_INPUT, "catchUp", f"found {shown(text)}; allowed are {', '.join(CatchUp)}"
        )
    return CatchUp(text)


def _bound(number: int) -> int:
    if type(number) is not int or not 1 <= number <= MAX_CATCH_UP:
        raise refuse(
            ErrorKind.INVALID_INPUT, "maxCatchUp", f"found {shown(number)}; allowed is 1 to {MAX_CATCH_UP}"
        )
    return number
