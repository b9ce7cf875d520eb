"""Makes the demo's recordings: small, valid, and the same bytes every time."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from emboflow_dagster.formats.demo_recordings import arm, demonstrations, ros_files
from emboflow_dagster.formats.demo_recordings.ros_files import NS, Written

FPS: Final = 20
"""The rate at which the truth counts frames; the demonstrations have it by themselves."""
START_NS: Final = 1_741_078_800 * NS
"""2025-03-04T09:00:00Z: when the first recording starts."""
KEPT: Final = 0.6
"""Share of the broken bag that is there."""

_HOME = (1.2, -0.9)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in a recording, known from making it.

    Attributes:
        messages: Topic to messages; empty where there are no topics. Of the broken bag: as recorded, of
            which the file holds less.
        episodes: Episodes that it gives to a dataset.
        frames: Frames that these have together at 20 fps.
        format: What a probe must call it.
        warnings: Codes that a probe must give.
    """

    format: str
    episodes: int
    frames: int
    messages: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DemoRecording:
    """One recording: where it is, as what and under which name it is registered, and what is in it."""

    path: Path
    asset_type: str
    name: str
    truth: Truth


def make_recordings(folder: Path) -> list[DemoRecording]:
    """Write the five recordings into ``folder``; those that are there already stay as they are.

    Two MCAP files, a rosbag2 folder, an HDF5 file with three demonstrations, a ROS 1 bag that was cut off.
    Each appears under its name when it is complete.

    Raises:
        ConfigurationError: The libraries for recordings are not installed.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _bag(folder / "reach-left.mcap", "mcap", ros_files.write_mcap, [_HOME, (2.3, -0.5), _HOME], 0),
        _bag(folder / "reach-right.mcap", "mcap", ros_files.write_mcap, [_HOME, (0.4, -0.2), _HOME], 60),
        _bag(
            folder / "pick-and-place",
            "rosbag2_mcap",
            ros_files.write_rosbag2,
            [_HOME, (0.5, -1.1), (1.9, -1.4), _HOME],
            120,
        ),
        _demonstrations(folder / "teleoperated.hdf5"),
        _broken(folder / "cut-short.bag"),
    ]


def _bag(
    path: Path,
    form: str,
    write: Callable[[Path, arm.Trajectory, int], Written],
    targets: list[tuple[float, float]],
    after_s: int,
) -> DemoRecording:
    trajectory, start = arm.Trajectory(targets), START_NS + after_s * NS
    written = _once(path, lambda place: write(place, trajectory, start))
    frames = written.overlap_ns * FPS // NS + 1
    return DemoRecording(path, "rosbag", path.name, Truth(form, 1, frames, written.topics))


def _demonstrations(path: Path) -> DemoRecording:
    sides = [(2.0, -0.4), (0.7, -0.6), (1.6, 0.3)]
    trajectories = [arm.Trajectory([_HOME, side, _HOME]) for side in sides]
    lengths = _once(path, lambda place: demonstrations.write_hdf5(place, trajectories))
    return DemoRecording(path, "hdf5_dataset", path.name, Truth("hdf5_robomimic", len(lengths), sum(lengths)))


def _broken(path: Path) -> DemoRecording:
    trajectory, start = arm.Trajectory([_HOME, (2.0, -1.2), _HOME]), START_NS + 180 * NS
    written = _once(path, lambda place: ros_files.write_cut_bag(place, trajectory, start, keep=KEPT))
    return DemoRecording(
        path, "rosbag", path.name, Truth("rosbag1", 0, 0, written.topics, warnings=("truncated",))
    )


def _once(path: Path, write: Callable[[Path], Result]) -> Result:
    """Write beside and move into place, so that an interrupted demo leaves no half recording behind."""
    with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        result = write(made)
        if not path.exists():
            shutil.move(made, path)
    return result
