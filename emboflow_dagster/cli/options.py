"""Options that several verbs take, declared once."""

import difflib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

E = TypeVar("E", bound=StrEnum)

Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, metavar="N", help="How many at most.")]
Cache = Annotated[
    str | None,
    typer.Option(
        "--cache", metavar="POLICY", help="use, refresh or off, for all nodes; else what each node says."
    ),
]
Label = Annotated[
    str | None, typer.Option("--label", metavar="TEXT", help="A word for people; kept with the run.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="PATH", help="Where to write it; else to standard output."),
]


def one_of(kind: type[E], text: str | None, option: str) -> str | None:
    """``text`` if it is one of the words of ``kind``; wrong usage otherwise."""
    if text is None or text in list(kind):
        return text
    near = difflib.get_close_matches(text, list(kind), n=1, cutoff=0.5)
    hint = f"did you mean {str(near[0])!r}? " if near else ""
    raise typer.BadParameter(f"found {text!r}; {hint}allowed are {', '.join(kind)}", param_hint=f"'{option}'")
