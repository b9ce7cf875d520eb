"""Node types of the tests: small, and with every trait that the rules look at."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from emboflow_dagster.model.artifact import (
    INTERMEDIATE_TASK_OUTPUT,
    NORMALIZED_DATASET_PACKAGE,
    QUALITY_REPORT,
)
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.runtime.node import (
    Narrowing,
    NodeContext,
    NodeOptions,
    NodeResult,
    NodeType,
)
from emboflow_dagster.runtime.registry import NodeTypes


class Limits(NodeOptions):
    max_gap: Annotated[float, Field(ge=0)] = 1.0


class CheckOptions(NodeOptions):
    checks: list[Literal["gaps", "jitter"]] = Field(default_factory=list)
    max_gap_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    limits: Limits = Field(default_factory=Limits)


class NormalizeOptions(NodeOptions):
    fps: Annotated[int, Field(ge=1)]


def run(_context: NodeContext) -> NodeResult:
    return NodeResult()


def node_type(name: str, options: type[NodeOptions] = NodeOptions, **traits: Any) -> NodeType:
    traits = {"version": "1", "category": CustomNodeCategory.TRANSFORM} | traits
    return NodeType(id=name, title=name, description=name, options=options, run=run, **traits)


@pytest.fixture(scope="session")
def small_types() -> NodeTypes:
    return NodeTypes(
        [
            node_type("source", source=True, aliases=("source-asset",)),
            node_type("transform"),
            node_type("export", sink=True),
            node_type("set-difference", narrowing=Narrowing.DIFFERENCE),
            node_type("check", CheckOptions, produces=QUALITY_REPORT, aliases=("quality-check",)),
            node_type(
                "normalize",
                NormalizeOptions,
                produces=NORMALIZED_DATASET_PACKAGE,
                accepts=frozenset({INTERMEDIATE_TASK_OUTPUT}),
            ),
            node_type("publish", requires_artifact=frozenset({NORMALIZED_DATASET_PACKAGE}), sink=True),
            node_type("python", code_hook=True),
        ]
    )


@pytest.fixture(scope="session")
def make_type() -> Callable[..., NodeType]:
    return node_type
