"""A scene as one MCAP file for Foxglove: vectors as JSON, cameras as compressed pictures."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.previews.plots import to_rgb
from emboflow_dagster.formats.previews.scene import Scene

SECONDS = 30.0
PICTURES_FPS = 5
MAX_SAMPLES = 6_000
_VECTOR = {
    "type": "object",
    "properties": {"timestamp": {"type": "object"}, "values": {"type": "object"}},
}
# As Foxglove's own schema of that name, whose viewers show it as a picture.
_PICTURE = {
    "type": "object",
    "title": "foxglove.CompressedImage",
    "properties": {
        "timestamp": {
            "type": "object",
            "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}},
        },
        "frame_id": {"type": "string"},
        "data": {"type": "string", "contentEncoding": "base64"},
        "format": {"type": "string"},
    },
}


def save_mcap(path: Path, scene: Scene) -> tuple[int, int]:
    """Write the first 30 s of a scene; equal scenes, equal bytes. Returns (0, 0): it is no picture.

    Raises:
        ConfigurationError: The library for MCAP is not installed; the hint names the extra.
    """
    with needs_extra("rosbag"):
        from mcap.writer import CompressionType, Writer

    messages: list[tuple[int, int, bytes]] = []
    with path.open("wb") as stream:
        writer: Any = Writer(stream, compression=CompressionType.ZSTD)
        writer.start(profile="", library="emboflow-dagster")
        vector = writer.register_schema("emboflow.Vector", "jsonschema", json.dumps(_VECTOR).encode())
        picture = writer.register_schema(
            "foxglove.CompressedImage", "jsonschema", json.dumps(_PICTURE).encode()
        )
        for name, seconds, values, names in scene.panels:
            channel = writer.register_channel(f"/{name.strip('/')}", "json", vector)
            inside = int((seconds <= SECONDS).sum())
            for index in range(0, inside, max(1, inside // MAX_SAMPLES)):
                stamp = round(float(seconds[index]) * 1e9)
                said = {
                    key: _number(value) for key, value in zip(names, values[index].tolist(), strict=False)
                }
                messages.append((stamp, channel, _json({"timestamp": _time(stamp), "values": said})))
        count = max(2, int(min(SECONDS, scene.duration_s) * PICTURES_FPS))
        for name, shots in scene.cameras.items():
            channel = writer.register_channel(f"/camera/{name.strip('/')}", "json", picture)
            for second, shot in shots([place / PICTURES_FPS for place in range(count)]):
                stamp = round(max(0.0, second) * 1e9)
                data = {"timestamp": _time(stamp), "frame_id": name, "format": "jpeg", "data": _jpeg(shot)}
                messages.append((stamp, channel, _json(data)))
        for number, (stamp, channel, data) in enumerate(sorted(messages, key=lambda item: item[:2])):
            writer.add_message(channel, stamp, data, stamp, sequence=number)
        writer.finish()
    return 0, 0


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _number(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - NaN


def _time(stamp_ns: int) -> dict[str, int]:
    return {"sec": stamp_ns // 1_000_000_000, "nsec": stamp_ns % 1_000_000_000}


def _jpeg(picture: Any) -> str:
    buffer = io.BytesIO()
    to_rgb(picture).save(buffer, "JPEG", quality=75)
    return base64.b64encode(buffer.getvalue()).decode()
