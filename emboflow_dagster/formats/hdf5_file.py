"""HDF5: demonstrations of robosuite, robomimic and ALOHA, and files that are no robot data at all.

One file, or a folder of them (with a simulator's model files beside). Shapes come from the file; counts that
an attribute declares are compared with them and never reported in their place.
"""

import json
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.hdf5_layout import Demo, Layout, natural_key, read_layout
from emboflow_dagster.formats.hdf5_mended import SIGNATURE, signature_at
from emboflow_dagster.formats.hdf5_proposal import propose
from emboflow_dagster.formats.hdf5_warnings import recoverable, warn_about
from emboflow_dagster.formats.report import Candidate, Probe

SUFFIXES = (".hdf5", ".h5", ".he5", ".hdf")
MAX_DATASETS = 500
MAX_EPISODE_LENGTHS = 500
MAX_FILES = 2_000


def matches(source: Source) -> Candidate | None:
    """A file with the signature (a user block may stand before it), or a folder with such files."""
    if not source.is_folder:
        if _has_signature(source.head):
            return Candidate("hdf5", 0.95, ("HDF5 signature",))
        if source.path.suffix.lower() in SUFFIXES and source.head and is_hdf5(source.path):
            return Candidate("hdf5", 0.95, ("HDF5 signature behind a user block",))
        return None
    files = hdf5_entries(source)
    if not files:
        return None
    return Candidate("hdf5", 0.7, (f"{len(files)} HDF5 file{'s' if len(files) > 1 else ''}",))


def hdf5_entries(source: Source) -> list[Entry]:
    """A folder's HDF5 files by suffix and signature, in natural order."""
    found = [
        entry
        for entry in source.with_suffix(*SUFFIXES)
        if _has_signature(head := source.head_of(entry)) or (head and is_hdf5(source.file(entry)))
    ]
    return sorted(found, key=lambda entry: natural_key(entry.path))


def probe(source: Source, report: Probe) -> None:
    """Fill the report; see :func:`hdf5_summary` for the structure."""
    if source.is_folder:
        entries = hdf5_entries(source)
        files = [(entry.path, source.file(entry)) for entry in entries[:MAX_FILES]]
        if len(entries) > MAX_FILES:
            report.warn("listing_truncated", f"{len(entries)} HDF5 files; the first {MAX_FILES} were read")
    else:
        files = [(source.path.name, source.path)]
    layouts: dict[str, Layout] = {}
    for name, path in files:
        try:
            layouts[name] = read_layout(path)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            text = str(error)
            code = next((c for c in ("truncated", "unclean_close") if c in text.lower()), "corrupt")
            report.warn(code, f"not readable as HDF5: {text}", name)
    for name, layout in layouts.items():
        warn_about(layout, name if len(files) > 1 else None, report)
    if not layouts:
        report.suggest("hdf5", 0.5, "the file cannot be read")
        return
    found = {layout.format for layout in layouts.values()}
    best = max(
        found, key=lambda name: (name != "hdf5", sum(x.format == name for x in layouts.values()), name)
    )
    for name in found - {"hdf5", best}:
        report.suggest(name, 0.5, "some of the files")
    if best != "hdf5":
        report.suggest(best, 0.98, _evidence(best))
    if best == "hdf5":
        report.suggest("hdf5", 0.95, "no known demonstration layout")
        _propose(layouts, report)
    report.structure.update(hdf5_summary(layouts))
    if damaged := [layout for layout in layouts.values() if layout.damage]:
        report.structure["recoverable"] = recoverable(damaged)
        report.recommend("recover")
    report.raw["attributes"] = {name: layout.attrs for name, layout in list(layouts.items())[:5]}
    if best != "hdf5":
        report.recommend("quality-report", "preview")
        if report.structure["hasActions"]:
            report.recommend("normalize")


