"""Open projects on the session's server: one database a worker, empty again after every test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from emboflow_dagster.model.collections import CACHE, COLLECTIONS, META
from emboflow_dagster.mongo import gridfs, log_chunks
from emboflow_dagster.mongo.client import Mongo, connect
from emboflow_dagster.mongo.setup import set_up
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

Opener = Callable[..., EmboFlow]


@pytest.fixture(scope="session")
def database(mongo_uri: str) -> Iterator[Mongo]:
    """A database with every collection and index, made once: that costs more than any test."""
    mongo = connect(mongo_uri, f"test_{uuid4().hex[:12]}")
    set_up(mongo)
    yield mongo
    mongo.client.drop_database(mongo.db.name)
    mongo.close()


@pytest.fixture
def opener(database: Mongo, mongo_uri: str, tmp_path: Path) -> Iterator[Opener]:
    """Opens handles on the empty database; payloads go to the test's own folder."""
    opened: list[EmboFlow] = []

    def open_(
        workspace: str = "acme", project: str = "pick-place", actor: str = "user:ada", **more: Any
    ) -> EmboFlow:
        settings = Settings.from_env(
            home=tmp_path / "home",
            mongo_uri=mongo_uri,
            database=database.db.name,
            workspace=workspace,
            project=project,
            actor=actor,
            **more,
        )
        opened.append(EmboFlow.open(settings))
        return opened[-1]

    yield open_
    for handle in opened:
        handle.close()
    for name in COLLECTIONS:
        database[name].delete_many({})
    database[CACHE].delete_many({})
    database[META].delete_many({"_id": {"$ne": "schema"}})
    database[log_chunks.COLLECTION].delete_many({})
    for name in (gridfs.FILES, gridfs.CHUNKS):  # where nobody allows them they are not there
        database[name].drop()


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
