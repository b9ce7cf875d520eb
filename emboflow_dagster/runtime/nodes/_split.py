"""The option that says where one recording ends an episode and begins the next."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from emboflow_dagster.runtime.node import NodeOptions


class SplitOptions(NodeOptions):
    """``{by: gap, seconds}``, ``{by: topic, topic, value?}`` or ``{by: file}``."""

    by: Literal["gap", "topic", "file"] = Field(description="What ends an episode.")
    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = Field(
        default=None, description="By gap: so long without a message of any topic that is taken."
    )
    topic: Annotated[str, Field(min_length=1, max_length=300)] | None = Field(
        default=None, description="By topic: whose messages are the boundaries."
    )
    value: StrictBool | StrictInt | StrictFloat | StrictStr | None = Field(
        default=None,
        description="By topic: null begins an episode with each message, `change` with each change of value; "
        "anything else takes the time in which the topic has that value.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"gap": "seconds", "topic": "topic"}.get(self.by)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"`by: {self.by}` needs `{needed}`")
        allowed = {"gap": {"seconds"}, "topic": {"topic", "value"}, "file": set[str]()}[self.by]
        more = {name for name in ("seconds", "topic", "value") if getattr(self, name) is not None} - allowed
        if more:
            raise ValueError(f"`by: {self.by}` has no `{'`, `'.join(sorted(more))}`")
        return self
