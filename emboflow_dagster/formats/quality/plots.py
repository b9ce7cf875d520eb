"""Small plots of evidence as inline SVG: how a metric is spread, and where in time something was found."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emboflow_dagster.formats.quality.evidence import Rule

COLOURS = {"pass": "#4c9f70", "warn": "#d99a1c", "fail": "#c8433c", "info": "#7a8694"}
#: Marks of the timeline: which metric is drawn, and what it is called.
INTERVALS = {
    "gapS": ("gap", "#c8433c"),
    "freezeS": ("camera stands still", "#7c5cbf"),
    "longestShare": ("repeated value", "#d99a1c"),
    "notFinite": ("NaN or infinite", "#1f2328"),
    "jumps": ("first jump", "#2f6fb5"),
    "offGridS": ("off the grid", "#b25a9c"),
    "backwards": ("runs backwards", "#0f766e"),
}
BINS = 24
MAX_LANES = 30
MAX_MARKS = 600
_W, _H = 300, 118
_DRAWABLE = 1e150
_ORDER = ("info", "pass", "warn", "fail")


def histogram(title: str, values: Sequence[float], unit: str, rule: Rule) -> str:
    """How a metric is spread over episodes, topics or dimensions; limits dashed, bars coloured by verdict."""
    finite = [value for value in values if abs(value) < _DRAWABLE]  # what is not a number is not, either
    if not finite:
        return ""
    limits = [limit for limit in (rule.warn, rule.fail) if limit is not None]
    low, high = min(finite), max(finite)
    # A limit far from all values would squeeze them into one bar: it is named and not drawn.
    drawn = [limit for limit in limits if low - 2 * (high - low) <= limit <= high + 2 * (high - low)]
    low, high = min([low, *drawn]), max([high, *drawn])
    ends = _short(low), _short(high)
    span = (high - low) or abs(high) or 1.0
    low, high = low - 0.02 * span, high + 0.02 * span
    if not (high - low) / BINS > 0:
        low, high = low - 1, high + 1
    counts, worst = [0] * BINS, ["pass"] * BINS
    for value in finite:
        place = min(BINS - 1, int((value - low) / (high - low) * BINS))
        counts[place] += 1
        worst[place] = max(worst[place], rule.verdict(value), key=_ORDER.index)
    top = max(counts)
    left, width, base, height = 8, _W - 16, 88, 58
    parts = []
    for place, count in enumerate(counts):
        if not count:
            continue
        middle = low + (place + 0.5) * (high - low) / BINS
        tall = max(2.0, height * count / top)
        x = left + place * width / BINS
        colour = COLOURS[worst[place]]
        parts.append(
            f"<rect x='{x + 0.5:.1f}' y='{base - tall:.1f}' width='{width / BINS - 1:.1f}' "
            f"height='{tall:.1f}' fill='{colour}'><title>{count} near {_short(middle)}</title></rect>"
        )
    for name, limit in (("warn", rule.warn), ("fail", rule.fail)):
        if limit is not None and limit in drawn:
            x = left + (limit - low) / (high - low) * width
            parts.append(
                f"<line x1='{x:.1f}' y1='24' x2='{x:.1f}' y2='{base}' stroke='{COLOURS[name]}' "
                f"stroke-dasharray='3 2'><title>{name}: {_short(limit)}</title></line>"
            )
    text = f"{len(finite)} values" + (f", {unit}" if unit else "")
    limit_text = ", ".join(
        f"{name} {'&lt;' if rule.below else '&gt;'} {_short(limit)}"
        for name, limit in (("warn", rule.warn), ("fail", rule.fail))
        if limit is not None
    )
    return (
        f"<svg viewBox='0 0 {_W} {_H}' role='img' aria-label='{html.escape(title, quote=True)}'>"
        f"<text x='{left}' y='13' class='t'>{html.escape(title)}</text>{''.join(parts)}"
        f"<line x1='{left}' y1='{base}' x2='{left + width}' y2='{base}' stroke='#b8bec6'/>"
        f"<text x='{left}' y='101'>{ends[0]}</text>"
        f"<text x='{left + width}' y='101' text-anchor='end'>{ends[1]}</text>"
        f"<text x='{left}' y='114' class='m'>{html.escape(text)}</text>"
        f"<text x='{left + width}' y='114' text-anchor='end' class='m'>{limit_text}</text></svg>"
    )


def timeline(rows: Iterable[Mapping[str, Any]], lengths: Mapping[str, float]) -> str:
    """Where in each episode or topic something was found: one lane each, the worst first.

    Args:
        rows: Evidence with intervals.
        lengths: Frames of each episode, where known.
    """
    marks: dict[str, list[tuple[str, float, float, Mapping[str, Any]]]] = {}
    in_ns = False
    for row in rows:
        if row["metric"] not in INTERVALS or row["verdict"] == "pass":
            continue
        if row["episode"] is not None and row["startFrame"] is not None:
            lane, start, end = row["episode"], row["startFrame"], row["endFrame"]
        elif row["startNs"] is not None:
            lane, start, end, in_ns = row["feature"] or "", row["startNs"], row["endNs"], True
        else:
            continue
        marks.setdefault(lane, []).append((row["metric"], float(start), float(end), row))
    if not marks:
        return ""
    lanes = sorted(marks, key=lambda lane: (-len(marks[lane]), lane))[:MAX_LANES]
    first = min(mark[1] for lane in lanes for mark in marks[lane]) if in_ns else 0.0
    ends = [mark[2] for lane in lanes for mark in marks[lane]] + [lengths.get(lane, 0.0) for lane in lanes]
    last = max([*ends, first + 1.0])
    left, width, row_height = 190, 640, 15
    height = 34 + row_height * len(lanes)
    parts = []
    used: dict[str, None] = {}
    left_to_draw = MAX_MARKS
    for place, lane in enumerate(lanes):
        y = 20 + place * row_height
        long = width if in_ns else width * lengths.get(lane, last) / last
        parts.append(f"<rect x='{left}' y='{y}' width='{long:.1f}' height='10' fill='#eceef1'/>")
        parts.append(
            f"<text x='{left - 6}' y='{y + 9}' text-anchor='end'>{html.escape(_cut(lane, 32))}</text>"
        )
        for metric, start, end, row in marks[lane][:left_to_draw]:
            name, colour = INTERVALS[metric]
            used[metric] = None
            x = left + (start - first) / (last - first) * width
            wide = max(2.0, (end - start) / (last - first) * width)
            said = f"{name}: {_short(row['value'] or 0)} {row['unit']}"
            parts.append(
                f"<rect x='{x:.1f}' y='{y}' width='{wide:.1f}' height='10' fill='{colour}' "
                f"fill-opacity='.85'><title>{html.escape(said)}</title></rect>"
            )
        left_to_draw = max(0, left_to_draw - len(marks[lane]))
    end_text = f"{(last - first) / 1e9:.1f} s" if in_ns else f"frame {last:.0f}"
    legend, x = [], float(left)
    for metric in used:
        name, colour = INTERVALS[metric]
        legend.append(f"<rect x='{x:.0f}' y='4' width='9' height='9' fill='{colour}'/>")
        legend.append(f"<text x='{x + 13:.0f}' y='12'>{name}</text>")
        x += 24 + 6.2 * len(name)
    more = len(marks) - len(lanes)
    rest = f"<text x='4' y='{height - 3}' class='m'>and {more} more</text>" if more else ""
    return (
        f"<svg class='wide' viewBox='0 0 {left + width + 10} {height}' role='img' aria-label='timeline'>"
        f"{''.join(legend)}{''.join(parts)}{rest}"
        f"<text x='{left}' y='{height - 3}' class='m'>{'0 s' if in_ns else 'frame 0'}</text>"
        f"<text x='{left + width}' y='{height - 3}' text-anchor='end' class='m'>{end_text}</text></svg>"
    )


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 10_000 else f"{value:,.0f}"  # noqa: PLR2004 - digits that fit


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[-limit + 1 :]
