"""Versions of datasets made without a run: what matters here is what is kept, not who made it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np  # noqa: TID253 - episodes are numbers

from emboflow_dagster.blobs.listing import put_folder
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec, RawStream
from emboflow_dagster.formats.canonical.split import split
from emboflow_dagster.formats.canonical.writer import write_canonical
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.project.dataset_commit import commit
from emboflow_dagster.project.handle import EmboFlow


def episode(seed: int, length: int = 6, *, task: str = "lift", rich: bool = False, **more: Any) -> Episode:
    """One demonstration, the same for the same arguments; a rich one has a camera and a stream of its own."""
    rng = np.random.default_rng(seed)
    if rich:
        t0 = 2**60 + seed * 10**10
        more |= {
            "source_timestamp_ns": t0 + np.arange(length, dtype=np.int64) * 50_000_000,
            "t0_ns": t0,
            "sync": {"action": {"maxAgeNs": 12, "meanAgeNs": 3.5}},
            "cameras": {"wrist": Camera((16, 16, 3), lambda: _pictures(seed, length), "/cam")},
            "raw_streams": (
                RawStream(
                    t0 + np.arange(length * 2, dtype=np.int64) * 25_000_000,
                    np.ones((length * 2, 2), np.float32) * seed,
                    "/ft",
                ),
            ),
        }
    return Episode(
        source={"assetId": None, "path": "demo.hdf5", "ref": f"data/demo_{seed}"},
        features={
            "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
            "action": rng.normal(size=(length, 2)).astype(np.float32),
        },
        specs={
            "observation.state": FeatureSpec(("x", "y", "z"), "state", "m", "/joints"),
            "action": FeatureSpec(("dx", "dy"), "action"),
        },
        task=task,
        **more,
    )


def _pictures(seed: int, length: int) -> Any:
    for number in range(length):
        yield np.full((16, 16, 3), (seed * 40 + number * 20) % 250, dtype=np.uint8)


def made(
    ef: EmboFlow,
    folder: Path,
    name: str,
    episodes: Sequence[Episode],
    *,
    older: bool = False,
    fps: float = 20,
) -> DatasetVersion:
    """The next version of a dataset, which is made when there is none.

    Args:
        ef: Where.
        folder: For the files on the way; absent.
        name: The dataset.
        episodes: What is in it.
        older: In the layout of before the trees.
        fps: Frames per second.
    """
    write_canonical(iter(episodes), folder / "package", fps=fps, robot_type="Panda")
    try:
        dataset = ef.datasets.get(name)
    except NotFoundError:
        dataset = ef.datasets.create(name, type="canonical")
    latest = ef.datasets.version(name) if dataset.latest_version_id else None
    if older:
        return _older(ef, dataset, latest, folder / "package")
    manifest = split(open_canonical(folder / "package"), folder / "version")
    return commit(
        ef._opened,
        dataset,
        latest,
        manifest,
        action="dataset.commit",
        told={},
        summary={"description": "made by a test"},
        folder=folder / "version",
    )


def _older(ef: EmboFlow, dataset: Dataset, latest: DatasetVersion | None, package: Path) -> DatasetVersion:
    manifest = json.loads((package / "manifest.json").read_bytes())
    with ef.blobs.writing():
        put_folder(ef.blobs, package)  # the package's own manifest too, which nothing names
        return commit(
            ef._opened,
            dataset,
            latest,
            manifest,
            action="dataset.commit",
            told={},
            summary={"description": "made by a test"},
            stats={"episodes": manifest["episodes"], "frames": manifest["frames"]},
        )


def payloads(ef: EmboFlow) -> dict[str, int]:
    """Every payload in the store, with its size in bytes."""
    return {key: ef.store.stat(key).size for key in ef.store.iter_keys()}


def key(sha256: str) -> str:
    """The key of a payload."""
    return f"sha256/{sha256[:2]}/{sha256[2:]}"


def damage(ef: EmboFlow, sha256: str) -> None:
    """Change a byte of a payload."""
    path = ef.store.path_of(key(sha256))
    assert path is not None
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files_below(folder: Path) -> dict[str, str]:
    """Path to sha256 of every file."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
