"""Runs a function in a child process that has limits, no secrets, and cannot outlive its task.

Parsers of foreign recordings and users' code run this way: a native crash, an endless loop or an
allocation of all memory costs the child, and comes back as one error that names the cause.

What the child returns is JSON. Errors of our tree come back by class name and code; nothing that a child
sends is ever unpickled or evaluated.

Source: spec/reliability.md, "native parsers"; decision 6 of the requirements (code hooks).
"""

import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, Self, runtime_checkable

from emboflow_dagster.errors import EmboflowError, ErrorKind, ExecutionError, LimitError, Problem
from emboflow_dagster.runtime.child_main import FAILURE, HEADER, LOG, RESULT
from emboflow_dagster.runtime.lines import LineSplitter
from emboflow_dagster.runtime.node import ChildCall
from emboflow_dagster.runtime.scratch import scratch_folder

PARSER_MEMORY_MB: Final = 2_048
HOOK_MEMORY_MB: Final = 1_024
MAX_RESULT_BYTES: Final = 64 << 20
MAX_FILES: Final = 1_024
_READ_BYTES = 1 << 16
_CLEANUP_SECONDS = 8.0
_BOOT = (
    "import sys;a=sys.argv;sys.path[:]=a[3:];"
    "from emboflow_dagster.runtime.child_main import main;main(int(a[1]),int(a[2]))"
)
#: What a child's libraries are told. Thread pools reserve address space for every core: RLIMIT_AS counts it.
FRUGAL: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    # Large pages where the system has them: Parquet's dictionaries are tables that a processor misses in. And
    # large arrays by themselves: else they leave holes between what stays, some MiB more with each episode.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}"
        for name in ("hugetlb=1", f"mmap_threshold={4 << 20}", f"trim_threshold={64 << 20}")
    ),
}
_MEMORY_WORDS = (b"bad_alloc", b"Cannot allocate memory", b"out of memory", b"MemoryError")

Line = Callable[[str], None]


@runtime_checkable
class Feed(Protocol):
    """Takes a stream's bytes as they come, instead of lines that were cut out of it."""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        ...

    def close(self) -> None:
        """The stream ended."""
        ...


def run_child(
    target: str,
    *args: Any,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
    cpu_s: int | None = None,
    network: bool = True,
    cwd: Path | None = None,
    on_stdout: Line | None = None,
    on_stderr: Line | None = None,
    on_log: Line | None = None,
    env: Mapping[str, str] | None = None,
) -> Any:
    """Call ``module:function(*args)`` in a fresh Python process and return its JSON result.

    The child sees `PATH`, a UTF-8 locale, `HOME` and `TMPDIR` (both ``cwd``), and ``env``: no other
    variable of this process. Everything it started is killed when it ends, when the time is over, when
    this call is interrupted, and when this process dies.

    Args:
        target: The function, importable here; it takes and returns JSON values.
        args: Its arguments, JSON values.
        timeout_s: Wall-clock seconds, start-up included. ``None``: an hour.
        memory_mb: Address space in MiB (``RLIMIT_AS``). ``None``: 2048.
        cpu_s: Processor seconds of the worker process. ``None``: no limit besides the time.
        network: Whether it may reach the network; without, it has no sockets but those of local files.
        cwd: Working directory; a temporary one, removed afterwards, when ``None``.
        on_stdout: Takes each line of standard output, without its end; see :class:`LineSplitter`. A
            :class:`Feed` takes the bytes.
        on_stderr: The same for standard error.
        on_log: Takes each text the function handed to :func:`child_main.log`.
        env: More variables.

    Raises:
        LimitError: Too much memory, time or result (``limit-memory``, ``limit-time``, ``limit-size``).
        ExecutionError: The function raised, or the process crashed (``child-crashed`` names the signal).
        EmboflowError: Whatever class of our tree the function raised.
    """
    if cwd is None:
        with scratch_folder(Path(tempfile.gettempdir()), "emboflow-child-") as folder:
            return run_child(
                target,
                *args,
                timeout_s=timeout_s,
                memory_mb=memory_mb,
                cpu_s=cpu_s,
                network=network,
                cwd=folder,
                on_stdout=on_stdout,
                on_stderr=on_stderr,
                on_log=on_log,
                env=env,
            )
    seconds = 3_600.0 if timeout_s is None else timeout_s
    megabytes = PARSER_MEMORY_MB if memory_mb is None else memory_mb
    request = {
        "target": target,
        "args": args,
        "limits": {
            "memoryBytes": megabytes << 20,
            "cpuSeconds": cpu_s,
            "files": MAX_FILES,
            "network": network,
            "resultBytes": MAX_RESULT_BYTES,
        },
    }
    watch = _Watch(on_stdout or _ignore, on_stderr or _ignore, on_log or _ignore)
    with _Process(_environment(cwd, env), cwd) as process:
        in_time = process.converse(json.dumps(request).encode(), watch, time.monotonic() + seconds)
    watch.close()
    if not in_time:
        raise LimitError(f"stopped after {seconds:g} s of wall-clock time", kind=ErrorKind.LIMIT_TIME)
    return watch.result(process.status, megabytes=megabytes, cpu_s=cpu_s)


