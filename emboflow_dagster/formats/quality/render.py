"""A quality report for people: Markdown, and one HTML page that needs nothing from outside."""

import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emboflow_dagster.formats.quality.evidence import Rules
from emboflow_dagster.formats.quality.plots import histogram, timeline

_MARKS = {
    "pass": "✓ pass",
    "warn": "! warn",
    "fail": "✗ fail",
    "unresolved": "? unresolved",
    "not asked": "not asked",
}
MAX_PLOTS = 12
MAX_WORST = 10
#: Evidence of one subject that is drawn.
MAX_DRAWN = 200_000
#: So many subjects are shown unfolded; of more, those that failed.
MAX_OPEN = 3
_LEGEND = (
    "<p class='m'>Measured is what a check could look at, of what the input declares; unresolved is what it "
    "could not, and is never a pass. The limits of a check show where the pointer rests on its name. "
    "<code>evidence.parquet</code> beside this page has every measurement.</p>"
)
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:64rem;padding:0 1rem;color:#1f2328}
h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.15rem;display:inline}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
table{border-collapse:collapse;width:100%;font-size:.92em}th,td{text-align:left;padding:.32rem .6rem .32rem 0;
vertical-align:top}tr{border-bottom:1px solid #e3e6ea}th{color:#656d76;font-weight:600}
.b{display:inline-block;padding:0 .5em;border-radius:.8em;font-size:.85em;font-weight:600;white-space:nowrap}
.pass{background:#dff3e6;color:#14632f}.warn{background:#fdf0d0;color:#7a4f00}
.fail{background:#fbdedc;color:#94231c}
.unresolved,.not{background:#ece5fa;color:#55309b}
.m{color:#656d76}
ul{margin:.15rem 0 0;padding-left:1.1rem;color:#57606a}
code{font-size:.92em}svg{font:10.5px system-ui,sans-serif;fill:#424a53}
svg .t{font-weight:600;font-size:11.5px}
svg .m{fill:#7a8694}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:.6rem 1.2rem}
.wide{width:100%}details{border:1px solid #e3e6ea;border-radius:8px;padding:.6rem 1rem;margin:.8rem 0}
summary{cursor:pointer}.n{text-align:right}
:root{color-scheme:light dark}
@media(prefers-color-scheme:dark){body{background:#15181c;color:#dde2e8}th,.m,ul{color:#9aa4af}
tr{border-color:#2b323a}details{border-color:#39414a}svg{fill:#c4ccd5}svg .m{fill:#9aa4af}a{color:#7ab7ff}
.pass{background:#173d27;color:#9be0b4}.warn{background:#453409;color:#f4d58a}
.fail{background:#51201c;color:#ffb6af}.unresolved,.not{background:#372a56;color:#cdb8ff}}
"""


def render_markdown(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table with the places below."""
    coverage = report["coverage"]
    lines = [
        f"## Quality: {_cell(report['subject'])}",
        "",
        f"**{_MARKS[report['verdict']]}** · {_cell(report['kind'])} · {_seen(coverage)}",
        "",
    ]
    if report["verdicts"]:
        told = (f"{_cell(name)} {_MARKS[verdict]}" for name, verdict in report["verdicts"].items())
        lines += [f"For: {', '.join(told)}", ""]
    lines += ["| check | result | measured | finding |", "|---|---|---|---|"]
    for check in report["checks"]:
        part = check["coverage"]
        lines.append(
            f"| {check['check']} | {_MARKS[check['severity']]} | {part['resolved']}/{part['declared']} "
            f"| {_cell(check['message'])} |"
        )
    for check in report["checks"]:
        if check["places"]:
            lines += ["", f"**{check['check']}**", ""]
            lines += [f"- {_cell(place)}" for place in check["places"]]
    return "\n".join(lines) + "\n"


def render_page(
    reports: Sequence[Mapping[str, Any]],
    evidence: Mapping[str, Sequence[Mapping[str, Any]]],
    rules: Mapping[str, Rules],
    titles: Mapping[str, str] | None = None,
) -> str:
    """All reports as one self-contained page; every text from an input is escaped.

    Args:
        reports: As :func:`~emboflow_dagster.formats.quality.report.quality_report` gives them.
        evidence: Subject to its judged rows.
        rules: The standard rules of each check.
        titles: What each check asks, in words.
    """
    verdicts = Counter(report["verdict"] for report in reports)
    told = ", ".join(f"{count} {name}" for name, count in verdicts.items()) or "nothing to measure"
    title = html.escape(str(reports[0]["subject"])) if len(reports) == 1 else f"{len(reports)} subjects"
    body = [f"<h1>Quality: {title}</h1>", f"<p>{told}</p>" if len(reports) != 1 else "", _LEGEND]
    if len(reports) > 1:
        body.append(_overview(reports))
    for place, report in enumerate(reports):
        rows = evidence.get(report["subject"], ())
        is_open = len(reports) <= MAX_OPEN or report["verdict"] == "fail"
        body.append(_section(report, rows, rules, titles or {}, place, is_open=is_open))
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>Quality: {title}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _overview(reports: Sequence[Mapping[str, Any]]) -> str:
    consumers = list(dict.fromkeys(name for report in reports for name in report["verdicts"]))
    heads = "".join(
        f"<th>{html.escape(head)}</th>" for head in ("subject", "result", *consumers, "measured", "findings")
    )
    rows = []
    for place, report in enumerate(reports):
        found = [check["check"] for check in report["checks"] if check["severity"] != "pass"]
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""  # noqa: PLR2004 - names that fit a line
        cells = (
            f"<a href='#s{place}'>{html.escape(str(report['subject']))}</a>",
            _badge(report["verdict"]),
            *(_badge(report["verdicts"].get(name, "not asked")) for name in consumers),
            f"{report['coverage']['resolved']}/{report['coverage']['declared']}",
            html.escape(", ".join(found[:6])) + more,
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _section(
    report: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    rules: Mapping[str, Rules],
    titles: Mapping[str, str],
    place: int,
    *,
    is_open: bool,
) -> str:
    consumers = list(report["verdicts"])
    told = "".join(
        f" <span class='m'>{html.escape(name)}</span> {_badge(verdict)}"
        for name, verdict in report["verdicts"].items()
    )
    heads = "".join(
        f"<th>{html.escape(head)}</th>" for head in ("check", "result", *consumers, "measured", "finding")
    )
    table = "".join(_row(check, consumers, titles) for check in report["checks"])
    plots = _plots(rows, rules)
    return (
        f"<details id='s{place}'{' open' if is_open else ''}><summary>"
        f"<h2>{html.escape(str(report['subject']))}</h2> "
        f"{_badge(report['verdict'])}{told}</summary>"
        f"<p class='m'>{html.escape(str(report['kind']))} · {_seen(report['coverage'])}</p>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{table}</tbody></table>{plots}</details>"
    )


def _row(check: Mapping[str, Any], consumers: Sequence[str], titles: Mapping[str, str]) -> str:
    places = "".join(f"<li>{html.escape(str(place))}</li>" for place in check["places"][:5])
    more = len(check["places"]) - 5
    places += f"<li>and {more} more in report.json</li>" if more > 0 else ""
    limits = "; ".join(
        f"{metric} " + ", ".join(f"{name} {value}" for name, value in said.items() if name != "below")
        for metric, said in check["threshold"].items()
    )
    name = f"<code title='{html.escape(limits, quote=True)}'>{html.escape(check['check'])}</code>"
    cells = (
        f"{name} <span class='m'>v{check['version']}<br>{html.escape(titles.get(check['check'], ''))}</span>",
        _badge(check["severity"]),
        *(_badge(check["verdicts"].get(name, "not asked")) for name in consumers),
        f"{check['coverage']['resolved']}/{check['coverage']['declared']}",
        html.escape(str(check["message"])) + (f"<ul>{places}</ul>" if places else ""),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _plots(rows: Sequence[Mapping[str, Any]], rules: Mapping[str, Rules]) -> str:
    """Spread of the metrics that are judged, where things were found, and the episodes with most findings."""
    values: dict[tuple[str, str], list[float]] = {}
    units: dict[tuple[str, str], str] = {}
    lengths: dict[str, float] = {}
    bad: dict[str, Counter[str]] = {}
    for row in rows:
        key = (row["check"], row["metric"])
        values.setdefault(key, []).append(math.nan if row["value"] is None else row["value"])
        units[key] = row["unit"]
        if row["check"] == "length_outlier" and row["metric"] == "frames" and row["episode"]:
            lengths[row["episode"]] = row["value"] or 0.0
        if row["verdict"] in ("warn", "fail") and row["episode"]:
            bad.setdefault(row["episode"], Counter())[row["check"]] += 1
    judged = [
        (key, found)
        for key, found in values.items()
        if (rule := rules.get(key[0], {}).get(key[1])) is not None
        and (rule.warn is not None or rule.fail is not None)
        and len(found) > 2  # noqa: PLR2004 - a spread
        and len(set(found)) > 1
    ]
    charts = [
        histogram(f"{check}: {metric}", found, units[check, metric], rules[check][metric])
        for (check, metric), found in judged[:MAX_PLOTS]
    ]
    where = timeline(rows, lengths)
    worst = sorted(bad, key=lambda ref: (-len(bad[ref]), -bad[ref].total(), ref))[:MAX_WORST]
    listed = "".join(
        f"<tr><td>{html.escape(ref)}</td><td class='n'>{lengths.get(ref, 0):.0f}</td>"
        f"<td>{html.escape(', '.join(bad[ref]))}</td></tr>"
        for ref in worst
    )
    parts = []
    if where:
        parts.append(f"<h3>Where it was found</h3>{where}")
    if charts:
        drawn = "".join(charts)
        parts.append(f"<h3>How the measurements are spread</h3><div class='plots'>{drawn}</div>")
    if len(bad) > 1:
        heads = "<th>episode</th><th class='n'>frames</th><th>checks</th>"
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{listed}</tbody></table>"
        parts.append(f"<h3>Episodes with most findings</h3>{table}")
    return "".join(parts)


def by_subject(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of each subject, as many as are drawn."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        listed = found.setdefault(row["subject"], [])
        if len(listed) < MAX_DRAWN:
            listed.append(row)
    return found


def _seen(coverage: Mapping[str, int]) -> str:
    return f"measured {coverage['resolved']} of {coverage['declared']}, {coverage['unresolved']} unresolved"


def _badge(verdict: str) -> str:
    name = "not" if verdict == "not asked" else verdict
    return f"<span class='b {name}'>{_MARKS[verdict]}</span>"


def _cell(value: object) -> str:
    """Text that cannot leave its table cell or become markup."""
    text = " ".join(str(value).split())
    for char in "\\|`*_<>[]#":
        text = text.replace(char, "\\" + char)
    return text
