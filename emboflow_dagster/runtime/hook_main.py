"""The child's side of the ``python`` node: what users' code sees, and what becomes of its result.

Imported in the child only, by :func:`run_hook`'s name. The source is compiled under the name ``hook``, so
that tracebacks show its lines and nothing of ours.
"""

import json
import linecache
import sys
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import EmboflowError, ErrorKind, ExecutionError, shown
from emboflow_dagster.formats.frame_files import is_frame, read_frame, write_frame
from emboflow_dagster.runtime import child_main

FILE_NAME = "hook"
RESULT_FOLDER = ".emboflow-result"
ALLOWED = "JSON values, a pandas DataFrame, bytes, or a Path inside ctx.workdir"


@dataclass(frozen=True, slots=True)
class HookAsset:
    """One effective asset: ``path`` is its file or folder, ``report`` its newest probe report or ``None``."""

    id: str
    name: str
    type: str
    format: str
    path: Path
    report: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class HookArtifact:
    """One artifact of an upstream node, fetched and verified: ``path`` is a file or folder."""

    id: str
    type: str
    path: Path
    content_type: str
    summary: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class HookInput:
    """What an upstream node left: its preview, its effective assets, its artifacts."""

    node_id: str
    type: str
    preview: dict[str, Any] | None
    asset_ids: tuple[str, ...]
    artifacts: tuple[HookArtifact, ...]

    def __getitem__(self, which: str | int) -> HookArtifact:
        """An artifact by its type or its position."""
        for number, artifact in enumerate(self.artifacts):
            if which in (number, artifact.type):
                return artifact
        have = ", ".join(a.type for a in self.artifacts) or "none"
        raise KeyError(f"node {self.node_id!r} has no artifact {which!r}; it has: {have}")

    def path(self, which: str | int = 0) -> Path:
        """Where an artifact is: a file or a folder."""
        return self[which].path

    def json(self, which: str | int = 0) -> Any:
        """An artifact's JSON."""
        return json.loads(self.path(which).read_bytes())

    def dataframe(self, which: str | int = 0) -> Any:
        """An artifact's table (parquet, CSV or JSON) as a pandas DataFrame."""
        return read_frame(self.path(which))


class HookInputs(dict[str, HookInput]):
    """Upstream node id to what it left, in the order of ``after``."""

    def __missing__(self, node_id: str) -> HookInput:
        raise KeyError(f"no upstream node {node_id!r}; upstream are: {', '.join(self) or 'none'}")


@dataclass(frozen=True, slots=True)
class HookContext:
    """The first argument of a hook."""

    node_id: str
    workflow: str
    assets: tuple[HookAsset, ...]
    config: dict[str, Any]
    workdir: Path
    """Empty when the hook starts; files for the result go here. It is also `HOME` and `TMPDIR`."""
    log: Callable[[str], None] = field(default=lambda text: child_main.log(str(text)))


def run_hook(request: dict[str, Any]) -> dict[str, Any]:
    """Compile the source, call its entry point, keep its result.

    Returns:
        ``kind`` (``json``, ``dataframe``, ``bytes`` or ``path``), ``path`` of what is to be stored, and
        ``preview`` for JSON and tables.

    Raises:
        ExecutionError: The code raised; the message ends with the line of the hook.
    """
    context, inputs = _arguments(request)
    try:
        function = load(request["source"], request["entrypoint"])
        value = function(context, inputs)
        return _keep(value, context.workdir)
    except (EmboflowError, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too: the hook failed
        raise told(error) from None


def _arguments(request: dict[str, Any]) -> tuple[HookContext, HookInputs]:
    context = HookContext(
        node_id=request["nodeId"],
        workflow=request["workflow"],
        assets=tuple(HookAsset(**{**a, "path": Path(a["path"])}) for a in request["assets"]),
        config=request["config"],
        workdir=Path(request["workdir"]),
    )
    inputs = HookInputs()
    for given in request["inputs"]:
        artifacts = tuple(HookArtifact(**{**a, "path": Path(a["path"])}) for a in given["artifacts"])
        inputs[given["node_id"]] = HookInput(
            given["node_id"], given["type"], given["preview"], tuple(given["asset_ids"]), artifacts
        )
    return context, inputs


def load(source: str, entrypoint: str) -> Callable[..., Any]:
    """The hook's function; running its source may raise whatever it likes.

    Raises:
        ExecutionError: The source has no such function.
    """
    linecache.cache[FILE_NAME] = (len(source), None, source.splitlines(keepends=True), FILE_NAME)
    module = types.ModuleType(FILE_NAME)
    # Dataclasses and pickling look their module up by name.
    sys.modules[FILE_NAME] = module
    exec(compile(source, FILE_NAME, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what hooks are
    function = getattr(module, entrypoint, None)
    if not callable(function):
        have = ", ".join(n for n, v in vars(module).items() if isinstance(v, types.FunctionType)) or "none"
        raise ExecutionError(
            f"the hook has no function {entrypoint!r}; it has: {have}", kind=ErrorKind.NODE_CODE_HOOK
        )
    return function


def told(error: BaseException, where: str = "") -> ExecutionError:
    """One line for the task, the traceback for stderr."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((i for i, frame in enumerate(frames) if frame.filename == FILE_NAME), None)
    mine = [frame for frame in frames if frame.filename == FILE_NAME]
    lines = (
        []
        if first is None
        else ["Traceback (most recent call last):\n", *traceback.format_list(frames[first:])]
    )
    sys.stderr.write("".join([*lines, *traceback.format_exception_only(error)]))
    line = mine[-1].lineno if mine else getattr(error, "lineno", None)
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return ExecutionError(f"{where}{text} (line {line} of the hook)" if line else f"{where}{text}")


def _keep(value: Any, workdir: Path) -> dict[str, Any]:
    folder = workdir / RESULT_FOLDER
    if isinstance(value, Path):
        return {"kind": "path", "path": str(value if value.is_absolute() else workdir / value)}
    folder.mkdir(exist_ok=True)
    if isinstance(value, (bytes, bytearray, memoryview)):
        path = folder / "result.bin"
        path.write_bytes(value)
        return {"kind": "bytes", "path": str(path)}
    if is_frame(value):
        path = folder / "result.parquet"
        return {"kind": "dataframe", "path": str(path), "preview": write_frame(value, path)}
    path = folder / "result.json"
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise ExecutionError(
            f"the hook returned {shown(value)}, which cannot be kept: {error}", hint=f"hooks return {ALLOWED}"
        ) from None
    path.write_text(text, encoding="utf-8")
    return {"kind": "json", "path": str(path)}


def _plain(value: Any) -> Any:
    """JSON of what numerical code returns: arrays and scalars of numpy, tuples are lists already."""
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
