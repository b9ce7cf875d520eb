"""Makes the version of a canonical package; runs in a child process, JSON in and out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def version(package: str, out: str) -> dict[str, Any]:
    """Check a package whole, and write what a version keeps of it into ``out``.

    Returns:
        ``schemaVersion``, ``sourceAssets``, ``robotType``, ``features``, ``skipped`` (how many), ``tasks``
        (at most 20), ``stats`` of the version.

    Raises:
        InvalidInputError: It is no package of this schema, or its tables do not agree.
        IntegrityError: A file is missing or damaged.
    """
    from emboflow_dagster.formats.canonical.reader import open_canonical
    from emboflow_dagster.formats.canonical.split import split

    dataset = open_canonical(Path(package))
    manifest = split(dataset, Path(out))
    kept = ("schemaVersion", "sourceAssets", "robotType", "features")
    return {
        **{key: manifest.get(key) for key in kept},
        "skipped": len(manifest.get("skipped") or ()),
        "tasks": dataset.tasks()[:20],
        "stats": stats_of(manifest),
    }


def stats_of(manifest: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers that a version's document has."""
    tree, fps = manifest["tree"], float(manifest["fps"])
    others = manifest["files"][1:]
    return {
        "episodes": tree["episodes"],
        "frames": tree["frames"],
        "bytes": tree["bytes"] + sum(file["size"] for file in others),
        "files": tree["files"] + len(others),
        "features": len(manifest["features"]),
        "fps": fps,
        "durationSec": round(tree["frames"] / fps, 6),
    }
