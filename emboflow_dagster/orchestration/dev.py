"""``emboflow dev``: database, webserver, code server and daemon as one foreground process."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from emboflow_dagster.errors import ConfigurationError, ErrorKind, ExecutionError
from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration import instance
from emboflow_dagster.orchestration.code_servers import CodeServers
from emboflow_dagster.orchestration.webserver import LOCATION, Webserver
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

DEFAULT_PORT: Final = 3000
CODE_LOCATION: Final = "emboflow_dagster.orchestration.code_location"
READY_SECONDS: Final = 120.0
GRACE_SECONDS: Final = 25.0
LINGER_SECONDS: Final = 5.0
_LOCK: Final = "emboflow-dev.lock"
Say = Callable[[str], None]


def run_dev(
    settings: Settings,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    workspace_file: Path | None = None,
    say: Say = print,
    ready: Callable[[str], None] | None = None,
) -> int:
    """Run everything until ctrl-c or SIGTERM; children never outlive it.

    Args:
        settings: The deployment; its environment is what the children get.
        port: The webserver's port. Without one, 3000 or the next that is free.
        host: The address it listens on.
        workspace_file: What to load; by default ``workspace.yaml`` of the working directory, else the
            package's own code location.
        say: Takes one line for people.
        ready: Called once with the URL when everything answers.

    Returns:
        The exit status: 0 when it was asked to stop.

    Raises:
        ConfigurationError: The port is taken, or another one runs on this DAGSTER_HOME.
        ExecutionError: A child ended by itself, or did not become ready.
    """
    url = f"http://{host}:{free_port(host, port)}"
    with _stopping() as stopped, _database(settings, say):
        with instance.opened(settings.dagster_home):
            pass  # made ready, limits of pools included
        server = Webserver(url)
        with _alone(settings.dagster_home), _dagster(settings, url, workspace_file) as process:
            try:
                _wait_until_ready(process, server, stopped)
                if not stopped():
                    server.announce(settings.dagster_home)
                    say(f"Dagster: {url}   (ctrl-c stops everything)")
                    if ready:
                        ready(url)
                servers = CodeServers(process.pid)
                while not stopped():
                    if process.poll() is not None:
                        raise ExecutionError(
                            f"Dagster ended by itself with status {process.returncode}",
                            kind=ErrorKind.CHILD_CRASHED,
                            hint=f"its output is in {log_file(settings)}",
                        )
                    if location := servers.look(server):
                        say(f"the code server of {location} was gone; it was started again")
                    time.sleep(0.2)
            finally:
                Webserver.withdraw(settings.dagster_home)
        say("stopped")
    return 0


def log_file(settings: Settings) -> Path:
    """Where Dagster's own output goes."""
    return settings.dagster_home / "logs" / "dev.log"


def free_port(host: str, port: int | None) -> int:
    """The port to listen on.

    Raises:
        ConfigurationError: The one that was asked for is taken.
    """
    if port is not None:
        if not _is_free(host, port):
            raise ConfigurationError(
                f"port {port} of {host} is taken", hint="give another --port, or none for a free one"
            )
        return port
    for candidate in range(DEFAULT_PORT, DEFAULT_PORT + 100):
        if _is_free(host, candidate):
            return candidate
    raise ConfigurationError(f"no port from {DEFAULT_PORT} to {DEFAULT_PORT + 99} of {host} is free")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Turns ctrl-c and SIGTERM into a question that the loop asks.

    A handler of our own also undoes what a shell's ``&`` leaves: children would ignore both signals.
    """
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def _database(settings: Settings, say: Say) -> Iterator[None]:
    """The database, up and set up; the embedded one ends with us unless somebody else uses it."""
    with EmboFlow.open(settings) as ef:
        ef.init()
        where = settings.database if settings.mongo_uri else f"embedded in {settings.home}"
        say(f"MongoDB: {where}")
        try:
            yield
        finally:
            ef.close()
            if settings.mongo_uri is None:
                _stop_embedded(settings)


def _stop_embedded(settings: Settings) -> None:
    """Dagster's processes have been ended, but their hold on the server goes with the last of them."""
    deadline = time.monotonic() + LINGER_SECONDS
    while not embedded.stop(settings.home, only_if_unused=True):
        if embedded.find(settings.home) is None or time.monotonic() > deadline:
            return
        time.sleep(0.2)


@contextmanager
def _alone(dagster_home: Path) -> Iterator[None]:
    """One a home: two daemons would evaluate every sensor twice, and the first to end would hide the other.

    Raises:
        ConfigurationError: There is one already.
    """
    fd = os.open(dagster_home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = Webserver.known(dagster_home)
            where = other.url if other else "it is still starting"
            raise ConfigurationError(
                f"`emboflow dev` runs already for {dagster_home}: {where}",
                hint="use that one, or end it first; another EMBOFLOW_HOME can have its own",
            ) from None
        yield
    finally:
        os.close(fd)


@contextmanager
def _dagster(settings: Settings, url: str, workspace_file: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """Webserver, daemon and code server: ``dagster dev`` keeps the three together.

    It serves one code server to both, so that one reload reaches both (decision 0006).
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    file = workspace_file or _workspace_file(settings)
    # `dagster dev` says on every start that `dg dev` has superseded it; that is a package of its own.
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "dagster",
        "dev",
        "-w",
        str(file),
        "-h",
        host,
        "-p",
        port,
    ]
    command += ["--log-level", "warning", "--code-server-log-level", "warning"]
    log = log_file(settings)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603 - a list written here, never a shell
            command,
            env={**os.environ, **settings.environment(), "DAGSTER_DISABLE_TELEMETRY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _workspace_file(settings: Settings) -> Path:
    """The deployment of the working directory, else one that loads the package's own code location."""
    own = Path("workspace.yaml")
    if own.is_file():
        return own
    file = settings.dagster_home / "emboflow-workspace.yaml"
    file.write_text(
        "load_from:\n"
        "  - python_module:\n"
        f"      module_name: {CODE_LOCATION}\n"
        f"      location_name: {LOCATION}\n"
    )
    return file


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask first; what is left of its session afterwards is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait_until_ready(
    process: subprocess.Popen[bytes], server: Webserver, stopped: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not stopped():
        if process.poll() is not None:
            raise ExecutionError(
                f"Dagster did not start: status {process.returncode}", kind=ErrorKind.CHILD_CRASHED
            )
        if server.is_up():
            states = server.locations()
            if states and all(state != "LOADING" for state in states.values()):
                return
        if time.monotonic() > deadline:
            raise ExecutionError(f"Dagster is not ready after {READY_SECONDS:g} s", kind=ErrorKind.TIMEOUT)
        time.sleep(0.3)
