"""An asset of the deployment's own: a table of what is registered, stored as a versioned blob."""

from typing import Any

import dagster as dg

from emboflow_dagster.orchestration import EmboFlowResource

COLUMNS = ["name", "type", "formats", "status", "bytes", "files"]


@dg.asset(group_name="overview", kinds={"pandas", "parquet"}, description="What is registered, one row each.")
def recordings(emboflow: EmboFlowResource) -> Any:
    """The newest thousand raw inputs of the project that the environment names."""
    import pandas as pd

    with emboflow.open() as ef:
        rows = [
            {
                "name": asset.display_name,
                "type": asset.type.value,
                "formats": ", ".join(asset.detected_formats),
                "status": asset.status.value,
                "bytes": asset.size_bytes,
                "files": asset.file_count,
            }
            for asset in ef.assets.list(limit=1000)
        ]
    return pd.DataFrame(rows, columns=COLUMNS)
