"""``build_definitions``: the whole of a deployment in one call, for code locations without components."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from emboflow_dagster.orchestration.catalog import Catalog
from emboflow_dagster.orchestration.component import EmboFlowWorkflows
from emboflow_dagster.orchestration.definitions import definitions_from_catalog
from emboflow_dagster.orchestration.specs import EmboFlowTranslator


def build_definitions(
    catalog: Catalog | None = None,
    *,
    workspace: str | None = None,
    project: str | None = None,
    resources: Mapping[str, Any] | None = None,
    translator: EmboFlowTranslator | None = None,
    narrow: bool = False,
) -> dg.Definitions:
    """Definitions of every published workflow, raw input and dataset.

    Args:
        catalog: Build from this snapshot (``EmboFlow.catalog()``) and nothing else. By default the
            database of the environment is read when the location is loaded, and its last known state
            is used when it does not answer.
        workspace: Only this workspace.
        project: Only this project of it.
        resources: Replace ``emboflow`` and ``emboflow_io_manager``, which come from the environment by
            default; others are bound beside them.
        translator: Decides groups, kinds, owners and descriptions.
        narrow: In the processes of a run, build only what its job executes; see :class:`EmboFlowWorkflows`.

    Returns:
        Definitions to be merged with a deployment's own.
    """
    component = _Given(workspace=workspace, project=project, narrow=narrow)
    component.given_resources, component.given_translator = resources, translator
    if catalog is None:
        return dg.build_defs_for_component(component)
    return definitions_from_catalog(
        component.selected(catalog),
        resources=component.resources(),
        translator=component.translator(),
        scrub=component.scrub(),
    )


class _Given(EmboFlowWorkflows):
    """The component with what was passed in rather than overridden."""

    given_resources: Mapping[str, Any] | None = None
    given_translator: EmboFlowTranslator | None = None

    def resources(self) -> dict[str, Any]:
        return {**super().resources(), **(self.given_resources or {})}

    def translator(self) -> EmboFlowTranslator:
        return self.given_translator or super().translator()
