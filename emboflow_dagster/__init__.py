"""EmboFlow on Dagster: recordings, workflows and dataset versions in one MongoDB and one object store.

Names are loaded when they are used: importing the package costs nothing of what it does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emboflow_dagster.model.storage import BlobRef
    from emboflow_dagster.orchestration.assembly import build_definitions
    from emboflow_dagster.orchestration.component import EmboFlowWorkflows
    from emboflow_dagster.orchestration.io_manager import BlobIOManager
    from emboflow_dagster.orchestration.payloads.handler import Draft, Handler, Payload, Stored
    from emboflow_dagster.orchestration.resources import MongoResource, ObjectStoreResource
    from emboflow_dagster.project.changes import Create, Deactivate, Update
    from emboflow_dagster.project.handle import EmboFlow
    from emboflow_dagster.project.settings import Settings

__version__ = "0.1.0"

_WHERE = {
    "BlobIOManager": "orchestration.io_manager",
    "BlobRef": "model.storage",
    "Create": "project.changes",
    "Deactivate": "project.changes",
    "Draft": "orchestration.payloads.handler",
    "EmboFlow": "project.handle",
    "EmboFlowWorkflows": "orchestration.component",
    "Handler": "orchestration.payloads.handler",
    "MongoResource": "orchestration.resources",
    "ObjectStoreResource": "orchestration.resources",
    "Payload": "orchestration.payloads.handler",
    "Settings": "project.settings",
    "Stored": "orchestration.payloads.handler",
    "Update": "project.changes",
    "build_definitions": "orchestration.assembly",
}

__all__ = [
    "BlobIOManager",
    "BlobRef",
    "Create",
    "Deactivate",
    "Draft",
    "EmboFlow",
    "EmboFlowWorkflows",
    "Handler",
    "MongoResource",
    "ObjectStoreResource",
    "Payload",
    "Settings",
    "Stored",
    "Update",
    "build_definitions",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
