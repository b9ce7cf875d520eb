"""The child's side of :func:`emboflow_dagster.runtime.child.run_child`: a warden and the worker it watches.

The process that the parent starts becomes the *warden*. It forks the *worker*, which limits itself, then
imports and calls the target. The warden does nothing but wait: for the worker's end, or for the control
socket to close, which also happens when the parent is killed. Then it kills everything that the worker
started, in its process group or out of it (the warden is their subreaper), and reports how the worker ended.

Standard library only, and little of it: this runs before every probe, hook and conversion.
"""

import errno
import io
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

HEADER = struct.Struct(">cQ")  # frame kind, payload bytes
LOG, RESULT, FAILURE = b"L", b"R", b"E"
MAX_LOG_CHARS = 64 << 10
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# What the hard limit keeps for reporting that the soft one was reached.
_RESERVE_BYTES = 96 << 20
_CLEANUP_SECONDS = 5.0

_results: int | None = None


def log(text: str) -> None:
    """Hand one text to the parent's ``on_log``; outside of a child it goes to stderr."""
    if _results is None:
        sys.stderr.write(text + "\n")
    else:
        if len(text) > MAX_LOG_CHARS:
            text = f"{text[:MAX_LOG_CHARS]}… [cut: the text has {len(text)} characters]"
        _send(LOG, text.encode("utf-8", "backslashreplace"))


def _send(kind: bytes, payload: bytes) -> None:
    if _results is None:
        return
    view = memoryview(HEADER.pack(kind, len(payload)) + payload)
    while view:
        view = view[os.write(_results, view) :]


def main(control_fd: int, result_fd: int) -> None:
    """Warden: fork the worker, wait, clean up, report. Never returns."""
    control = socket.socket(fileno=control_fd)
    request = _read_request(control)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    warden = os.getpid()
    worker = os.fork()
    if worker == 0:
        control.close()
        _work(request, warden, result_fd)
    # Only the worker and its children hold the pipes now: they close when the last of them is gone.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):
        os.dup2(null, fd)
    os.close(result_fd)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    by_itself = _wait(worker, control)
    ended, orphans = _kill_all(worker)
    status = {"ended": ended if by_itself else None, "orphans": orphans, "cpuSeconds": _cpu_seconds()}
    with suppress(OSError):  # nobody may be left to be told
        control.sendall(json.dumps(status).encode() + b"\n")
    os._exit(0)


def _read_request(control: socket.socket) -> dict[str, Any]:
    with control.makefile("rb") as stream:
        (size,) = struct.unpack(">Q", stream.read(8))
        return json.loads(stream.read(size))


def _wait(worker: int, control: socket.socket) -> bool:
    """Wait for the worker's end; False when the control socket closed first."""
    poll = select.poll()
    poll.register(control, select.POLLIN | select.POLLHUP)
    try:
        poll.register(os.pidfd_open(worker), select.POLLIN)
        pause = None
    except OSError:  # an old kernel, or a container that filters the call
        pause = 50
    while True:
        ready = {fd for fd, _ in poll.poll(pause)}
        # The worker stays a zombie until its group is killed: nobody else can get its id before.
        if os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return True
        if control.fileno() in ready:
            return False


def _kill_all(worker: int) -> tuple[int, int]:
    """Kill the worker's group and every orphan that left it: the worker's wait status, orphans found."""
    deadline = time.monotonic() + _CLEANUP_SECONDS
    for kill in (os.killpg, os.kill):  # it may not have made its group yet
        try:
            kill(worker, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    _, status = os.waitpid(worker, 0)
    orphans: set[int] = set()
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            orphans.add(pid)
            continue
        for child in _children():
            try:
                os.kill(child, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.002)
    return status, len(orphans)


def _children() -> list[int]:
    me, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == me:
            found.append(int(entry.name))
    return found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(used.ru_utime + used.ru_stime, 3)


def _work(request: dict[str, Any], warden: int, result_fd: int) -> None:
    """Worker: limits first, then the target; ends the process."""
    global _results  # noqa: PLW0603 - one channel per process
    os.setpgid(0, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != warden:
        os._exit(1)
    _results = result_fd
    _limit(request["limits"])
    # Each line leaves at once: a crash takes none of them along.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    kind, payload = _cut_off(request["limits"]) or _outcome(request)
    with suppress(OSError, ValueError):  # the target may have closed them
        sys.stdout.flush()
        sys.stderr.flush()
    _send(kind, payload)
    # No interpreter teardown: threads and exit handlers of the target end with it.
    os._exit(0)


def _limit(limits: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, limits["files"], 0)
    _lower(resource.RLIMIT_CPU, limits["cpuSeconds"], 5)
    _lower(resource.RLIMIT_AS, limits["memoryBytes"], _RESERVE_BYTES)


def _cut_off(limits: dict[str, Any]) -> tuple[bytes, bytes] | None:
    """Take the network away where that was asked for; what to tell the parent where it cannot be."""
    if limits.get("network", True):
        return None
    from emboflow_dagster.runtime.no_network import cut_off

    try:
        cut_off()
    except OSError as error:
        return FAILURE, json.dumps(_said("ExecutionError", "node-failed", str(error))).encode()
    return None


def _lower(which: int, soft: int | None, reserve: int) -> None:
    if soft is None:
        return
    _, ceiling = resource.getrlimit(which)
    hard = soft + reserve if ceiling == resource.RLIM_INFINITY else min(soft + reserve, ceiling)
    resource.setrlimit(which, (min(soft, hard), hard))


def _outcome(request: dict[str, Any]) -> tuple[bytes, bytes]:
    try:
        result = _call(request["target"], request["args"])
        payload = json.dumps(result).encode()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        return FAILURE, json.dumps(_failure(error)).encode()
    limit = request["limits"]["resultBytes"]
    if len(payload) > limit:
        text = f"the result is {len(payload)} bytes of JSON; at most {limit} are allowed"
        return FAILURE, json.dumps(_said("LimitError", "limit-size", text)).encode()
    return RESULT, payload


def _call(target: str, args: list[Any]) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)(*args)


def _failure(error: BaseException) -> dict[str, Any]:
    """What the parent rebuilds: class name, code and message, never an object."""
    from emboflow_dagster.errors import EmboflowError

    if isinstance(error, EmboflowError):
        return {"type": type(error).__name__, **error.as_dict()}
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    out_of_memory = (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(word in text for word in ("Cannot allocate memory", "bad_alloc", "can't start new thread"))
    )
    if out_of_memory:
        return _said("LimitError", "limit-memory", text)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left on device" in text:  # what libraries raise has no number
        return _said("ExecutionError", "disk-full", text) | {"hint": "make room, then run it again"}
    import traceback

    # From the target on: how it was called is no news to its author.
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename == __file__:
        own = own.tb_next
    traceback.print_exception(type(error), error, own)
    return _said("ExecutionError", "node-failed", text)


def _said(kind: str, code: str, message: str) -> dict[str, Any]:
    return {"type": kind, "code": code, "message": message, "hint": None, "problems": []}


def _prctl(option: int, value: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, int(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
