"""What a command prints: one JSON value, or tables and pages for people. Progress is elsewhere, on stderr.

Tables go to standard output, so that they can be piped; a terminal gets short ids and colours, a pipe whole
ids and no line ever cut. ``NO_COLOR`` and ``COLUMNS`` are obeyed.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.cli import state
from emboflow_dagster.cli.failures import OutputClosedError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

UNBOUNDED: Final = 4_000
SHORT: Final = 8
GAP: Final = 2
INDENT: Final = 2
_STYLES: Final = {
    **dict.fromkeys(("success", "ready", "available", "published", "active", "pass"), "green"),
    **dict.fromkeys(("running", "probing"), "cyan"),
    **dict.fromkeys(("queued", "pending", "registered", "draft"), "blue"),
    **dict.fromkeys(("cancelled", "blocked", "warn", "deprecated"), "yellow"),
    **dict.fromkeys(("failed", "fail"), "bold red"),
    **dict.fromkeys(("archived", "withdrawn"), "dim"),
}


def prepare_streams() -> None:
    """No name of a recording breaks the output: what the terminal cannot show is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    console.cache_clear()
    error_console.cache_clear()


def emit(value: Any, page: Callable[[], None]) -> None:
    """The result of a command: ``value`` for programs, ``page`` for people."""
    if state.current().json:
        write(json.dumps(value, indent=2) + "\n")
    else:
        page()


def write(text: str) -> None:
    """Text to standard output."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_quietly()
        raise OutputClosedError from None


def write_bytes(chunk: bytes) -> None:
    """Bytes to standard output."""
    try:
        sys.stdout.buffer.write(chunk)
    except BrokenPipeError:
        _close_quietly()
        raise OutputClosedError from None


def flush() -> None:
    """Everything printed is out."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _close_quietly()
        raise OutputClosedError from None


def _close_quietly() -> None:
    # The interpreter flushes once more at its end, which would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@cache
def console() -> "Console":
    """The console on standard output."""
    from rich.console import Console

    piped = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(highlight=False, markup=False, emoji=False, width=UNBOUNDED if piped else None)


def show(what: "RenderableType") -> None:
    """Something of rich's on standard output, without the blanks it puts at the end of lines."""
    printer = console()
    with printer.capture() as captured:
        printer.print(what)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


@cache
def error_console() -> "Console":
    """The console on stderr, for progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def note(text: str) -> None:
    """One line for people on stderr: what standard output must not hold."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def clean(value: object) -> str:
    r"""``value`` as text in which no control character reaches the terminal.

    >>> clean("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def cell(value: object, *, status: bool = False) -> "Text":
    """A value as a table shows it; words of the state machines have their colour."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    if value is None or value == "":
        return Text("-", style="dim")
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    text = clean(value)
    return Text(text, style=_STYLES.get(text, "") if status else "", overflow="fold")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, indent: int = 0
) -> None:
    """Aligned columns.

    A column whose name starts with ``>`` is set to the right: numbers. One whose name ends with ``?`` is
    left out where the terminal is too narrow, the last one first.

    Args:
        columns: Their names.
        rows: Values, one a column.
        title: A heading above; the table is then set in.
        indent: Spaces before every line.
    """
    from rich.padding import Padding
    from rich.table import Table

    cells = [
        [cell(value, status=name.strip("?") == "STATUS") for name, value in zip(columns, row, strict=True)]
        for row in rows
    ]
    if title is not None:
        heading(title)
        indent = indent or INDENT
    shown = _fitting(columns, cells, console().width - indent)
    grid = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_edge=False)
    for place in shown:
        name = columns[place].rstrip("?")
        grid.add_column(
            name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold"
        )
    for row in cells:
        grid.add_row(*(row[place] for place in shown))
    show(Padding(grid, (0, 0, 0, indent), expand=False))


def _fitting(columns: Sequence[str], rows: "Sequence[Sequence[Text]]", room: int) -> list[int]:
    """The places of the columns that fit, those that must be there in any case."""
    widths = [
        max(len(name.strip(">?")), *(row[place].cell_len for row in rows), 0)
        for place, name in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    for place in reversed(range(len(columns))):
        if sum(widths[i] for i in shown) + GAP * (len(shown) - 1) <= room:
            break
        if columns[place].endswith("?"):
            shown.remove(place)
    return shown


def listing(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str, limit: int | None = None
) -> None:
    """A table of documents; ``empty`` is said on stderr when there is none."""
    if not rows:
        note(empty)
        return
    table(columns, rows)
    if limit is not None and len(rows) >= limit:
        note(f"the newest {limit} are shown; --limit shows more")


def heading(text: str) -> None:
    """The title of a section."""
    from rich.text import Text

    write("\n")
    show(Text(clean(text), style="bold"))


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Names and values, aligned; rows whose value is ``None`` are left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            grid.add_row(Text(name, style="dim"), cell(value, status=name.strip() == "status"))
    show(grid)


def lines(rows: Iterable[str]) -> None:
    """Plain lines, control characters escaped."""
    for row in rows:
        write(clean(row) + "\n")


def styled(text: object, style: str) -> "Text":
    """Text in a style of its own."""
    from rich.text import Text

    return Text(clean(text), style=style, overflow="fold")


def short(id_: str | None) -> str | None:
    """An id as a table shows it: on a terminal its last characters, which commands take for the whole.

    Ids of one minute begin alike, their ends differ.
    """
    if id_ is None or not sys.stdout.isatty():
        return id_
    prefix, _, rest = id_.partition("_")
    return f"{prefix}_{rest[-SHORT:]}" if len(rest) == len("01ARZ3NDEKTSV4RRFFQ69G5FAV") else id_
