"""What every check over episodes has: it is fed one episode after the other and keeps measurements only.

A check says how much it could look at (declared / resolved / unresolved); one that resolved nothing is a
warning, never a pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from emboflow_dagster.formats.quality.evidence import Kept, Measurement, Rule, Rules, Thresholds, rules_for
from emboflow_dagster.formats.quality.view import EpisodeView

MAX_NAMED = 20
NOTHING = "nothing could be measured"


class Check(ABC):
    """One kind of measurement under way: `_see` measures an episode, `_message` says what was found."""

    name: ClassVar[str] = ""
    version: ClassVar[int] = 2
    rules: ClassVar[dict[str, Rule]] = {}
    #: One line for people: what is looked for.
    title: ClassVar[str] = ""
    #: What an input must have for it, where another one has none of it.
    asks: ClassVar[str] = ""
    #: Where no check was named and the input has nothing that this one asks of, it is left out.
    optional: ClassVar[bool] = False

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self.declared = self.resolved = 0
        self.values: dict[str, Any] = {}
        self.places: list[str] = []
        self.kept = Kept([], {})
        self.judging: Rules = rules_for(self.name, self.rules, thresholds) or {}

    def _see(self, _episode: EpisodeView) -> bool:
        """Measure one episode; False where it holds nothing for this check, or it is fed in another way."""
        return False

    @abstractmethod
    def _message(self) -> str:
        """What was found, in a sentence."""

    def take(self, episode: EpisodeView) -> None:
        """Measure one episode and count whether it could be."""
        self.declared += 1
        self.resolved += bool(self._see(episode))

    def finish(self) -> None:  # noqa: B027 - most have nothing to add
        """Measure what is known after the last episode only."""

    def result(self, consumers: Mapping[str, Thresholds] | None = None) -> dict[str, Any]:
        """The finished check as it is stored, with a verdict for every consumer."""
        nothing = f"{NOTHING}: there are no {self.asks}" if self.asks else NOTHING
        return result_of(self, consumers or {}, self._message() if self.resolved else nothing)

    def measure(
        self,
        metric: str,
        value: float,
        unit: str = "",
        *,
        episode: str | None = None,
        feature: str | None = None,
        n: int = 1,
        frames: tuple[int, int] | None = None,
        ns: tuple[int, int] | None = None,
        say: str | None = None,
    ) -> str:
        """Keep one measurement; where it breaks the rule, `say` (or the value) becomes one of the places."""
        start, end = frames or (None, None)
        first, last = ns or (None, None)
        row = Measurement(
            self.name,
            self.version,
            metric,
            float(value),
            unit,
            episode,
            feature,
            int(n),
            start,
            end,
            first,
            last,
        )
        self.kept.add(row)
        rule = self.judging.get(metric)
        verdict = "info" if rule is None else rule.verdict(row.value)
        if verdict in ("warn", "fail") and len(self.places) < MAX_NAMED:
            where = ": ".join(part for part in (episode, feature) if part)
            place = say or f"{where}: {metric} {value:.6g} {unit}".strip(": ")
            if place not in self.places:
                self.places.append(place)
        return verdict

    def total(self, metric: str) -> int:
        """The sum of a metric that counts; over what was kept."""
        return int(sum(row.value for row in self.kept.rows if row.metric == metric))

    def most(self, metric: str, default: float = 0.0) -> float:
        """The highest value of a metric."""
        return self.kept.extremes.get(metric, (default, default))[1]

    def least(self, metric: str, default: float = 0.0) -> float:
        """The lowest value of a metric."""
        return self.kept.extremes.get(metric, (default, default))[0]


def result_of(check: Check, consumers: Mapping[str, Thresholds], message: str) -> dict[str, Any]:
    """One check's entry of a report."""
    verdicts: dict[str, str] = {}
    for consumer, thresholds in consumers.items():
        wanted = rules_for(check.name, check.rules, thresholds)
        if wanted is None:
            verdicts[consumer] = "not asked"
        else:
            verdicts[consumer] = check.kept.worst(wanted) if check.resolved else "warn"
    return {
        "check": check.name,
        "version": check.version,
        "severity": check.kept.worst(check.judging) if check.resolved else "warn",
        "verdicts": verdicts,
        "values": check.values
        | {
            metric: {"min": low, "max": high} if low != high else low
            for metric, (low, high) in check.kept.extremes.items()
            if metric not in check.values
        },
        "threshold": {metric: said for metric, rule in check.judging.items() if (said := rule.as_json())},
        "message": message,
        "places": check.places,
        "measurements": len(check.kept.rows),
        "notKept": check.kept.dropped,
        "coverage": {
            "declared": check.declared,
            "resolved": check.resolved,
            "unresolved": check.declared - check.resolved,
        },
    }
