"""The history of a project's runs: filters, and pages that cost what they show.

A page ends at a run, and the next one begins below it, by (``createdAt``, ``_id``): no page is counted past,
and what is added meanwhile moves nothing. Each filter has an index that ends with those two keys
(:mod:`emboflow_dagster.model.collections`): rows are read in order, and none is read that is not shown.

Source: requirements R-187, R-340, R-347; spec/performance.md, target 7; decision 22.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import InvalidInputError, shown
from emboflow_dagster.model.collections import WAYS_IN
from emboflow_dagster.model.run import RunStatus, RunSummary, WorkflowRun
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.mongo.documents import BY_TICK, NEWEST, Documents

COUNT_LIMIT: Final = 10_000
# Filters whose index is the better one to count in.
_OWN_COUNT: Final = {"workflowDefinitionId", "workflowVersionId", "config.label"}


def status_of(text: str) -> RunStatus:
    """The status that a person named.

    Raises:
        InvalidInputError: There is none of that name.
    """
    try:
        return RunStatus(text)
    except ValueError:
        allowed = ", ".join(RunStatus)
        raise InvalidInputError(f"status: found {text!r}; allowed are {allowed}") from None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs; ``None`` everywhere means all."""

    status: RunStatus | None = None
    definition_id: str | None = None
    version_id: str | None = None
    asset_id: str | None = None
    triggered_by: str | None = None
    """Exactly this; a way in (``schedule``), or a schedule without its tick (``schedule:nightly``)."""
    label: str | None = None
    """What whoever asked wrote beside it, exactly."""
    since: datetime | None = None
    """Requested at this moment or later."""
    until: datetime | None = None
    """Requested before this moment."""
    more: Mapping[str, Any] | None = None
    """Further stored fields and the values they have."""

    def to_mongo(self) -> dict[str, Any]:
        """The filter on stored fields, without the scope."""
        equal = {
            "status": self.status.value if self.status else None,
            "workflowDefinitionId": self.definition_id,
            "workflowVersionId": self.version_id,
            "assetIds": self.asset_id,
            "config.label": self.label,
        }
        found: dict[str, Any] = {name: value for name, value in equal.items() if value is not None}
        if self.triggered_by is not None:
            found["triggeredBy"] = _triggers(self.triggered_by)
        moments = {"$gte": self.since, "$lt": self.until}
        if any(moments.values()):
            found["createdAt"] = {op: moment for op, moment in moments.items() if moment is not None}
        return {**found, **(self.more or {})}

    @property
    def one_schedule(self) -> bool:
        """Whether the runs of one schedule are meant: those are listed by tick."""
        by = self.triggered_by or ""
        return by.startswith("schedule:") and "@" not in by


class RunLine(NamedTuple):
    """A run as a table shows it; what is executed is left where it is."""

    id: str
    workflow: str
    version: int
    status: RunStatus
    summary: RunSummary
    assets: int
    triggered_by: str
    label: str | None
    created_at: datetime
    started_at: datetime | None
    duration_ms: int | None


class RunCount(NamedTuple):
    """How many runs, as far as was counted."""

    runs: int
    more: bool
    """There are more than that."""

    def __str__(self) -> str:
        return f"{self.runs:,}{'+' if self.more else ''}"


_LINE: Final = {
    "status": 1,
    "summary": 1,
    "triggeredBy": 1,
    "config.label": 1,
    "createdAt": 1,
    "startedAt": 1,
    "durationMs": 1,
    "runtimeSnapshot.workflowSlug": 1,
    "runtimeSnapshot.versionNumber": 1,
    "assets": {"$size": "$assetIds"},
}


class History:
    """The runs of one project, newest first."""

    def __init__(self, documents: Documents[WorkflowRun]) -> None:
        self._documents = documents

    def page(self, which: RunFilter, *, after: str | None = None, limit: int = 50) -> list[WorkflowRun]:
        """Up to ``limit`` runs, newest first.

        Args:
            which: The filter.
            after: The last run of the page before, by its id.
            limit: How many at most.

        Raises:
            NotFoundError: There is no run ``after`` in this project.
            InvalidInputError: The moments are in the wrong order.
        """
        return self._documents.find(self._filter(which, after), sort=_order(which), limit=limit)

    def lines(self, which: RunFilter, *, after: str | None = None, limit: int = 50) -> list[RunLine]:
        """The same as rows of a table: a workflow of 500 nodes costs no more than one of two."""
        scoped = self._documents.scoped(self._filter(which, after))
        with translated():
            rows = list(self._documents.raw.find(scoped, _LINE).sort(list(_order(which))).limit(limit))
        return [_line(row) for row in rows]

    def count(self, which: RunFilter, *, limit: int = COUNT_LIMIT) -> RunCount:
        """How many there are, counted no further than ``limit``: a million rows are nobody's page.

        By status (or with no filter at all) keys of an index are counted, and no document is read.
        """
        filter_ = self._filter(which, None)
        if "status" not in filter_ and not _OWN_COUNT & filter_.keys():
            # The same rows; so that the index whose second key is the status holds everything asked for.
            filter_["status"] = {"$in": [status.value for status in RunStatus]}
        with translated():
            found = self._documents.raw.count_documents(self._documents.scoped(filter_), limit=limit + 1)
        return RunCount(min(found, limit), found > limit)

    def _filter(self, which: RunFilter, after: str | None) -> dict[str, Any]:
        if which.since is not None and which.until is not None and which.since >= which.until:
            raise InvalidInputError(
                f"until {shown(which.until)} is not later than since {shown(which.since)}"
            )
        filter_ = which.to_mongo()
        if after is None:
            return filter_
        last = self._documents.get(after)
        keys = {"createdAt": last.created_at, "_id": last.id}
        if which.one_schedule:
            keys = {"triggeredBy": last.triggered_by, **keys}
        return {"$and": [*([filter_] if filter_ else []), *_below(keys)]}


def _triggers(text: str) -> Any:
    if text in WAYS_IN:
        return {"$gte": f"{text}:", "$lt": f"{text};"}  # ";" comes after ":"
    if text.startswith("schedule:") and "@" not in text:
        return {"$gte": f"{text}@", "$lt": f"{text}A"}  # "A" comes after "@"
    return text


def _below(keys: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What comes after a row in descending order; an index is entered at the bound on the first key."""
    first, *_ = keys
    equal: dict[str, Any] = {}
    ways = []
    for name, value in keys.items():
        ways.append({**equal, name: {"$lt": value}})
        equal[name] = value
    return [{first: {"$lte": keys[first]}}, {"$or": ways}]


def _order(which: RunFilter) -> Sequence[tuple[str, int]]:
    return BY_TICK if which.one_schedule else NEWEST


def _line(row: Mapping[str, Any]) -> RunLine:
    snapshot = row.get("runtimeSnapshot") or {}
    return RunLine(
        id=row["_id"],
        workflow=snapshot.get("workflowSlug", ""),
        version=snapshot.get("versionNumber", 0),
        status=RunStatus(row["status"]),
        summary=RunSummary.model_validate(row["summary"], by_alias=True),
        assets=row["assets"],
        triggered_by=row["triggeredBy"],
        label=(row.get("config") or {}).get("label"),
        created_at=row["createdAt"],
        started_at=row.get("startedAt"),
        duration_ms=row.get("durationMs"),
    )