def child_call(cwd: Path, *, on_stdout: Line, on_stderr: Line, on_log: Line) -> ChildCall:
    """A node's ``context.child``: children that work in its folder and say what they say to its task."""

    def call(target: str, *args: Any, timeout_s: float | None = None, memory_mb: int | None = None) -> Any:
        return run_child(
            target,
            *args,
            timeout_s=timeout_s,
            memory_mb=memory_mb,
            cwd=cwd,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            on_log=on_log,
        )

    return call


def _ignore(_line: str) -> None:
    """Takes a line nobody asked for."""


def _environment(cwd: Path, extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    return {**kept, "HOME": str(cwd), "TMPDIR": str(cwd), **FRUGAL, **(extra or {})}


class _Process:
    """The started warden with its four channels: control socket, result pipe, stdout, stderr."""

    def __init__(self, env: Mapping[str, str], cwd: Path) -> None:
        ours, theirs = socket.socketpair()
        self.results, result_end = os.pipe()
        self.control = ours
        self.status: dict[str, Any] | None = None
        # What is importable here is importable there; the package itself however it was found.
        package_root = str(Path(__file__).resolve().parents[2])
        paths = dict.fromkeys([*(str(Path(entry).resolve()) for entry in sys.path if entry), package_root])
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), str(result_end), *paths]
        try:
            self.popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=dict(env),
                pass_fds=(theirs.fileno(), result_end),
                start_new_session=True,
            )
        except BaseException:
            os.close(self.results)
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(result_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing the socket tells the warden to kill; waiting for it makes sure that it did.
        self.control.close()
        try:
            self.popen.wait(_CLEANUP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        finally:
            os.close(self.results)
            for stream in (self.popen.stdout, self.popen.stderr):
                if stream is not None:
                    stream.close()

    def converse(self, request: bytes, watch: "_Watch", deadline: float) -> bool:
        """Send the request and take all that comes until every channel is closed; False when out of time."""
        stdout, stderr = self.popen.stdout, self.popen.stderr
        assert stdout is not None  # noqa: S101 - both are pipes, by the call above
        assert stderr is not None  # noqa: S101
        takers: dict[int, Callable[[bytes], None]] = {
            stdout.fileno(): watch.stdout.feed,
            stderr.fileno(): watch.on_stderr_bytes,
            self.results: watch.on_result_bytes,
        }
        with suppress(BrokenPipeError, ConnectionResetError):
            self.control.sendall(struct.pack(">Q", len(request)) + request)
        in_time, said = True, b""
        with selectors.DefaultSelector() as selector:
            for fd in (*takers, self.control.fileno()):
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    if not in_time:
                        break
                    in_time, deadline = False, time.monotonic() + _CLEANUP_SECONDS
                    with suppress(OSError):
                        self.control.shutdown(socket.SHUT_WR)
                    continue
                for key, _ in selector.select(left):
                    data = os.read(key.fd, _READ_BYTES)
                    if not data:
                        selector.unregister(key.fd)
                    elif key.fd in takers:
                        takers[key.fd](data)
                    else:
                        said += data
        self.status = json.loads(said) if said else None
        # A result that is complete counts, even when something kept a pipe open to the end.
        return in_time


class _Watch:
    """Collects what a child says; memory stays constant but for the result."""

    def __init__(self, on_stdout: Line, on_stderr: Line, on_log: Line) -> None:
        self.stdout = on_stdout if isinstance(on_stdout, Feed) else LineSplitter(on_stdout)
        self.stderr = on_stderr if isinstance(on_stderr, Feed) else LineSplitter(on_stderr)
        self.on_log = on_log
        self._tail = b""
        self._buffer = bytearray()
        self._answer: tuple[bytes, bytes] | None = None

    def on_stderr_bytes(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-2_000:]
        self.stderr.feed(data)

    def on_result_bytes(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, size = HEADER.unpack_from(self._buffer)
            if size > MAX_RESULT_BYTES + 4096:
                raise LimitError(
                    f"the child announced {size} bytes; at most {MAX_RESULT_BYTES} are allowed",
                    kind=ErrorKind.LIMIT_SIZE,
                )
            if len(self._buffer) < HEADER.size + size:
                return
            payload = bytes(self._buffer[HEADER.size : HEADER.size + size])
            del self._buffer[: HEADER.size + size]
            if kind == LOG:
                self.on_log(payload.decode("utf-8", "replace"))
            else:
                self._answer = (kind, payload)

    def close(self) -> None:
        self.stdout.close()
        self.stderr.close()

    def result(self, status: Mapping[str, Any] | None, *, megabytes: int, cpu_s: int | None) -> Any:
        """The function's result, or the error that the answer and the end of the process amount to."""
        if self._answer is not None:
            kind, payload = self._answer
            try:
                said = json.loads(payload)
            except ValueError:
                raise ExecutionError(
                    "the child process sent a result that is not JSON", kind=ErrorKind.CHILD_CRASHED
                ) from None
            if kind == RESULT:
                return said
            if kind == FAILURE and isinstance(said, dict):
                raise _rebuilt(said, megabytes)
        wait_status = None if status is None else status.get("ended")
        if wait_status is None:
            raise ExecutionError("the child process was killed from outside", kind=ErrorKind.CHILD_CRASHED)
        if not os.WIFSIGNALED(wait_status):
            code = os.waitstatus_to_exitcode(wait_status)
            raise ExecutionError(
                f"the child process ended with exit code {code} and no result", kind=ErrorKind.CHILD_CRASHED
            )
        number = os.WTERMSIG(wait_status)
        used = 0.0 if status is None else float(status.get("cpuSeconds", 0.0))
        raise self._killed(number, used, megabytes, cpu_s)

    def _killed(self, number: int, used: float, megabytes: int, cpu_s: int | None) -> ExecutionError:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        cpu_over = number == signal.SIGXCPU or (
            number == signal.SIGKILL and cpu_s is not None and used >= cpu_s
        )
        if cpu_over:
            return LimitError(f"stopped after {cpu_s} s of processor time", kind=ErrorKind.LIMIT_TIME)
        if number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS) and any(
            word in self._tail for word in _MEMORY_WORDS
        ):
            return LimitError(
                f"needed more than {megabytes} MiB of memory ({name})", kind=ErrorKind.LIMIT_MEMORY
            )
        hint = (
            "the system kills with SIGKILL when it runs out of memory" if number == signal.SIGKILL else None
        )
        what = signal.strsignal(number) or "signal"
        return ExecutionError(
            f"the child process crashed: {name} ({what})", kind=ErrorKind.CHILD_CRASHED, hint=hint
        )


def _rebuilt(said: Mapping[str, Any], megabytes: int) -> EmboflowError:
    """An error of our tree from what the child said about it; unknown names become ExecutionError."""
    found = getattr(sys.modules[EmboflowError.__module__], str(said.get("type")), None)
    kind = found if isinstance(found, type) and issubclass(found, EmboflowError) else ExecutionError
    code, message = str(said.get("code")), str(said.get("message"))
    if code == ErrorKind.LIMIT_MEMORY:
        message = f"needed more than {megabytes} MiB of memory: {message}"
    hint = said.get("hint")
    return kind(
        message,
        hint=None if hint is None else str(hint),
        kind=ErrorKind(code) if code in set(ErrorKind) else None,
        problems=[
            Problem(ErrorKind(p["code"]), str(p["path"]), str(p["message"]))
            for p in said.get("problems", ())
            if isinstance(p, dict) and {"code", "path", "message"} <= set(p) and p["code"] in set(ErrorKind)
        ],
    )
