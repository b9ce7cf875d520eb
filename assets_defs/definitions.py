"""The code location that ``workspace.yaml`` names: everything below ``defs``."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Every definition of the folder, with this deployment's resources."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
