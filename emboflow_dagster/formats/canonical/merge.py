"""Canonical packages of one feature schema become one: episodes one after the other, numbers as they were.

Frames are placed anew and copied as they are, videos linked byte for byte: nothing is decoded or resampled.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.compose import VERSION_MANIFEST, compose
from emboflow_dagster.formats.canonical.episode_files import OBJECTS
from emboflow_dagster.formats.canonical.reader import CanonicalDataset, open_canonical
from emboflow_dagster.formats.canonical.schema import MANIFEST_FILE, SCHEMA_VERSION
from emboflow_dagster.formats.canonical.split import entries
from emboflow_dagster.formats.canonical.stats import merge_stats
from emboflow_dagster.formats.canonical.writer import producer
from emboflow_dagster.formats.report import json_safe

#: What of a feature decides whether its numbers mean the same.
_MEANS: Final = ("dtype", "shape", "names")


def schema_key(manifest: Mapping[str, Any]) -> str:
    """Equal for packages that can become one: the same rate, and features of the same shape and columns."""
    features = {
        name: [spec.get(part) for part in _MEANS] for name, spec in sorted(manifest["features"].items())
    }
    return json.dumps({"fps": float(manifest["fps"]), "features": features}, sort_keys=True)


def merge(packages: Sequence[Path], out: Path, work: Path) -> dict[str, Any]:
    """Write one package of several; memory holds one episode.

    Args:
        packages: Their folders, in the order in which their episodes stand.
        out: Absent or empty.
        work: A folder for what is in between; on the same disk its files cost nothing.

    Returns:
        The manifest.

    Raises:
        InvalidInputError: They have different schemas.
        IntegrityError: A file of one is missing or damaged.
    """
    datasets = [open_canonical(package) for package in packages]
    documents = [dataset.manifest.document for dataset in datasets]
    if len({schema_key(document) for document in documents}) != 1:
        raise InvalidInputError("the packages have different features or rates")
    (work / OBJECTS).mkdir(parents=True, exist_ok=True)
    tasks: dict[str, None] = {}
    first = documents[0]
    manifest = {
        "schemaVersion": SCHEMA_VERSION,
        "datasetId": None,
        "versionTag": None,
        "sourceAssets": _sources(documents),
        "fps": first["fps"],
        "robotType": _agreed(documents, "robotType"),
        "features": _features(documents),
        "columns": datasets[0].features,
        "episodes": sum(document["episodes"] for document in documents),
        "frames": sum(document["frames"] for document in documents),
        "stats": {name: merge_stats([d["stats"][name] for d in documents]) for name in first["stats"]},
        "skipped": [row for document in documents for row in document.get("skipped") or ()],
        "producer": producer({"merged": [dataset.manifest.sha256 for dataset in datasets]}),
        "quality": None,
        "files": [],
    }

    def fetch(file: Mapping[str, Any], path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _link(work / OBJECTS / file["sha256"], path)

    text = json.dumps(json_safe(manifest), sort_keys=True).encode()
    document = compose(text, _all(datasets, work, tasks), fetch, out)
    # It is a package, not yet a version: what compose keeps of one goes.
    shutil.rmtree((out / VERSION_MANIFEST).parent)
    del document["version"]
    document["files"] = [file for file in document["files"] if file["path"] != VERSION_MANIFEST]
    document["tasks"] = len(tasks)
    text = (
        json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    )
    (out / MANIFEST_FILE).write_bytes(text)
    return document


def _all(
    datasets: Sequence[CanonicalDataset], work: Path, tasks: dict[str, None]
) -> Iterator[dict[str, Any]]:
    for dataset in datasets:
        for entry in entries(dataset, work):
            tasks.update(dict.fromkeys(entry["tasks"]))
            yield entry


def _sources(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every source once, in the order of the packages."""
    found = {json.dumps(source, sort_keys=True): source for d in documents for source in d["sourceAssets"]}
    return list(found.values())


def _features(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The features, without what the packages do not agree on (unit, topic)."""
    out = {name: dict(spec) for name, spec in documents[0]["features"].items()}
    for name, spec in out.items():
        for part in ("unit", "sourceTopic"):
            if len({json.dumps(document["features"][name].get(part)) for document in documents}) > 1:
                spec[part] = None
    return out


def _agreed(documents: Sequence[Mapping[str, Any]], field: str) -> Any:
    found = {json.dumps(document.get(field)): document.get(field) for document in documents}
    return next(iter(found.values())) if len(found) == 1 else None


def _link(source: Path, target: Path) -> Path:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    return target
