"""HDF5: demonstrations of robosuite, robomimic and ALOHA, and files that are no robot data at all.

One file, or a folder of them (with a simulator's model files beside). Shapes come from the file; counts that
an attribute declares are compared with them and never reported in their place.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.hdf5_layout import Demo, Layout, natural_key, read_layout
from emboflow_dagster.formats.report import Candidate, Probe

SUFFIXES = (".hdf5", ".h5", ".he5", ".hdf")
SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_DATASETS = 500
MAX_EPISODE_LENGTHS = 500
MAX_FILES = 2_000


def matches(source: Source) -> Candidate | None:
    """A file with the signature (a user block may stand before it), or a folder with such files."""
    if not source.is_folder:
        if _has_signature(source.head):
            return Candidate("hdf5", 0.95, ("HDF5 signature",))
        return None
    files = hdf5_entries(source)
    if not files:
        return None
    return Candidate("hdf5", 0.7, (f"{len(files)} HDF5 file{'s' if len(files) > 1 else ''}",))


def hdf5_entries(source: Source) -> list[Entry]:
    """A folder's HDF5 files by suffix and signature, in natural order."""
    found = [entry for entry in source.with_suffix(*SUFFIXES) if _has_signature(source.head_of(entry))]
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
            code = "truncated" if "truncated" in str(error).lower() else "corrupt"
            report.warn(code, f"not readable as HDF5: {error}", name)
    for name, layout in layouts.items():
        _warn_about(layout, name if len(files) > 1 else None, report)
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
        report.warn("not_a_robot_dataset", "no layout of robosuite, robomimic or ALOHA was found")
        report.suggest("hdf5", 0.95, "no known demonstration layout")
    report.structure.update(hdf5_summary(layouts))
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
        ``cameras``, ``env``, ``robotType``, ``fps``.
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
    }


def _warn_about(layout: Layout, file: str | None, report: Probe) -> None:
    def at(path: str) -> str:
        return f"{file}:{path}" if file else path

    if not layout.complete:
        report.warn("listing_truncated", "the file nests deeper or holds more objects than are walked", file)
    for link in layout.links:
        report.warn("link_not_followed", "soft or external link: it may lead outside of the file", at(link))
    for item in layout.fields:
        if item.foreign:
            report.warn("external_data", "the values stand in another file and were not read", at(item.path))
        if item.zero_width:
            report.warn("zero_width_dataset", f"shape {list(item.shape)} holds no number", at(item.path))
    if layout.format != "hdf5":
        _warn_about_demos(layout, file, at, report)


def _warn_about_demos(layout: Layout, file: str | None, at: Callable[[str], str], report: Probe) -> None:
    without_actions = [demo.group for demo in layout.demos if demo.action is None]
    if without_actions:
        many = f"{len(without_actions)} of {len(layout.demos)} episodes have no actions"
        report.warn("no_actions", many, at(without_actions[0]))
    without = [demo.group for demo in layout.demos if not demo.observations]
    if without:
        many = f"{len(without)} of {len(layout.demos)} episodes have no observations, simulator states only"
        report.warn("no_observations", many, at(without[0]))
    for demo in layout.demos:
        rows = {
            n: f.shape[0] for n, f in demo.fields.items() if f.shape and (f.is_numeric or n in demo.cameras)
        }
        state, action = demo.state, demo.action
        if state is not None and action is not None and state.shape[0] != action.shape[0]:
            text = f"{state.shape[0]} states, {action.shape[0]} actions"
            report.warn("declared_count_mismatch", text, at(demo.group))
        if not demo.length:
            report.warn("empty_episode", f"no frames in any of {len(rows)} datasets", at(demo.group))
    total = layout.attrs.get("total")
    counted = sum(demo.length for demo in layout.demos)
    if isinstance(total, int) and total != counted:
        report.warn("declared_count_mismatch", f"attribute total says {total}, counted {counted}", at("data"))
    for label, widths in (
        ("states", {d.state.width for d in layout.demos if d.state}),
        ("actions", {d.action.width for d in layout.demos if d.action}),
    ):
        if len(widths) > 1:
            text = f"{label} have {sorted(w for w in widths if w is not None)} numbers in different episodes"
            report.warn("dimension_mismatch", text, file)


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
    with path.open("rb") as stream:
        return _has_signature(stream.read(4_096))


FORMAT = Format(
    names=("hdf5", "hdf5_aloha", "hdf5_robomimic", "hdf5_robosuite_raw"), matches=matches, probe=probe
)
