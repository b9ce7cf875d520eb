"""What checks see: an episode's vectors, stamps and stored facts, and what decoding its videos found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.video_file import FREEZE_SECONDS

if TYPE_CHECKING:
    import numpy as np

#: A freeze: no tile of the picture changes by more than this (of 255). Encoded anew, one and the same picture
#: changes by up to 0.9 at a key frame; the slowest arm of the samples by more, where it is.
FREEZE_CHANGE = 1.0


@dataclass(slots=True)
class VideoView:
    """What decoding one video found.

    Attributes:
        name: Its file, relative to the input.
        rows: Frames that the tables have for it, ``None`` where nothing says so.
        missing: Declared, and no file is there.
        error: Why the container could not be opened.
        frames: Frames decoded.
        declared_frames: The header's count.
        errors: Packets that could not be decoded, and damaged frames.
        fps: Measured by the container's average rate.
        declared_fps: What the dataset says.
        duration_s: Of the container.
        changes: Mean change of brightness (0..255) from each frame to the next in the tile that
            changes most, ``(frames - 1,)``.
        seconds: Stamp of each frame, NaN where it has none.
        blank: Numbers of the frames that have one brightness everywhere.
        complete: False where there are more frames than were decoded.
    """

    name: str
    rows: int | None = None
    missing: bool = False
    error: str | None = None
    frames: int = 0
    declared_frames: int | None = None
    errors: int = 0
    fps: float | None = None
    declared_fps: float | None = None
    duration_s: float | None = None
    changes: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    complete: bool = True

    @property
    def decoded(self) -> bool:
        """Whether there is anything to judge."""
        return not self.missing and self.error is None and self.frames > 0

    def freezes(self) -> list[tuple[int, int]]:
        """(first frame, last frame) of each stretch of a quarter second or more without change."""
        needed = max(2, round(FREEZE_SECONDS * (self.fps or self.declared_fps or 30.0)))
        found, start = [], 0
        for place, change in enumerate([*self.changes, 255.0]):
            if change >= FREEZE_CHANGE:
                if place - start + 1 >= needed:
                    found.append((start, place))
                start = place + 1
        return found


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """What the checks see of one episode.

    Attributes:
        ref: What it is called in the report: ``episode 3``, or the HDF5 group.
        length: Frames.
        vectors: Feature name to ``(length, dim)``.
        actions: Those of `vectors` that are actions.
        states: Those of `vectors` that are the robot's state.
        stamps_ns: The recording's own stamps, int64 ``(length,)``, or ``None``.
        fps: Declared frames per second.
        zero_width: Datasets with rows and no number.
        unresolved: Datasets that could not be read.
        grid_s: The grid's stamps in s ``(length,)``, which should be ``frame_index / fps``.
        frame_index: As stored ``(length,)``; ``None`` where there is no such column.
        number: The episode's index as stored.
        index: The dataset-wide index as stored ``(length,)``.
        declared_length: Frames that the dataset says it has.
        stats: Stored statistics by feature: ``{"min": [...], ...}``.
        videos: Camera to its decoded video.
        names: Feature name to what its dimensions are called, where they have names.
    """

    ref: str
    length: int
    vectors: "Mapping[str, np.ndarray]"
    actions: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    stamps_ns: "np.ndarray | None" = None
    fps: float | None = None
    zero_width: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()
    grid_s: "np.ndarray | None" = None
    frame_index: "np.ndarray | None" = None
    number: int | None = None
    index: "np.ndarray | None" = None
    declared_length: int | None = None
    stats: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)
    videos: Mapping[str, VideoView] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def called(self, feature: str, dim: int) -> str:
        """A dimension as people know it: ``action[6] left_gripper``, or ``action[6]``."""
        names = self.names.get(feature) or ()
        name = names[dim] if dim < len(names) else ""
        # A name that was made up says nothing more.
        return f"{feature}[{dim}]" if not name or name.endswith(f"_{dim}") else f"{feature}[{dim}] {name}"
