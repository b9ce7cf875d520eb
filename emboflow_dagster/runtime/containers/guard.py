"""A container does not outlive its worker, however that ends.

The daemon keeps a container running when whoever started it is killed. A small process of our own waits for
the end of the worker (the pipe between them closes, also on kill -9) and then removes the container. What
even that misses, because both were killed or the machine stopped, the recorder finds by its labels.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_KEPT: Final = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_BOOT: Final = (
    "import sys;a=sys.argv;sys.path[:]=a[2:];"
    "from emboflow_dagster.runtime.containers.guard import wait_and_remove;wait_and_remove(a[1])"
)
_END_S: Final = 20
_GONE: Final = b"."


@contextmanager
def guarded(container_id: str) -> Iterator[Callable[[], None]]:
    """See to it that a container is gone soon after the block, or this process, ends.

    Yields what says that it is gone already.
    """
    paths = [str(Path(entry).resolve()) for entry in sys.path if entry]
    own = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, container_id, *dict.fromkeys([own, *paths])],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - a pipe, by the call above
    stdin = process.stdin

    def gone() -> None:
        with suppress(OSError):
            stdin.write(_GONE)
            stdin.flush()

    try:
        yield gone
    finally:
        with suppress(OSError):
            stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_and_remove(container_id: str) -> None:
    """Wait until standard input ends, then remove the container; not when we are told that it is gone."""
    if os.read(0, 1) == _GONE:
        return
    from emboflow_dagster.runtime.containers import engine

    with engine.connected() as client, suppress(Exception):
        client.api.remove_container(container_id, force=True, v=True)
