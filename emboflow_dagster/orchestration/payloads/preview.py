"""The first rows of a table as Markdown: bounded, and nothing in a cell is markup."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_COLUMNS: Final = 12
MAX_CELL: Final = 48
MAX_TEXT: Final = 900
#: Dagster draws Markdown of fewer than a thousand characters on the page itself, and more in a dialog.
INLINE: Final = 950
_FEWEST: Final = 3
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&-])")


def markdown_table(names: Sequence[str], rows: Sequence[Sequence[Any]], *, total: int | None = None) -> str:
    """A Markdown table of the first columns; says how much more there is."""
    if not names:
        return f"{total or 0} rows, no columns"
    more = len(names) - MAX_COLUMNS
    shown = list(names[:MAX_COLUMNS]) + ([f"... {more} more"] if more > 0 else [])
    lines = [_row([cell(name) for name in shown]), _row(["---"] * len(shown))]
    length, count = sum(map(len, lines)), 0
    for row in rows:
        line = _row([cell(value) for value in row[:MAX_COLUMNS]] + ["..."] * (more > 0))
        length += len(line) + 1
        if length > INLINE and count >= _FEWEST:
            break
        lines.append(line)
        count += 1
    if total is not None and total > count:
        lines += ["", f"{count} of {total} rows"]
    return "\n".join(lines)


def records_table(rows: Sequence[Mapping[str, Any]], *, total: int) -> str:
    """Dicts as a Markdown table."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    return markdown_table(names, [[row.get(name) for name in names] for row in rows], total=total)


def block(text: str) -> str:
    """A text as it is: an indented block, which nothing inside can end."""
    cut = text[:MAX_TEXT]
    lines = ["    " + "".join(_visible(c) for c in line) for line in cut.split("\n")]
    return "\n".join(lines) + ("\n\n..." if len(text) > MAX_TEXT else "")


def cell(value: Any) -> str:
    """One value on one line, cut, with everything that Markdown would act on escaped."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else repr(value) if isinstance(value, bytes) else str(value)
    if len(text) > MAX_CELL:
        text = text[: MAX_CELL - 1] + "…"
    plain = "".join(_visible(c) for c in text)
    return _MARKUP.sub(_escaped, plain)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}
    if character == "-" and found.start() > 0:
        return character
    return entities.get(character, "\\" + character)


def _visible(character: str) -> str:
    if character == "\t" or character.isprintable():
        return character
    return ascii(character)[1:-1]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
