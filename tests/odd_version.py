"""A version that is odd in every way one may be: tasks in other scripts, cameras of sizes, single frames."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np  # noqa: TID253 - episodes are numbers

from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec, RawStream
from emboflow_dagster.formats.canonical.writer import write_canonical

LENGTHS = (1, 5, 3, 1)
FPS = 20
TASKS = ("fold the cloth", "拾取红色方块", 'lift "it" | 🦾, now', "fold the cloth")
#: Height and width of each camera; those of the last one are odd.
SIZES = {"wrist": (32, 32), "front": (24, 48), "odd": (17, 33)}


def camera(size: tuple[int, int], seed: int, length: int) -> Camera:
    shape = (*size, 3)
    pictures = [np.full(shape, (seed * 50 + number * 20) % 250, np.uint8) for number in range(length)]
    return Camera(shape, lambda: iter(pictures), "/cam")


def episode(seed: int, length: int, *, rich: bool) -> Episode:
    """One of several tasks; a rich one has cameras of three sizes, its own clock and a stream of its own."""
    rng = np.random.default_rng(seed)
    more = {}
    if rich:
        t0 = 2**60 + seed * 10**10
        stamps = t0 + np.arange(length, dtype=np.int64) * 50_000_001
        force = rng.normal(size=(length * 3, 2)).astype(np.float32)
        more = {
            "cameras": {name: camera(size, seed, length) for name, size in SIZES.items()},
            "source_timestamp_ns": stamps,
            "t0_ns": t0,
            "sync": {"action": {"maxAgeNs": 12, "meanAgeNs": 3.5}},
            "raw_streams": tuple(
                RawStream(t0 + np.arange(length * 3, dtype=np.int64) * 9, force * sign, topic)
                for topic, sign in (("/ft", 1), ("/a", -1))
            ),
            "valid": np.arange(length) != 1,
            "success": seed % 2 == 0,
            "flags": ("resampled",),
        }
    state = rng.normal(size=(length, 3)).astype(np.float32)
    state[0, 0] = np.float32(1e-42)  # not normal, and a number all the same
    return Episode(
        source={"assetId": None, "path": "d.hdf5", "ref": f"demo_{seed}"},
        features={"observation.state": state, "action": state[:, :2]},
        specs={
            "observation.state": FeatureSpec(("x", "y", "z"), "state", "m", "/joints"),
            "action": FeatureSpec(("a", "b"), "action"),
        },
        task=TASKS[seed],
        frame_tasks=(TASKS[1],) * 3 + (TASKS[2],) * (length - 3) if seed == 1 else (),
        **more,
    )


def write(out: Path, *, rich: bool) -> None:
    """Four episodes of several tasks, two of a single frame; rich, or numbers alone."""
    episodes: Iterator[Episode] = (episode(seed, n, rich=rich) for seed, n in enumerate(LENGTHS))
    write_canonical(episodes, out, fps=FPS, robot_type="arm")
