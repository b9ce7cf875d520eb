"""What an inspecting node looks at: the canonical packages of its upstream nodes, else its assets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emboflow_dagster.model.artifact import NORMALIZED_DATASET_PACKAGE
from emboflow_dagster.runtime.node import NodeContext


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to look at; ``report`` is the asset's probe result as JSON."""

    id: str
    name: str
    path: Path
    is_dataset: bool
    report: dict[str, Any] | None


def subjects(context: NodeContext) -> list[Subject]:
    """Every canonical package of the direct upstream nodes; where there is none, every effective asset."""
    found = [
        Subject(artifact.id, f"package of {given.node_id}", given.fetch(artifact), True, None)
        for given in context.inputs.values()
        for artifact in given.artifacts
        if artifact.type == NORMALIZED_DATASET_PACKAGE
    ]
    return found or [
        Subject(bound.id, bound.name, bound.path, False, bound.report.to_json() if bound.report else None)
        for bound in context.assets
    ]
