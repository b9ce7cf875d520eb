"""Recordings that a node made out of others: what the next node reads in place of the assets.

A node that repairs, cuts out, extracts or computes recordings leaves them as one bundle: an artifact whose
``summary.format`` is ``emboflow-recordings/1``, a folder with one entry per recording and their list::

    recordings.json   {"schema": "emboflow-recordings/1", "recordings": [{...}, ...]}
    000/...           a file or a folder that the named format's reader can read

Nodes that read recordings (normalise, quality, preview, probe) take these where an upstream node left them.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError, shown
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT, Artifact
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.runtime.node import NodeContext, NodeOutput

SCHEMA: Final = "emboflow-recordings/1"
INDEX: Final = "recordings.json"


@dataclass(frozen=True, slots=True)
class Derived:
    """One recording of a bundle.

    Attributes:
        asset_id: The asset it was made from: what a version names as its source.
        sha256: Digest of that asset's bytes.
        name: What people call it.
        path: Inside the bundle, ``/`` between the parts; absolute once :func:`read` gave it.
        format: As a probe names formats, or ``emboflow-episodes/1``.
    """

    asset_id: str
    sha256: str
    name: str
    path: str
    format: str


def output(folder: Path, recordings: Sequence[Derived], *, title: str | None = None) -> NodeOutput:
    """The bundle in ``folder`` (its entries are there already) as an artifact to be."""
    document = {"schema": SCHEMA, "recordings": [asdict(recording) for recording in recordings]}
    (folder / INDEX).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return NodeOutput(
        type=INTERMEDIATE_TASK_OUTPUT,
        payload=folder,
        content_type=LISTING_TYPE,
        title=title,
        summary={"format": SCHEMA, "recordings": len(recordings)},
    )


def read(folder: Path) -> list[Derived]:
    """The recordings of a bundle that was fetched, with absolute paths.

    Raises:
        IntegrityError: The list is not what :func:`output` writes, or names what is not there.
    """
    document: Any = json.loads((folder / INDEX).read_text("utf-8"))
    if document.get("schema") != SCHEMA:
        raise IntegrityError(f"{INDEX}: found schema {shown(document.get('schema'))}, expected {SCHEMA}")
    return [_placed(Derived(**row), folder) for row in document["recordings"]]


def is_bundle(artifact: Artifact) -> bool:
    """Whether an artifact is such a bundle."""
    return (artifact.summary or {}).get("format") == SCHEMA


def of(context: NodeContext) -> list[Derived]:
    """Every derived recording of the direct upstream nodes, in their order, whose asset is still there."""
    left = {bound.id for bound in context.assets} | context.held
    found: Iterable[Derived] = (
        recording
        for given in context.inputs.values()
        for artifact in given.artifacts
        if is_bundle(artifact)
        for recording in read(given.fetch(artifact))
    )
    return [recording for recording in found if recording.asset_id in left]


def _placed(recording: Derived, folder: Path) -> Derived:
    parts = PurePosixPath(recording.path).parts
    place = folder.joinpath(*parts)
    if not parts or ".." in parts or parts[0] == "/" or not place.exists():
        raise IntegrityError(
            f"{INDEX} names {shown(recording.path)}, which is not in the bundle",
            kind=ErrorKind.FILE_UNREADABLE,
        )
    return Derived(recording.asset_id, recording.sha256, recording.name, str(place), recording.format)
