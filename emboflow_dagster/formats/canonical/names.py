"""Names that features and cameras get in a canonical dataset, out of those of a source."""

import re
from collections.abc import Container, Sequence
from typing import Any, Final

KINDS: Final = {
    "observation.state": "state",
    "observation.velocity": "velocity",
    "observation.effort": "effort",
    "observation.environment_state": "environment_state",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def kind_of(feature: str) -> str:
    """What a feature is, by its name.

    >>> kind_of("action.base"), kind_of("observation.state"), kind_of("next.reward")
    ('action', 'state', 'observation')
    """
    return "action" if feature.partition(".")[0] == "action" else KINDS.get(feature, "observation")


def camera_name(feature: str, *, taken: Container[str] = ()) -> str:
    """The name of a camera: the last words of its feature; it is a folder's name too.

    >>> camera_name("observation.images.cam high"), camera_name("left/top", taken={"left.top"})
    ('cam_high', 'left.top-2')
    """
    words = feature.replace("/", ".").removeprefix("observation.images.").removeprefix("observation.")
    name = _UNSAFE.sub("_", words).strip(".") or "camera"
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def dimension_names(declared: Any, width: int, stem: str) -> tuple[str, ...]:
    """One name for each number: the declared ones where there are as many, however they are nested.

    >>> dimension_names({"motors": ["a", "b"]}, 2, "state"), dimension_names(None, 2, "action")
    (('a', 'b'), ('action_0', 'action_1'))
    """
    flat = _flat(declared, 0)
    return tuple(flat) if len(flat) == width else tuple(f"{stem}_{number}" for number in range(width))


def _flat(value: Any, depth: int) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, Sequence) or depth > 4:  # noqa: PLR2004 - names are not nested deeper
        return []
    return [name for item in value for name in _flat(item, depth + 1)]
