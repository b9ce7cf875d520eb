"""Demonstrations of the arm in one HDF5 file, in robomimic's layout: ``data/demo_N/{actions,states,obs}``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from emboflow_dagster.formats.demo_recordings import arm
from emboflow_dagster.formats.extras import needs_extra

RATE: Final = 20
"""Control steps a second; each is one row."""
TASK: Final = "move the arm to its targets and back"


def write_hdf5(path: Path, trajectories: Sequence[arm.Trajectory]) -> list[int]:
    """Write one demonstration for each trajectory; returns their rows.

    An action is the position commanded for the next step. ``states`` are the simulator's: time, positions,
    velocities.
    """
    import numpy as np

    with needs_extra("hdf5"):
        import h5py

    lengths = []
    # The default, and said here because the same bytes every time depend on it: no times in the file.
    with h5py.File(path, "w", track_order=False) as file:
        data = file.create_group("data")
        for number, trajectory in enumerate(trajectories):
            seconds = np.arange(round(trajectory.duration * RATE)) / RATE
            motion = trajectory.at(seconds)
            seen = arm.measured(motion)
            group = data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = len(seconds)
            columns = {
                "actions": trajectory.at(seconds + 1 / RATE).position,
                "states": np.column_stack([seconds, motion.position, motion.velocity]),
                "obs/state": seen.position,
                "obs/velocity": seen.velocity,
                "obs/effort": arm.torques(motion),
                "rewards": np.where(seconds >= seconds[-1], 1.0, 0.0),
                "dones": (seconds >= seconds[-1]).astype(np.uint8),
            }
            for name, values in columns.items():
                group.create_dataset(name, data=values, track_times=False)
            lengths.append(len(seconds))
        data.attrs["total"] = sum(lengths)
        data.attrs["language_instruction"] = TASK
        data.attrs["env_args"] = json.dumps(
            {
                "env_name": "TwoJointArm",
                "type": 1,
                "env_kwargs": {"robots": arm.ROBOT, "control_freq": RATE},
            }
        )
    return lengths
