"""Recordings of JSON messages, as small as a test needs them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mcap.writer import Writer  # noqa: TID253 - this module is about what this library writes

MS = 1_000_000
START = 1_700_000_000_000_000_000


def recording(path: Path, topics: Mapping[str, Iterable[tuple[float, dict[str, Any]]]]) -> Path:
    """An MCAP of JSON messages: {topic: [(ms, fields)]}."""
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("fields", "jsonschema", b'{"type": "object"}')
        channels = {topic: writer.register_channel(topic, "json", schema) for topic in topics}
        rows = [(ms, topic, fields) for topic, found in topics.items() for ms, fields in found]
        for ms, topic, fields in sorted(rows, key=lambda row: row[0]):
            stamp = START + round(ms * MS)
            writer.add_message(channels[topic], stamp, json.dumps(fields).encode(), stamp)
        writer.finish()
    return path
