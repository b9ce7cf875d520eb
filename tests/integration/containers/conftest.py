"""A daemon for the tests of this folder, and projects on the session's database."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests import docker_engine
from tests.integration.project.conftest import asset_file, database, ef, opener

__all__ = ["asset_file", "database", "ef", "opener"]


@pytest.fixture(scope="session")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real daemon with the images of these tests."""
    import docker

    with docker_engine.daemon(tmp_path_factory.mktemp("docker")) as address:
        with closing(docker.DockerClient(base_url=address)) as client:
            docker_engine.make_images(client)
        yield address


@pytest.fixture
def docker_client(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of it; what is executed in the test finds it, too."""
    import docker

    monkeypatch.setenv("DOCKER_HOST", docker_host)
    with closing(docker.DockerClient(base_url=docker_host)) as client:
        yield client
        left = client.containers.list(all=True)
        for container in left:
            container.remove(force=True)
        assert left == [], "a container was left over"
