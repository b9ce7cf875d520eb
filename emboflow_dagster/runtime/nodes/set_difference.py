"""The `set-difference` node."""

from emboflow_dagster.runtime.node import Narrowing
from emboflow_dagster.runtime.nodes._set_operation import set_node

NODE = set_node(
    Narrowing.DIFFERENCE,
    "Passes on the assets of the first upstream node (the order of `after`) less those of all the others.",
    "difference",
)
