"""The payloads of a database in an order that a later verification can go on from.

Pages, not cursors: between two of them hours of reading may lie, and a server forgets an idle cursor after
ten minutes.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from emboflow_dagster.mongo.client import Raw, translated
from emboflow_dagster.project.verify.progress import Position
from emboflow_dagster.project.verify.report import View

PAGE: Final = 500
#: In the object store, by key; in documents or GridFS, by id; files that were registered in place.
STORED, HEADS, OLDER, IN_PLACE = range(4)
_COLLECTIONS: Final = {HEADS: "objects", OLDER: "object_history"}
_FIELDS: Final = {"data": 0, "tail": 0, "request_ids": 0}


@dataclass(frozen=True, slots=True)
class Row:
    """One version as it is stored, and the document it is in: the head's, for one in the outbox."""

    collection: str
    id: Any
    raw: Raw
    outbox: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One payload to read, and all versions that need it."""

    stage: int
    at: str
    rows: list[Row] = field(default_factory=list)

    @property
    def position(self) -> Position:
        """Where one goes on when this is done."""
        return Position(self.stage, self.at)


def items(view: View, start: Position, since: datetime | None) -> Iterator[Item]:
    """Everything to read behind ``start``, in order."""
    for stage in range(start.stage, IN_PLACE + 1):
        at = start.at if stage == start.stage else ""
        if stage == STORED:
            yield from _stored(view, at, since)
        elif stage in _COLLECTIONS:
            yield from _elsewhere(view, stage, at, since)
        else:
            yield from _in_place(view, at, since)


def _stored(view: View, at: str, since: datetime | None) -> Iterator[Item]:
    outbox = sorted(
        ((_key(row.raw), row) for row in _outbox(view, since) if _key(row.raw) > at),
        key=lambda pair: pair[0],
    )
    streams = [_by_key(view, name, at, since) for name in _COLLECTIONS.values()]
    merged = heapq.merge(*streams, outbox, key=lambda pair: pair[0])
    for key, pairs in groupby(merged, key=lambda pair: pair[0]):
        yield Item(STORED, key, [row for _, row in pairs])


def _by_key(view: View, name: str, at: str, since: datetime | None) -> Iterator[tuple[str, Row]]:
    while True:
        page = _page(view, name, "storage_ref.key", at, since)
        full = len(page) == PAGE
        if full:
            # The last key may go on behind the page: it is fetched as one, or left for the next page.
            last = _key(page[-1])
            whole = [raw for raw in page if _key(raw) != last]
            page = whole or _all_of(view, name, last, since)
        for raw in page:
            if view.is_sound(name, raw):
                yield _key(raw), Row(name, raw["_id"], raw)
        if not full:
            return
        at = _key(page[-1])


def _all_of(view: View, name: str, key: str, since: datetime | None) -> list[Raw]:
    filter_ = {**view.limits(name), "storage_ref.key": key, **_since(since)}
    with translated():
        return list(view.mongo[name].find(filter_, _FIELDS))


def _page(view: View, name: str, order: str, at: str, since: datetime | None, **more: Any) -> list[Raw]:
    filter_ = {**view.limits(name), order: {"$gt": at}, **_since(since), **more}
    with translated():
        return list(view.mongo[name].find(filter_, _FIELDS).sort(order, 1).limit(PAGE))


def _elsewhere(view: View, stage: int, at: str, since: datetime | None) -> Iterator[Item]:
    name = _COLLECTIONS[stage]
    waiting = sorted(
        ((str(row.id), row) for row in _outbox(view, since, elsewhere=True) if str(row.id) > at)
        if stage == HEADS
        else (),
        key=lambda pair: pair[0],
    )
    merged = heapq.merge(_by_id(view, name, at, since), waiting, key=lambda pair: pair[0])
    for id_, pairs in groupby(merged, key=lambda pair: pair[0]):
        yield Item(stage, id_, [row for _, row in pairs])


def _by_id(view: View, name: str, at: str, since: datetime | None) -> Iterator[tuple[str, Row]]:
    while True:
        page = _page(view, name, "_id", at, since, storage_ref=None)
        for raw in page:
            if view.is_sound(name, raw):
                yield str(raw["_id"]), Row(name, raw["_id"], raw)
        if len(page) < PAGE:
            return
        at = page[-1]["_id"]


def _outbox(view: View, since: datetime | None, *, elsewhere: bool = False) -> Iterator[Row]:
    """Versions on their way from head to history: few, and soon none."""
    filter_ = {**view.limits("objects"), "tail.0": {"$exists": True}}
    with translated():
        for head in view.mongo["objects"].find(filter_, {"tail": 1}):
            ids = [f"{head['_id']}.v{e.get('version')}" for e in head["tail"] if isinstance(e, dict)]
            arrived = {
                row["_id"] for row in view.mongo["object_history"].find({"_id": {"$in": ids}}, {"_id": 1})
            }
            for entry in head["tail"]:
                raw = entry if isinstance(entry, dict) else {}  # no version at all: a finding
                if raw.get("object_id") and f"{head['_id']}.v{raw.get('version')}" in arrived:
                    continue  # looked at there
                if isinstance(raw.get("storage_ref"), dict) == elsewhere:
                    continue
                if since is None or raw.get("updated_at", since) >= since:
                    raw.pop("data", None)
                    yield Row("objects", head["_id"], raw, outbox=True)


def _in_place(view: View, at: str, since: datetime | None) -> Iterator[Item]:
    while True:
        with translated():
            filter_ = {**view.limits("assets"), "_id": {"$gt": at}, "sourceType": "registered_path"}
            if since is not None:
                filter_["updatedAt"] = {"$gte": since}
            page = list(view.mongo["assets"].find(filter_).sort("_id", 1).limit(PAGE))
        for raw in page:
            if view.is_sound("assets", raw):
                yield Item(IN_PLACE, raw["_id"], [Row("assets", raw["_id"], raw)])
        if len(page) < PAGE:
            return
        at = page[-1]["_id"]


def _key(raw: Raw) -> str:
    return str((raw.get("storage_ref") or {}).get("key", ""))


def _since(since: datetime | None) -> dict[str, Any]:
    return {} if since is None else {"updated_at": {"$gte": since}}
