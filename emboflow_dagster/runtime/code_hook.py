"""The checks of a node's own code that need no run: it compiles, and its entry point can be called.

The code is never executed here.
"""

import ast
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, Problem, shown
from emboflow_dagster.runtime.registry import nearest

MAX_SOURCE_BYTES: Final = 64 << 10
MAX_ENTRYPOINT_CHARS: Final = 64
_FIELDS: Final = ("language", "entrypoint", "source")
_ARGUMENTS: Final = 2  # entrypoint(ctx, inputs)
_PARSE_TRIES: Final = 5
_PARSING: Final = threading.Lock()


def check_code_hook(value: object, path: str) -> list[Problem]:
    """All that is wrong with ``{language, entrypoint, source}``, as ``node-code-hook`` problems."""
    if not isinstance(value, Mapping):
        return [
            _problem(path, f"found {shown(value)}; a mapping of language, entrypoint and source is needed")
        ]
    problems = [
        _problem(path, f"unknown field {shown(key)}; known are {', '.join(_FIELDS)}")
        for key in value
        if key not in _FIELDS
    ]
    language = value.get("language", "python")
    if language != "python":
        problems.append(_problem(f"{path}.language", f"found {shown(language)}; 'python' is allowed"))
    entrypoint, source = value.get("entrypoint"), value.get("source")
    if (
        not isinstance(entrypoint, str)
        or not entrypoint.isascii()
        or not entrypoint.isidentifier()
        or len(entrypoint) > MAX_ENTRYPOINT_CHARS
    ):
        problems.append(
            _problem(f"{path}.entrypoint", f"found {shown(entrypoint)}; the name of a function is needed")
        )
        entrypoint = None
    problems += _check_source(source, entrypoint, path) if language == "python" else []
    return problems


def _check_source(source: object, entrypoint: str | None, path: str) -> list[Problem]:
    where = f"{path}.source"
    if not isinstance(source, str) or not source.strip():
        return [_problem(where, f"found {shown(source)}; Python source is needed")]
    if len(source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
        return [_problem(where, f"more than {MAX_SOURCE_BYTES >> 10} KiB; install larger code as a package")]
    try:
        tree = _parse(source)
    except SyntaxError as error:
        line = f" at line {error.lineno}" if error.lineno else ""
        return [_problem(where, f"does not compile: {error.msg}{line}")]
    except (ValueError, RecursionError, MemoryError) as error:
        return [_problem(where, f"does not compile: {error or type(error).__name__}")]
    return _check_entrypoint(tree, entrypoint, path) if entrypoint else []


def given_to(source: str, entrypoint: str) -> str:
    """What a hook is called with, as the name of its first parameter says.

    Returns:
        ``episode`` (a demonstration), ``streams`` (a recording of messages), or ``inputs``: all at once.
    """
    try:
        bound = [node for name, node in _bound(_parse(source).body) if name == entrypoint]
    except SyntaxError:
        return "inputs"  # running it says so
    if not bound or not isinstance(bound[-1], ast.FunctionDef):
        return "inputs"
    arguments = [*bound[-1].args.posonlyargs, *bound[-1].args.args]
    first = arguments[0].arg if arguments else ""
    return first if first in ("episode", "streams") else "inputs"


def _parse(source: str) -> ast.Module:
    """The tree of ``source``, known to compile.

    Python 3.11 counts the depth of every tree in one place for all threads (gh-106905): two that parse at
    once may both get a ``SystemError`` about sound code. The lock keeps our own threads apart; somebody
    else's are outwaited.
    """
    for _ in range(_PARSE_TRIES - 1):
        with suppress(SystemError):
            return _parse_alone(source)
    return _parse_alone(source)


def _parse_alone(source: str) -> ast.Module:
    with _PARSING, warnings.catch_warnings():  # the filters are shared by all threads too
        warnings.simplefilter("ignore")  # the hook's own business
        tree = ast.parse(source, "<codeHook>")
        compile(tree, "<codeHook>", "exec", dont_inherit=True)
    return tree


def _check_entrypoint(tree: ast.Module, entrypoint: str, path: str) -> list[Problem]:
    bound = list(_bound(tree.body))
    found = [node for name, node in bound if name == entrypoint]
    if not found:
        functions = [name for name, node in bound if isinstance(node, ast.FunctionDef)]
        near = nearest(entrypoint, functions) or (functions[0] if functions else None)
        hint = f"; the source defines {near!r}" if near else ""
        return [
            _problem(f"{path}.entrypoint", f"no function {entrypoint!r} at the top level of the source{hint}")
        ]
    function = found[-1]
    if isinstance(function, ast.AsyncFunctionDef):
        return [_problem(f"{path}.entrypoint", f"{entrypoint!r} is async; a plain function is needed")]
    if isinstance(function, ast.FunctionDef) and not _takes_two(function.args):
        return [
            _problem(
                f"{path}.entrypoint", f"{entrypoint!r} cannot be called with two arguments (ctx, inputs)"
            )
        ]
    return []


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names bound at the top level, in order, also under ``if``, ``try`` and ``with``."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _bound(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _bound(handler.body)


def _takes_two(args: ast.arguments) -> bool:
    positional = [*args.posonlyargs, *args.args]
    needed = len(positional) - len(args.defaults)
    keywords = any(default is None for default in args.kw_defaults)
    return (
        needed <= _ARGUMENTS and not keywords and (len(positional) >= _ARGUMENTS or args.vararg is not None)
    )


def _problem(path: str, message: str) -> Problem:
    return Problem(ErrorKind.NODE_CODE_HOOK, path, message)


def hook_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a hook that was found good, the language filled in."""
    return {"language": "python", "entrypoint": value["entrypoint"], "source": value["source"]}
