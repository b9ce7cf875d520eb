"""The SQLite file of a rosbag2 recording, read only and without touching its folder.

Source: https://github.com/ros2/rosbag2 (rosbag2_storage_sqlite3), schema versions 1 to 4.
"""

import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from emboflow_dagster.formats.recording import MAX_MESSAGE_BYTES, Connection, Facts, Message, Wanted
from emboflow_dagster.formats.rosbag2_wal import WAL, wal_bytes, with_wal
from emboflow_dagster.formats.sqlite_pages import Pages, Seen

if TYPE_CHECKING:
    from sqlite3 import Connection as Database

_TOPIC_DETAILS = ("offered_qos_profiles", "type_description_hash")


def messages(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
    """The messages of one ``.db3`` in recording order, as every ``recording.Reader`` gives them."""
    yield from _messages(path, facts, wanted, compression="")


def compressed_messages(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
    """As :func:`messages`, for a bag whose metadata says that each message is compressed with zstd."""
    yield from _messages(path, facts, wanted, compression="zstd")


def is_bag_database(path: Path, head: bytes, *, merged: bool = False) -> bool:
    """Whether a SQLite file has a rosbag2 recording's tables; a damaged one is judged by its first bytes."""
    DatabaseError = _sqlite3().DatabaseError  # noqa: N806 - a class
    if not merged and wal_bytes(path):
        try:
            with with_wal(path) as copy:
                return is_bag_database(copy, head, merged=True)
        except OSError:
            pass  # what the database says without it
    try:
        database = _open(path, merged=merged)
    except (DatabaseError, OSError):
        return b"CREATE TABLE messages" in head
    try:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 100").fetchall()
    except DatabaseError:
        return b"CREATE TABLE messages" in head
    finally:
        database.close()
    return {"topics", "messages"} <= {name for (name,) in rows}


def _sqlite3() -> ModuleType:
    # A .db3 is a recording somebody hands us, a format like any other: reading it needs SQLite. EmboFlow
    # itself keeps nothing in SQLite; its only database is MongoDB. Hence the import stands here alone.
    import sqlite3

    return sqlite3


def _open(path: Path, *, merged: bool) -> "Database":
    # immutable: no -shm or -wal file is created beside the recording, and no lock is taken. A copy is merged
    # with its -wal, in the place of the copy.
    how = "mode=ro" if merged else "mode=ro&immutable=1"
    database = _sqlite3().connect(f"{path.absolute().as_uri()}?{how}", uri=True)
    database.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
    database.execute("PRAGMA trusted_schema = OFF")
    return database


def _messages(path: Path, facts: Facts, wanted: Wanted, *, compression: str) -> Iterator[Message]:
    unmerged = wal_bytes(path)
    if not unmerged:
        yield from _of_file(path, facts, wanted, compression, merged=False)
        return
    text = f"{unmerged} bytes in {path.name}{WAL} were never merged"
    try:
        with with_wal(path) as copy:
            facts.warn("unapplied_wal", f"{text}: the recorder did not end; they are read", path.name)
            yield from _of_file(copy, facts, wanted, compression, merged=True)
    except OSError as error:
        text += f" and are not read: {error.strerror or error}"
        facts.warn("unapplied_wal", text, path.name)
        yield from _of_file(path, facts, wanted, compression, merged=False)


def _of_file(
    path: Path, facts: Facts, wanted: Wanted, compression: str, *, merged: bool
) -> Iterator[Message]:
    DatabaseError = _sqlite3().DatabaseError  # noqa: N806 - a class
    seen = Seen()
    topics: dict[int, Connection] = {}
    if not merged and _is_short(path, facts):
        # SQLite would read zeros where the last page is cut, and take them for the end of a message.
        yield from _salvaged(path, facts, wanted, compression, topics, seen)
        return
    try:
        yield from _rows(path, facts, wanted, compression, topics, seen, merged=merged)
    except (DatabaseError, UnicodeDecodeError) as error:  # the latter for a message about damaged names
        # SQLite refuses a file that was cut as a whole, or stops where a page is damaged.
        found = yield from _salvaged(path, facts, wanted, compression, topics, seen)
        facts.warn("truncated", f"{error}; {found} messages were read from single pages", path.name)


def _rows(
    path: Path,
    facts: Facts,
    wanted: Wanted,
    compression: str,
    topics: dict[int, Connection],
    seen: Seen,
    *,
    merged: bool,
) -> Iterator[Message]:
    """The messages as SQLite gives them; fills ``topics`` and ``seen``."""
    database = _open(path, merged=merged)
    try:
        topics |= _topics(database, facts, compression)
        rows = database.execute("SELECT id, topic_id, timestamp, length(data) FROM messages ORDER BY id")
        blob = "SELECT CASE WHEN length(data) <= ? THEN data END FROM messages WHERE id = ?"
        orphans = 0
        for row, topic, stamp, size in rows:
            connection = topics.get(topic)
            if connection is None or not isinstance(stamp, int):
                orphans += 1
                continue
            data = None
            if wanted(connection):
                found = database.execute(blob, (MAX_MESSAGE_BYTES, row)).fetchone()
                if found is None:
                    raise _sqlite3().DatabaseError("a message that is listed is not there")
                (data,) = found
            seen.add(row)
            facts.payload_bytes += size or 0
            yield Message(connection, stamp, data)
        if orphans:
            facts.warn("corrupt", f"{orphans} messages have no topic or no time stamp", path.name)
    finally:
        database.close()


def _salvaged(
    path: Path, facts: Facts, wanted: Wanted, compression: str, topics: dict[int, Connection], seen: Seen
) -> Generator[Message, None, int]:
    """The messages on the pages that are there and were not given yet; how many they were."""
    found = 0
    try:
        with Pages(path) as pages:
            if not topics:
                topics |= _topics_of(pages, facts, compression)
            for row, values in pages.all_rows():
                if len(values) != 4 or values[0] is not None:  # noqa: PLR2004 - id, topic_id, timestamp, data
                    continue
                _, topic, stamp, data = values
                if not (type(topic) is type(stamp) is int and isinstance(data, bytes)):
                    continue
                connection = topics.get(topic)
                if connection is None or not seen.add(row):
                    continue
                found += 1
                facts.payload_bytes += len(data)
                asked = wanted(connection) and len(data) <= MAX_MESSAGE_BYTES
                yield Message(connection, stamp, data if asked else None)
    except (ValueError, OSError) as error:
        facts.warn("unreadable", f"not a SQLite database: {error}", path.name)
    return found


def _topics_of(pages: Pages, facts: Facts, compression: str) -> dict[int, Connection]:
    """The topics that a damaged file still names."""
    roots = pages.tables()
    definitions: dict[str, tuple[str, bytes]] = {}
    for _, values in pages.tree(roots.get("message_definitions", 0)):
        if len(values) >= 4 and all(isinstance(text, str) for text in values[1:4]):  # noqa: PLR2004
            definitions[values[1]] = (values[2], values[3].encode())
    found: dict[int, Connection] = {}
    for row, values in pages.tree(roots.get("topics", 0)):
        texts = values[1:]
        if len(texts) < 3 or not all(isinstance(text, str) for text in texts):  # noqa: PLR2004
            continue
        name, type_name, serialization, *more = texts
        encoding, definition = definitions.get(type_name, ("", b""))
        details = dict(zip(map(str, _TOPIC_DETAILS), more, strict=False))
        found[row] = Connection(name, type_name, serialization, definition, encoding, compression, details)
        facts.connections.append(found[row])
    return found


def _is_short(path: Path, facts: Facts) -> bool:
    """Whether the file has fewer bytes than it announces; warns of it."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100:  # noqa: PLR2004 - the header's length
        return False
    (page,) = struct.unpack_from(">H", head, 16)
    (pages,) = struct.unpack_from(">I", head, 28)
    announced = (65_536 if page == 1 else page) * pages
    size = path.stat().st_size
    if size < announced:
        facts.warn("truncated", f"the database announces {announced} bytes, {size} are there", path.name)
    return size < announced


def _topics(database: "Database", facts: Facts, compression: str) -> dict[int, Connection]:
    definitions: dict[str, tuple[str, bytes]] = {}
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "message_definitions" in tables:
        for name, encoding, text in database.execute(
            "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        ):
            definitions[name] = (encoding, text.encode() if isinstance(text, str) else text or b"")
    if "schema" in tables:
        for version, distro in database.execute("SELECT schema_version, ros_distro FROM schema"):
            facts.details |= {"schemaVersion": version, "rosDistro": distro}
    found: dict[int, Connection] = {}
    there = {name for (name,) in database.execute("SELECT name FROM pragma_table_info('topics')")}
    more = [name for name in _TOPIC_DETAILS if name in there]
    columns = ", ".join(("id", "name", "type", "serialization_format", *more))
    for identity, name, type_name, serialization, *texts in database.execute(
        f"SELECT {columns} FROM topics ORDER BY id"  # noqa: S608 - names of a constant
    ):
        encoding, definition = definitions.get(type_name, ("", b""))
        details = {key: text for key, text in zip(more, texts, strict=True) if isinstance(text, str)}
        connection = Connection(name, type_name, serialization, definition, encoding, compression, details)
        found[identity] = connection
        facts.connections.append(connection)
    return found


_SCHEMA = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
  serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,
  type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
  encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
  data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
"""


class Writer:
    """Writes a recording's database, schema version 4. Source: rosbag2_storage_sqlite3."""

    def __init__(self, path: Path, distro: str) -> None:
        self._database = _sqlite3().connect(path)
        self._database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_SCHEMA}")
        self._database.execute("INSERT INTO schema VALUES (4, ?)", (distro,))
        self._topics: dict[Connection, int] = {}
        self._defined: set[str] = set()

    def topic(self, connection: Connection) -> int:
        """The topic's row number; its row is written where it is new."""
        known = self._topics.get(connection)
        if known is not None:
            return known
        qos, digest = (connection.details.get(name, "") for name in _TOPIC_DETAILS)
        self._topics[connection] = number = len(self._topics) + 1
        row = (number, connection.topic, connection.type, connection.encoding, qos, digest)
        self._database.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?)", row)
        if connection.definition and connection.type not in self._defined:
            self._defined.add(connection.type)
            text = connection.definition.decode("utf-8", "backslashreplace")
            self._database.execute(
                "INSERT INTO message_definitions VALUES (NULL, ?, ?, ?, ?)",
                (connection.type, connection.definition_encoding, text, digest),
            )
        return number

    def add(self, message: Message) -> None:
        """One message, behind those before it."""
        row = (self.topic(message.connection), message.stamp_ns, message.data)
        self._database.execute("INSERT INTO messages VALUES (NULL, ?, ?, ?)", row)

    def close(self) -> None:
        """Commit and close."""
        self._database.commit()
        self._database.close()
