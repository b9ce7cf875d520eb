"""Collections, validators and indexes: made when missing, repaired when drifted, reported either way."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.errors import CollectionInvalid, OperationFailure

from emboflow_dagster.errors import ConfigurationError, ErrorKind
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import (
    COLLECTIONS,
    META,
    SCHEMA_VERSION,
    Collection,
    Index,
    indexes_of,
)
from emboflow_dagster.mongo.client import Mongo, translated
from emboflow_dagster.mongo.schema import validator_for

_NAMESPACE_EXISTS = 48


@dataclass(slots=True)
class SetupReport:
    """What ``emboflow init`` did: names of what it made, repaired, and could not repair by itself."""

    created: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    unchanged: int = 0

    def to_json(self) -> dict[str, Any]:
        """The report for ``--json``."""
        return {
            "created": self.created,
            "repaired": self.repaired,
            "conflicts": self.conflicts,
            "unchanged": self.unchanged,
        }


def is_current(mongo: Mongo) -> bool:
    """Whether this release's set-up was completed here.

    Raises:
        ConfigurationError: A newer release has set this database up (kind ``schema-version``).
    """
    with translated():
        meta = mongo[META].find_one({"_id": "schema"})
    found = int(meta["schemaVersion"]) if meta else 0
    if found > SCHEMA_VERSION:
        raise ConfigurationError(
            f"the database has schema version {found}; this release knows {SCHEMA_VERSION}",
            kind=ErrorKind.SCHEMA_VERSION,
            hint="upgrade emboflow-dagster; an older release never rewrites a newer database",
        )
    return found == SCHEMA_VERSION


def set_up(mongo: Mongo) -> SetupReport:
    """Bring every collection to this release's shape; idempotent and safe beside running programs."""
    is_current(mongo)
    report = SetupReport()
    with translated():
        there = {row["name"]: row for row in mongo.db.list_collections()}
        for collection in COLLECTIONS.values():
            _collection(mongo, collection, there.get(collection.name), report)
            _indexes(mongo, collection, report)
        mongo[META].update_one(
            {"_id": "schema"},
            {"$set": {"schemaVersion": SCHEMA_VERSION}, "$setOnInsert": {"createdAt": utc_now()}},
            upsert=True,
        )
    return report


def missing(mongo: Mongo) -> list[str]:
    """What is absent or drifted: ``collection``, ``collection validator`` or ``collection.index``."""
    found: list[str] = []
    with translated():
        there = {row["name"]: row for row in mongo.db.list_collections()}
        for collection in COLLECTIONS.values():
            row = there.get(collection.name)
            if row is None:
                found.append(collection.name)
                continue
            if row.get("options", {}).get("validator") != validator_for(collection):
                found.append(f"{collection.name} validator")
            have = mongo[collection.name].index_information()
            found += [
                f"{collection.name}.{i.name}"
                for i in indexes_of(collection)
                if not _same(have.get(i.name), i)
            ]
    return found


def _collection(
    mongo: Mongo, collection: Collection, there: Mapping[str, Any] | None, report: SetupReport
) -> None:
    validator = validator_for(collection)
    if there is None:
        try:
            mongo.db.create_collection(collection.name, validator=validator)
            report.created.append(collection.name)
        except CollectionInvalid:
            report.unchanged += 1
        except OperationFailure as error:
            if error.code != _NAMESPACE_EXISTS:
                raise
            report.unchanged += 1
        return
    options = there.get("options", {})
    if options.get("validator") == validator and options.get("validationAction", "error") == "error":
        report.unchanged += 1
        return
    mongo.db.command(
        "collMod", collection.name, validator=validator, validationLevel="strict", validationAction="error"
    )
    report.repaired.append(f"{collection.name} validator")


def _indexes(mongo: Mongo, collection: Collection, report: SetupReport) -> None:
    fresh = collection.name in report.created
    if fresh:
        # All in one command: each waits for the disk. What is refused is told one by one, below.
        with suppress(OperationFailure):
            mongo[collection.name].create_indexes([_index_model(i) for i in indexes_of(collection)])
            return
    have = mongo[collection.name].index_information()
    for index in indexes_of(collection):
        if _same(have.get(index.name), index):
            report.unchanged += 1
            continue
        keys = [(key, ASCENDING) for key in index.keys]
        twin = next((n for n, row in have.items() if n != index.name and _twins(row, keys, index)), None)
        try:
            for name in (twin, index.name if index.name in have else None):
                if name:
                    mongo[collection.name].drop_index(name)
            mongo[collection.name].create_indexes([_index_model(index)])
        except OperationFailure as error:
            report.conflicts.append(
                f"{collection.name}.{index.name}: {error.details and error.details.get('errmsg')}"
            )
            continue
        if not fresh:
            report.repaired.append(f"{collection.name}.{index.name}")


def _index_model(index: Index) -> IndexModel:
    options: dict[str, Any] = {"partialFilterExpression": index.partial_filter} if index.partial else {}
    return IndexModel(
        [(key, ASCENDING) for key in index.keys], name=index.name, unique=index.unique, **options
    )


def _twins(row: Any, keys: list[tuple[str, int]], index: Index) -> bool:
    # The server tells indexes of the same keys apart by what they hold.
    return row["key"] == keys and row.get("partialFilterExpression", {}) == index.partial_filter


def _same(row: Any, index: Index) -> bool:
    return (
        row is not None
        and [key for key, _ in row["key"]] == list(index.keys)
        and bool(row.get("unique", False)) == index.unique
        and row.get("partialFilterExpression", {}) == index.partial_filter
    )
