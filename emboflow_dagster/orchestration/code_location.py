"""The code location of a user who has the package and no deployment of their own.

``emboflow dev`` loads it; so does ``dagster dev -m emboflow_dagster.orchestration.code_location``.
"""

import dagster as dg

from emboflow_dagster.orchestration.assembly import build_definitions
from emboflow_dagster.orchestration.executors import location_executor


@dg.definitions
def defs() -> dg.Definitions:
    """Everything in the database that the environment names."""
    return dg.Definitions.merge(build_definitions(narrow=True), dg.Definitions(executor=location_executor()))
