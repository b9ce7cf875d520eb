"""The limits that every node with a parser in a child process lets its user set."""

from typing import Annotated

from pydantic import Field

from emboflow_dagster.runtime.child import PARSER_MEMORY_MB
from emboflow_dagster.runtime.node import NodeOptions


class ChildOptions(NodeOptions):
    """Time and memory of one child process."""

    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(
        default=900,
        description="Wall-clock seconds that reading may take; per asset where assets are read one by one.",
    )
    memory_mb: Annotated[int, Field(ge=128, le=1 << 20)] = Field(
        default=PARSER_MEMORY_MB, description="Address space in MiB of the process that reads."
    )
