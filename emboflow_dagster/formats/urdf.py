"""URDF: a robot's description as XML, alone or in a folder with its meshes.

Parsed with entities refused: a description may come from anywhere.
"""

from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree as ET

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.folder import folder_summary
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.robot_xml import models, parse
from emboflow_dagster.formats.urdf_tree import faults, read_tree

MAX_FILES = 100
MAX_MESHES = 500
MAX_ALIKE = 1_000
"""Files of one name among which a mesh is looked for."""
NOT_EXPANDED = (
    "macros are not expanded here: write the robot with `xacro FILE > robot.urdf` and register that"
)


def matches(source: Source) -> Candidate | None:
    """XML whose first element is a robot, but for macros; a folder that holds one."""
    found = _descriptions(source)
    if not found:
        return None
    if not source.is_folder:
        return Candidate("urdf", 0.9, ("a robot element",))
    return Candidate("urdf", 0.65, (f"{len(found)} robot description(s)",))


def probe(source: Source, report: Probe) -> None:
    """Links, joints and mesh references of every description, and what is wrong with them."""
    there: _Files | None = None
    if source.is_folder:
        found = [entry for entry in _descriptions(source) if entry is not None]
        files = [(entry.path, source.file(entry)) for entry in found[:MAX_FILES]]
        if len(found) > MAX_FILES:
            report.warn("listing_truncated", f"{len(found)} descriptions; {MAX_FILES} were read")
        there = _Files(source)
        report.structure.update(folder_summary(source))
    else:
        files = [(source.path.name, source.path)]
    robots: dict[str, Any] = {}
    for name, path in files:
        try:
            robot, wrong = read_urdf(path)
        except (ValueError, ET.ParseError, OSError) as error:
            report.warn("corrupt", f"not readable as URDF: {error}", name)
            continue
        robots[name] = robot
        for code, message in wrong:
            report.warn(code, message, name)
        if there is not None:
            there.report(robot, name, report)
    report.structure["urdf"] = robots
    if robots:
        report.suggest("urdf", 0.95, f"{sum(robot['joints'] for robot in robots.values())} joints")


def read_urdf(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What one description says, and (warning code, message) of what is wrong with it.

    Returns:
        ``robot``, ``links``, ``joints``, ``meshRefs``, ``jointTypes`` {type: count}, ``meshes`` (each once,
        at most 500), ``missingMeshes`` and ``meshPointers`` (``None``: a file alone does not say), and what
        :meth:`~emboflow_dagster.formats.urdf_tree.Tree.summary` gives.

    Raises:
        ValueError: Too large, no robot element, or a document type declaration (entities).
        xml.etree.ElementTree.ParseError: Not well-formed.
    """
    root = parse(path)
    if root.tag != "robot":
        raise ValueError(f"the root element is {root.tag!r}, expected 'robot'")
    meshes = [mesh.get("filename", "") for mesh in root.iter("mesh")]
    tree = read_tree(root)
    types: dict[str, int] = {}
    for joint in tree.joints:
        types[joint.type] = types.get(joint.type, 0) + 1
    summary = {
        "robot": root.get("name"),
        "links": len(tree.links),
        "joints": len(tree.joints),
        "meshRefs": len(meshes),
        "jointTypes": types,
        "meshes": list(dict.fromkeys(meshes))[:MAX_MESHES],
        "missingMeshes": None,
        "meshPointers": None,
        **tree.summary(),
    }
    if any(str(element.tag).startswith("{") and "xacro" in str(element.tag) for element in root.iter()):
        # What is missing and doubled then says nothing.
        return summary, [("xacro_not_expanded", NOT_EXPANDED)]
    return summary, list(faults(tree))


class _Files:
    """The files of a folder, found by a reference to one."""

    def __init__(self, source: Source) -> None:
        self._pointers = set(source.lfs_pointers())
        self._present = {entry.path for entry in source.entries}
        self._by_case = {path.casefold(): path for path in self._present}
        self._by_name: dict[str, list[str]] = {}
        for path in self._present:
            self._by_name.setdefault(path.rpartition("/")[2].casefold(), []).append(path)

    def find(self, mesh: str, folder: PurePosixPath) -> tuple[str | None, str | None]:
        """Where it is, and what is there that only differs in upper and lower case.

        ``package://`` and ``model://`` paths match by their end.
        """
        scheme, marked, rest = mesh.partition("://")
        if marked and scheme in ("package", "model"):
            name = "/" + (rest.partition("/")[2] or rest)
            alike = self._by_name.get(name.rpartition("/")[2].casefold(), [])[:MAX_ALIKE]
            place = next((path for path in alike if f"/{path}".endswith(name)), None)
            other = next((path for path in alike if f"/{path}".casefold().endswith(name.casefold())), None)
            return place, other
        name = _resolved(folder, rest if marked and scheme == "file" else mesh)
        if name is None:
            return None, None
        return name if name in self._present else None, self._by_case.get(name.casefold())

    def report(self, robot: dict[str, Any], name: str, report: Probe) -> None:
        """Set ``missingMeshes`` and ``meshPointers``, and warn."""
        missing: list[tuple[str, str | None]] = []
        pointers = 0
        for mesh in robot["meshes"]:
            place, other = self.find(mesh, PurePosixPath(name).parent)
            if place is None:
                missing.append((mesh, other))
            elif place in self._pointers:
                pointers += 1
        robot["missingMeshes"], robot["meshPointers"] = len(missing), pointers
        for mesh, other in missing[:20]:
            more = f"; {other} differs in upper and lower case only" if other else ""
            report.warn("missing_references", f"mesh {mesh} is not there{more}", name)


def _resolved(folder: PurePosixPath, name: str) -> str | None:
    parts: list[str] = []
    for part in (folder / name).parts:
        if part == "..":
            if not parts:
                return None  # outside of what was registered
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _descriptions(source: Source) -> list[Entry | None]:
    return [entry for root, entry in models(source) if root == "robot" and not _is_macro(source, entry)]


def _is_macro(source: Source, entry: Entry | None) -> bool:
    return (source.path.name if entry is None else entry.path).lower().endswith(".xacro")


FORMAT = Format(names=("urdf",), matches=matches, probe=probe)
