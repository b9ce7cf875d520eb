"""The tree that a URDF's links and joints are, and what keeps a simulator or planner from loading it.

Source: http://wiki.ros.org/urdf/XML
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree as ET

MAX_NAMES: Final = 10
MAX_JOINTS: Final = 500
#: Degrees of freedom by the type of a joint.
FREEDOM: Final = {"fixed": 0, "revolute": 1, "continuous": 1, "prismatic": 1, "planar": 3, "floating": 6}
_LIMITED: Final = frozenset({"revolute", "prismatic"})
#: How far the moments of inertia may miss their inequality: they are written with few digits.
_SLACK: Final = 0.01


@dataclass(slots=True)
class Joint:
    """One joint: its limits are in rad or m, N m or N, rad/s or m/s; ``None`` where they are not given."""

    name: str
    type: str
    parent: str
    child: str
    mimics: str | None = None
    lower: float | None = None
    upper: float | None = None
    effort: float | None = None
    velocity: float | None = None
    has_limit: bool = False
    has_axis: bool = True

    @property
    def freedom(self) -> int:
        """Degrees of freedom; one that follows another joint has none of its own."""
        return 0 if self.mimics is not None else FREEDOM.get(self.type, 0)


@dataclass(slots=True)
class Tree:
    """What a description says; names as often as they stand there."""

    links: list[str]
    joints: list[Joint]
    mass: float = 0.0
    negative: list[str] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)
    bad_numbers: list[str] = field(default_factory=list)

    def roots(self) -> list[str]:
        """Links that are no joint's child, in the order of the file."""
        children = {joint.child for joint in self.joints}
        return [link for link in dict.fromkeys(self.links) if link not in children]

    def summary(self) -> dict[str, Any]:
        """``degreesOfFreedom``, ``actuatedJoints`` (in the order of the file), ``root``, ``massKg``."""
        roots = self.roots()
        actuated = [joint for joint in self.joints if joint.freedom == 1]
        return {
            "degreesOfFreedom": sum(joint.freedom for joint in self.joints),
            "actuatedJoints": [
                {
                    "name": joint.name,
                    "type": joint.type,
                    "lower": joint.lower,
                    "upper": joint.upper,
                    "effort": joint.effort,
                    "velocity": joint.velocity,
                }
                for joint in actuated[:MAX_JOINTS]
            ],
            "root": roots[0] if len(roots) == 1 else None,
            "massKg": round(self.mass, 9),
        }


def read_tree(root: ET.Element) -> Tree:
    """The links and joints of a ``robot`` element."""
    tree = Tree([link.get("name", "") for link in root.findall("link")], [])
    for link in root.findall("link"):
        _weigh(link, tree)
    for element in root.findall("joint"):
        tree.joints.append(_joint(element, tree))
    return tree


def _joint(element: ET.Element, tree: Tree) -> Joint:
    name = element.get("name", "")
    joint = Joint(
        name, element.get("type", ""), _of(element, "parent", "link"), _of(element, "child", "link")
    )
    mimic = element.find("mimic")
    joint.mimics = None if mimic is None else mimic.get("joint", "")
    limit = element.find("limit")
    if limit is not None:
        joint.has_limit = True
        joint.lower, joint.upper, joint.effort, joint.velocity = (
            _number(limit.get(key), name, tree) for key in ("lower", "upper", "effort", "velocity")
        )
    axis = element.find("axis")
    if axis is not None:
        joint.has_axis = any(_number(part, name, tree) for part in axis.get("xyz", "1 0 0").split())
    return joint


