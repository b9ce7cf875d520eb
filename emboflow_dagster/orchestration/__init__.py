"""How Dagster sees EmboFlow: resources, IO manager, asset specs, definitions, sensors and the recorder.

Names are loaded when they are used: telling a running webserver to reload needs no Dagster here.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "BlobIOManager": "io_manager",
    "EmboFlowResource": "resources",
    "EmboFlowTranslator": "specs",
    "EmboFlowWorkflows": "component",
    "MongoResource": "resources",
    "ObjectStoreResource": "resources",
    "build_definitions": "assembly",
}

# pyright: reportUnsupportedDunderAll=false
__all__ = [
    "BlobIOManager",
    "EmboFlowResource",
    "EmboFlowTranslator",
    "EmboFlowWorkflows",
    "MongoResource",
    "ObjectStoreResource",
    "build_definitions",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