def hdf5_summary(layouts: dict[str, Layout]) -> dict[str, Any]:
    """The structure of one or several files of one asset.

    Returns:
        ``datasets`` (at most 500; with several files the key is ``<file>:<path>``), ``datasetCount``,
        ``episodes`` and ``frames`` (``None`` for no robot dataset), ``episodeLengths``, ``hasActions``,
        ``hasObservations``, ``stateDim`` and ``actionDim`` (``None`` where episodes differ or have none),
        ``cameras``, ``env``, ``robotType``, ``fps``, ``filterKeys`` {name: demonstrations} where there are
        some.
    """
    several = len(layouts) > 1
    datasets: dict[str, Any] = {}
    demos: list[tuple[str, Demo]] = []
    count = 0
    for name, layout in layouts.items():
        count += len(layout.fields)
        for item in layout.fields[: max(0, MAX_DATASETS - len(datasets))]:
            key = f"{name}:{item.path}" if several else item.path
            datasets[key] = {"shape": list(item.shape), "dtype": item.dtype}
        demos += [(f"{name}:{d.group}" if several else d.group, d) for d in layout.demos]
    robot = any(layout.format != "hdf5" for layout in layouts.values())
    first = next((x for x in layouts.values() if x.format != "hdf5"), next(iter(layouts.values())))
    lengths = {name.removeprefix("data/") or "episode_0": demo.length for name, demo in demos}
    return {
        "datasets": datasets,
        "datasetCount": count,
        "episodes": len(demos) if robot else None,
        "frames": sum(lengths.values()) if robot else None,
        "episodeLengths": dict(list(lengths.items())[:MAX_EPISODE_LENGTHS]),
        "hasActions": any(demo.action is not None for _, demo in demos),
        "hasObservations": any(demo.observations for _, demo in demos),
        "stateDim": _same([demo.state.width if demo.state else None for _, demo in demos]),
        "actionDim": _same([demo.action.width if demo.action else None for _, demo in demos]),
        "cameras": sorted({camera for _, demo in demos for camera in demo.cameras}),
        "env": first.env,
        "robotType": first.robot_type,
        "fps": first.control_hz,
        **({"filterKeys": keys} if (keys := _filter_keys(layouts)) else {}),
    }


def _filter_keys(layouts: dict[str, Layout]) -> dict[str, int]:
    """How many demonstrations each of robomimic's filter keys names."""
    found: dict[str, int] = {}
    for layout in layouts.values():
        for key, names in layout.filter_keys.items():
            found[key] = found.get(key, 0) + len(names)
    return found


def _propose(layouts: dict[str, Layout], report: Probe) -> None:
    """Say that nothing is known of the files, and what `normalize` could be told to read them."""
    text = "no layout of robosuite, robomimic or ALOHA was found"
    mapping = next((found for layout in layouts.values() if (found := propose(layout))), {})
    if mapping:
        shown = json.dumps(mapping, ensure_ascii=False)
        text = f"{text}; by names and shapes, for the config of normalize: {{mapping: {shown}}}"
        report.structure["mapping"] = mapping
        report.recommend("normalize")
    report.warn("not_a_robot_dataset", text)


def _same(values: list[Any]) -> Any:
    """The value that all share, else ``None``."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _evidence(name: str) -> str:
    return {
        "hdf5_robosuite_raw": "data/<demo>/states without obs",
        "hdf5_robomimic": "data/<demo>/obs",
        "hdf5_aloha": "observations/qpos beside action",
    }[name]


def _has_signature(head: bytes) -> bool:
    return any(head[at : at + 8] == SIGNATURE for at in (0, 512, 1024, 2048))


def is_hdf5(path: Path) -> bool:
    """Whether a file starts with the HDF5 signature, a user block aside."""
    try:
        return signature_at(path) is not None
    except OSError:
        return False


FORMAT = Format(
    names=("hdf5", "hdf5_aloha", "hdf5_robomimic", "hdf5_robosuite_raw"), matches=matches, probe=probe
)
