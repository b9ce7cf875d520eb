"""Open projects on the session's server: one database a worker, empty again after every test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo.read_concern import ReadConcern

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
    empty(database)


def empty(database: Mongo) -> None:
    """Delete every document; asked first where there are any, as most tests fill few collections."""
    kept = {META: {"_id": {"$ne": "schema"}}}
    names = [*COLLECTIONS, CACHE, META, log_chunks.COLLECTION]
    looks = [[{"$match": kept.get(n, {})}, {"$limit": 1}, {"$project": {"_id": 0, "of": n}}] for n in names]
    others = [
        {"$unionWith": {"coll": name, "pipeline": look}}
        for name, look in zip(names[1:], looks[1:], strict=True)
    ]
    # What a test wrote with a client of its own counts at once: no majority is waited for.
    first = database[names[0]].with_options(read_concern=ReadConcern("local"))
    for row in list(first.aggregate([*looks[0], *others])):
        database[row["of"]].delete_many(kept.get(row["of"], {}))
    gridfs_names = {"name": {"$in": [gridfs.FILES, gridfs.CHUNKS]}}
    for name in database.db.list_collection_names(filter=gridfs_names):
        database[name].drop()  # where nobody allows them they are not there


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
