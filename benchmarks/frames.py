"""What a DataFrame costs as Parquet and as an Arrow file, beside bare ``to_parquet`` and fsync.

All sides run in turn in one process, each with values that nothing has seen, so only the ratios travel. "IO
manager" is all that an asset pays: conversion, checks, hash, fsync, one document in MongoDB, and on the way
back the hash and the conversion.

Usage: ``python benchmarks/frames.py [--folder DIR] [--rows N] [--rounds N]``.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np  # noqa: TID253 - the subject
import pandas as pd  # noqa: TID253

from emboflow_dagster import EmboFlow, Settings
from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration.payloads.handler import Draft, Stored
from emboflow_dagster.orchestration.payloads.routing import Handlers


def frame_of(rows: int, seed: int) -> pd.DataFrame:
    """Ten columns as recordings have them: times, states, flags, a few texts."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "time": pd.date_range("2026-01-01", periods=rows, freq="10ms"),
        "episode": np.repeat(np.arange(rows // 100 + 1), 100)[:rows],
        "moving": random.random(rows) > 0.5,
        "phase": np.array(["reach", "grasp", "lift", "place"])[random.integers(0, 4, rows)],
    }
    return pd.DataFrame(columns | {f"joint_{n}": random.standard_normal(rows) for n in range(6)})


def bare_write(frame: pd.DataFrame, path: Path) -> None:
    """What the targets are measured against."""
    with path.open("wb") as out:
        frame.to_parquet(out, engine="pyarrow")
        out.flush()
        os.fsync(out.fileno())


def put(ef: EmboFlow, frame: pd.DataFrame, form: str) -> str:
    """As the IO manager stores a value; returns the blob's id."""
    handlers = Handlers()
    with Draft(format=form) as draft:
        payload = handlers.dump(frame, draft)
        blob = ef.blobs.put(
            payload.source,
            object_id=f"frames.{form}",
            content_type=payload.content_type,
            serializer=payload.serializer,
        )
    return blob.object_id


def get(ef: EmboFlow, object_id: str) -> pd.DataFrame:
    """As the IO manager loads one."""
    blob = ef.blobs.get(object_id)
    stored = Stored(
        content_type=blob.content_type,
        serializer=blob.serializer,
        size=blob.size,
        opener=lambda: ef.blobs.open_blob(blob),
        scratch=lambda: Path(tempfile.mkdtemp()),
        local=ef.blobs.local_path(ef.blobs.ref(blob)),
    )
    return Handlers().load(stored)


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes, with nothing of the others left to be written."""
    os.sync()
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Print medians, ratios and sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="default: a temporary folder")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="emboflow-bench-", dir=arguments.folder))
    try:
        uri = embedded.ensure(folder / "home").uri
        settings = Settings(
            home=folder / "home",
            mongo_uri=uri,
            database="frames",
            object_store=(folder / "objects").as_uri(),
            workspace="bench",
            project="frames",
            actor="user:bench",
            dagster_home=folder / "dagster",
        )
        with EmboFlow.open(settings) as ef:
            measure(ef, folder, arguments.rows, arguments.rounds)
    finally:
        embedded.stop(folder / "home")
        shutil.rmtree(folder)


def measure(ef: EmboFlow, folder: Path, rows: int, rounds: int) -> None:
    """All sides in turn, in another order each round."""
    times: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    bare = folder / "bare.parquet"
    for turn in range(rounds + 1):
        frame = frame_of(rows, turn)
        writes: dict[str, Callable[[], object]] = {
            "bare": lambda frame=frame: bare_write(frame, bare),
            "parquet": lambda frame=frame: put(ef, frame, "parquet"),
            "arrow": lambda frame=frame: put(ef, frame, "arrow"),
        }
        reads: dict[str, Callable[[], object]] = {
            "bare": lambda: pd.read_parquet(bare, engine="pyarrow"),
            "parquet": lambda: get(ef, "frames.parquet"),
            "arrow": lambda: get(ef, "frames.arrow"),
        }
        for what, actions in (("write", writes), ("read", reads)):
            names = list(actions)
            for name in names[turn % 3 :] + names[: turn % 3]:
                took = seconds(actions[name])
                if turn:  # the first round warms up
                    times.setdefault(f"{what} {name}", []).append(took)
        sizes = {
            "bare": bare.stat().st_size,
            **{form: ef.blobs.get(f"frames.{form}").size for form in ("parquet", "arrow")},
        }
    print(f"{rows} rows x 10 columns, {rounds} rounds, medians")
    print(f"{'':>10}{'MiB':>8}{'write ms':>10}{'ratio':>7}{'read ms':>10}{'ratio':>7}")
    for name, size in sizes.items():
        write, read = (statistics.median(times[f"{what} {name}"]) for what in ("write", "read"))
        ratios = [statistics.median(times[f"{what} bare"]) for what in ("write", "read")]
        print(
            f"{name:>10}{size / 2**20:>8.1f}{write * 1000:>10.0f}{write / ratios[0]:>7.2f}"
            f"{read * 1000:>10.0f}{read / ratios[1]:>7.2f}"
        )


if __name__ == "__main__":
    main()
