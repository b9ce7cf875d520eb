"""Messages of Foxglove's schemas, shaped as those of ROS that mean the same: numbers get the same names.

Source: https://docs.foxglove.dev/docs/sdk/schemas
"""

import re
from collections.abc import Mapping
from typing import Any, Final

PREFIX: Final = "foxglove."

#: Blobs, drawings and calibration: numbers in them are no state of the robot.
_NO_STATE: Final = re.compile(
    r"foxglove(_msgs)?(\.|::|/|/msg/)"
    r"(CameraCalibration|CompressedAudio|CompressedPointCloud|GeoJSON|Grid|ImageAnnotations|LaserScan|RawAudio"
    r"|SceneUpdate|VoxelGrid)"
)


def has_state(type_name: str) -> bool:
    """Whether numbers of such messages may be a robot's: of all types but some of Foxglove's.

    >>> has_state("foxglove_msgs/msg/VoxelGrid"), has_state("my_robot.Grid")
    (False, True)
    """
    return _NO_STATE.fullmatch(type_name) is None


def shaped(type_name: str, fields: Any) -> Any:
    """The fields of a message of such a type; any other is given back as it is.

    ``timestamp`` goes, since it is what a header is elsewhere. ``JointStates`` becomes a ``name`` and a list
    for each value, as ``sensor_msgs/JointState``; a single ``FrameTransform`` a list of one.

    >>> shaped("foxglove.JointStates", {"joints": [{"name": "elbow", "position": 0.5}]})
    {'name': ['elbow'], 'position': [0.5]}
    """
    if not isinstance(fields, dict):
        return fields
    found = {str(name): value for name, value in fields.items() if name != "timestamp"}
    if type_name == "foxglove.JointStates" and isinstance(found.get("joints"), list):
        return _joints(found["joints"])
    if type_name == "foxglove.FrameTransform":
        return {"transforms": [found]}
    return found


def _joints(joints: list[Any]) -> dict[str, Any]:
    rows: list[Mapping[str, Any]] = [joint for joint in joints if isinstance(joint, dict)]
    values = [name for name in ("position", "velocity", "acceleration", "effort") if _all_have(rows, name)]
    names = [str(row.get("name", "")) for row in rows]
    return {"name": names, **{value: [row[value] for row in rows] for value in values}}


def _all_have(rows: list[Mapping[str, Any]], name: str) -> bool:
    return bool(rows) and all(row.get(name) is not None for row in rows)
