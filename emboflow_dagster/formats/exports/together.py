"""A version episode by episode, with all that a delivery of one file an episode says of it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from emboflow_dagster.formats.canonical.episode_files import cut
from emboflow_dagster.formats.canonical.reader import CanonicalDataset
from emboflow_dagster.formats.canonical.schema import FRAMES_FILE, RAW_INDEX_FILE
from emboflow_dagster.formats.exports.package import EPISODES

if TYPE_CHECKING:
    import pyarrow as pa


class Part(NamedTuple):
    """One episode."""

    number: int
    frames: "pa.Table"
    raw: "pa.Table | None"
    """Its rows of the raw streams, where the version keeps any."""
    told: dict[str, Any]
    """What is said of the version, and ``episode`` and ``tasks``."""


def together(dataset: CanonicalDataset, out: Path, facts: Mapping[str, Any]) -> Iterator[Part]:
    """The episodes in order; memory holds one.

    Args:
        dataset: The version.
        out: The package's folder, with its lineage.
        facts: What is said of the version.

    Raises:
        ValueError: There are more frames, episodes or lines of lineage than the others.
    """
    kept = any(file["path"] == RAW_INDEX_FILE for file in dataset.manifest.files)
    streams = cut(dataset.path(RAW_INDEX_FILE)) if kept else iter(())
    waiting = next(streams, None)
    with (out / EPISODES).open(encoding="utf-8") as lineage:
        for (number, table), row, line in zip(
            cut(dataset.path(FRAMES_FILE)), dataset.episodes(), lineage, strict=True
        ):
            raw = None
            if waiting is not None and waiting[0] == number:
                raw, waiting = waiting[1], next(streams, None)
            yield Part(number, table, raw, {**facts, "episode": json.loads(line), "tasks": row["tasks"]})
