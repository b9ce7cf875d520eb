"""Evidence: one row for everything that a check measured, with where and when, judged by thresholds.

A verdict is never stored instead of what it was made of. Rows name check and version, subject, episode,
feature, metric, value and interval, so that other thresholds judge the recording without reading it again.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from emboflow_dagster.errors import InvalidInputError, shown

if TYPE_CHECKING:
    import pyarrow as pa

EVIDENCE_FILE = "evidence.parquet"
EVIDENCE_VERSION = 1
#: The consumer whose thresholds are the specification's.
STANDARD = "standard"
#: Rows of one check and subject that are kept; beyond them those that are more extreme than all before.
MAX_ROWS = 50_000
ORDER = {"pass": 0, "warn": 1, "fail": 2}


class Rule(NamedTuple):
    """When a value is worth a warning or a failure: above the limit, or with ``below`` under it.

    One without limits names a metric that is shown, and that a consumer may set limits for.
    """

    warn: float | None = None
    fail: float | None = None
    below: bool = False

    def verdict(self, value: float) -> str:
        """``pass``, ``warn`` or ``fail``, ``info`` without limits; what is not a number fails."""
        if self.warn is None and self.fail is None:
            return "info"
        if not math.isfinite(value):
            return "fail"
        for name, limit in (("fail", self.fail), ("warn", self.warn)):
            if limit is not None and (value < limit if self.below else value > limit):
                return name
        return "pass"

    def as_json(self) -> dict[str, Any]:
        """``{"warn"?, "fail"?, "below"?}``."""
        said = {"warn": self.warn, "fail": self.fail, "below": self.below or None}
        return {name: value for name, value in said.items() if value is not None}


Rules = Mapping[str, Rule]
"""Metric to its rule; a metric without limits is shown and never judged."""

Thresholds = Mapping[str, Mapping[str, Mapping[str, float | None] | None] | None]
"""Check to metric to ``{"warn", "fail"}``. ``None`` for a metric: no limit; for a check: not asked for."""


def rules_for(check: str, rules: Rules, thresholds: Thresholds | None) -> dict[str, Rule] | None:
    """The rules of a check as a consumer wants them; ``None`` where the consumer does not ask for it.

    Raises:
        InvalidInputError: A threshold names a metric that the check does not measure.
    """
    if thresholds is None or check not in thresholds:
        return dict(rules)
    wanted = thresholds[check]
    if wanted is None:
        return None
    merged = dict(rules)
    for metric, limits in wanted.items():
        if metric not in rules:
            raise InvalidInputError(
                f"thresholds.{check}: it does not measure {shown(metric)}",
                hint=f"it measures {', '.join(rules)}",
            )
        known = rules[metric]
        if limits is None:
            merged[metric] = Rule(below=known.below)
            continue
        unknown = sorted(set(limits) - {"warn", "fail"})
        if unknown:
            raise InvalidInputError(
                f"thresholds.{check}.{metric}: unknown {', '.join(map(shown, unknown))}",
                hint="limits are warn and fail",
            )
        merged[metric] = Rule(limits.get("warn", known.warn), limits.get("fail", known.fail), known.below)
    return merged


class Measurement(NamedTuple):
    """One value that a check found; frames and stamps (ns of the recording's own clock) bound where."""

    check: str
    version: int
    metric: str
    value: float
    unit: str = ""
    episode: str | None = None
    feature: str | None = None
    n: int = 1
    start_frame: int | None = None
    end_frame: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None


@dataclass(slots=True)
class Kept:
    """The measurements of one check, bounded: the extremes of every metric are always among them."""

    rows: list[Measurement]
    extremes: dict[str, tuple[float, float]]
    dropped: int = 0

    def add(self, row: Measurement) -> None:
        """Keep a row, unless there are very many and this one says nothing new."""
        low, high = self.extremes.get(row.metric, (math.inf, -math.inf))
        new = not low <= row.value <= high
        self.extremes[row.metric] = (min(low, row.value), max(high, row.value))
        if len(self.rows) < MAX_ROWS or new:
            self.rows.append(row)
        else:
            self.dropped += 1

    def worst(self, rules: Rules) -> str:
        """The verdict over everything that was measured, what was not kept included."""
        found = [
            rule.verdict(self.extremes[metric][0 if rule.below else 1])
            for metric, rule in rules.items()
            if metric in self.extremes
        ]
        return max((verdict for verdict in found if verdict in ORDER), key=ORDER.__getitem__, default="pass")


def schema() -> "pa.Schema":
    """Columns of ``evidence.parquet``."""
    import pyarrow as pa

    text, whole = pa.string(), pa.int64()
    return pa.schema(
        [
            pa.field("subject", text, nullable=False),
            pa.field("subjectSha256", text),
            pa.field("assetId", text),
            pa.field("check", text, nullable=False),
            pa.field("checkVersion", whole, nullable=False),
            pa.field("metric", text, nullable=False),
            pa.field("value", pa.float64()),
            pa.field("unit", text, nullable=False),
            pa.field("episode", text),
            pa.field("episodeSha256", text),
            pa.field("feature", text),
            pa.field("n", whole, nullable=False),
            pa.field("startFrame", whole),
            pa.field("endFrame", whole),
            pa.field("startNs", whole),
            pa.field("endNs", whole),
            pa.field("threshold", text, nullable=False),
            pa.field("verdict", text, nullable=False),
            pa.field("verdicts", pa.map_(text, text), nullable=False),
        ],
        metadata={"emboflow": json.dumps({"schema": f"emboflow-evidence/{EVIDENCE_VERSION}"})},
    )


def row_json(row: Measurement, subject: Mapping[str, Any], episodes: Mapping[str, str]) -> dict[str, Any]:
    """A measurement as it is stored, without verdicts."""
    return {
        **subject,
        "check": row.check,
        "checkVersion": row.version,
        "metric": row.metric,
        "value": float(row.value) if math.isfinite(row.value) else None,
        "unit": row.unit,
        "episode": row.episode,
        "episodeSha256": episodes.get(row.episode or ""),
        "feature": row.feature,
        "n": row.n,
        "startFrame": row.start_frame,
        "endFrame": row.end_frame,
        "startNs": row.start_ns,
        "endNs": row.end_ns,
    }


def judged(
    rows: Iterable[Mapping[str, Any]],
    rules: Mapping[str, Rules],
    consumers: Mapping[str, Thresholds],
) -> Iterator[dict[str, Any]]:
    """Rows with ``threshold``, ``verdict`` (the standard one) and ``verdicts`` of every consumer.

    Args:
        rows: As :func:`row_json` or a stored table gives them; verdicts that are there already are replaced.
        rules: The standard rules of each check.
        consumers: Consumer to its thresholds, :data:`STANDARD` among them or not.
    """
    known: dict[tuple[str, str], dict[str, Rule] | None] = {}
    for row in rows:
        check, metric = row["check"], row["metric"]
        value = math.nan if row["value"] is None else float(row["value"])
        verdicts: dict[str, str] = {}
        applied: dict[str, Any] = {}
        for consumer in dict.fromkeys((STANDARD, *consumers)):
            if (consumer, check) not in known:
                known[consumer, check] = rules_for(check, rules.get(check, {}), consumers.get(consumer))
            wanted = known[consumer, check]
            if wanted is None:
                verdicts[consumer] = "not asked"
                continue
            rule = wanted.get(metric)
            verdicts[consumer] = "info" if rule is None else rule.verdict(value)
            if rule is not None and verdicts[consumer] != "info":
                applied[consumer] = rule.as_json()
        yield {
            **row,
            "threshold": json.dumps(applied.get(STANDARD, {}), sort_keys=True),
            "verdict": verdicts[STANDARD],
            "verdicts": [(name, verdict) for name, verdict in verdicts.items() if name != STANDARD],
        }


def write_evidence(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write judged rows as Parquet with pinned settings: equal rows, equal bytes. Returns their number."""
    import pyarrow as pa

    from emboflow_dagster.formats.canonical.tables import TableFile

    table = TableFile(path, schema())
    waiting: list[Mapping[str, Any]] = []
    try:
        for row in rows:
            waiting.append(row)
            if len(waiting) >= 4_096:  # noqa: PLR2004 - rows that are held as objects
                table.add(pa.Table.from_pylist(waiting, schema=schema()))
                waiting = []
        if waiting:
            table.add(pa.Table.from_pylist(waiting, schema=schema()))
    finally:
        table.close()
    return table.rows


def read_evidence(
    path: Path, *, check: str | None = None, episode: str | None = None, subject: str | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a stored table, those of one check, episode (its name or sha256) or subject only.

    ``verdicts`` is a dict. Memory holds one batch.
    """
    import pyarrow.parquet as pq

    wanted = {name: value for name, value in (("check", check), ("subject", subject)) if value is not None}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4_096):
            for row in batch.to_pylist():
                if any(row[name] != value for name, value in wanted.items()):
                    continue
                if episode is not None and not _is_episode(row, episode):
                    continue
                row["verdicts"] = dict(row["verdicts"])
                yield row


def _is_episode(row: Mapping[str, Any], wanted: str) -> bool:
    name = row["episode"]
    return wanted in (name, row["episodeSha256"]) or name == f"episode {wanted}"
