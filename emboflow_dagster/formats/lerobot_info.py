"""What a LeRobot dataset says of itself: ``meta/info.json``, its path templates and its counts."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSIONS = {"v2.0": "lerobot_v2.0", "v2.1": "lerobot_v2.1", "v3.0": "lerobot_v3.0"}
INFO = "meta/info.json"
MAX_INFO_BYTES = 16 * 1024 * 1024
MAX_WIDTH = 12
MAX_FPS = 1_000_000
_FIELD = re.compile(r"\{(\w+)(?::0?(\d+)d)?\}")
_VERSION = re.compile(r"v?(\d+\.\d+)(?:\.0)?\Z")


@dataclass(frozen=True, slots=True)
class Info:
    """What is looked at of ``info.json``; ``None`` or empty where it is not as it should be."""

    version: str | None
    document: dict[str, Any]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Declared features with ``dtype`` and ``shape``."""
        found = self.document.get("features")
        if not isinstance(found, dict):
            return {}
        return {
            str(name): {"dtype": entry.get("dtype"), "shape": entry.get("shape")}
            for name, entry in found.items()
            if isinstance(entry, dict)
        }

    @property
    def videos(self) -> list[str]:
        """Features that are stored as videos."""
        return [name for name, entry in self.features.items() if entry["dtype"] == "video"]

    @property
    def chunk_size(self) -> int:
        """Episodes per chunk."""
        found = self.integer("chunks_size")
        return found if found and found > 0 else 1_000

    @property
    def fps(self) -> float | None:
        """Frames per second."""
        found = self.document.get("fps")
        if not isinstance(found, (int, float)) or isinstance(found, bool):
            return None
        # JSON of Python's own has Infinity and NaN, and integers of any length.
        return found if 0 < found <= MAX_FPS and math.isfinite(found) else None

    @property
    def said_version(self) -> str | None:
        """What ``codebase_version`` says, also of a version that is not read; shortened."""
        found = self.document.get("codebase_version")
        return str(found)[:32] if isinstance(found, (str, int, float)) else None

    def integer(self, name: str) -> int | None:
        """A count, ``None`` where it is absent or no whole number."""
        found = self.document.get(name)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def template(self, name: str) -> str | None:
        """``data_path`` or ``video_path``."""
        found = self.document.get(name)
        return found if isinstance(found, str) else None

    def resolve(self, template: str, episode: int, video: str = "") -> str | None:
        """The path of one episode by a template; ``None`` for a template that cannot be filled."""
        values: dict[str, Any] = {
            "episode_index": episode,
            "episode_chunk": episode // self.chunk_size,
            "chunk_index": episode // self.chunk_size,
            "video_key": video,
        }
        unknown: list[str] = []

        # The template is data of strangers: `str.format` would let it reach attributes and endless widths.
        def fill(match: re.Match[str]) -> str:
            name, width = match.group(1), int(match.group(2) or 0)
            if name not in values or width > MAX_WIDTH:
                unknown.append(name)
                return ""
            return str(values[name]).zfill(width) if width else str(values[name])

        path = _FIELD.sub(fill, template)
        return None if unknown or "{" in path else path

    def declared(self) -> dict[str, Any]:
        """What is declared, as the report shows it."""
        names = ("total_episodes", "total_frames", "total_tasks", "total_videos", "total_chunks", "splits")
        return {name: self.document.get(name) for name in names if name in self.document}


def read_info(path: Path) -> Info | None:
    """The info file, ``None`` where it is no JSON object."""
    try:
        if path.stat().st_size > MAX_INFO_BYTES:
            return None
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return info_of(document)


def info_of(document: Any) -> Info | None:
    """The content of an info file, ``None`` where it is no object."""
    if not isinstance(document, dict):
        return None
    info = Info(None, document)
    # Converters also write `2.1`, as text or as a number, and `v2.1.0`.
    said = _VERSION.match(info.said_version or "")
    version = f"v{said.group(1)}" if said else None
    return Info(version, document) if version in VERSIONS else info


def why_not_read(info: Info | None) -> str:
    """What to say of a dataset of another version, or of one that does not say its version."""
    if info is None or info.said_version is None:
        return f"no {INFO} of a known LeRobot version"
    return f"LeRobot {info.said_version} is not read; 2.0, 2.1 and 3.0 are"
