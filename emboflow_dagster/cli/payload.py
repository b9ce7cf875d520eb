"""Payloads on their way out: to a file, or to standard output where that makes sense."""

import sys
from pathlib import Path
from typing import IO, Final

import typer

from emboflow_dagster.cli import output, state
from emboflow_dagster.errors import InvalidInputError, NotFoundError

CHUNK: Final = 1 << 20
_TEXT: Final = ("text/", "application/json", "application/yaml", "application/vnd.emboflow.")


def source(path: Path, said: Path) -> Path:
    """A file to store.

    Args:
        path: Where it is.
        said: As it was typed.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: It is a folder.
    """
    if path.is_dir():
        raise InvalidInputError(
            f"{said}: is a folder; a blob is one file", hint=f"emboflow asset register {said} --type folder"
        )
    if not path.is_file():
        raise NotFoundError(f"{said}: there is no such file")
    return path


def to_stdout(stream: IO[bytes], content_type: str) -> None:
    """Copy a verified stream to standard output.

    Raises:
        typer.BadParameter: With ``--json``, or bytes that would garble a terminal.
        IntegrityError: The payload is damaged; standard output may hold a part of it.
    """
    with stream:
        if state.current().json:
            raise typer.BadParameter(
                "--json leaves no room for the bytes: name a file", param_hint="'--output'"
            )
        if sys.stdout.isatty() and not content_type.startswith(_TEXT):
            raise typer.BadParameter(
                f"{content_type} would garble the terminal: name a file", param_hint="'--output'"
            )
        sys.stdout.flush()
        while chunk := stream.read(CHUNK):
            output.write_bytes(chunk)
    output.flush()


def target(out: Path, name: str) -> Path:
    """Where to write: ``out``, or ``name`` inside of it when it is a folder that exists."""
    return out / name if out.is_dir() else out


def saved(stream: IO[bytes], path: Path) -> Path:
    """Write a verified stream to a file; nothing is left there when it is damaged."""
    from emboflow_dagster.object_storage.verified import save

    return save(stream, path)
