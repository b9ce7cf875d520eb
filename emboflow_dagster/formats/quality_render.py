"""A quality report for people: Markdown, and one HTML page that needs nothing from outside."""

import html
from collections.abc import Mapping
from typing import Any

_MARKS = {"pass": "✓ pass", "warn": "! warn", "fail": "✗ fail", "unresolved": "? unresolved"}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c1e21}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem;vertical-align:top}
tr{border-bottom:1px solid #d9dce1}th{color:#555}.pass{color:#1a7f37}.warn{color:#9a6700}.fail{color:#b91c1c}
.unresolved{color:#6b21a8}ul{margin:.2rem 0 0;padding-left:1.1rem;color:#555}code{font-size:.9em}
"""


def render_markdown(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table with the places below."""
    coverage = report["coverage"]
    seen = f"measured {coverage['resolved']} of {coverage['declared']}, {coverage['unresolved']} unresolved"
    lines = [
        f"## Quality: {_cell(report['subject'])}",
        "",
        f"**{_MARKS[report['verdict']]}** · {_cell(report['kind'])} · {seen}",
        "",
        "| check | result | measured | finding |",
        "|---|---|---|---|",
    ]
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


def render_html(report: Mapping[str, Any]) -> str:
    """The report as one self-contained page; every text from the input is escaped."""
    coverage = report["coverage"]
    title = html.escape(str(report["subject"]))
    verdict = f"<strong class='{report['verdict']}'>{_MARKS[report['verdict']]}</strong>"
    seen = f"measured {coverage['resolved']} of {coverage['declared']}, {coverage['unresolved']} unresolved"
    heads = "".join(f"<th>{head}</th>" for head in ("check", "result", "measured", "finding", "threshold"))
    rows = "".join(_row(check) for check in report["checks"])
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>Quality: {title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Quality: {title}</h1><p>{verdict} · {html.escape(str(report['kind']))} · {seen}</p>",
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></body></html>",
    )
    return "\n".join(page) + "\n"


def _row(check: Mapping[str, Any]) -> str:
    places = "".join(f"<li>{html.escape(str(place))}</li>" for place in check["places"])
    threshold = ", ".join(f"{name} {value}" for name, value in check["threshold"].items())
    listed = f"<ul>{places}</ul>" if places else ""
    cells = (
        f"<td><code>{html.escape(check['check'])}</code></td>",
        f"<td class='{check['severity']}'>{_MARKS[check['severity']]}</td>",
        f"<td>{check['coverage']['resolved']}/{check['coverage']['declared']}</td>",
        f"<td>{html.escape(str(check['message']))}{listed}</td>",
        f"<td>{html.escape(threshold)}</td>",
    )
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: object) -> str:
    """Text that cannot leave its table cell or become markup."""
    text = " ".join(str(value).split())
    for char in "\\|`*_<>[]#":
        text = text.replace(char, "\\" + char)
    return text
