"""One container from its start to its end: what it may use, what it says, how it ended.

It has no network, no capability, no way to new ones, a read-only root, its inputs read-only and one folder to
write to. It is gone when the call returns, is interrupted, or its process dies.

Source: spec/reliability.md, "Security decisions".
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ConfigurationError, ErrorKind, ExecutionError, LimitError
from emboflow_dagster.runtime.child import Feed
from emboflow_dagster.runtime.containers.guard import guarded
from emboflow_dagster.runtime.lines import LineSplitter

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

NOBODY: Final = 65_534
LOOK_S: Final = 0.05
#: Looking at a folder costs something: how large the output is is asked less often.
MEASURE_S: Final = 0.5
_FILES: Final = 1_024
_KILLED: Final = 128
_TMP_MB: Final = 64
_TAIL: Final = 2_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one container may use: MiB, processors, processes, wall-clock seconds, MiB of output."""

    memory_mb: int
    cpus: float
    processes: int
    seconds: float
    output_mb: int


@dataclass(frozen=True, slots=True)
class Job:
    """What is run: an image by its id, with which command, between which folders of this machine."""

    image_id: str
    command: Sequence[str]
    environment: Mapping[str, str]
    network: str
    inputs: tuple[Path, str]
    """A folder of this machine and where the container sees it, read-only."""
    outputs: tuple[Path, str]
    """The same for the one folder it may write to."""
    limits: Limits
    labels: Mapping[str, str]


Out = Callable[[str], None]


def run_container(client: "DockerClient", job: Job, out: Out, err: Out) -> None:
    """Run a container to its end.

    Args:
        client: Of the daemon.
        job: What to run.
        out: Takes its standard output: lines, or the bytes where it is a :class:`Feed`.
        err: The same for standard error.

    Raises:
        LimitError: It needed too much memory, time or output (``limit-memory``, ``limit-time``,
            ``limit-size``).
        ExecutionError: It ended with another exit code than 0; the message has it and what was said last.
        ConfigurationError: The daemon could not start it (kind ``container-engine``).
    """
    from docker.errors import APIError, DockerException

    said = _Said(out, err)
    try:
        container = _created(client, job)
    except (APIError, DockerException) as error:
        raise _refused(error) from None
    try:
        with guarded(str(container.id)) as gone:
            try:
                _carried(client, container, job, said)
            finally:
                with suppress(APIError, DockerException, OSError):  # then the guard tries
                    container.remove(force=True, v=True)
                    gone()
    except (APIError, DockerException) as error:
        raise _refused(error) from None


def _created(client: "DockerClient", job: Job) -> "Container":
    from docker.types import LogConfig, Mount, Ulimit

    limits, memory = job.limits, job.limits.memory_mb << 20
    (source, inside), (target, outside) = job.inputs, job.outputs
    # A worker that is root makes nobody of it; any other makes it itself: what it writes can be read then.
    user = f"{NOBODY}:{NOBODY}" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"
    return client.containers.create(
        job.image_id,
        list(job.command) or None,
        environment={"HOME": "/tmp", "TMPDIR": "/tmp", **job.environment},  # noqa: S108 - inside of it
        mounts=[
            Mount(inside, str(source), type="bind", read_only=True),
            Mount(outside, str(target), type="bind"),
        ],
        network_mode=job.network,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        user=user,
        ipc_mode="none",
        pids_limit=limits.processes,
        mem_limit=memory,
        memswap_limit=memory,
        nano_cpus=round(limits.cpus * 1e9),
        ulimits=[Ulimit(name="nofile", soft=_FILES, hard=_FILES), Ulimit(name="core", soft=0, hard=0)],
        tmpfs={"/tmp": f"rw,noexec,nosuid,nodev,mode=1777,size={_TMP_MB}m"},  # noqa: S108 - likewise
        log_config=LogConfig(type="none"),
        healthcheck={"test": ["NONE"]},
        labels=dict(job.labels),
        detach=True,
    )


def _carried(client: "DockerClient", container: "Container", job: Job, said: "_Said") -> None:
    limits, target, container_id = job.limits, job.outputs[0], str(container.id)
    # Attached before it starts: nothing that it says is missed.
    stream = client.api.attach_socket(container_id, {"stdout": 1, "stderr": 1, "stream": 1})
    reader = threading.Thread(target=said.take, args=(stream,), daemon=True, name="container output")
    ended = threading.Event()
    waiter = threading.Thread(target=_await, args=(client, container_id, ended), daemon=True)
    reader.start()
    container.start()
    deadline = time.monotonic() + limits.seconds
    waiter.start()
    measured = time.monotonic()
    over: LimitError | None = None
    while over is None and not ended.wait(LOOK_S):
        now = time.monotonic()
        if now > deadline:
            text = f"the container was stopped after {limits.seconds:g} s of wall-clock time"
            over = LimitError(text, kind=ErrorKind.LIMIT_TIME)
        elif now - measured > MEASURE_S:
            measured = now
            over = _too_large(target, limits)
    if over is not None:
        container.kill()
    waiter.join(10)
    reader.join(10)
    said.close()
    if (over := over or _too_large(target, limits)) is not None:
        raise over
    state: dict[str, Any] = client.api.inspect_container(container_id)["State"]
    if state.get("OOMKilled"):
        raise LimitError(
            f"the container needed more than {limits.memory_mb} MiB of memory", kind=ErrorKind.LIMIT_MEMORY
        )
    code = int(state["ExitCode"])
    if code:
        by = f" (signal {code - _KILLED})" if code > _KILLED else ""
        last = f": {said.last}" if said.last else ""
        raise ExecutionError(f"the container ended with exit code {code}{by}{last}")


def _await(client: "DockerClient", container_id: str, ended: threading.Event) -> None:
    with suppress(Exception):  # the container's state says how it ended
        client.api.wait(container_id, timeout=None)
    ended.set()


def _too_large(folder: Path, limits: Limits) -> LimitError | None:
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - many files
    if size <= limits.output_mb << 20:
        return None
    text = f"the container wrote more than {limits.output_mb} MiB of output"
    return LimitError(text, kind=ErrorKind.LIMIT_SIZE)


def _refused(error: Exception) -> ConfigurationError:
    said = str(getattr(error, "explanation", None) or error).strip()
    return ConfigurationError(
        f"the container could not be run: {said[:500]}",
        kind=ErrorKind.CONTAINER_ENGINE,
        hint="the daemon must see the folders of this worker; `docker info` says how it is",
    )


class _Said:
    """Hands on what a container says, and remembers the end of it."""

    def __init__(self, out: Out, err: Out) -> None:
        self._out = out if isinstance(out, Feed) else LineSplitter(out)
        self._err = err if isinstance(err, Feed) else LineSplitter(err)
        self._tail = b""

    def take(self, stream: Any) -> None:
        """Everything that comes, until the stream ends; it is closed then."""
        from docker.utils.socket import STDERR, frames_iter_no_tty

        try:
            with suppress(OSError, ValueError):  # it was removed while we read
                frames: Any = frames_iter_no_tty(stream)  # its stubs take the number for a text
                for which, data in frames:
                    (self._err if which == STDERR else self._out).feed(data)
                    self._tail = (self._tail + data)[-_TAIL:]
        finally:
            # docker hands out the socket of a response that it keeps there.
            with suppress(OSError, AttributeError):
                stream._response.close()  # noqa: SLF001
            stream.close()

    def close(self) -> None:
        """Nothing more comes."""
        self._out.close()
        self._err.close()

    @property
    def last(self) -> str:
        """Its last line."""
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[:500] if lines else ""
