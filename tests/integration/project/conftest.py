"""Open projects on the session's server: a database a test, its payloads in the test's own folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

Opener = Callable[..., EmboFlow]


@pytest.fixture
def opener(mongo_uri: str, tmp_path: Path) -> Iterator[Opener]:
    """Opens handles on one fresh database; all are closed and the database dropped afterwards."""
    database = f"test_{uuid4().hex[:12]}"
    opened: list[EmboFlow] = []

    def open_(workspace: str = "acme", project: str = "pick-place", actor: str = "user:ada") -> EmboFlow:
        settings = Settings.from_env(
            home=tmp_path / "home",
            mongo_uri=mongo_uri,
            database=database,
            workspace=workspace,
            project=project,
            actor=actor,
        )
        opened.append(EmboFlow.open(settings))
        return opened[-1]

    yield open_
    if opened:
        opened[0].mongo.client.drop_database(database)
    for handle in opened:
        handle.close()


@pytest.fixture
def ef(opener: Opener) -> EmboFlow:
    """One open project."""
    return opener()


@pytest.fixture
def asset_file(tmp_path: Path) -> Path:
    """A small file to register."""
    path = tmp_path / "rows.csv"
    path.write_text("t,x\n0,1\n1,2\n")
    return path
