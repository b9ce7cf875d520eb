"""What a node that reads recordings reads: what upstream nodes made of an asset, else the asset itself."""

from typing import Any

from emboflow_dagster.runtime import derived
from emboflow_dagster.runtime.node import NodeContext


def told_places(context: NodeContext) -> dict[str, list[Any]]:
    """Where forgotten episodes are, as a child process is told: asset id to places."""
    return {asset: [place.to_json() for place in places] for asset, places in context.forgotten.items()}


def recordings(context: NodeContext) -> list[dict[str, Any]]:
    """``id`` and ``sha256`` of the asset, ``name``, ``path``, ``format``, ``warnings``; in the assets' order.

    ``warnings`` are the codes of the asset's newest report; nothing is known of a recording that a node made.
    """
    made: dict[str, list[derived.Derived]] = {}
    for recording in derived.of(context):
        made.setdefault(recording.asset_id, []).append(recording)
    found: list[dict[str, Any]] = []
    for bound in context.assets:
        found.extend(
            {
                "id": bound.id,
                "name": recording.name,
                "path": recording.path,
                "format": recording.format,
                "sha256": recording.sha256,
                "warnings": [],
            }
            for recording in made.get(bound.id, ())
        )
        if bound.id not in made:
            found.append(
                {
                    "id": bound.id,
                    "name": bound.name,
                    "path": str(bound.path),
                    "format": bound.of_path.format if bound.of_path else "unknown",
                    "sha256": bound.asset.storage_ref.sha256,
                    "warnings": sorted({w.code for w in bound.report.warnings}) if bound.report else [],
                }
            )
    return found
