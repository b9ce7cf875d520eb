"""One S3 server a worker, a bucket a test; a proxy that breaks things where a test asks for one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from emboflow_dagster.mongo.client import connect
from emboflow_dagster.object_storage import S3ObjectStore
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from tests.integration.s3.proxy import Proxy
from tests.integration.s3.server import ENVIRONMENT, STYLE, Server, client_at

PREFIX = "team/emboflow"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """The server; it keeps everything in its memory."""
    with Server() as server:
        yield server


@pytest.fixture
def bucket(
    s3_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An empty bucket that the environment leads to."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": s3_server.url}.items():
        monkeypatch.setenv(name, value)
    if STYLE != "path":  # what a custom endpoint has unless a profile says otherwise
        profile = tmp_path_factory.mktemp("aws") / "config"
        profile.write_text(f"[default]\ns3 =\n  addressing_style = {STYLE}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(profile))
    with s3_server.bucket() as name:
        yield name


@contextmanager
def a_project(mongo_uri: str, home: Path, object_store: str) -> Iterator[Settings]:
    """A project in a database of its own, which is gone afterwards."""
    made = Settings.from_env(
        home=home,
        mongo_uri=mongo_uri,
        database=f"s3_{uuid4().hex[:12]}",
        object_store=object_store,
        workspace="acme",
        project="pick-place",
        actor="user:ada",
    )
    yield made
    mongo = connect(mongo_uri, made.database)
    mongo.client.drop_database(made.database)
    mongo.close()


@pytest.fixture
def settings(mongo_uri: str, tmp_path: Path) -> Iterator[Settings]:
    """A project whose own payloads are in a folder."""
    with a_project(mongo_uri, tmp_path / "home", (tmp_path / "objects").as_uri()) as made:
        yield made


@pytest.fixture
def ef(bucket: str, settings: Settings) -> Iterator[EmboFlow]:
    """It, with the environment leading to the bucket."""
    with EmboFlow.open(settings) as handle:
        yield handle


@pytest.fixture
def store(bucket: str) -> S3ObjectStore:
    """A store in it, by the environment alone."""
    return S3ObjectStore(bucket, PREFIX)


@pytest.fixture
def proxy(s3_server: Server) -> Iterator[Proxy]:
    """A proxy before the server; a server that is reached by https or by names of buckets can have none."""
    if STYLE != "path" or not s3_server.url.startswith("http://"):
        pytest.skip("a proxy is put before plain http, and before paths alone")
    made = Proxy(s3_server.url)
    yield made
    made.close()


@pytest.fixture
def behind(bucket: str, proxy: Proxy) -> Callable[..., S3ObjectStore]:
    """Makes a store that reaches the bucket through the proxy."""

    def make(**how: float) -> S3ObjectStore:
        return S3ObjectStore(bucket, PREFIX, client=lambda: client_at(proxy.url, **how))

    return make
