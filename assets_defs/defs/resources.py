"""Binds the resources of this deployment for every asset, sensor and schedule below this folder."""

import dagster as dg

from resources import deployment_resources


@dg.definitions
def bound() -> dg.Definitions:
    """The resources alone."""
    return dg.Definitions(resources=deployment_resources())
