"""The code location of a user who has the package and no deployment of their own.

``emboflow dev`` loads it; so does ``dagster dev -m emboflow_dagster.orchestration.code_location``.
"""

import dagster as dg

from emboflow_dagster.orchestration.assembly import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Everything in the database that the environment names."""
    return build_definitions()
