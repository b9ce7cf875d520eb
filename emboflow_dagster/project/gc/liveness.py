"""The one rule of what is kept. gc, `why-kept` and verify ask here and nowhere else (decision 13).

A version of a blob is kept until somebody lets it go: a person (withdraw), the record that owned it, a
retention rule, or Dagster (a wiped asset). It is still kept after that while one of the edges below says so.
A payload is kept by every version, record, listing and writer that names it. Temporary blobs have no
version: their note names the bytes until it expires.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from emboflow_dagster.model.collections import META
from emboflow_dagster.model.run import RUN_ACTIVE
from emboflow_dagster.mongo.client import Mongo, Raw, translated
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.project.gc.edges import PLACES, Edge, EdgeKind, Place
from emboflow_dagster.runtime.cache import stands_for

#: What the rule looks at in a version.
FIELDS: Final = (
    *("object_id", "version", "workspace_id", "updated_at", "upload_status", "workflow_id"),
    *("owner_record", "owner_record_field", "owner_record_id"),
    *("storage_ref", "grid_fs_file_id", "data_sha256", "object_size_bytes"),
)
_NOTES: Final = (Mark.RELEASE, Mark.TOMBSTONE)
#: Why a rule, not a person, let a version go: it counts only as long as the rule says so.
RULES: Final = frozenset({"retention"})


@dataclass(slots=True)
class Verdict:
    """What the rule says about one version."""

    row: Raw
    name: str
    edges: list[Edge] = field(default_factory=list)
    """Nothing in it: its bytes can be collected, unless something else names them."""
    release: Raw | None = None
    """The note that let it go."""
    newly: str | None = None
    """A rule lets it go that has not been noted yet: which, in words."""
    rule: str | None = None
    """The kind of that rule."""
    outdated: bool = False
    """Its note is of a rule that does not say so any more."""
    tombstone: Raw | None = None

    @property
    def collectable(self) -> bool:
        """Nothing keeps it, and it was not collected before."""
        return not self.edges and self.tombstone is None


class Liveness:
    """The rule at one moment.

    Args:
        mongo: The open database.
        now: The server's time.
        grace: How long something that was let go stays.
    """

    def __init__(self, mongo: Mongo, now: datetime, grace: timedelta) -> None:
        self.mongo = mongo
        self.now = now
        self.grace = grace

    def judge(
        self, rows: Iterable[Raw], heads: Mapping[str, int], *, thorough: bool = False
    ) -> list[Verdict]:
        """Apply the rule to versions, in their order.

        Args:
            rows: Raw versions with at least :data:`FIELDS`.
            heads: Object id to the number of its newest version.
            thorough: Name every edge, also those of a version that nobody let go.
        """
        verdicts = [Verdict(row, name_of(row["object_id"], row["version"])) for row in rows]
        notes = self._notes(verdicts)
        asked: list[Verdict] = []
        for verdict in verdicts:
            object_id = verdict.row["object_id"]
            hold = notes.get(f"{Mark.HOLD.value}:{object_id}")
            verdict.tombstone = notes.get(f"{Mark.TOMBSTONE.value}:{verdict.name}")
            if verdict.tombstone is not None:
                continue
            verdict.release = notes.get(f"{Mark.RELEASE.value}:{verdict.name}")
            rule = self._by_rule(verdict.row, heads[object_id], hold)
            noted = verdict.release.get("rule") if verdict.release else None
            verdict.outdated = noted in RULES and (rule is None or rule[0] != noted)
            if verdict.release is None or verdict.outdated:
                if rule is None:
                    verdict.edges.append(_not_let_go(verdict.row, heads[object_id], hold))
                    if not thorough:
                        continue
                else:
                    verdict.rule, verdict.newly = rule
            asked.append(verdict)
            if verdict.newly or (verdict.release and not verdict.outdated):
                self._grace_of(verdict)
            if hold and hold.get("hold") and not any(e.kind is EdgeKind.HOLD for e in verdict.edges):
                verdict.edges.append(_hold(object_id, hold))
        if asked:
            self._ask(asked)
        return verdicts

    def _notes(self, verdicts: list[Verdict]) -> dict[str, Raw]:
        ids = [f"{kind.value}:{v.name}" for v in verdicts for kind in _NOTES]
        objects = {v.row["object_id"] for v in verdicts}
        ids += [f"{Mark.HOLD.value}:{object_id}" for object_id in sorted(objects)]
        with translated():
            return {row["_id"]: row for row in self.mongo[META].find({"_id": {"$in": ids}})}

    def _by_rule(self, row: Raw, head: int, hold: Raw | None) -> tuple[str, str] | None:
        """Which rule lets a version go by itself."""
        if hold and hold.get("hold"):
            return None
        last, days = (hold or {}).get("keepLast"), (hold or {}).get("keepDays")
        if (last is None and days is None) or row["version"] >= head:  # no rule lets the newest go
            return None
        if last is not None and row["version"] > head - last:
            return None
        if days is not None and row["updated_at"] > self.now - timedelta(days=days):
            return None
        said = [f"the last {last}" if last is not None else "", f"{days} days" if days is not None else ""]
        return "retention", f"the retention rule keeps {' and '.join(filter(None, said))}"

    def _grace_of(self, verdict: Verdict) -> None:
        since = verdict.release["releasedAt"] if verdict.release and not verdict.outdated else self.now
        until = since + self.grace
        if until > self.now:
            text = f"let go on {since:%Y-%m-%d %H:%M} UTC, kept until {until:%Y-%m-%d %H:%M} UTC"
            verdict.edges.append(Edge(EdgeKind.GRACE, text, until=until))

    def _ask(self, verdicts: list[Verdict]) -> None:
        """Who else needs what was let go: its owner, records that refer to it, a run at work."""
        by_name: dict[tuple[str, int | None], list[Verdict]] = {}
        for verdict in verdicts:
            by_name.setdefault((verdict.row["object_id"], verdict.row["version"]), []).append(verdict)
            by_name.setdefault((verdict.row["object_id"], None), []).append(verdict)
            owner = _owner(verdict.row)
            if owner is not None and owner != releaser(verdict.release):
                record, field_name, record_id = owner
                text = f"owned by {record} {record_id}, field {field_name}"
                verdict.edges.append(Edge(EdgeKind.OWNER, text, record, record_id, field_name))
        ids = sorted({object_id for object_id, _ in by_name})
        with translated():
            for place in PLACES:
                for raw in self._referring(place, ids):
                    ref = value_at(raw, place.path)
                    for verdict in by_name.get((str(ref.get("objectId")), ref.get("version")), ()):
                        if releaser(verdict.release) != (place.collection, place.field, raw["_id"]):
                            verdict.edges += edges_of_record(self.mongo, place, raw)
            self._runs(verdicts)

    def _referring(self, place: Place, ids: list[str]) -> Iterable[Raw]:
        path = f"{place.path}.objectId"
        fields = dict.fromkeys((path, f"{place.path}.version", *_SAID.get(place.collection, ())), 1)
        # The type is in the index's filter: without it the index is not used.
        return self.mongo[place.collection].find({path: {"$in": ids, "$type": "string"}}, fields)

    def _runs(self, verdicts: list[Verdict]) -> None:
        ids = sorted({v.row["workflow_id"] for v in verdicts if v.row.get("workflow_id")})
        if not ids:
            return
        active = {"_id": {"$in": ids}, "status": {"$in": [status.value for status in RUN_ACTIVE]}}
        at_work = {row["_id"] for row in self.mongo["workflow_runs"].find(active, {"_id": 1})}
        for verdict in verdicts:
            if verdict.row.get("workflow_id") in at_work:
                run = verdict.row["workflow_id"]
                verdict.edges.append(
                    Edge(EdgeKind.RUN, f"made by run {run}, which is not over", "workflow_runs", run)
                )


# What a record says of itself in an edge.
_SAID: Final = {
    "artifacts": ("projectId", "producerType", "producerId", "lineage.cacheKey", "lineage.workflowRunId"),
    "dataset_versions": ("datasetId", "versionTag", "status"),
    "run_tasks": ("workflowRunId", "nodeId"),
    "assets": ("displayName",),
}


def edges_of_record(mongo: Mongo, place: Place, raw: Raw) -> list[Edge]:
    """What a record that refers to a version says: itself, and on whose behalf it does."""
    id_ = str(raw["_id"])
    edges = [
        Edge(EdgeKind.RECORD, f"{place.collection} {id_} refers to it", place.collection, id_, place.field)
    ]
    if place.collection == "artifacts":
        lineage = raw.get("lineage") or {}
        if raw.get("producerType") == "run_task":
            task = str(raw.get("producerId"))
            edges.append(Edge(EdgeKind.TASK, f"an output of task {task}", "run_tasks", task))
        if lineage.get("workflowRunId"):
            run = str(lineage["workflowRunId"])
            edges.append(Edge(EdgeKind.RUN, f"an output of run {run}", "workflow_runs", run))
        key = str(lineage.get("cacheKey") or "")
        if key and stands_for(mongo, str(raw.get("projectId")), key, id_):
            edges.append(Edge(EdgeKind.CACHE, f"stands for the cache key {key}", "artifacts", id_))
    if place.collection == "run_tasks":
        edges.append(
            Edge(EdgeKind.RUN, f"the log of a task of run {raw.get('workflowRunId')}", "run_tasks", id_)
        )
    if place.collection == "dataset_versions":
        text = f"the manifest of dataset version {raw.get('versionTag')} ({raw.get('status')})"
        edges.append(Edge(EdgeKind.DATASET, text, "dataset_versions", id_, place.field))
    return edges


def _not_let_go(row: Raw, head: int, hold: Raw | None) -> Edge:
    if hold and hold.get("hold"):
        return _hold(row["object_id"], hold)
    rule = hold and (hold.get("keepLast") is not None or hold.get("keepDays") is not None)
    if rule and row["version"] < head:
        return Edge(EdgeKind.RETENTION, "its retention rule is not over", "objects", row["object_id"])
    text = (
        "the newest version; nobody let it go" if row["version"] >= head else "a version that nobody let go"
    )
    collection = "objects" if row["version"] >= head else "object_history"
    return Edge(EdgeKind.VERSION, text, collection, name_of(row["object_id"], row["version"]))


def _hold(object_id: str, note: Raw) -> Edge:
    reason = f": {note['reason']}" if note.get("reason") else ""
    return Edge(EdgeKind.HOLD, f"under legal hold by {note.get('by')}{reason}", "objects", object_id)


def rows_of(mongo: Mongo, versions: Iterable[tuple[str, int]]) -> tuple[list[Raw], dict[str, int]]:
    """Versions wherever they are kept, and the newest version's number of each of their objects."""
    wanted = set(versions)
    ids = sorted({object_id for object_id, _ in wanted})
    fields = dict.fromkeys((*FIELDS, *(f"tail.{name}" for name in FIELDS)), 1)
    found: dict[tuple[str, int], Raw] = {}
    heads: dict[str, int] = {}
    with translated():
        for raw in mongo["objects"].find({"_id": {"$in": ids}}, fields):
            heads[raw["object_id"]] = raw["version"]
            for row in (raw, *(raw.get("tail") or [])):
                found[row["object_id"], row["version"]] = row
        rest = wanted - found.keys()
        if rest:
            older = {
                "object_id": {"$in": sorted({object_id for object_id, _ in rest})},
                "version": {"$in": sorted({version for _, version in rest})},
            }
            for row in mongo["object_history"].find(older, dict.fromkeys(FIELDS, 1)):
                found.setdefault((row["object_id"], row["version"]), row)
    return [row for name, row in sorted(found.items()) if name in wanted], heads


def _owner(row: Raw) -> tuple[Any, Any, Any] | None:
    if row.get("owner_record_id") is None:
        return None
    return row.get("owner_record"), row.get("owner_record_field"), row["owner_record_id"]


def releaser(note: Raw | None) -> tuple[Any, Any, Any] | None:
    """The record and field that let a version go, when one did: what it still says does not count."""
    if note is None or note.get("recordId") is None:
        return None
    return note.get("record"), note.get("field"), note["recordId"]


def value_at(raw: Raw, path: str) -> Raw:
    """The dict under a dotted path; an empty one when there is none."""
    value: Any = raw
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
