"""Our own canonical folder as an input: what `emboflow dataset export` wrote comes back as it went."""

from typing import Any, Final

from emboflow_dagster.errors import EmboflowError, ErrorKind
from emboflow_dagster.formats.canonical.schema import (
    EPISODES_FILE,
    FRAMES_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    TASKS_FILE,
)
from emboflow_dagster.formats.detect import Format, Source
from emboflow_dagster.formats.report import Candidate, Probe

NAME: Final = "emboflow_canonical"
MAX_LENGTHS: Final = 500
MAX_TASKS: Final = 20
_FILES: Final = frozenset({MANIFEST_FILE, FRAMES_FILE, EPISODES_FILE, TASKS_FILE})
_CODES: Final = {ErrorKind.PAYLOAD_MISSING: "missing_parts", ErrorKind.FILE_UNREADABLE: "unreadable"}


def matches(source: Source) -> Candidate | None:
    """A folder with the manifest and the three tables of the layout."""
    if not source.is_folder or not _FILES.issubset(entry.path for entry in source.entries):
        return None
    return Candidate(NAME, 0.96, (f"{', '.join(sorted(_FILES))}: a folder of {SCHEMA_VERSION}",))


def probe(source: Source, report: Probe) -> None:
    """Hold every file and every episode against what the manifests say of them."""
    from emboflow_dagster.formats.canonical.checking import check_folder
    from emboflow_dagster.formats.canonical.reader import open_canonical

    checked = check_folder(source.path)
    for problem in checked.problems:
        report.warn(_CODES.get(problem["code"], "corrupt"), problem["message"])
    try:
        dataset = open_canonical(source.path)
    except EmboflowError:
        return  # it is among the problems
    document = dataset.manifest.document
    lengths: dict[str, int] = {}
    frames = episodes = 0
    for row in dataset.episodes():
        if episodes < MAX_LENGTHS:
            lengths[str(row["episode_index"])] = row["length"]
        episodes, frames = episodes + 1, frames + row["length"]
    found = {"episodes": episodes, "frames": frames}
    if declared := {key: document.get(key) for key, value in found.items() if document.get(key) != value}:
        report.warn("declared_count_mismatch", f"the manifest says {declared}, the tables hold {found}")
    features: dict[str, Any] = dataset.manifest.features
    report.structure.update(
        {
            **found,
            "episodeLengths": lengths,
            "fps": dataset.fps,
            "features": features,
            "robotType": document.get("robotType"),
            "tasks": dataset.tasks()[:MAX_TASKS],
            "versionTag": document.get("versionTag"),
            "versionSha256": checked.version_sha256,
            "hasActions": "action" in features,
            "stateDim": _width(features.get("observation.state")),
            "actionDim": _width(features.get("action")),
            "cameras": [name for name, spec in features.items() if spec.get("dtype") == "video"],
        }
    )
    report.recommend("normalize", "quality-report")


def _width(feature: dict[str, Any] | None) -> int | None:
    return feature["shape"][0] if feature else None


FORMAT = Format(names=(NAME,), matches=matches, probe=probe)
