"""How far a long verification came: a note that lets the next one go on, and the budget it may use."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Mongo
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.verify.report import Finding, VerifyReport

SAVE_EVERY_S: Final = 2.0
_KEPT_PROBLEMS: Final = 1_000


class Position(NamedTuple):
    """A place in the order in which payloads are read: the stage, and the last key or id done in it."""

    stage: int = 0
    at: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one verification may read; ``since`` leaves out versions that were stored before."""

    max_bytes: int | None = None
    max_seconds: float | None = None
    since: datetime | None = None

    def check(self) -> None:
        """Refuse what is no budget.

        Raises:
            InvalidInputError: A bound is not above zero, or the date names no zone.
        """
        for name, value in (("max_bytes", self.max_bytes), ("max_seconds", self.max_seconds)):
            if value is not None and value <= 0:
                raise InvalidInputError(f"{name}: found {value}; allowed is anything above 0")
        if self.since is not None and self.since.tzinfo is None:
            raise InvalidInputError("since: found a date without a zone; give one, for example UTC")


BEGINNING: Final = Position()
UNLIMITED: Final = Budget()


class Progress:
    """The note of one verification, by name: ``<workspace>.verify`` or ``<workspace>.scrub``."""

    def __init__(self, mongo: Mongo, name: str, workspace_id: str) -> None:
        self._mongo = mongo
        self.name = name
        self._workspace_id = workspace_id
        self._saved = time.monotonic()

    def resume(self, report: VerifyReport) -> Position:
        """Where the last one stopped, with what it had found; the beginning when none was interrupted."""
        row = marks.read(self._mongo, Mark.SCRUB, self.name)
        if row is None or row["done"]:
            return BEGINNING
        report.counts.update(row["counts"])
        for problem in row["problems"]:
            report.add(*(problem[key] for key in ("code", "collection", "id", "field", "message")))
        return Position(row["stage"], row["at"])

    def came_to(self, position: Position, report: VerifyReport, known: int) -> None:
        """Save now and then; an interrupted verification reads a few seconds' worth again."""
        if time.monotonic() - self._saved >= SAVE_EVERY_S:
            self.save(position, report, known)

    def save(self, position: Position, report: VerifyReport, known: int, *, done: bool = False) -> None:
        """Save; ``known`` problems of the report are not about payloads and will be found again."""
        counts = {name: report.counts[name] for name in ("payloads", "bytes", "quarantined")}
        marks.write(
            self._mongo,
            Mark.SCRUB,
            self.name,
            self._workspace_id,
            stage=position.stage,
            at=position.at,
            counts=counts,
            problems=[_shown(p) for p in report.problems[known:][:_KEPT_PROBLEMS]],
            done=done,
            savedAt=utc_now(),
        )
        self._saved = time.monotonic()

    def erase(self) -> None:
        """Forget it: the next verification begins anew."""
        marks.erase(self._mongo, Mark.SCRUB, self.name)


def _shown(problem: Finding) -> dict[str, Any]:
    return problem.to_json()
