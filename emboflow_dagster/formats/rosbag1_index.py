"""What the index of a ROS1 bag declares, read from its end: no chunk is opened.

Source: https://wiki.ros.org/Bags/Format/2.0
"""

import struct
from typing import Any, BinaryIO, Final

from emboflow_dagster.formats.framing import DamagedError, Window
from emboflow_dagster.formats.rosbag1 import (
    MAGIC,
    MAX_HEADER_BYTES,
    OP_BAG_HEADER,
    OP_CHUNK_INFO,
    OP_CONNECTION,
    fields,
)

_PAIR: Final = struct.Struct("<II")
_NS: Final = 1_000_000_000
MAX_TOPICS: Final = 1_000


def summary(file: BinaryIO, size: int) -> dict[str, Any]:
    """Messages, duration and topics as the bag's index has them.

    Args:
        file: The bag, which can be sought.
        size: Its bytes.

    Returns:
        ``messageCount``, ``durationNs``, ``topics`` {name: {type, count}}; ``messageCount`` is ``None`` and
        ``indexed`` false where the bag was never closed.

    Raises:
        DamagedError, CutError: What stands there is no index.
    """
    file.seek(len(MAGIC))
    head, _ = _record(Window(file, size - len(MAGIC)))
    if head.get(b"op") != bytes([OP_BAG_HEADER]):
        raise DamagedError("the first record is not the bag's header")
    index = int.from_bytes(head.get(b"index_pos", b""), "little")
    if not index:
        return {"messageCount": None, "durationNs": None, "topics": {}, "indexed": False}
    if index > size:
        raise DamagedError(f"the index should be at byte {index}, the bag has {size}")
    file.seek(index)
    window = Window(file, size - index)
    topics: dict[bytes, tuple[str, str]] = {}
    counts: dict[bytes, int] = {}
    first = last = None
    while window.left:
        header, data = _record(window)
        op = header.get(b"op")
        if op == bytes([OP_CONNECTION]):
            kind = fields(data).get(b"type", b"")
            topics[header.get(b"conn", b"")] = (_text(header.get(b"topic", b"")), _text(kind))
        elif op == bytes([OP_CHUNK_INFO]):
            for at in range(0, len(data) - 7, 8):
                counts[data[at : at + 4]] = counts.get(data[at : at + 4], 0) + _PAIR.unpack_from(data, at)[1]
            start, end = _stamp(header[b"start_time"]), _stamp(header[b"end_time"])
            first = start if first is None else min(first, start)
            last = end if last is None else max(last, end)
    found: dict[str, dict[str, Any]] = {}
    for key, (topic, kind) in topics.items():
        if topic in found or len(found) < MAX_TOPICS:  # several publishers of one topic count together
            row = found.setdefault(topic, {"type": kind, "count": 0})
            row["count"] += counts.get(key, 0)
    return {
        "messageCount": sum(counts.values()),
        "durationNs": last - first if first is not None and last is not None else None,
        "topics": found,
        "indexed": True,
    }


def _record(window: Window) -> tuple[dict[bytes, bytes], bytes]:
    parts: list[bytes] = []
    for _ in range(2):
        length = int.from_bytes(window.read(4), "little")
        if length > MAX_HEADER_BYTES:
            raise DamagedError(f"a record of {length} bytes in the index")
        parts.append(window.read(length))
    return fields(parts[0]), parts[1]


def _stamp(value: bytes) -> int:
    seconds, nanoseconds = _PAIR.unpack(value)
    return seconds * _NS + nanoseconds


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
