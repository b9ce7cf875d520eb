"""The connection: durable by construction, refused when it could not be.

Every write is acknowledged by a majority and on disk before it counts (`w: majority`, `j: true`);
a URI that asks for less is refused, as is a server without transactions.

Source: spec/reliability.md, findings 2 and 3.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.errors import BSONError
from bson.int64 import Int64
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection as PyCollection
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteError,
)
from pymongo.errors import (
    ConfigurationError as DriverConfigurationError,
)
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ConfigurationError,
    EmboflowError,
    ErrorKind,
    InvalidInputError,
    UnavailableError,
)
from emboflow_dagster.mongo import away

T = TypeVar("T")
Raw = dict[str, Any]
Session = ClientSession
RawCollection = PyCollection[Raw]
MAJORITY: Final = WriteConcern(w="majority", j=True)
_DUPLICATE_KEY: Final = 11000
_OUTAGE_S: Final = 20
_VALIDATION_FAILURE: Final = 121
_OUT_OF_DISK_SPACE: Final = 14031


class _PlainIntegers(TypeDecoder):
    """The driver reads a 64-bit integer as a class of its own: documents know plain ones only."""

    bson_type = Int64  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType] - as documented

    def transform_bson(self, value: Any) -> int:
        return int(value)


CODEC: Final = CodecOptions(tz_aware=True, tzinfo=UTC, type_registry=TypeRegistry([_PlainIntegers()]))


_PLAIN_CODEC: Final = CodecOptions(tz_aware=True, tzinfo=UTC)


def find_one_and_update(
    collection: RawCollection, filter_: Mapping[str, Any], update: Mapping[str, Any] | list[Raw], **how: Any
) -> Raw | None:
    """The driver's, for a server that is being stopped.

    With a type registry pymongo 4.20 reads only a part of the reply to `findAndModify`; an error of the write
    concern in the other part ends in an AttributeError instead of a retry. So the reply is read without one.
    """
    plain = collection.with_options(codec_options=_PLAIN_CODEC)
    found: Raw | None = plain.find_one_and_update(filter_, update, **how)
    return None if found is None else _plain(found)


_NO_INT64: Final = frozenset({str, int, bool, type(None), datetime})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        # Most values are none that could hold one: no call for those.
        return {key: inner if type(inner) in _NO_INT64 else _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, Int64) else value


class Mongo:
    """One open database. Collections come with majority concerns and UTC dates."""

    def __init__(self, client: MongoClient[Raw], database: str, uri: str) -> None:
        self.client = client
        self.uri = uri
        self.db: Database[Raw] = client.get_database(
            database,
            codec_options=CODEC,
            write_concern=MAJORITY,
            read_concern=ReadConcern("majority"),
        )
        self._collections: dict[str, RawCollection] = {}
        self._unacknowledged: dict[str, RawCollection] = {}
        #: Called before the sockets are given back, for what should still be written.
        self.before_close: list[Callable[[], None]] = []

    def __getitem__(self, name: str) -> RawCollection:
        known = self._collections.get(name)
        if known is None:  # the driver takes as long for it as for encoding a small command
            known = self._collections[name] = self.db[name]
        return known

    def unacknowledged(self, name: str) -> RawCollection:
        """A collection whose writes nobody waits for: to copy or clear what is kept elsewhere, no more."""
        known = self._unacknowledged.get(name)
        if known is None:
            known = self.db.get_collection(name, write_concern=WriteConcern(w=0))
            self._unacknowledged[name] = known
        return known

    def close(self) -> None:
        """Give the sockets back."""
        while self.before_close:
            self.before_close.pop()()
        self.client.close()

    def in_transaction(self, body: Callable[[Session], T]) -> T:
        """Run ``body`` so that all of its writes appear together or not at all.

        ``body`` may run more than once: the driver repeats it after a write conflict. Keep it free of
        side effects outside the session.

        Raises:
            EmboflowError: What ``body`` raised, or the driver's failure as one of our tree.
            UnavailableError: No server answered for 20 s.
        """
        give_up = time.monotonic() + _OUTAGE_S

        def once(session: Session) -> T:
            try:
                return body(session)
            except ServerSelectionTimeoutError as error:
                # The driver would go on for two minutes; an election takes seconds.
                if time.monotonic() < give_up:
                    raise
                raise _translation(error) from error

        with translated(), self.client.start_session() as session, _transient_passes():
            return session.with_transaction(
                once,
                read_concern=ReadConcern("snapshot"),
                write_concern=MAJORITY,
                max_commit_time_ms=10_000,
            )

    def server_time(self) -> Any:
        """The server's clock, the only one that leases trust."""
        with translated():
            return self.client.admin.command("hello")["localTime"].replace(tzinfo=UTC)


