"""The ``metadata.yaml`` of a rosbag2 recording: what it declares, which is often not what the files hold.

Source: https://github.com/ros2/rosbag2 (rosbag2_storage, BagMetadata), versions 1 to 9.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.recording import Connection
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.formats.topics import MAX_STAMP, TopicTable

NAME = "metadata.yaml"
KEY = "rosbag2_bagfile_information"
MAX_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class Metadata:
    """Declared values, ``None`` where there are none. Stamps are ns; INT64_MAX (an empty bag) is ``None``."""

    version: int | None = None
    storage: str = ""
    files: list[str] = field(default_factory=list)
    message_count: int | None = None
    start_ns: int | None = None
    duration_ns: int | None = None
    topics: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    serialization: list[str] = field(default_factory=list)
    compression_format: str = ""
    compression_mode: str = ""

    def to_json(self) -> dict[str, Any]:
        """The ``declared`` part of a report's structure."""
        return {
            "metadataVersion": self.version,
            "storage": self.storage,
            "files": list(self.files),
            "messageCount": self.message_count,
            "startNs": self.start_ns,
            "durationNs": self.duration_ns,
            "topics": {name: {"type": t, "count": count} for name, (t, count) in self.topics.items()},
            "serialization": list(self.serialization),
            "compression": {"format": self.compression_format, "mode": self.compression_mode},
        }

    def compare(self, probe: Probe, where: str) -> None:
        """Warn ``metadata_mismatch`` for every declared value that is not what was found."""
        found = probe.structure
        pairs = [("message count", self.message_count, found["messageCount"])]
        if found["messageCount"]:
            pairs.append(("start", self.start_ns, found["startNs"]))
            pairs.append(("duration", self.duration_ns, found["durationNs"]))
        for name, (_, count) in sorted(self.topics.items()):
            pairs.append((f"message count of {name}", count, found["topics"].get(name, {}).get("count", 0)))
        for name, declared, counted in pairs:
            if declared is not None and declared != counted:
                text = f"{name}: declared {declared}, found {counted}"
                probe.warn("metadata_mismatch", text, where)
        for name, topic in found["topics"].items():
            if topic["count"] and name not in self.topics:
                probe.warn("metadata_mismatch", f"the topic {name} is recorded but not declared", where)


def read_metadata(path: Path) -> Metadata:
    """What a ``metadata.yaml`` declares.

    Raises:
        InvalidInputError: It is no YAML, or not about a rosbag2 recording.
        OSError: It cannot be read.
    """
    import yaml

    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES)
    try:
        document = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = f"{path.name} is no YAML: {error}"
        raise InvalidInputError(text, kind=ErrorKind.YAML_CORRUPT) from error
    info = document.get(KEY) if isinstance(document, dict) else None
    if not isinstance(info, dict):
        raise InvalidInputError(f"{path.name} has no {KEY}", kind=ErrorKind.FILE_CORRUPT)
    metadata = Metadata(
        version=_integer(info.get("version")),
        storage=_string(info.get("storage_identifier")),
        files=[name for name in _items(info.get("relative_file_paths")) if isinstance(name, str)],
        message_count=_integer(info.get("message_count")),
        start_ns=_integer(_inner(info, "starting_time", "nanoseconds_since_epoch")),
        duration_ns=_integer(_inner(info, "duration", "nanoseconds")),
        compression_format=_string(info.get("compression_format")),
        compression_mode=_string(info.get("compression_mode")).lower(),
    )
    if metadata.start_ns is not None and not 0 <= metadata.start_ns < MAX_STAMP:
        metadata.start_ns = None
    for item in _items(info.get("topics_with_message_count")):
        topic = item.get("topic_metadata") if isinstance(item, dict) else None
        if isinstance(topic, dict) and isinstance(topic.get("name"), str):
            count = _integer(item.get("message_count"))
            metadata.topics[topic["name"]] = (_string(topic.get("type")), count)
            serialization = _string(topic.get("serialization_format"))
            if serialization and serialization not in metadata.serialization:
                metadata.serialization.append(serialization)
    return metadata


def write_metadata(
    path: Path,
    *,
    storage: str,
    message_compression: bool,
    files: dict[str, TopicTable],
    connections: Iterable[Connection],
) -> None:
    """Write what the files of a recording hold, as version 5, which every rosbag2 since Galactic reads.

    Args:
        path: The file to write.
        storage: ``sqlite3`` or ``mcap``.
        message_compression: Whether each message is compressed with zstd.
        files: Name to what was counted in it, in split order.
        connections: Of all files.
    """
    import yaml

    spans = {name: (table.start_ns, table.end_ns) for name, table in files.items()}
    topics = {connection.topic: connection for connection in connections}
    starts = [start for start, _ in spans.values() if start is not None]
    ends = [end for _, end in spans.values() if end is not None]
    counts = {
        name: sum(table.topics[name].count for table in files.values() if name in table.topics)
        for name in topics
    }
    document = {
        "version": 5,
        "storage_identifier": storage,
        "duration": {"nanoseconds": max(ends, default=0) - min(starts, default=0)},
        "starting_time": {"nanoseconds_since_epoch": min(starts, default=MAX_STAMP)},
        "message_count": sum(table.count for table in files.values()),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": name,
                    "type": connection.type,
                    "serialization_format": connection.encoding,
                    "offered_qos_profiles": connection.details.get("offered_qos_profiles", ""),
                },
                "message_count": counts[name],
            }
            for name, connection in topics.items()
        ],
        "compression_format": "zstd" if message_compression else "",
        "compression_mode": "MESSAGE" if message_compression else "",
        "relative_file_paths": list(files),
        "files": [
            {
                "path": name,
                "starting_time": {"nanoseconds_since_epoch": MAX_STAMP if start is None else start},
                "duration": {"nanoseconds": 0 if start is None or end is None else end - start},
                "message_count": files[name].count,
            }
            for name, (start, end) in spans.items()
        ],
    }
    path.write_text(yaml.safe_dump({KEY: document}, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _inner(info: dict[str, Any], outer: str, inner: str) -> object:
    value = info.get(outer)
    return value.get(inner) if isinstance(value, dict) else value
