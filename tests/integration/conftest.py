"""Real servers for the tests that need them; every process started here is ended here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from emboflow_dagster.mongo import embedded


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """One embedded server for the whole session, shared by all workers: use databases of your own in it."""
    base = tmp_path_factory.getbasetemp()
    home = (base if worker_id == "master" else base.parent) / "session-mongo"
    server = embedded.ensure(home)
    yield server.uri
    # Every worker is a user of it; the last one to leave ends it.
    embedded.stop(home, only_if_unused=True)


@pytest.fixture(scope="session")
def failing_mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this worker alone that obeys `configureFailPoint`."""
    home = tmp_path_factory.mktemp("failing-mongo")
    server = embedded.ensure(home, extra_arguments=("--setParameter", "enableTestCommands=1"))
    yield server.uri
    embedded.stop(home)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An `EMBOFLOW_HOME` of the test alone, set in the environment; its server, if any, is ended."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EMBOFLOW_HOME", str(folder))
    yield folder
    embedded.stop(folder)
