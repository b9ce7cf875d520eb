"""A database of Flowcept's own: `objects`, `object_history` and GridFS, as Flowcept 1.0.3 lays them out.

It may be a standalone server, and it may have no index (Flowcept's public calls make none), so it is read in
pages by ``_id``: no cursor stays open while payloads move.

Source: Flowcept 1.0.3, ``commons/daos/docdb_dao/mongodb_dao.py``; observed on a real server.
"""

from collections.abc import Iterator
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from bson import json_util
from bson.objectid import ObjectId
from pymongo import ASCENDING, MongoClient
from pymongo.errors import ConfigurationError as DriverConfigurationError
from pymongo.errors import ConnectionFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from emboflow_dagster.errors import ConfigurationError, NotFoundError, UnavailableError
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo import gridfs
from emboflow_dagster.mongo.client import Mongo, Raw, translated

_PAGE: Final = 100


class SourceObject(NamedTuple):
    """One object: its id, and the row ids of each version, the head's last."""

    object_id: str
    head: int
    rows: dict[int, list[tuple[str, Any]]]
    """Version number to (collection, ``_id``); more than one where no unique index forbade it."""


class FlowceptDatabase:
    """Flowcept's collections; nothing is written but by :meth:`write_payload` and ``write_*``."""

    def __init__(self, uri: str, database: str, *, timeout_ms: int = 5_000) -> None:
        """Connect.

        Raises:
            ConfigurationError: The URI is none, or the database is one of EmboFlow's own.
            UnavailableError: No server answers.
        """
        try:
            client: MongoClient[Raw] = MongoClient(
                uri, serverSelectionTimeoutMS=timeout_ms, tz_aware=True, appname="emboflow-flowcept"
            )
        except (DriverConfigurationError, PyMongoError, ValueError) as error:
            raise ConfigurationError(
                f"the URI of Flowcept's database is not a MongoDB URI: {error}"
            ) from None
        self.mongo = Mongo(client, database, uri)
        # A standalone server has no majority to wait for.
        self.mongo.db = self.mongo.db.with_options(read_concern=ReadConcern("local"))
        self.name = database
        try:
            with translated():
                self._names = set(self.mongo.db.list_collection_names())
        except UnavailableError as error:
            client.close()
            if not isinstance(error.__cause__, ConnectionFailure):
                raise  # it answers, and refuses
            raise UnavailableError(
                f"no MongoDB answers at the URI of Flowcept's database within {timeout_ms / 1000:g} s"
            ) from None
        if META in self._names:
            client.close()
            raise ConfigurationError(
                f"the database {database!r} is one of EmboFlow's, not of Flowcept's",
                hint="name Flowcept's database: databases.mongodb.db of its settings.yaml",
            )

    def require(self) -> None:
        """Say so when there is nothing of Flowcept's here.

        Raises:
            NotFoundError: The database has no `objects`.
        """
        if "objects" not in self._names:
            raise NotFoundError(
                f"the database {self.name!r} has no collection 'objects': Flowcept stored no blob there",
                hint="name Flowcept's database: databases.mongodb.db of its settings.yaml",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mongo.close()

    def objects(self) -> Iterator[SourceObject]:
        """Every object, with where its versions are; a page in memory at a time."""
        after: Raw = {}
        while True:
            with translated():
                heads = list(
                    self.mongo["objects"]
                    .find(after, {"object_id": 1, "version": 1})
                    .sort("_id", ASCENDING)
                    .limit(_PAGE)
                )
                ids = [row.get("object_id") for row in heads]
                history = list(
                    self.mongo["object_history"].find(
                        {"object_id": {"$in": ids}}, {"object_id": 1, "version": 1}
                    )
                )
            if not heads:
                return
            after = {"_id": {"$gt": heads[-1]["_id"]}}
            found: dict[Any, dict[int, list[tuple[str, Any]]]] = {id_: {} for id_ in ids}
            for row in history:
                found[row.get("object_id")].setdefault(_number(row), []).append(
                    ("object_history", row["_id"])
                )
            for row in heads:
                rows = found[row.get("object_id")]
                rows.setdefault(_number(row), []).insert(0, ("objects", row["_id"]))
                yield SourceObject(str(row.get("object_id")), _number(row), rows)

    def orphans(self) -> Iterator[tuple[str, int]]:
        """Ids that have a history and no head, and how many versions: left by Flowcept's delete (P-25)."""
        with translated():
            pipeline: list[Raw] = [
                {"$group": {"_id": "$object_id", "versions": {"$sum": 1}}},
                {"$lookup": {"from": "objects", "localField": "_id", "foreignField": "object_id", "as": "o"}},
                {"$match": {"o": []}},
                {"$sort": {"_id": 1}},
            ]
            for row in self.mongo["object_history"].aggregate(pipeline, allowDiskUse=True):
                yield str(row["_id"]), int(row["versions"])

    def row(self, place: tuple[str, Any]) -> Raw:
        """One version's document, with the bytes that are in it."""
        collection, id_ = place
        with translated():
            found = self.mongo[collection].find_one({"_id": id_})
        return found or {}

    def head(self, object_id: str) -> Raw | None:
        """The newest version's document, without bytes."""
        with translated():
            return self.mongo["objects"].find_one({"object_id": object_id}, {"data": 0})

    def payload(self, file_id: Any) -> Iterator[bytes] | None:
        """The bytes of a GridFS file, ``None`` where there is none.

        Raises:
            IntegrityError: From the iterator: a chunk is missing.
        """
        file = gridfs.find(self.mongo, file_id)
        return None if file is None else gridfs.chunks(self.mongo, file)

    def upload(self, object_id: str, digest: str, size: int) -> tuple[ObjectId, gridfs.Upload | None]:
        """Where a payload goes, and what writes it; ``None`` where it is already.

        The same payload of an object gets the same id, so a repeated export writes nothing twice.
        """
        file_id = ObjectId(sha256(f"{object_id}/{digest}".encode()).digest()[:12])
        found = gridfs.find(self.mongo, file_id)
        if found is not None and found["length"] == size:
            return file_id, None
        gridfs.delete(self.mongo, file_id)  # what an export that died has left
        return file_id, gridfs.Upload(self.mongo, file_id, {"sha256": digest})

    def write_version(self, row: Raw) -> None:
        """An older version; repeated, it is written once."""
        self._replace("object_history", {"object_id": row["object_id"], "version": row["version"]}, row)

    def write_head(self, row: Raw) -> None:
        """The newest version."""
        self._replace("objects", {"object_id": row["object_id"]}, row)

    def _replace(self, collection: str, key: Raw, row: Raw) -> None:
        with translated():
            self.mongo[collection].replace_one(key, row, upsert=True)

    def prepare(self) -> None:
        """The indexes that Flowcept makes when it is asked to (P-21)."""
        with translated():
            heads, history = self.mongo["objects"], self.mongo["object_history"]
            heads.create_index("object_id", unique=True)
            for name in ("workflow_id", "task_id", "data_sha256"):
                heads.create_index(name)
            history.create_index([("object_id", ASCENDING), ("version", ASCENDING)], unique=True)


def _number(row: Raw) -> int:
    version = row.get("version")
    return int(version) if isinstance(version, int | float) else 0


def as_json(value: Any) -> str:
    """Any BSON value as text that loses nothing (MongoDB Extended JSON)."""
    return json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS)


def from_json(text: str) -> Any:
    """The value that :func:`as_json` wrote."""
    return json_util.loads(text)
