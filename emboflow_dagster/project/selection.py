"""Which assets are meant: by name, by id, or by a selector."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.run_schedule import MAX_ASSETS
from emboflow_dagster.model.text import refuse
from emboflow_dagster.mongo.documents import OLDEST, Documents
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.lookup import by_id_or_name
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.selector import Selector, is_selector, parse_selector

#: An asset that was registered on a machine whose clock is late is still seen.
LOOK_BACK: Final = timedelta(days=1)
_CHUNK: Final = 1_000


class Selected(NamedTuple):
    """The assets that were meant, in order; ``fresh`` are those that ``since=last-run`` found.

    ``left`` says whether more matched than a run binds.
    """

    asset_ids: list[str]
    fresh: list[str]
    left: bool = False


class Selection:
    """Resolves the assets that somebody named, for one project."""

    def __init__(self, opened: Opened) -> None:
        self._mongo = opened.mongo
        self._assets: Documents[Asset] = Documents(opened.mongo, opened.scope, Asset)

    def named(self, entries: Sequence[str], *, at: datetime, last_run: bool = True) -> list[str]:
        """The ids that names, ids and selectors stand for, each once, in the order named.

        Args:
            entries: They.
            at: What ``since=24h`` is counted from.
            last_run: Refuse ``since=last-run``; else it says nothing.

        Raises:
            NotFoundError: A name that no asset has, or a selector that no asset matches.
            InvalidInputError: A selector that is none, or one that only a schedule knows (kind ``selector``).
        """
        found: list[str] = []
        for i, entry in enumerate(entries):
            chosen = self._entry(entry, f"assets[{i}]")
            if isinstance(chosen, str):
                found.append(chosen)
                continue
            if chosen.since_last_run and last_run:
                raise refuse(
                    ErrorKind.SELECTOR, f"assets[{i}]", "since=last-run is for schedules: here is no last run"
                )
            matched = self._matching(chosen, at, limit=MAX_ASSETS + 1)
            if not matched:
                raise NotFoundError(
                    f"no asset matches {chosen.text}", hint="`emboflow asset list` shows what there is"
                )
            if len(matched) > MAX_ASSETS:
                raise InvalidInputError(
                    f"more than {MAX_ASSETS} assets match {chosen.text}; a run binds so many at most",
                    kind=ErrorKind.SELECTOR,
                    hint="narrow it, for example with since=24h",
                )
            found += matched
        return list(dict.fromkeys(found))

    def check(self, entries: Sequence[str], path: str = "assets") -> None:
        """Refuse entries that could not be resolved: a name without an asset, a selector that is none.

        Raises:
            NotFoundError: No asset has that name.
            InvalidInputError: Kind ``selector``.
        """
        for i, entry in enumerate(entries):
            self._entry(entry, f"{path}[{i}]")

    def of_schedule(
        self, schedule_id: str, entries: Sequence[str], *, at: datetime, looked_at: datetime | None
    ) -> Selected:
        """What a tick of a schedule binds: as :meth:`named`, but a selector may match nothing.

        Args:
            schedule_id: Whose tick; what its runs have bound is not new to ``since=last-run``.
            entries: Names, ids and selectors.
            at: The tick.
            looked_at: When everything that matched had been bound.
        """
        ids: list[str] = []
        fresh: list[str] = []
        left = False
        for i, entry in enumerate(entries):
            chosen = self._entry(entry, f"assets[{i}]")
            if isinstance(chosen, str):
                ids.append(chosen)
            elif chosen.since_last_run:
                new = self.new_to(schedule_id, chosen, looked_at=looked_at, limit=MAX_ASSETS + 1)
                left = left or len(new) > MAX_ASSETS
                ids += new[:MAX_ASSETS]
                fresh += new[:MAX_ASSETS]
            else:
                ids += self._matching(chosen, at, limit=MAX_ASSETS)
        bound = list(dict.fromkeys(ids))[:MAX_ASSETS]
        return Selected(bound, [i for i in dict.fromkeys(fresh) if i in set(bound)], left)

    def new_to(
        self, schedule_id: str, selector: Selector, *, looked_at: datetime | None, limit: int
    ) -> list[str]:
        """The matching assets that no run of the schedule has bound, oldest first."""
        filter_ = dict(selector.filter)
        if looked_at is not None:
            filter_["updatedAt"] = {"$gte": looked_at - LOOK_BACK}
        found: list[str] = []
        for chunk in self._chunks(filter_):
            taken = self._taken(schedule_id, chunk)
            found += [asset_id for asset_id in chunk if asset_id not in taken]
            if len(found) >= limit:
                break
        return found[:limit]

    def all_matching(self, selector: Selector) -> Iterable[list[str]]:
        """Every matching asset, in portions."""
        return self._chunks(selector.filter)

    def _entry(self, entry: str, path: str) -> Selector | str:
        if not is_selector(entry):
            return self._asset(entry)
        # Whoever has named an asset `a=b.csv` means that one.
        if (known := self._assets.find_one({"displayName": entry})) is not None:
            return known.id
        return parse_selector(entry, path)

    def _asset(self, name: str) -> str:
        return by_id_or_name(self._assets, name, "displayName", what="asset").id

    def _matching(self, selector: Selector, at: datetime, *, limit: int) -> list[str]:
        return [asset.id for asset in self._assets.find(selector.at(at), sort=OLDEST, limit=limit)]

    def _chunks(self, filter_: dict[str, Any]) -> Iterable[list[str]]:
        rows = self._assets.raw.find(
            {**filter_, **self._assets.scope.filter(self._assets.row)}, {"_id": 1}
        ).sort(list(OLDEST))
        chunk: list[str] = []
        for row in rows:
            chunk.append(row["_id"])
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _taken(self, schedule_id: str, asset_ids: Sequence[str]) -> set[str]:
        keys = {taken_key(schedule_id, asset_id): asset_id for asset_id in asset_ids}
        rows = self._mongo[META].find({"_id": {"$in": list(keys)}}, {"_id": 1})
        return {keys[row["_id"]] for row in rows}


def taken_key(schedule_id: str, asset_id: str) -> str:
    """The id of the note that a run of the schedule has bound the asset."""
    return f"{Mark.TAKEN.value}:{schedule_id}:{asset_id}"