def connect(uri: str, database: str = "emboflow", *, timeout_ms: int = 5_000) -> Mongo:
    """Open the database behind ``uri``.

    Args:
        uri: A replica set's or mongos' URI. Write-concern options may repeat ours, not weaken them.
        database: Database name.
        timeout_ms: How long to look for a server, in milliseconds.

    Raises:
        ConfigurationError: Standalone server (kind ``topology``), weak options (kind ``write-concern``).
        UnavailableError: No server answers; the message has the host, never the password.
    """
    hosts = _refuse_weak(uri)
    try:
        client: MongoClient[Raw] = MongoClient(
            uri,
            serverSelectionTimeoutMS=timeout_ms,
            connectTimeoutMS=timeout_ms,
            retryWrites=True,
            retryReads=True,
            w="majority",
            journal=True,
            readConcernLevel="majority",
            appname="emboflow",
            tz_aware=True,
            uuidRepresentation="standard",
        )
    except (DriverConfigurationError, ValueError) as error:
        raise ConfigurationError(f"EMBOFLOW_MONGO_URI: {error}") from None
    try:
        _refuse_unfit(client, hosts, timeout_ms)
    except BaseException:
        client.close()
        raise
    return Mongo(client, database, uri)


def _refuse_unfit(client: MongoClient[Raw], hosts: str, timeout_ms: int) -> None:
    try:
        hello = client.admin.command("hello")
    except (DriverConfigurationError, ValueError) as error:
        raise ConfigurationError(f"EMBOFLOW_MONGO_URI: {error}") from None
    except OperationFailure as error:
        raise ConfigurationError(
            f"MongoDB at {hosts} refused the login: {(error.details or {}).get('errmsg', error.code)}",
            hint="check user, password and authSource of EMBOFLOW_MONGO_URI",
        ) from None
    except PyMongoError as error:
        raise UnavailableError(
            f"no MongoDB answers at {hosts} within {timeout_ms / 1000:g} s ({type(error).__name__})",
            hint="start it, or unset EMBOFLOW_MONGO_URI for the embedded one; `emboflow doctor` tells more",
        ) from None
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise ConfigurationError(
            f"MongoDB at {hosts} is a standalone server; transactions need a replica set",
            kind=ErrorKind.TOPOLOGY,
            hint="start mongod with --replSet rs0 and run rs.initiate() once; one member is enough",
        )


def _refuse_weak(uri: str) -> str:
    try:
        parsed = parse_uri(uri, validate=True, warn=False)
    except (DriverConfigurationError, PyMongoError, ValueError) as error:
        raise ConfigurationError(f"EMBOFLOW_MONGO_URI is not a MongoDB URI: {error}") from None
    options = {str(k).lower(): v for k, v in dict(parsed["options"]).items()}
    weak = [
        f"{name}={options[name]}"
        for name, fine in (
            ("w", "majority"),
            ("journal", True),
            ("j", True),
            ("retrywrites", True),
            ("readconcernlevel", "majority"),
        )
        if name in options and options[name] != fine
    ]
    if weak:
        raise ConfigurationError(
            f"EMBOFLOW_MONGO_URI asks for {', '.join(weak)}; acknowledged writes could be lost",
            kind=ErrorKind.WRITE_CONCERN,
            hint="leave w, journal, retryWrites and readConcernLevel out: majority and journaled are used",
        )
    preference = str(options.get("readpreference", "primary"))
    if preference.lower() != "primary":
        raise ConfigurationError(
            f"EMBOFLOW_MONGO_URI asks for readPreference={preference}; what was just written could be missed",
            hint="leave readPreference out: the primary is read",
        )
    return ", ".join(f"{host}:{port}" if port else str(host) for host, port in parsed["nodelist"])


