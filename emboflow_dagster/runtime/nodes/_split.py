"""The option that says where one recording ends an episode and begins the next."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from emboflow_dagster.formats.path_pattern import PathPattern
from emboflow_dagster.runtime.node import NodeOptions


class SplitOptions(NodeOptions):
    """``{by: gap, seconds}``, ``{by: topic, topic, value?}``, ``{by: name, pattern}``, ``{by: file/one}``."""

    by: Literal["gap", "topic", "file", "name", "one"] = Field(
        description="What ends an episode. `file`: each file is one; `name`: files whose names say the same "
        "episode are; `one`: all that the asset holds is."
    )
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

    pattern: Annotated[str, Field(min_length=1, max_length=300)] | None = Field(
        default=None,
        description="By name: paths with `{episode}`, `{camera}` and `*`, such as `{episode}/{camera}.mp4`.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"gap": "seconds", "topic": "topic", "name": "pattern"}.get(self.by)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"`by: {self.by}` needs `{needed}`")
        if self.pattern is not None:
            PathPattern(self.pattern)
        allowed = {"gap": {"seconds"}, "topic": {"topic", "value"}, "name": {"pattern"}}.get(self.by, set())
        given = ("seconds", "topic", "value", "pattern")
        more = {name for name in given if getattr(self, name) is not None} - allowed
        if more:
            raise ValueError(f"`by: {self.by}` has no `{'`, `'.join(sorted(more))}`")
        return self

    def told(self) -> dict[str, Any]:
        """As a child process is told; a pattern that is not there is not, as in older requests."""
        told = self.model_dump()
        return told if self.pattern is not None else {k: v for k, v in told.items() if k != "pattern"}
