"""What a sensor has to tell of documents that change, and how far it has told: each change once."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import dagster as dg

MAX_EVENTS: Final = 200
# A document can become visible a little after another with a later time: look back this far.
OVERLAP: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Row:
    """Something to tell: which key, in which state (``mark``), changed when."""

    id: str
    mark: str
    changed_at: datetime
    event: dg.AssetMaterialization | Callable[[], dg.AssetObservation | None]
    """What is told; a function where it costs something to know."""

    def told(self) -> dg.AssetMaterialization | dg.AssetObservation | None:
        """The event itself; ``None`` where there turns out to be nothing to tell."""
        return self.event() if callable(self.event) else self.event


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the sensor has told: everything before ``until``, and ``seen`` of the time around it.

    ``seen`` maps an id to its mark and the time of its change.
    """

    until: datetime | None = None
    seen: Mapping[str, tuple[str, datetime]] | None = None

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        """The stored cursor; one that cannot be read starts over, and events are told again."""
        try:
            raw = json.loads(text or "{}")
            until = datetime.fromisoformat(raw["until"])
            seen = {key: (mark, datetime.fromisoformat(at)) for key, (mark, at) in raw["seen"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()
        return cls(until, seen)

    def write(self) -> str:
        """The cursor as Dagster stores it."""
        seen = {key: [mark, at.isoformat()] for key, (mark, at) in (self.seen or {}).items()}
        return json.dumps({"until": self.until.isoformat() if self.until else "", "seen": seen})

    def news(self, rows: Sequence[Row], limit: int = MAX_EVENTS) -> tuple[list[Row], "Cursor"]:
        """What is not told yet, oldest first, and the cursor after telling it."""
        known = dict(self.seen or {})
        horizon = self.until - OVERLAP if self.until else None
        fresh = [
            row
            for row in sorted(rows, key=lambda row: (row.changed_at, row.id))
            if (horizon is None or row.changed_at >= horizon)
            and (row.id not in known or known[row.id][0] != row.mark)
        ][:limit]
        if not fresh:
            return [], self
        until = max([row.changed_at for row in fresh] + ([self.until] if self.until else []))
        known |= {row.id: (row.mark, row.changed_at) for row in fresh}
        kept = {key: value for key, value in known.items() if value[1] >= until - OVERLAP}
        return fresh, Cursor(until, kept)