_in_transaction: ContextVar[bool] = ContextVar("emboflow_in_transaction", default=False)


@contextmanager
def _transient_passes() -> Iterator[None]:
    """Inside, :func:`translated` leaves alone what the driver repeats a transaction for."""
    token = _in_transaction.set(True)
    try:
        yield
    finally:
        _in_transaction.reset(token)


@contextmanager
def translated() -> Iterator[None]:
    """Driver failures as errors of our tree; everything else passes."""
    try:
        yield
    except PyMongoError as error:
        if _in_transaction.get() and error.has_error_label("TransientTransactionError"):
            raise
        raise _translation(error) from error
    except (BSONError, OverflowError) as error:  # not of the driver's tree: found before anything was sent
        raise InvalidInputError(
            f"MongoDB cannot hold the document: {str(error)[:300]}", kind=ErrorKind.DOCUMENT_INVALID
        ) from error


def _translation(error: PyMongoError) -> EmboflowError:
    if isinstance(error, DuplicateKeyError):
        details = error.details or {}
        keys = ", ".join(f"{k}={v!r}" for k, v in (details.get("keyValue") or {}).items())
        return AlreadyExistsError(f"there is already a document with {keys or 'this key'}")
    if isinstance(error, BulkWriteError):
        rows = error.details.get("writeErrors")
        if not rows:  # written, but not yet by a majority
            unsure = (error.details.get("writeConcernErrors") or [{}])[0]
            return UnavailableError(
                f"MongoDB refused an operation: {unsure.get('code')}: {unsure.get('errmsg')}"
            )
        if rows[0].get("code") == _DUPLICATE_KEY:
            keys = ", ".join(f"{k}={v!r}" for k, v in (rows[0].get("keyValue") or {}).items())
            return AlreadyExistsError(f"there is already a document with {keys or 'this key'}")
        return InvalidInputError(
            f"MongoDB's validator refused the document: {str(rows[0].get('errInfo', error))[:600]}",
            kind=ErrorKind.DOCUMENT_INVALID,
        )
    if isinstance(error, WriteError) or getattr(error, "code", None) == _VALIDATION_FAILURE:
        rules = str((getattr(error, "details", None) or {}).get("errInfo", ""))[:600]
        return InvalidInputError(
            f"MongoDB's validator refused the document: {rules or error}", kind=ErrorKind.DOCUMENT_INVALID
        )
    if isinstance(error, ConnectionFailure):
        if full := away.full_disk(error):
            return UnavailableError(
                f"MongoDB went away: {full}; whether the last write happened is not known",
                kind=ErrorKind.DISK_FULL,
                hint="make room and run it again: what was acknowledged is there, every step can be repeated",
            )
        return UnavailableError(
            f"MongoDB went away ({type(error).__name__}); whether the last write happened is not known",
            hint="run the command again: every step can be repeated",
        )
    if isinstance(error, OperationFailure):
        text = (error.details or {}).get("errmsg", str(error))
        return UnavailableError(
            f"MongoDB refused an operation: {error.code}: {str(text)[:300]}",
            kind=ErrorKind.DISK_FULL if error.code == _OUT_OF_DISK_SPACE else None,
        )
    return UnavailableError(f"MongoDB: {type(error).__name__}: {str(error)[:300]}")
