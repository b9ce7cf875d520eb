"""What an inspecting node looks at: the canonical packages of its upstream nodes, else its assets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emboflow_dagster.model.artifact import NORMALIZED_DATASET_PACKAGE
from emboflow_dagster.runtime import derived
from emboflow_dagster.runtime.node import NodeContext


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to look at; ``report`` is the asset's probe result as JSON, ``sha256`` that of its bytes."""

    id: str
    name: str
    path: Path
    is_dataset: bool
    report: dict[str, Any] | None
    sha256: str | None = None
    asset_id: str | None = None


def subjects(context: NodeContext) -> list[Subject]:
    """Every canonical package of the direct upstream nodes, and the recordings that they made.

    Where there is neither, every effective asset.
    """
    found = [
        Subject(artifact.id, f"package of {given.node_id}", given.fetch(artifact), True, None)
        for given in context.inputs.values()
        for artifact in given.artifacts
        if artifact.type == NORMALIZED_DATASET_PACKAGE
    ]
    found += [
        Subject(r.asset_id, r.name, Path(r.path), False, None, r.sha256, r.asset_id)
        for r in derived.of(context)
    ]
    return found or [
        Subject(
            bound.id,
            bound.name,
            bound.path,
            False,
            bound.of_path.to_json() if bound.of_path else None,
            bound.asset.storage_ref.sha256,
            bound.id,
        )
        for bound in context.assets
    ]
