"""The SQLite file of a rosbag2 recording, read only and without touching its folder.

Source: https://github.com/ros2/rosbag2 (rosbag2_storage_sqlite3), schema versions 1 to 4.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from emboflow_dagster.formats.recording import MAX_MESSAGE_BYTES, Connection, Facts, Message, Wanted

if TYPE_CHECKING:
    from sqlite3 import Connection as Database


def messages(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
    """The messages of one ``.db3`` in recording order, as every ``recording.Reader`` gives them."""
    yield from _messages(path, facts, wanted, compression="")


def compressed_messages(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
    """As :func:`messages`, for a bag whose metadata says that each message is compressed with zstd."""
    yield from _messages(path, facts, wanted, compression="zstd")


def is_bag_database(path: Path, head: bytes) -> bool:
    """Whether a SQLite file has a rosbag2 recording's tables; a damaged one is judged by its first bytes."""
    DatabaseError = _sqlite3().DatabaseError  # noqa: N806 - a class
    try:
        database = _open(path)
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


def _open(path: Path) -> "Database":
    # immutable: no -shm or -wal file is created beside the recording, and no lock is taken.
    database = _sqlite3().connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    database.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
    database.execute("PRAGMA trusted_schema = OFF")
    return database


def _messages(path: Path, facts: Facts, wanted: Wanted, *, compression: str) -> Iterator[Message]:
    DatabaseError = _sqlite3().DatabaseError  # noqa: N806 - a class
    wal = path.with_name(path.name + "-wal")
    if wal.is_file() and wal.stat().st_size:
        text = f"{wal.stat().st_size} bytes in {wal.name} were never merged and are not read"
        facts.warn("unapplied_wal", text, path.name)
    _check_size(path, facts)
    read = 0
    try:
        database = _open(path)
    except DatabaseError as error:
        facts.warn("unreadable", f"not a SQLite database: {error}", path.name)
        return
    try:
        topics = _topics(database, facts, compression)
        rows = database.execute("SELECT id, topic_id, timestamp FROM messages ORDER BY id")
        blob = "SELECT CASE WHEN length(data) <= ? THEN data END FROM messages WHERE id = ?"
        orphans = 0
        for row, topic, stamp in rows:
            connection = topics.get(topic)
            if connection is None or not isinstance(stamp, int):
                orphans += 1
                continue
            data = None
            if wanted(connection):
                (data,) = database.execute(blob, (MAX_MESSAGE_BYTES, row)).fetchone()
            read += 1
            yield Message(connection, stamp, data)
        if orphans:
            facts.warn("corrupt", f"{orphans} messages have no topic or no time stamp", path.name)
    except DatabaseError as error:
        facts.warn("truncated", f"{read} messages read, then: {error}", path.name)
    finally:
        database.close()


def _check_size(path: Path, facts: Facts) -> None:
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100:  # noqa: PLR2004 - the header's length
        return
    (page,) = struct.unpack_from(">H", head, 16)
    (pages,) = struct.unpack_from(">I", head, 28)
    announced = (65_536 if page == 1 else page) * pages
    size = path.stat().st_size
    if size < announced:
        facts.warn("truncated", f"the database announces {announced} bytes, {size} are there", path.name)


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
    for identity, name, type_name, serialization in database.execute(
        "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
    ):
        encoding, definition = definitions.get(type_name, ("", b""))
        connection = Connection(name, type_name, serialization, definition, encoding, compression)
        found[identity] = connection
        facts.connections.append(connection)
    return found
