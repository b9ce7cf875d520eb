"""The options every command takes, before the noun and after the verb; and how verbs are declared.

The last place wins: ``emboflow --project a asset list --project b`` is about b.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Final, TypeVar

import typer

F = TypeVar("F", bound=Callable[..., Any])
PANEL: Final = "Everywhere"


@dataclass(slots=True)
class State:
    """What the command line said so far; ``None`` leaves it to the environment."""

    workspace: str | None = None
    project: str | None = None
    actor: str | None = None
    json: bool = False
    debug: bool = False


_state = State()


def current() -> State:
    """The options of the command being executed."""
    return _state


def reset() -> None:
    """Forget the options of an earlier command of this process."""
    global _state  # noqa: PLW0603 - a command line belongs to the process
    _state = State()


Workspace = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        metavar="SLUG",
        help="Workspace; else EMBOFLOW_WORKSPACE, else 'default'.",
        rich_help_panel=PANEL,
    ),
]
ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="SLUG",
        help="Project; else EMBOFLOW_PROJECT, else 'default'.",
        rich_help_panel=PANEL,
    ),
]
Actor = Annotated[
    str | None,
    typer.Option(
        "--actor",
        metavar="user:ID",
        help="Who does it; else EMBOFLOW_ACTOR, else the login name.",
        rich_help_panel=PANEL,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print exactly one JSON value on standard output.", rich_help_panel=PANEL),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Print a traceback when something fails.", rich_help_panel=PANEL)
]
_OPTIONS: Final = {
    "workspace": (Workspace, None),
    "project": (ProjectOption, None),
    "actor": (Actor, None),
    "json": (Json, False),
    "debug": (Debug, False),
}


def with_globals(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command`` with the options of every command; they go to :func:`current`, not to it."""
    signature = inspect.signature(command)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for name in _OPTIONS:
            value = kwargs.pop(name)
            if value:
                setattr(_state, name, value)
        return command(*args, **kwargs)

    wrapper.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue] - inspect's own name
        parameters=[*signature.parameters.values(), *extra]
    )
    wrapper.__annotations__ = {
        **command.__annotations__,
        **{name: annotation for name, (annotation, _) in _OPTIONS.items()},
    }
    return wrapper


def verb(app: typer.Typer, name: str, *, example: str, **settings: Any) -> Callable[[F], F]:
    """Register a command under ``name``; its docstring is the help, ``example`` is shown below it."""

    def register(command: F) -> F:
        app.command(name, epilog=f"Example: {example}", **settings)(with_globals(command))
        return command

    return register


def noun(help: str) -> typer.Typer:  # noqa: A002 - typer's word
    """The commands of one noun; the options of every command are taken between noun and verb too."""
    app = typer.Typer(help=help, subcommand_metavar="VERB [OPTIONS]")

    @app.callback()
    @with_globals
    def between() -> None:
        pass

    between.__doc__ = None
    return app
