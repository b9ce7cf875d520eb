"""What a quality report says in short: the artifact's summary, the node's page, the outcome of each check."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short

ORDER: Final = ("pass", "unresolved", "warn", "fail")
_PLACES: Final = 3


def summary_of(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Verdicts and counts over all subjects, bounded by the number of checks."""
    return {
        "verdict": max((r["verdict"] for r in reports), key=ORDER.index, default="unresolved"),
        "subjects": len(reports),
        "verdicts": [{"verdict": v, "count": sum(r["verdict"] == v for r in reports)} for v in ORDER],
        "consumers": [
            {
                "consumer": name,
                "verdict": max((r["verdicts"].get(name, "unresolved") for r in reports), key=ORDER.index),
            }
            for name in dict.fromkeys(name for r in reports for name in r["verdicts"])
        ],
        "coverage": {
            part: sum(r["coverage"][part] for r in reports) for part in ("declared", "resolved", "unresolved")
        },
        "failedChecks": _checks_that(reports, "fail"),
        "warnedChecks": _checks_that(reports, "warn"),
        "qualityWarnings": sorted({c["check"] for r in reports for c in r["checks"] if _is_warning(c)}),
    }


def _checks_that(reports: Sequence[Mapping[str, Any]], severity: str) -> list[str]:
    return sorted({c["check"] for r in reports for c in r["checks"] if c["severity"] == severity})


def _is_warning(check: Mapping[str, Any]) -> bool:
    """A finding that fails nothing; what could not be measured is no finding of the recording."""
    return check["severity"] == "warn" and check["coverage"]["resolved"] > 0


def outcomes(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every check over all subjects: what Dagster shows as an asset check.

    ``severity`` is the worst of the subjects that could be measured, ``unresolved`` where none could.
    """
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        for check in report["checks"]:
            part = check["coverage"]
            one = found.setdefault(
                check["check"],
                {
                    "check": check["check"], "version": check["version"], "severity": "unresolved",
                    "message": check["message"], "threshold": _limits(check["threshold"]), "subjects": 0,
                    "declared": 0, "resolved": 0, "unresolved": 0, "places": [],
                },
            )  # fmt: skip
            one["subjects"] += 1
            for name in ("declared", "resolved", "unresolved"):
                one[name] += part[name]
            severity = check["severity"] if part["resolved"] or check["severity"] == "fail" else "unresolved"
            if _RANK[severity] > _RANK[one["severity"]]:
                one["severity"] = severity
                one["message"] = short(f"{_of(report, reports)}{check['message']}")
            if severity != "pass":
                one["places"] += [short(f"{_of(report, reports)}{place}") for place in check["places"]]
                one["places"] = one["places"][:_PLACES]
    return list(found.values())


#: A measured pass says more than nothing measured, and less than a finding.
_RANK: Final = {"unresolved": 0, "pass": 1, "warn": 2, "fail": 3}


def _of(report: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> str:
    return f"{report['subject']}: " if len(reports) > 1 else ""


def _limits(threshold: Mapping[str, Any]) -> str:
    said = (
        f"{metric} {name} {'below' if rule.get('below') else 'above'} {rule[name]:g}"
        for metric, rule in threshold.items()
        for name in ("warn", "fail")
        if name in rule
    )
    return short("; ".join(said))


def findings(report: Mapping[str, Any]) -> str:
    """The checks of a report that did not pass."""
    return "; ".join(f"{c['check']} {c['severity']}" for c in report["checks"] if c["severity"] != "pass")


def rows_of(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each subject."""
    return [
        {
            "subject": short(report["subject"]),
            "kind": report["kind"],
            "verdict": report["verdict"],
            **{name: verdict for name, verdict in report["verdicts"].items() if name not in _COLUMNS},
            "measured": f"{report['coverage']['resolved']} of {report['coverage']['declared']}",
            "findings": short(findings(report)),
        }
        for report in reports[:MAX_ROWS]
    ]


_COLUMNS: Final = ("subject", "kind", "verdict", "measured", "findings")
