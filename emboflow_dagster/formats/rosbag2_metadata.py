"""The ``metadata.yaml`` of a rosbag2 recording: what it declares, which is often not what the files hold.

Source: https://github.com/ros2/rosbag2 (rosbag2_storage, BagMetadata), versions 1 to 9.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.formats.topics import MAX_STAMP

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


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _inner(info: dict[str, Any], outer: str, inner: str) -> object:
    value = info.get(outer)
    return value.get(inner) if isinstance(value, dict) else value
