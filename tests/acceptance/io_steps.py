"""Assets that are executed in processes of their own, with a handler that is named by its module."""

import dagster as dg

from emboflow_dagster import BlobIOManager
from emboflow_dagster.orchestration.payloads.handler import Draft, Handler, Payload, Stored


class Pose:
    """A type that nobody but its own handler stores."""

    def __init__(self, joint: str) -> None:
        self.joint = joint


class PoseHandler(Handler):
    """One line of text."""

    name = "pose-line"

    def stores(self, value: object) -> bool:
        return isinstance(value, Pose)

    def dump(self, value: Pose, draft: Draft) -> Payload:
        return Payload(value.joint.encode(), "text/x-pose")

    def load(self, stored: Stored) -> Pose:
        return Pose(stored.read().decode())


@dg.asset
def poses():
    return Pose("elbow")


@dg.asset
def joint(poses):
    return poses.joint


def two_processes() -> dg.JobDefinition:
    """A job whose steps are forked."""
    definitions = dg.Definitions(
        [poses, joint],
        jobs=[
            dg.define_asset_job(
                "poses_and_joint",
                executor_def=dg.multiprocess_executor.configured(
                    {"start_method": {"forkserver": {"preload_modules": ["emboflow_dagster.orchestration"]}}}
                ),
            )
        ],
        resources={"io_manager": BlobIOManager(handlers=[f"{__name__}:PoseHandler"])},
    )
    return definitions.resolve_job_def("poses_and_joint")