def _of(element: ET.Element, child: str, attribute: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(attribute, "")


def _number(text: str | None, where: str, tree: Tree) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        tree.bad_numbers.append(where)
        return None
    return value


def _weigh(link: ET.Element, tree: Tree) -> None:
    inertial, name = link.find("inertial"), link.get("name", "")
    if inertial is None:
        return
    mass = _number(_of(inertial, "mass", "value") or "0", name, tree) or 0.0
    tree.mass += mass
    inertia = inertial.find("inertia")
    said = {} if inertia is None else inertia.attrib
    numbers = [
        _number(said.get(k, "0"), name, tree) or 0.0 for k in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
    ]
    if mass < 0 or min(numbers[:3]) < 0:
        tree.negative.append(name)
    elif mass == 0 or not _is_possible(numbers):
        tree.impossible.append(name)


def _is_possible(inertia: Sequence[float]) -> bool:
    """Whether some body has these moments: positive, and none above the sum of the other two."""
    xx, yy, zz, xy, xz, yz = inertia
    minor = xx * yy - xy * xy
    whole = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    moments = sorted((xx, yy, zz))
    return xx > 0 and minor > 0 and whole > 0 and moments[2] <= (moments[0] + moments[1]) * (1 + _SLACK)


def faults(tree: Tree) -> Iterator[tuple[str, str]]:
    """What is wrong with it, as (warning code, message); each code once, with the names that it is about."""
    joints, links = tree.joints, set(tree.links)
    names = {joint.name for joint in joints}
    moving = [joint for joint in joints if joint.type in _LIMITED]
    # A frame that is fixed to a link adds nothing to it: there zeros are ordinary.
    moved = {joint.child for joint in joints if joint.type != "fixed"}
    found: list[tuple[str, str, Iterable[str]]] = [
        ("urdf_duplicate_name", "several links have the name", _repeated(tree.links)),
        ("urdf_duplicate_name", "several joints have the name", _repeated(j.name for j in joints)),
        (
            "urdf_undefined_link",
            "no such link, but a joint's parent or child",
            [end or "(none)" for j in joints for end in (j.parent, j.child) if end not in links],
        ),
        (
            "urdf_several_parents",
            "a child of several joints: a chain that is closed cannot be written in URDF",
            _repeated(j.child for j in joints if j.child in links),
        ),
        ("urdf_loop", "a link hangs on itself by way of", _loop(joints)),
        (
            "urdf_unknown_joint_type",
            f"a type that is none of {', '.join(FREEDOM)}",
            [f"{j.name} ({j.type or 'none'})" for j in joints if j.type not in FREEDOM],
        ),
        (
            "urdf_limit_missing",
            "a limit, its effort or velocity is not given, and the type needs it",
            [j.name for j in moving if j.effort is None or j.velocity is None],
        ),
        (
            "urdf_limit_reversed",
            "the lower limit is above the upper",
            [j.name for j in moving if _reversed(j)],
        ),
        (
            "urdf_limit_zero",
            "an effort, velocity or range of zero or below: the joint cannot move",
            [j.name for j in moving if j.has_limit and _still(j)],
        ),
        (
            "urdf_mimic_undefined",
            "follows a joint that does not exist, or itself",
            [
                j.name
                for j in joints
                if j.mimics is not None and (j.mimics not in names or j.mimics == j.name)
            ],
        ),
        (
            "urdf_axis",
            "an axis without a direction",
            [j.name for j in joints if j.freedom and not j.has_axis],
        ),
        ("urdf_inertia", "a mass or inertia below zero", tree.negative),
        (
            "urdf_inertia",
            "moved by a joint, with a mass or inertia that no body has",
            [link for link in tree.impossible if link in moved],
        ),
        ("urdf_number", "what should be a finite number is none", tree.bad_numbers),
    ]
    roots = tree.roots()
    if links and not roots:
        yield "urdf_no_root", "every link is some joint's child: nothing can be its base"
    elif len(roots) > 1:
        yield "urdf_several_roots", f"{len(roots)} links have no parent, expected one: {_listed(roots)}"
    elif not links:
        yield "urdf_no_root", "it has no link"
    for code, message, about in found:
        if which := list(dict.fromkeys(about)):
            yield code, f"{message}: {_listed(which)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(name or "(no name)" for name in names[:MAX_NAMES]) + more


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]


def _loop(joints: Sequence[Joint]) -> list[str]:
    """The links of one circle, in order; nothing where there is none."""
    above = {joint.child: joint.parent for joint in joints if joint.child}
    done: set[str] = set()
    for start in above:
        path: dict[str, None] = {}
        link: str | None = start
        while link is not None and link not in done:
            if link in path:
                ring = list(path)
                return ring[ring.index(link) :]
            path[link] = None
            link = above.get(link)
        done |= path.keys()
    return []


def _reversed(joint: Joint) -> bool:
    return (joint.lower or 0.0) > (joint.upper or 0.0)


def _still(joint: Joint) -> bool:
    there = [value for value in (joint.effort, joint.velocity) if value is not None]
    return any(value <= 0 for value in there) or (joint.lower or 0.0) == (joint.upper or 0.0)
