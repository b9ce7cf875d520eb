"""The lines of a task's log: on a terminal, in a pipe, as JSON, and as they come."""

import json
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import output, state

if TYPE_CHECKING:
    from emboflow_dagster.model.run import RunTask
    from emboflow_dagster.runtime.log_records import LogLine

STREAMS: Final = ("log", "stdout", "stderr")
_NOTE: Final = "note"
_AT_ONCE: Final = 1_000
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what comes, until the task is over.")
]
Stdout = Annotated[bool, typer.Option("--stdout", help="Its standard output.")]
Stderr = Annotated[bool, typer.Option("--stderr", help="Its standard error.")]
Log = Annotated[bool, typer.Option("--log", help="What the node said with ctx.log.")]
Stream = Annotated[
    str | None, typer.Option("--stream", metavar="NAME", help="Only one of log, stdout, stderr.")
]
Lines = Annotated[
    int | None,
    typer.Option("--lines", "-n", min=0, metavar="N", help="Only the last N lines of what is there."),
]
Attempt = Annotated[
    int | None, typer.Option("--attempt", min=1, metavar="N", help="Which attempt; else the last one.")
]
Raw = Annotated[bool, typer.Option("--raw", help="One stream byte for byte, nothing escaped.")]


def streams(*, stdout: bool, stderr: bool, log: bool, stream: str | None) -> tuple[str, ...]:
    """The streams that were asked for; all of them when none was named."""
    if stream not in (None, *STREAMS):
        raise typer.BadParameter(
            f"found {stream!r}; allowed are log, stdout, stderr", param_hint="'--stream'"
        )
    asked = {"log": log, "stdout": stdout, "stderr": stderr}
    return tuple(name for name in STREAMS if asked[name] or name == stream) or STREAMS


def check(wanted: tuple[str, ...], *, raw: bool, follow: bool, lines: int | None) -> None:
    """Refuse what ``--raw`` cannot do."""
    if not raw:
        return
    if len(wanted) != 1:
        raise typer.BadParameter("needs one of --stdout, --stderr, --log", param_hint="'--raw'")
    if follow or lines is not None or state.current().json:
        raise typer.BadParameter("goes with neither --follow, --lines nor --json", param_hint="'--raw'")


def waiting(task: "RunTask") -> None:
    """Say that nothing comes yet."""
    if task.status in ("pending", "queued"):
        output.note(f"{task.node_id} is {task.status.value}; its log is shown as it comes")


def show(rows: "Iterable[LogLine]", *, follow: bool) -> None:
    """Print lines as they come; as JSON, one array, or one value a line while a log is followed."""
    if not state.current().json:
        _plain(rows, at_once=1 if follow else _AT_ONCE)
    elif follow:
        for row in rows:
            output.write(json.dumps({**_value(row), "attempt": row.attempt}) + "\n")
    else:
        _array(rows)


def _value(row: "LogLine") -> dict[str, Any]:
    return {"stream": row.stream, "line": row.text} | ({} if row.ends else {"ends": False})


def _array(rows: "Iterable[LogLine]") -> None:
    # Written as it is read: a log may be larger than memory.
    rows, before = iter(rows), "[\n"
    while batch := list(islice(rows, _AT_ONCE)):
        output.write(before + ",\n".join(f"  {json.dumps(_value(row))}" for row in batch))
        before = ",\n"
    output.write("[]\n" if before == "[\n" else "\n]\n")


def _plain(rows: "Iterable[LogLine]", *, at_once: int) -> None:
    attempt, begun = None, None
    text: list[str] = []
    for row in rows:
        if row.stream == _NOTE:
            output.note(row.text)
            continue
        if attempt not in (None, row.attempt):
            output.note(f"attempt {row.attempt}")
        attempt = row.attempt
        if begun not in (None, row.stream):  # an unfinished line of another stream
            text.append("\n")
        text.append(output.clean(row.text) + ("\n" if row.ends else ""))
        begun = None if row.ends else row.stream
        if len(text) >= at_once:
            output.write("".join(text))
            text.clear()
    output.write("".join(text) + ("" if begun is None else "\n"))
