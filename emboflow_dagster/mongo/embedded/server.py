"""Start, find and stop the server of one home."""

import errno
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import ConfigurationError, EmboflowError, ErrorKind, UnavailableError
from emboflow_dagster.mongo import away
from emboflow_dagster.mongo.embedded.binary import check_mongod, locate_mongod
from emboflow_dagster.mongo.embedded.launch import (
    START_TIMEOUT_S,
    launch,
    make_primary,
    refuse_other_versions,
    start_failed,
)
from emboflow_dagster.mongo.embedded.locks import exclusively, register_user, unregister_user, unused
from emboflow_dagster.mongo.embedded.log import MAX_LOG_BYTES, bound_log, log_size
from emboflow_dagster.mongo.embedded.place import Instance, Place, State
from emboflow_dagster.mongo.embedded.processes import Handle, Process, mongod_port, mongods_on, process
from emboflow_dagster.mongo.embedded.wire import run_command

LOCK_TIMEOUT_S: Final = 2 * START_TIMEOUT_S
KILL_S: Final = 5.0


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server, verified to be the one of its home."""

    uri: str  #: `mongodb://127.0.0.1:<port>/?replicaSet=emboflow-<id of the home>`
    port: int
    pid: int
    data_dir: Path
    log_path: Path
    started: bool  #: this call started it


def ensure(home: Path, *, extra_arguments: Sequence[str] = ()) -> EmbeddedServer:
    """The running server of ``home``; started, or started again on the same data, if there is none.

    This process counts as one of its users from now on: `stop(..., only_if_unused=True)` leaves it alone.

    Args:
        home: `EMBOFLOW_HOME`; created if it does not exist.
        extra_arguments: More arguments for `mongod` in case it is started now, for fault tests.

    Raises:
        ConfigurationError: It cannot run here; ``kind`` says whether the binary, a library, the data folder
            or the start is at fault.
        UnavailableError: Another process has been starting or stopping it for too long.
    """
    place = Place(home)
    place.make()
    register_user(place.users_lock)
    running = _look(place, started=False)
    if running is None or log_size(place.log) > MAX_LOG_BYTES:
        with exclusively(place.start_lock, timeout_s=LOCK_TIMEOUT_S), _naming_full_disks(place):
            running = _look(place, started=False) or _start(place, extra_arguments)
            bound_log(place.log, process(running.pid))
    away.remember(running.port, place.log)
    return running


@contextmanager
def _naming_full_disks(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, EmboflowError):
            raise
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise ConfigurationError(
            f"the embedded database under {place.root} cannot be started: {error}",
            kind=ErrorKind.DISK_FULL if full else ErrorKind.DATA_FOLDER,
        ) from error


def find(home: Path) -> EmbeddedServer | None:
    """The running server of ``home`` if it answers as the primary of that home's data, else ``None``."""
    return _look(Place(home), started=False)


def stop(home: Path, *, grace_s: float = 10, only_if_unused: bool = False) -> bool:
    """End the server of ``home``: asked to shut down first, then SIGTERM, then SIGKILL.

    Args:
        home: `EMBOFLOW_HOME`.
        grace_s: Seconds for the shutdown command and, again, for SIGTERM.
        only_if_unused: Leave it running if another live process has called :func:`ensure`.

    Returns:
        Whether a server was running and has ended.

    Raises:
        UnavailableError: It is still there after SIGKILL, or another process is starting it for too long.
    """
    place = Place(home)
    if not place.root.is_dir():
        return False
    with exclusively(place.start_lock, timeout_s=LOCK_TIMEOUT_S):
        unregister_user(place.users_lock)
        if not only_if_unused:
            return _stop(place, grace_s)
        with unused(place.users_lock) as free:
            return free and _stop(place, grace_s)


def _look(place: Place, *, started: bool) -> EmbeddedServer | None:
    state = place.state()
    # Same pid, same start time, same data folder on its command line: ours, if its answer agrees.
    if (
        state is None
        or process(state.pid) != state.process
        or mongod_port(state.pid, place.data) != state.port
    ):
        return None
    instance = Instance(state.instance)
    try:
        hello = run_command(state.port, {"hello": 1})
    except OSError:
        return None
    answers = (hello.get("setName"), hello.get("isWritablePrimary"), hello.get("me"))
    if answers != (instance.set_name, True, f"127.0.0.1:{state.port}"):
        return None
    return EmbeddedServer(
        uri=f"mongodb://127.0.0.1:{state.port}/?replicaSet={instance.set_name}",
        port=state.port,
        pid=state.pid,
        data_dir=place.data,
        log_path=place.log,
        started=started,
    )


def _start(place: Place, extra: Sequence[str]) -> EmbeddedServer:
    """Under the start lock: adopt what a killed starter left running, else launch."""
    last = place.state()
    deadline = time.monotonic() + START_TIMEOUT_S
    adopted = _adopt(place, deadline)
    if adopted is not None:
        return adopted
    binary = locate_mongod()
    version = check_mongod(binary).require_usable()
    instance = place.claim()
    refuse_other_versions(instance, version, place)
    offset = log_size(place.log)
    port = launch(binary, place, instance, last.port if last else None, extra)
    try:
        server = _ready(place, instance, port, time.monotonic() + START_TIMEOUT_S, started=True)
        if server is None:
            raise start_failed(place, offset, "mongod runs but never became primary")
    except EmboflowError:
        _stop(place, KILL_S)  # what is of no use is not left running
        raise
    return server


def _adopt(place: Place, deadline: float) -> EmbeddedServer | None:
    """The server that already runs on our data, made ready; ``None`` once there is none."""
    instance = place.instance()
    while instance is not None:
        ports = {port for _, port in mongods_on(place.data)}
        if not ports:
            return None
        # Short turns: what we see may be on its way out.
        for port in ports:
            server = _ready(place, instance, port, min(deadline, time.monotonic() + 1), started=False)
            if server is not None:
                return server
        if time.monotonic() > deadline:
            pids = ", ".join(str(found.pid) for found, _ in mongods_on(place.data))
            raise ConfigurationError(
                f"a mongod on {place.data} runs (pid {pids}) but does not become ready",
                kind=ErrorKind.MONGOD_START,
                hint=f"see {place.log}; `emboflow mongo stop` ends it",
            )
    return None


def _ready(
    place: Place, instance: Instance, port: int, deadline: float, *, started: bool
) -> EmbeddedServer | None:
    version = make_primary(port, instance, deadline=deadline)
    running = _process_of(place, port)
    if version is None or running is None:
        return None
    place.opened_by(version, instance)
    place.write_state(State(running.pid, running.started, port, instance.id))
    return _look(place, started=started)


def _process_of(place: Place, port: int) -> Process | None:
    # While it forks, launcher and server have the same command line; the server writes its pid down.
    with suppress(OSError, ValueError):
        pid = int((place.data / "mongod.lock").read_text())
        if mongod_port(pid, place.data) == port:
            return process(pid)
    return None


def _stop(place: Place, grace_s: float) -> bool:
    targets = list(mongods_on(place.data))
    for target, port in targets:
        with Handle(target) as running:
            with suppress(OSError):  # it hangs up instead of answering
                run_command(
                    port, {"shutdown": 1, "force": True, "timeoutSecs": 0}, timeout_s=max(0.1, grace_s)
                )
            if running.wait(grace_s):
                continue
            running.send(signal.SIGTERM)
            if running.wait(grace_s):
                continue
            running.send(signal.SIGKILL)
            if not running.wait(KILL_S):
                raise UnavailableError(f"mongod (pid {target.pid}) is still there after SIGKILL")
    return bool(targets)
