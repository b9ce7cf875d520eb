"""How a command ends when it did not do what it was asked: one line, a hint, an exit status."""

import errno
import re
import sys
import traceback
from contextlib import suppress
from typing import Final

import typer

from emboflow_dagster.errors import EmboflowError, ErrorKind

FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141
# Typer carries its own copy of click: the base class is reached through the name that it exports.
UsageError: Final = typer.BadParameter.__mro__[1]
# Up to the URL's last '@': a password that nobody escaped may hold '/', ':' and '@' itself.
_PASSWORD: Final = re.compile(r"(?<=://)([^/\s:@]*):(?:(?!://)\S)*@")


class OutputClosedError(Exception):
    """Whoever read standard output is gone; nothing is wrong."""


def redacted(text: str) -> str:
    """``text`` with the passwords of its URLs blotted out.

    >>> redacted("no MongoDB at mongodb://ada:secret@db1/x")
    'no MongoDB at mongodb://ada:***@db1/x'
    >>> redacted("mongodb://ada:se/cr@et@db1/x")
    'mongodb://ada:***@db1/x'
    """
    return _PASSWORD.sub(r"\1:***@", text)


def report(error: BaseException, *, debug: bool) -> int:
    """Say what happened on stderr; returns the exit status."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, OutputClosedError | BrokenPipeError):
        return PIPE_CLOSED
    if debug:
        _say(redacted("".join(traceback.format_exception(error))).rstrip())
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        _say("interrupted")
        return INTERRUPTED
    if isinstance(error, UsageError):
        return _usage(error)
    code, message, hint = _described(error)
    _say(f"error[{code.value}]: {redacted(_line(message))}")
    if hint:
        _say(f"hint: {redacted(_line(hint))}")
    return WRONG_USAGE if code == ErrorKind.USAGE else FAILED


def _described(error: BaseException) -> tuple[ErrorKind, str, str | None]:
    if isinstance(error, EmboflowError):
        return error.kind, error.message, error.hint
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ErrorKind.DISK_FULL, _os_message(error), "make room, then run it again"
    if isinstance(error, OSError) and error.filename is not None:
        return ErrorKind.INVALID_INPUT, _os_message(error), None
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ErrorKind.INTERNAL, text, "this is a defect of EmboFlow; --debug shows where it happened"


def _os_message(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror)


def _usage(error: BaseException) -> int:
    formatted = getattr(error, "format_message", None)
    message = _line(str(formatted()) if callable(formatted) else str(error)).rstrip(".")
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", None) or "emboflow"
    _say(f"error[{ErrorKind.USAGE.value}]: {redacted(message[:1].lower() + message[1:])}")
    _say(f"hint: `{path} --help` shows what it takes")
    return WRONG_USAGE


def _line(text: str) -> str:
    return "".join(
        c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in " ".join(text.split())
    )


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return
