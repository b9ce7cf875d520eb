"""What a canonical dataset holds: episodes with named vector features, and the manifest about them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SCHEMA_VERSION = "emboflow-canonical/1"
MANIFEST_FILE = "manifest.json"
FRAMES_FILE = "frames.parquet"
EPISODES_FILE = "episodes.parquet"
TASKS_FILE = "tasks.parquet"
RAW_INDEX_FILE = "raw_index.parquet"

#: Columns of `frames.parquet` that are no features.
INDEX_COLUMNS = (
    "episode_index",
    "frame_index",
    "index",
    "timestamp",
    "source_timestamp_ns",
    "task_index",
    "valid",
)


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One vector of numbers per frame.

    Attributes:
        names: One name per dimension; their number is the width.
        kind: ``state``, ``action``, ``velocity``, ``effort``, ``environment_state`` or ``observation``.
        unit: Unit of all dimensions, ``None`` where the source does not say.
        source_topic: Topic or dataset path that the numbers were read from.
    """

    names: tuple[str, ...]
    kind: str = "observation"
    unit: str | None = None
    source_topic: str | None = None

    @property
    def dim(self) -> int:
        """Numbers per frame."""
        return len(self.names)

    def as_manifest(self) -> dict[str, Any]:
        """The manifest's entry for this feature."""
        return {
            "dtype": "float32",
            "shape": [self.dim],
            "names": list(self.names),
            "kind": self.kind,
            "unit": self.unit,
            "sourceTopic": self.source_topic,
        }


@dataclass(frozen=True, slots=True)
class Camera:
    """The pictures of one camera over one episode, read when written.

    Attributes:
        shape: ``(height, width, 3)`` in pixels.
        frames: Gives the pictures in order, each uint8 RGB of that shape; called once.
        source_topic: Topic or dataset path of the pictures.
        video: A constant-rate mp4 of exactly these pictures at the dataset's rate: it is copied bit for bit,
            and `frames` is not called.
    """

    shape: tuple[int, int, int]
    frames: Callable[[], "Iterator[np.ndarray]"]
    source_topic: str | None = None
    video: Path | None = None


@dataclass(frozen=True, slots=True)
class RawStream:
    """One numeric stream at its own rate: int64 stamps ``(n,)`` in ns and float32 values ``(n, dim)``."""

    stamps_ns: "np.ndarray"
    values: "np.ndarray"
    source_topic: str


@dataclass(frozen=True, slots=True)
class Episode:
    """One demonstration or recording, `length` frames on a grid of ``1 / fps`` seconds.

    Attributes:
        source: Where it was read from: ``assetId`` where known, ``path``, ``ref`` (group or topics).
        features: Feature name to float32 array ``(length, dim)``.
        specs: Feature name to its description; the same keys as `features`.
        source_timestamp_ns: The recording's own stamp of each frame, int64 ``(length,)`` in ns since its own
            epoch; ``None`` where the source holds no time.
        t0_ns: The stamp of grid time zero in the same clock, or ``None``.
        task: What was asked of the robot, in words.
        success: Whether it was done, ``None`` where the source does not say.
        flags: What a reader should know (``sim_time``, ``resampled`` ...).
        valid: bool ``(length,)``, ``None`` for all frames valid.
        cameras: Camera name to its pictures, one per frame.
        raw_streams: Streams kept at their own rate beside the grid.
        sync: Per feature the age of the held sample in ns: ``{"maxAgeNs": int, "meanAgeNs": float}``.
        frames: Frames of an episode without features, such as a video alone.
        fps: Rate of its grid where it has one of its own, ``None`` for the rate that was asked for.
        frame_tasks: The task of each frame where there are several; `task` is the first of them.
    """

    source: Mapping[str, Any]
    features: "Mapping[str, np.ndarray]"
    specs: Mapping[str, FeatureSpec]
    source_timestamp_ns: "np.ndarray | None" = None
    t0_ns: int | None = None
    task: str = ""
    success: bool | None = None
    flags: tuple[str, ...] = ()
    valid: "np.ndarray | None" = None
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    raw_streams: tuple[RawStream, ...] = ()
    sync: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    frames: int | None = None
    fps: float | None = None
    frame_tasks: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Frames."""
        for values in self.features.values():
            return len(values)
        return self.frames or 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of the episode, in the order in which they come."""
        return tuple(dict.fromkeys(self.frame_tasks)) or (self.task,)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says; `document` is its exact JSON content."""

    document: dict[str, Any]
    sha256: str

    @property
    def episodes(self) -> int:
        """Episodes in the dataset."""
        return self.document["episodes"]

    @property
    def frames(self) -> int:
        """Frames in the dataset."""
        return self.document["frames"]

    @property
    def features(self) -> dict[str, Any]:
        """Feature name to its description."""
        return self.document["features"]

    @property
    def files(self) -> list[dict[str, Any]]:
        """Every file beside the manifest: path, sha256, size, rows."""
        return self.document["files"]
