"""The Docker daemon of this machine: reached, asked for images, told to build one.

A daemon is looked for where every Docker tool looks: ``DOCKER_HOST``, else ``/var/run/docker.sock``. Its
folders must be those of the worker, because inputs and outputs are mounted from there.
"""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import ConfigurationError, ErrorKind, ExecutionError, shown

if TYPE_CHECKING:
    from docker import DockerClient

SOCKET: Final = Path("/var/run/docker.sock")
ANSWER_S: Final = 60
BUILD_S: Final = 1_800
_HINT: Final = "start dockerd on this machine, or name another in DOCKER_HOST"
#: Label of every image that was built here: sha256 of the Dockerfile.
DOCKERFILE: Final = "emboflow.dockerfile"


def may_be_there() -> bool:
    """Whether it is worth asking for a daemon: one is named, or its usual socket is there."""
    return bool(os.environ.get("DOCKER_HOST")) or SOCKET.exists()


@contextmanager
def connected(timeout_s: float = ANSWER_S) -> Iterator["DockerClient"]:
    """A client of the daemon, closed after the block.

    Args:
        timeout_s: How long an answer may take, in seconds.

    Raises:
        ConfigurationError: The package is not installed (kind ``extra-missing``), or no daemon answers (kind
            ``container-engine``).
    """
    try:
        import docker
        from docker.errors import DockerException
    except ModuleNotFoundError:
        raise ConfigurationError(
            "containers need the package docker, which is not installed",
            kind=ErrorKind.EXTRA_MISSING,
            hint="pip install 'emboflow-dagster[docker]'",
        ) from None
    where = os.environ.get("DOCKER_HOST") or f"unix://{SOCKET}"
    client: DockerClient | None = None
    try:
        _knock(where)
        client = docker.from_env(timeout=round(timeout_s))
        client.ping()
    except (DockerException, OSError) as error:
        if client is not None:
            client.close()
        raise ConfigurationError(
            f"no Docker daemon answers at {where}: {_reason(error)}",
            kind=ErrorKind.CONTAINER_ENGINE,
            hint=_HINT,
        ) from None
    try:
        yield client
    finally:
        client.close()


def _knock(where: str) -> None:
    """Fail at once where nobody listens: the library would leave a socket open.

    Raises:
        OSError: Nobody does.
    """
    if where.startswith("unix://"):
        with closing(socket.socket(socket.AF_UNIX)) as tried:
            tried.settimeout(ANSWER_S)
            tried.connect(where.removeprefix("unix://"))


def image_id(client: "DockerClient", reference: str) -> str:
    """``sha256:...`` of what an image reference names on this machine: the digest of its configuration.

    It covers command, environment and every layer, and is the same on every machine that has the image.

    Raises:
        ConfigurationError: There is no such image here (kind ``image-missing``).
    """
    from docker.errors import APIError

    try:
        found: dict[str, Any] = client.api.inspect_image(reference)
    except APIError as error:
        raise ConfigurationError(
            f"image {shown(reference)}: {_reason(error)}",
            kind=ErrorKind.IMAGE_MISSING,
            hint=f"on the machine that executes containers: docker pull {reference}, or docker build -t it",
        ) from None
    return str(found["Id"])


def dockerfile_digest(dockerfile: str) -> str:
    """sha256 (hex) of a Dockerfile's text."""
    return hashlib.sha256(dockerfile.encode()).hexdigest()


def built(client: "DockerClient", dockerfile: str, tag: str) -> str:
    """The id of the image that a self-contained Dockerfile makes; built the first time, without network.

    The same text is built once on a machine, whatever it is tagged: the image carries the text's digest.

    Raises:
        ExecutionError: It cannot be built (kind ``image-build``); the message has the last line said.
    """
    from docker.errors import APIError

    digest = dockerfile_digest(dockerfile)
    if (found := _built_before(client, digest)) is not None:
        return found
    why: str | None = None
    try:
        # Read to its end also when it fails: the library would leave the connection open.
        for event in client.api.build(
            fileobj=BytesIO(dockerfile.encode()),
            tag=tag,
            labels={DOCKERFILE: digest},
            network_mode="none",
            rm=True,
            forcerm=True,
            timeout=BUILD_S,
            decode=True,
        ):
            why = why or event.get("error")
    except (APIError, OSError) as error:
        why = _reason(error)
    if why is None and (found := _built_before(client, digest)) is not None:
        return found
    raise ExecutionError(
        f"image {shown(tag)} cannot be built: {why or 'the daemon has no image of it'}",
        kind=ErrorKind.IMAGE_BUILD,
        hint="a Dockerfile builds here without network, from images of this machine",
    )


def _built_before(client: "DockerClient", digest: str) -> str | None:
    found = client.images.list(filters={"label": f"{DOCKERFILE}={digest}"})
    return str(found[0].id) if found else None


def remove_where(
    client: "DockerClient", label: str, why: Callable[[dict[str, str]], str | None]
) -> list[str]:
    """Remove the containers with a label of which ``why``, given their labels, says a reason.

    Returns:
        A line for each.
    """
    from docker.errors import DockerException

    removed: list[str] = []
    for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        reason = why(container.labels)
        if reason is None:
            continue
        with suppress(DockerException, OSError):  # somebody else was faster
            container.remove(force=True, v=True)
            removed.append(f"container {str(container.id)[:12]} was removed: {reason}")
    return removed


def _reason(error: Exception) -> str:
    """What went wrong in one line: the daemon's own words where it said some."""
    said = getattr(error, "explanation", None) or getattr(error, "msg", None)
    with suppress(IndexError):
        return str(said or error).strip().splitlines()[-1][:300]
    return type(error).__name__
