"""A `mapping` for HDF5 files of no known layout, out of names and shapes; a person pastes and corrects it.

An episode is the file, or each of several groups that are named alike but for a number. What has as many rows
as the actions, else as most datasets of it have, is a stream; its name says what it may be.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Final

from emboflow_dagster.formats.hdf5_layout import Field, Layout, natural_key, raw_pictures

MAX_MAPPED: Final = 60
TIMESTAMP: Final = "timestamp"
MIN_ROWS: Final = 2
MAX_GROUP_DEPTH: Final = 3
_NUMBER: Final = re.compile(r"\d+")
_WORDS: Final = re.compile(r"[^a-z0-9]+")
#: What a stream is called, by the words that its name may be; the first that fits wins.
NAMES: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    (
        "action",
        frozenset(
            "action actions act command commands cmd control controls ctrl target_qpos joint_commands "
            "joint_command target_joint_positions".split()
        ),
    ),
    (
        "observation.state",
        frozenset(
            "qpos state states joint_positions joint_position joint_pos joints joint_states proprio q pos "
            "position positions robot_state agent_pos".split()
        ),
    ),
    (
        "observation.velocity",
        frozenset("qvel dq joint_velocities joint_velocity joint_vel velocity velocities vel".split()),
    ),
    (
        "observation.effort",
        frozenset("effort efforts tau torque torques joint_torques joint_efforts current currents".split()),
    ),
    (
        TIMESTAMP,
        frozenset(
            "timestamp timestamps time times t ts stamp stamps time_s time_ns timestamp_ns timestamp_s "
            "time_stamp time_stamps sim_time".split()
        ),
    ),
)


def feature_of(name: str) -> str | None:
    """What a stream may be, by its name; ``None`` where the name says nothing.

    >>> feature_of("obs/joint_positions"), feature_of("Actions"), feature_of("gripper")
    ('observation.state', 'action', None)
    """
    plain = _WORDS.sub("_", name.rpartition("/")[2].lower()).strip("_")
    return next((feature for feature, words in NAMES if plain in words), None)


def propose(layout: Layout) -> dict[str, str]:
    """A mapping with which `normalize` finds episodes in the file; empty where nothing looks like streams."""
    fields = {item.path: item for item in layout.fields if not item.closed}
    fields |= layout.columns
    episodes = _numbered(fields)
    within = episodes[0] if episodes else fields
    found = _mapped(within)
    if not found or all(feature == TIMESTAMP for feature in found.values()):
        return {}
    return found


def _numbered(fields: Mapping[str, Field]) -> list[dict[str, Field]]:
    """What stands in groups that are named alike but for a number, in natural order; the shallowest such."""
    for depth in range(1, MAX_GROUP_DEPTH + 1):
        groups: dict[str, dict[str, Field]] = defaultdict(dict)
        for path, item in fields.items():
            parts = path.split("/")
            if len(parts) > depth and _NUMBER.search(parts[depth - 1]):
                groups["/".join(parts[:depth])]["/".join(parts[depth:])] = item
        alike = Counter(_NUMBER.sub("#", group) for group in groups)
        if not alike:
            continue
        name, count = alike.most_common(1)[0]
        if count > 1:
            chosen = sorted((g for g in groups if _NUMBER.sub("#", g) == name), key=natural_key)
            shared = set.intersection(*(set(groups[group]) for group in chosen))
            streams = [{k: v for k, v in groups[group].items() if k in shared} for group in chosen]
            if _mapped(streams[0]):
                return streams
    return []


def _mapped(fields: Mapping[str, Field]) -> dict[str, str]:
    rows = _rows(fields)
    found: dict[str, str] = {}
    if rows < MIN_ROWS:
        return found
    for name, item in fields.items():
        if not item.shape or item.shape[0] != rows or len(found) >= MAX_MAPPED:
            continue
        plain = re.sub(r"[/\s]+", ".", name).removeprefix("observations.").removeprefix("obs.")
        if raw_pictures(item):
            feature = f"observation.images.{plain.removeprefix('images.')}"
        elif not item.is_numeric or item.zero_width:
            continue
        else:
            feature = feature_of(name) or f"observation.{plain}"
            if feature == TIMESTAMP and (item.width or 1) != 1:
                feature = f"observation.{plain}"
        if feature in found.values():
            feature = f"action.{plain}" if feature == "action" else f"observation.{plain}"
        if feature not in found.values():
            found[name] = feature
    return found


def _rows(fields: Mapping[str, Field]) -> int:
    """How many frames the streams have: those of the actions, else of most."""
    usable = {k: v for k, v in fields.items() if v.shape and (v.is_numeric or raw_pictures(v))}
    for name, item in usable.items():
        if feature_of(name) == "action" and item.shape[0] >= MIN_ROWS:
            return item.shape[0]
    counts = Counter(item.shape[0] for item in usable.values() if item.shape[0] >= MIN_ROWS)
    if not counts:
        return 0
    rows, datasets = counts.most_common(1)[0]
    named = any(feature_of(name) for name, item in usable.items() if item.shape[0] == rows)
    # One array without a name that says anything is no recording.
    return rows if named or datasets > 1 else 0
