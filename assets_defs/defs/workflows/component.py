"""Every published workflow, raw input and dataset of the database, as assets, jobs and sensors."""

from typing import Any

import dagster as dg

from emboflow_dagster import EmboFlowWorkflows
from resources import deployment_resources


class DeployedWorkflows(EmboFlowWorkflows):
    """The component on this deployment's resources."""

    def resources(self) -> dict[str, Any]:
        """What ``resources`` says."""
        return deployment_resources()


@dg.component_instance
def workflows(_context: dg.ComponentLoadContext) -> EmboFlowWorkflows:
    """The one instance of this location."""
    # Nothing here looks for the jobs or assets of workflows while it is loaded.
    return DeployedWorkflows(narrow=True)
