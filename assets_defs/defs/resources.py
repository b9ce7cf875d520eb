"""Binds the resources of this deployment for every asset, sensor and schedule below this folder."""

import dagster as dg

from emboflow_dagster.orchestration.executors import location_executor
from resources import deployment_resources


@dg.definitions
def bound() -> dg.Definitions:
    """The resources, and how the steps of a Materialize become processes."""
    return dg.Definitions(resources=deployment_resources(), executor=location_executor())
