"""Recover a damaged recording: all that is readable, written to a whole file of the same container.

What was written is read again from the disk, by the reader that found the messages and by the library that
people use, and compared with what was read before: a copy that cannot be read, or holds other messages, is
an error and never a result.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.formats.bags import DAMAGE
from emboflow_dagster.formats.detect import read_head, recording, recording_parts, signature
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.probe import format_of
from emboflow_dagster.formats.recording import Connection, Facts, Message, Part, Wanted
from emboflow_dagster.formats.recover_writers import McapSink, Sink, sink
from emboflow_dagster.formats.report import ProbeWarning
from emboflow_dagster.formats.rosbag2_metadata import NAME, read_metadata, write_metadata
from emboflow_dagster.formats.rosbag2_packed import kind_inside
from emboflow_dagster.formats.topics import TopicTable

_LENGTHS = struct.Struct("<IqI")
Tell = Callable[[int], None]
Drop = Callable[[str, int], bool]
TELL_EVERY = 4_096


@dataclass(slots=True)
class Content:
    """What one file holds: messages by topic and type, and a hash over all of them in order."""

    table: TopicTable = field(default_factory=TopicTable)
    bytes: int = 0
    too_large: int = 0
    connections: list[Connection] = field(default_factory=list)
    _digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def see(self, message: Message) -> bool:
        """Count a message; False where it is too large to be held in memory, and was left out."""
        if message.data is None:
            self.too_large += 1
            return False
        connection = message.connection
        self.table.topic(connection.topic, connection.type).seen(message.stamp_ns)
        self.bytes += len(message.data)
        topic = f"{connection.topic}\n{connection.type}".encode("utf-8", "backslashreplace")
        self._digest.update(_LENGTHS.pack(len(topic), message.stamp_ns & (2**63 - 1), len(message.data)))
        self._digest.update(topic)
        self._digest.update(message.data)
        return True

    @property
    def digest(self) -> str:
        """Equal for equal messages in equal order."""
        return self._digest.hexdigest()

    def counts(self) -> dict[str, int]:
        """Messages by topic, those without any left out."""
        return {name: topic.count for name, topic in sorted(self.table.topics.items()) if topic.count}


def recover_recording(
    path: Path, out: Path, tell: Tell | None = None, *, drop: Drop | None = None
) -> dict[str, Any]:
    """Write what is readable of a recording below ``out``.

    Args:
        path: A bag, an MCAP, or a folder of them.
        out: An existing, empty folder. It gets one file, or a folder with the recording's files where it was
            a folder (with a new ``metadata.yaml`` for rosbag2).
        tell: Called with the number of messages read so far.
        drop: Told the file and the stamp (ns) of each message: whether it is left out. The rest is written
            also where nothing is damaged; attachments, which have no such stamp, are not.

    Returns:
        ``path`` (relative to ``out``; ``None`` where nothing was damaged and nothing is kept), ``whole``,
        ``format``, ``messages``, ``bytes`` (of content), ``seconds``, ``topics`` {name: count}, ``files``
        {name: count}, ``tooLarge`` (messages left out for their size), ``warnings`` (what was wrong).

    Raises:
        InvalidInputError: It is no recording (``format-unsupported``), or no message in it can be read
            (``file-corrupt``). Nothing is left in ``out``.
        IntegrityError: What was written does not hold what was read.
    """
    kind, parts = recording(path)
    if not parts and format_of(path).startswith("hdf5"):
        from emboflow_dagster.formats.recover_hdf5 import recover_hdf5

        return recover_hdf5(path, out)
    if not parts:
        raise InvalidInputError(f"{path.name} is no recording of messages", kind=ErrorKind.FORMAT_UNSUPPORTED)
    base = out / path.name if path.is_dir() else out
    written: dict[str, Content] = {}
    warnings: list[ProbeWarning] = []
    for part in parts:
        facts = Facts()
        name = _name(part)
        target = base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        written[name] = _rewrite(_without(part, drop) if drop else part, target, facts, tell)
        warnings += facts.warnings
    counted = sum(content.table.count for content in written.values())
    damaged = any(warning.code in DAMAGE | {"unreadable"} for warning in warnings)
    if drop is not None:
        damaged = bool(counted)
    if not damaged or not counted:
        for name in written:
            (base / name).unlink()
    if not counted and damaged:
        text = f"{path.name}: no message in it can be read"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT, hint=warnings[0].message)
    if damaged:
        _describe(path, base, kind, written)
        verify(base if path.is_dir() else base / next(iter(written)), written)
    stamps = [
        (content.table.start_ns, content.table.end_ns) for content in written.values() if content.table.count
    ]
    start = min((first for first, _ in stamps if first is not None), default=0)
    end = max((last for _, last in stamps if last is not None), default=0)
    return {
        "path": (path.name if path.is_dir() else next(iter(written))) if damaged else None,
        "whole": not damaged,
        "format": kind,
        "messages": counted,
        "bytes": sum(content.bytes for content in written.values()),
        "seconds": (end - start) / 1e9,
        "topics": _together(written),
        "files": {name: content.table.count for name, content in written.items()},
        "tooLarge": sum(content.too_large for content in written.values()),
        "warnings": [{"code": w.code, "message": w.message, "path": w.path} for w in warnings[:50]],
    }


def verify(path: Path, written: dict[str, Content]) -> None:
    """Read a recording that was just written, and compare it message by message.

    Raises:
        IntegrityError: It is damaged, or holds anything else.
    """
    found: dict[str, Content] = {}
    for part in recording_parts(path):
        facts = Facts()
        content = found[part[1]] = Content()
        for message in part[2](part[0], facts, lambda _: True):
            content.see(message)
        wrong = [warning for warning in facts.warnings if warning.code in DAMAGE | {"metadata_mismatch"}]
        if wrong:
            raise IntegrityError(f"{part[1]} was written and is {wrong[0].code}: {wrong[0].message}")
        _open_by_library(part[0], content.table.count)
    if set(found) != set(written):
        raise IntegrityError(f"written were {sorted(written)}, found are {sorted(found)}")
    for name, content in written.items():
        if (content.counts(), content.digest) != (found[name].counts(), found[name].digest):
            raise IntegrityError(
                f"{name}: {content.table.count} messages were written, other {found[name].table.count} "
                "are read from the new file"
            )


def _rewrite(part: Part, target: Path, facts: Facts, tell: Tell | None) -> Content:
    path, _, reader = part
    content = Content()
    kind = signature(read_head(path))
    if kind == "zstd":
        kind = kind_inside(read_head(path), path.name) or "sqlite3"
    target_sink: Sink | None = None

    def keep(opcode: int, record: bytes) -> None:
        nonlocal target_sink
        target_sink = target_sink or sink(kind, target, facts)
        if isinstance(target_sink, McapSink):
            target_sink.keep(opcode, record)

    facts.keep = keep
    try:
        for message in reader(path, facts, lambda _: True):
            target_sink = target_sink or sink(kind, target, facts)
            if content.see(message):
                target_sink.add(message)
            if tell is not None and content.table.count % TELL_EVERY == 0:
                tell(content.table.count)
        target_sink = target_sink or sink(kind, target, facts)
        for connection in facts.connections:
            target_sink.topic(connection)
            content.connections.append(connection)
    finally:
        if target_sink is not None:
            target_sink.close()
    return content


def _without(part: Part, drop: Drop) -> Part:
    path, name, reader = part

    def left(path: Path, facts: Facts, wanted: Wanted) -> Iterator[Message]:
        facts.keep = lambda _opcode, _record: None
        return (message for message in reader(path, facts, wanted) if not drop(name, message.stamp_ns))

    return path, name, left


def _name(part: Part) -> str:
    """What the part is called in the copy: compressed as a whole it is not any more."""
    return part[1].removesuffix(".zstd").removesuffix(".zst")


def _open_by_library(path: Path, count: int) -> None:
    """Open a file with the library that people read it with, and ask it for the count."""
    kind = signature(read_head(path))
    with needs_extra("rosbag"):
        if kind == "rosbag1":
            from rosbags.rosbag1 import Reader

            with Reader(path) as bag:
                found = bag.message_count
        elif kind == "mcap":
            from mcap.reader import make_reader

            with path.open("rb") as stream:
                summary = make_reader(stream).get_summary()
                found = summary.statistics.message_count if summary and summary.statistics else None
        else:
            found = count  # SQLite itself has read it
    if found != count:
        raise IntegrityError(f"{path.name}: {count} messages were written, its index says {found}")


def _describe(path: Path, base: Path, kind: str, written: dict[str, Content]) -> None:
    """Write the ``metadata.yaml`` of each rosbag2 recording anew: the old one declares what was lost.

    A recorder that was killed wrote none, and ROS plays no folder without.
    """
    if not path.is_dir():
        return
    for folder in _folders(written):
        old = path / folder / NAME
        if not old.is_file() and not kind.startswith("rosbag2"):
            continue
        here = {n: c for n, c in written.items() if PurePosixPath(n).parent == folder}
        mode = ""
        try:
            mode = read_metadata(old).compression_mode
        except (InvalidInputError, OSError):
            mode = ""
        first = base / next(iter(here))
        write_metadata(
            base / folder / NAME,
            storage="mcap" if signature(read_head(first)) == "mcap" else "sqlite3",
            message_compression=mode == "message",
            files={PurePosixPath(name).name: content.table for name, content in here.items()},
            connections=[connection for content in here.values() for connection in content.connections],
        )


def _folders(written: dict[str, Content]) -> list[PurePosixPath]:
    return list(dict.fromkeys(PurePosixPath(name).parent for name in written))


def _together(written: dict[str, Content]) -> dict[str, int]:
    found: dict[str, int] = {}
    for content in written.values():
        for topic, count in content.counts().items():
            found[topic] = found.get(topic, 0) + count
    return found
