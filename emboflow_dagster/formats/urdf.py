"""URDF: a robot's description as XML, alone or in a folder with its meshes.

Parsed with entities refused: a description may come from anywhere.
"""

from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree as ET
from xml.parsers import expat

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.folder import folder_summary
from emboflow_dagster.formats.report import Candidate, Probe

MAX_BYTES = 64 * 1024 * 1024
MAX_FILES = 100


def matches(source: Source) -> Candidate | None:
    """A file with the suffix that looks like XML with a robot in it; a folder that holds one."""
    if not source.is_folder:
        if source.path.suffix.lower() == ".urdf" and b"<robot" in source.head:
            return Candidate("urdf", 0.9, ("a robot element",))
        return None
    found = _descriptions(source)
    return Candidate("urdf", 0.65, (f"{len(found)} robot description(s)",)) if found else None


def probe(source: Source, report: Probe) -> None:
    """Links, joints and mesh references of every description, and which of the meshes are not there."""
    present: set[str] | None = None
    if source.is_folder:
        found = _descriptions(source)
        files = [(entry.path, source.file(entry)) for entry in found[:MAX_FILES]]
        present = {entry.path for entry in source.entries}
        report.structure.update(folder_summary(source))
    else:
        files = [(source.path.name, source.path)]
    robots: dict[str, Any] = {}
    for name, path in files:
        try:
            robot, meshes = read_urdf(path)
        except (ValueError, ET.ParseError, OSError) as error:
            report.warn("corrupt", f"not readable as URDF: {error}", name)
            continue
        robots[name] = robot
        missing = _missing(meshes, PurePosixPath(name).parent, present)
        robot["missingMeshes"] = len(missing) if present is not None else None
        for mesh in missing[:20]:
            report.warn("missing_references", f"mesh {mesh} is not there", name)
    report.structure["urdf"] = robots
    if robots:
        report.suggest("urdf", 0.95, f"{sum(robot['joints'] for robot in robots.values())} joints")


def read_urdf(path: Path) -> tuple[dict[str, Any], list[str]]:
    """``robot``, ``links``, ``joints``, ``meshRefs``, ``jointTypes`` of one description, and its mesh names.

    Raises:
        ValueError: Too large, no robot element, or a document type declaration (entities).
        xml.etree.ElementTree.ParseError: Not well-formed.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    text = path.read_bytes()
    _refuse_entities(text)
    root = ET.fromstring(text)  # noqa: S314 - entities were refused above
    if root.tag != "robot":
        raise ValueError(f"the root element is {root.tag!r}, expected 'robot'")
    joints = root.findall("joint")
    meshes = [mesh.get("filename", "") for mesh in root.iter("mesh")]
    types: dict[str, int] = {}
    for joint in joints:
        types[joint.get("type", "")] = types.get(joint.get("type", ""), 0) + 1
    summary = {
        "robot": root.get("name"),
        "links": len(root.findall("link")),
        "joints": len(joints),
        "meshRefs": len(meshes),
        "jointTypes": types,
    }
    return summary, meshes


def _refuse_entities(text: bytes) -> None:
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("a document type declaration is not allowed in a robot description")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError:
        return  # ElementTree says it again, with the place


def _missing(meshes: list[str], folder: PurePosixPath, present: set[str] | None) -> list[str]:
    """Meshes that no file of the folder can stand for; ``package://`` paths match by their end."""
    if present is None:
        return []
    absent = []
    for mesh in dict.fromkeys(meshes):
        name = mesh.removeprefix("file://").removeprefix("package://")
        if mesh.startswith("package://"):
            name = name.partition("/")[2] or name
            known = any(path == name or path.endswith("/" + name) for path in present)
        else:
            known = _resolved(folder, name) in present
        if not known:
            absent.append(mesh)
    return absent


def _resolved(folder: PurePosixPath, name: str) -> str:
    parts: list[str] = []
    for part in (folder / name).parts:
        if part == "..":
            parts[-1:] = []
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _descriptions(source: Source) -> list[Entry]:
    return [entry for entry in source.with_suffix(".urdf") if b"<robot" in source.head_of(entry)]


FORMAT = Format(names=("urdf",), matches=matches, probe=probe)
