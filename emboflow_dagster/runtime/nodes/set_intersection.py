"""The `set-intersection` node."""

from emboflow_dagster.runtime.node import Narrowing
from emboflow_dagster.runtime.nodes._set_operation import set_node

NODE = set_node(
    Narrowing.INTERSECTION,
    "Passes on the assets that every upstream node passes on.",
    "set-intersect",
    "intersection",
)
