"""The `container` node: an image of the user's own, with nothing but its inputs."""

from typing import Annotated, Final

from pydantic import Field, model_validator

from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.workflow import ExecutorType
from emboflow_dagster.runtime.containers.contract import Expected, kind_of
from emboflow_dagster.runtime.containers.job import Use, run_job
from emboflow_dagster.runtime.containers.options import ContainerLimits, why_every_time
from emboflow_dagster.runtime.node import NodeContext, NodeOptions, NodeResult, NodeType, Sight

_PATH: Final = r"^/[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*/?$"
_OWN: Final = frozenset({"bin", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "tmp", "usr"})


class ContainerContract(NodeOptions):
    """Where the container finds its inputs and what it leaves."""

    input: Annotated[str, Field(pattern=_PATH, max_length=200)] = Field(
        default="/in", description="Folder of the inputs, read-only; `index.json` in it says what is where."
    )
    output: Annotated[str, Field(pattern=_PATH, max_length=200)] | None = Field(
        default="/out/report.json",
        description="The one output: a file, or with a final `/` a folder; `.json` is JSON. Null: none.",
    )

    @model_validator(mode="after")
    def _apart(self) -> "ContainerContract":
        top = self.input.strip("/").partition("/")[0]
        if self.output is not None:
            out, _, inner = self.output.strip("/").partition("/")
            if not inner:
                raise ValueError("output: names a file or folder in a folder, such as /out/report.json")
            if out == top:
                raise ValueError("input and output: are in one folder")
            if out in _OWN:
                raise ValueError(f"output: /{out} belongs to the image")
        if top in _OWN:
            raise ValueError(f"input: /{top} belongs to the image")
        return self


class ContainerOptions(ContainerLimits):
    """What is run, and where it finds and leaves things."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None,
        description="Name of an image, if not said beside `config`. A run's request pins its digest.",
    )
    command: Annotated[list[Annotated[str, Field(max_length=8_192)]], Field(max_length=200)] = Field(
        default_factory=list, description="Arguments, one each, no shell; none: what the image says."
    )
    contract: ContainerContract = Field(
        default_factory=ContainerContract, description="`input` and `output`: paths inside."
    )


def run(context: NodeContext) -> NodeResult:
    """Run the image to its end and keep the one output that its contract names.

    Raises:
        ConfigurationError: No daemon answers, or the image is not here.
        LimitError: It went over a limit.
        ExecutionError: It failed, or what it left is not what the contract says (kind ``contract``).
    """
    options: ContainerOptions = context.options
    contract = options.contract
    root, expected = "/out", list[Expected]()
    if contract.output is not None:
        root, _, inner = contract.output.removeprefix("/").partition("/")
        kind = context.task.artifact_type or INTERMEDIATE_TASK_OUTPUT
        expected = [Expected("contract.output", inner.rstrip("/"), kind_of(contract.output), kind)]
        root = f"/{root}"
    use = Use(options.command, contract.input.rstrip("/"), root, options)
    return run_job(context, use, expected)


NODE = NodeType(
    id="container",
    version="1",
    title="Container",
    description=(
        "Runs an image of your own on the assets and on what the nodes before it left, without network and "
        "with a read-only root. A run's request pins it to its digest; what it leaves is checked "
        "against `contract` before anything is stored."
    ),
    category=CustomNodeCategory.UTILITY,
    options=ContainerOptions,
    run=run,
    produces=None,
    executor=ExecutorType.DOCKER,
    sees=frozenset({Sight.INPUTS, Sight.NAMES}),
    uncached=why_every_time,
    kinds=("docker",),
)
