"""What a container may leave: named files and folders of named kinds, all of them, and nothing else.

Checked before anything is stored. Every error names the field of the contract that was broken.

Source: requirements R-385; AT-040.
"""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, ExecutionError, InvalidInputError, shown
from emboflow_dagster.runtime.node import ChildCall

JSON: Final = "json"
TEXT: Final = "text"
FILE: Final = "file"
FOLDER: Final = "folder"
KINDS: Final = (JSON, TEXT, FILE, FOLDER)
CONTENT_TYPES: Final = {
    JSON: "application/json",
    TEXT: "text/plain; charset=utf-8",
    FILE: "application/octet-stream",
}
MAX_FILES: Final = 100_000
MAX_TEXT_BYTES: Final = 64 << 20
#: More of a JSON output is not shown.
MAX_SHOWN_BYTES: Final = 32 << 10


@dataclass(frozen=True, slots=True)
class Expected:
    """One output that a contract names.

    Attributes:
        field: Where the contract says so, for errors: ``contract.output``.
        path: Below the output folder, ``/`` between the parts.
        kind: One of :data:`KINDS`.
        artifact_type: What the artifact is.
        required: Whether it may be missing.
        properties: Of a JSON output: names that must be there, each with the JSON type it must have.
    """

    field: str
    path: str
    kind: str
    artifact_type: str
    required: bool = True
    properties: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An output that is as its contract says."""

    expected: Expected
    path: Path
    files: int
    size: int
    preview: Any
    """The value of a small JSON output, else ``None``."""


def kind_of(path: str) -> str:
    """The kind that a path says by itself: ``report.json`` is JSON, ``frames/`` a folder."""
    suffix = PurePosixPath(path).suffix.lower()
    if path.endswith("/"):
        return FOLDER
    return {".json": JSON, ".txt": TEXT, ".md": TEXT}.get(suffix, FILE)


def check_outputs(folder: Path, at: str, expected: Sequence[Expected], child: ChildCall) -> list[Found]:
    """What a container left in ``folder``, if it is what the contract says.

    Args:
        folder: Where it wrote.
        at: What the container called that folder.
        expected: The contract.
        child: Reads texts: they come from a stranger.

    Raises:
        ExecutionError: An output is missing, of another kind, or not in the contract (kind ``contract``).
    """
    here = _entries(folder, at)
    found: list[Found] = []
    named: set[str] = set()
    for one in expected:
        place = f"{at}/{one.path}"
        inner = {name: size for name, size in here.items() if name == one.path or one.path in _parents(name)}
        named |= {*inner, *_parents(one.path)}
        if not inner:
            if one.required:
                raise _broken(one.field, f"{place} is missing")
            continue
        path = folder / one.path
        if path.is_dir() != (one.kind == FOLDER):
            was = "a folder" if path.is_dir() else "a file"
            raise _broken(one.field, f"{place} is {was}; the contract says {one.kind}")
        found.append(_examined(one, path, place, inner, child))
    for name in here:
        if name not in named:
            allowed = ", ".join(f"{at}/{one.path}" for one in expected) or "nothing"
            raise _broken("contract", f"{at}/{name} is not in it; allowed is {allowed}")
    return found


def _examined(
    one: Expected, path: Path, place: str, inner: Mapping[str, int | None], child: ChildCall
) -> Found:
    preview: Any = None
    if one.kind in (JSON, TEXT):
        said = child(f"{__name__}:examine", str(path), one.kind, dict(one.properties or {}), memory_mb=1_024)
        if said.get("problem"):
            raise _broken(one.field, f"{place} {said['problem']}")
        preview = said.get("preview")
    sizes = [size for size in inner.values() if size is not None]
    return Found(one, path, len(sizes), sum(sizes), preview)


def _entries(folder: Path, at: str) -> dict[str, int | None]:
    """Everything below a folder with its size, ``None`` for folders; links are refused."""
    found: dict[str, int | None] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            shown_path = path.relative_to(folder).as_posix()
            mode = path.lstat()
            if not (stat.S_ISREG(mode.st_mode) or stat.S_ISDIR(mode.st_mode)):
                raise _broken("contract", f"{at}/{shown_path} is a link or special file")
            found[shown_path] = mode.st_size if stat.S_ISREG(mode.st_mode) else None
            if len(found) > MAX_FILES:
                raise _broken("contract", f"more than {MAX_FILES} files were written")
    return found


def _parents(name: str) -> set[str]:
    return {parent.as_posix() for parent in PurePosixPath(name).parents if parent.as_posix() != "."}


def _broken(field: str, what: str) -> ExecutionError:
    return ExecutionError(f"{field}: {what}", kind=ErrorKind.CONTRACT)


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def check_properties(given: object, path: str) -> dict[str, str]:
    """The ``properties`` of a contract: names with one of the JSON types.

    Raises:
        InvalidInputError: Something else.
    """
    if not isinstance(given, Mapping) or not all(
        isinstance(name, str) and kind in _TYPES for name, kind in given.items()
    ):
        raise InvalidInputError(
            f"{path}: found {shown(given)}; allowed are names, each with one of {', '.join(_TYPES)}",
            kind=ErrorKind.CONTRACT,
        )
    return dict(given)


def examine(path: str, kind: str, properties: dict[str, str]) -> dict[str, Any]:
    """In a child process: ``{"problem": text}`` or ``{"preview": value}`` of one text or JSON file."""
    data = Path(path).read_bytes() if Path(path).stat().st_size <= MAX_TEXT_BYTES else None
    if data is None:
        return {"problem": f"is larger than {MAX_TEXT_BYTES >> 20} MiB"}
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return {"problem": f"is not UTF-8 text: byte {error.start}"}
    if kind == TEXT:
        return {}
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return {"problem": f"is not JSON: {str(error)[:200] or 'nested too deeply'}"}
    if properties:
        if not isinstance(value, dict):
            return {"problem": f"holds {_type_of(value)}; the contract says object"}
        for name, wanted in properties.items():
            if name not in value:
                return {"problem": f"has no {shown(name)}; the contract says {wanted}"}
            if _type_of(value[name]) != wanted and not (
                wanted == "number" and _type_of(value[name]) == "integer"
            ):
                return {
                    "problem": f"has {shown(name)} as {_type_of(value[name])}; the contract says {wanted}"
                }
    return {"preview": value} if len(data) <= MAX_SHOWN_BYTES else {}


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, float):
        return "number"
    return next((n for n, types in _TYPES.items() if n != "number" and isinstance(value, types)), "null")


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")
