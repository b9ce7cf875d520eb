"""What every node that runs a container lets its user set."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from emboflow_dagster.runtime.containers.running import Limits
from emboflow_dagster.runtime.node import NodeOptions

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
_VALUE_CHARS: Final = 8_192


class ContainerLimits(NodeOptions):
    """What a container may use; going over one fails the task with a message that names it."""

    env: Annotated[dict[str, str], Field(max_length=100)] = Field(
        default_factory=dict, description="Environment variables. No secrets: everybody can read them here."
    )
    network: Literal["none", "bridge"] = Field(
        default="none", description="`bridge` lets it reach the network; what it left is then never reused."
    )
    memory_mb: Annotated[int, Field(ge=16, le=1 << 20)] = Field(
        default=2_048, description="Memory in MiB, swap included."
    )
    cpus: Annotated[float, Field(gt=0, le=1_024)] = Field(default=1.0, description="Processors.")
    processes: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=256, description="Processes and threads at once."
    )
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(
        default=900, description="Wall-clock seconds from its start."
    )
    max_output_mb: Annotated[int, Field(ge=1, le=1 << 20)] = Field(
        default=1_024, description="MiB that it may leave."
    )

    @field_validator("env")
    @classmethod
    def _named(cls, given: dict[str, str]) -> dict[str, str]:
        for name, value in given.items():
            if not re.fullmatch(_NAME, name) or len(value) > _VALUE_CHARS:
                raise ValueError(
                    f"{name[:80]!r}: names are words of A-Z a-z 0-9 _; values {_VALUE_CHARS} characters"
                )
        return given

    @property
    def limits(self) -> Limits:
        """The limits alone."""
        return Limits(
            memory_mb=self.memory_mb,
            cpus=self.cpus,
            processes=self.processes,
            seconds=self.timeout_seconds,
            output_mb=self.max_output_mb,
        )


def why_every_time(options: Any) -> str | None:
    """Why what such a node left is never used again."""
    return "its network is not `none`" if options.network != "none" else None
