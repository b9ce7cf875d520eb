"""Other descriptions of robots: xacro, SDF and MJCF. They are named and counted, with a way to a URDF."""

from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.folder import folder_summary
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.robot_xml import models, parse
from emboflow_dagster.formats.urdf import NOT_EXPANDED

MAX_FILES: Final = 100
MAX_NAMES: Final = 100
_ROOTS: Final = {"mujoco": "mjcf", "sdf": "sdf", "gazebo": "sdf", "robot": "xacro"}
_HINTS: Final = {
    "xacro": ("xacro_not_expanded", NOT_EXPANDED),
    "mjcf": (
        "model_not_read",
        "a MuJoCo model is counted, its joints are not checked: register the URDF that it was made from",
    ),
    "sdf": (
        "model_not_read",
        "an SDF model is counted, its joints are not checked: register the URDF that it was made from",
    ),
}


def matches(source: Source) -> Candidate | None:
    """Such a file; a folder with one and nothing that is surer."""
    found = _models(source)
    if not found:
        return None
    kind = found[0][0]
    if not source.is_folder:
        return Candidate(kind, 0.9, (f"the first element is that of {kind}",))
    return Candidate(kind, 0.55, (f"{len(found)} model(s) of a robot or its world",))


def probe(source: Source, report: Probe) -> None:
    """``models`` {file: {format, name, ...}}; what to do with it instead is a warning."""
    if source.is_folder:
        report.structure.update(folder_summary(source))
    found: dict[str, Any] = {}
    for kind, entry in _models(source)[:MAX_FILES]:
        name = source.path.name if entry is None else entry.path
        try:
            report.warn(*_HINTS[kind], name)
            found[name] = _summary(kind, source.path if entry is None else source.file(entry))
        except (ValueError, ET.ParseError, OSError) as error:
            report.warn("corrupt", f"not readable as {kind}: {error}", name)
    report.structure["models"] = found


def _models(source: Source) -> list[tuple[str, Entry | None]]:
    """(format, file); plain URDF is another's."""
    found: list[tuple[str, Entry | None]] = []
    for root, entry in models(source):
        name = source.path.name if entry is None else entry.path
        if root in _ROOTS and (root != "robot" or name.lower().endswith(".xacro")):
            found.append((_ROOTS[root], entry))
    return found


def _summary(kind: str, path: Path) -> dict[str, Any]:
    """What its elements are: bodies, joints and motors by name, at most 100 of each."""
    root = parse(path)
    if kind == "xacro":
        macros = [e for e in root.iter() if str(e.tag).endswith("}macro")]
        includes = [e.get("filename", "") for e in root.iter() if str(e.tag).endswith("}include")]
        return {
            "format": kind,
            "name": root.get("name"),
            "macros": [e.get("name", "") for e in macros][:MAX_NAMES],
            "includes": includes[:MAX_NAMES],
        }
    if kind == "sdf":
        first = next(root.iter("model"), None)
        return {
            "format": kind,
            "name": None if first is None else first.get("name"),
            "version": root.get("version"),
            **_counted("links", root.iter("link")),
            **_counted("joints", root.iter("joint")),
        }
    motors = root.find("actuator")
    return {
        "format": kind,
        "name": root.get("model"),
        **_counted("bodies", root.iter("body")),
        **_counted("joints", (e for e in root.iter("joint") if e.get("name"))),
        **_counted("actuators", () if motors is None else motors),
    }


def _counted(what: str, elements: Any) -> dict[str, Any]:
    names = [element.get("name", "") for element in elements]
    return {what: len(names), f"{what[:-3] + 'y' if what == 'bodies' else what[:-1]}Names": names[:MAX_NAMES]}


FORMAT = Format(names=("xacro", "sdf", "mjcf"), matches=matches, probe=probe)
