"""An asset of the deployment's own: what is registered, stored as a versioned blob."""

from typing import Any

import dagster as dg

from emboflow_dagster.orchestration import EmboFlowResource


@dg.asset(group_name="overview", kinds={"json"}, description="What is registered, one row each.")
def recordings(emboflow: EmboFlowResource) -> list[dict[str, Any]]:
    """The newest thousand raw inputs of the project that the environment names."""
    with emboflow.open() as ef:
        return [
            {
                "name": asset.display_name,
                "type": asset.type.value,
                "formats": asset.detected_formats,
                "status": asset.status.value,
                "bytes": asset.size_bytes,
                "files": asset.file_count,
            }
            for asset in ef.assets.list(limit=1000)
        ]
