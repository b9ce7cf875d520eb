"""The `set-union` node."""

from emboflow_dagster.runtime.node import Narrowing
from emboflow_dagster.runtime.nodes._set_operation import set_node

NODE = set_node(Narrowing.UNION, "Passes on the assets that any upstream node passes on.", "union")
