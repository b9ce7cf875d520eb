"""Quality of a recording, a demonstration file or a canonical dataset, as measurements with thresholds.

Every check says how much of the input it could look at. A report whose checks resolved nothing has the
verdict ``unresolved``: an audit that saw nothing is never clean.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.canonical.from_hdf5 import hdf5_files, simulation_clock
from emboflow_dagster.formats.canonical.reader import CanonicalDataset, open_canonical
from emboflow_dagster.formats.canonical.schema import EPISODES_FILE, FRAMES_FILE, MANIFEST_FILE
from emboflow_dagster.formats.hdf5_layout import layout_of, open_hdf5
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.quality_checks import VECTOR_CHECKS, Check, EpisodeView
from emboflow_dagster.formats.quality_render import render_html, render_markdown
from emboflow_dagster.formats.quality_streams import STREAM_CHECKS, measured, stream_results
from emboflow_dagster.formats.report import json_safe

if TYPE_CHECKING:
    import h5py
    import numpy as np

__all__ = ["CHECKS", "quality_report", "render_html", "render_markdown"]

REPORT_VERSION = 1
#: Numbers of one dataset and episode that are read for a check.
MAX_NUMBERS = 50_000_000
CHECKS = ("declared_counts", "sync_age", *VECTOR_CHECKS, "empty_topics")
_ORDER = {"pass": 0, "warn": 1, "fail": 2}


def quality_report(
    path: Path | None = None,
    *,
    canonical: "Path | Mapping[str, Path] | None" = None,
    probe: Mapping[str, Any] | None = None,
    checks: Sequence[str] | None = None,
    fps: float | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Measure one input: a recording, an HDF5 file, a folder of either, or a canonical dataset.

    Args:
        path: What is measured; a folder with a canonical manifest is taken as that dataset.
        canonical: A canonical dataset instead, as for :func:`~...canonical.reader.open_canonical`.
        probe: The probe report of `path` (its JSON), so that it is not probed again.
        checks: Names of :data:`CHECKS`; all that apply by default.
        fps: Rate that the stamps are held against, where the input itself has none.
        name: What the report calls the input; default its file name.

    Returns:
        ``{"reportVersion", "subject", "kind", "verdict": pass|warn|fail|unresolved, "clean": bool, "counts",
        "coverage": {declared, resolved, unresolved}, "checks": [...]}``, JSON values only.

    Raises:
        InvalidInputError: An unknown check, or neither `path` nor `canonical`.
        IntegrityError: The canonical dataset is damaged.
        OSError: A file cannot be read.
    """
    wanted = list(CHECKS if checks is None else checks)
    unknown = [check for check in wanted if check not in CHECKS]
    if unknown:
        raise InvalidInputError(
            f"unknown check {', '.join(map(shown, unknown))}", hint=f"known are {', '.join(CHECKS)}"
        )
    if path is None and canonical is None:
        raise InvalidInputError(
            "nothing to measure: neither a path nor a dataset", kind=ErrorKind.INPUT_MISSING
        )
    if canonical is None and path is not None and path.is_dir() and (path / MANIFEST_FILE).is_file():
        canonical = path
    subject = name or (path.name if path is not None else "dataset")
    if canonical is not None:
        return _of_canonical(open_canonical(canonical), wanted, name or subject)
    assert path is not None  # noqa: S101 - one of the two is there, checked above
    report = dict(probe) if probe is not None else probe_path(path).to_json()
    candidates = report.get("detectedFormatCandidates") or [{"format": "unknown"}]
    detected = str(candidates[0]["format"])
    structure = report.get("structureSummary") or {}
    if detected.startswith(("rosbag", "mcap")):
        return _of_recording(path, structure, wanted, subject, detected)
    if detected.startswith("hdf5"):
        return _of_hdf5(path, wanted, subject, detected, fps or structure.get("fps"))
    return _finish(subject, detected, [], wanted)


def _of_canonical(dataset: CanonicalDataset, wanted: list[str], subject: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    running = [VECTOR_CHECKS[name]() for name in VECTOR_CHECKS if name in wanted and name != "zero_width"]
    features = dataset.features
    actions = tuple(name for name in features if name.partition(".")[0] == "action")
    lengths = ages = 0
    worst_age = 0
    places: list[str] = []
    rows = list(dataset.episodes())
    for row in rows:
        index, length = row["episode_index"], row["length"]
        lengths += length
        table = dataset.frames(index)
        stamps = table.column("source_timestamp_ns")
        view = EpisodeView(
            ref=f"episode {index}",
            length=table.num_rows,
            vectors={name: _vectors(table.column(name)) for name in features},
            actions=actions,
            stamps_ns=None if stamps.null_count else stamps.to_numpy(),
            fps=dataset.fps,
        )
        _feed(running, view)
        for feature, age in row["sync_max_age_ns"] or []:
            ages += 1
            worst_age = max(worst_age, age)
            if age > 2e9 / dataset.fps:
                places.append(f"episode {index}: {feature} is up to {age / 1e6:.1f} ms old")
    results = [check.result() for check in running]
    document = dataset.manifest.document
    counted = {"episodes": len(rows), "frames": pq.read_metadata(dataset.path(FRAMES_FILE)).num_rows}
    declared = {"episodes": document["episodes"], "frames": document["frames"]}
    agree = declared == counted and lengths == counted["frames"]
    results.append(
        measured(
            "declared_counts",
            severity="pass" if agree else "fail",
            values={"declared": declared, "counted": counted, "episodeLengths": lengths},
            threshold={"difference": 0},
            message="manifest, episodes and frames agree" if agree else "manifest and tables disagree",
            places=[] if agree else [EPISODES_FILE],
            declared=1,
            resolved=1,
        )
    )
    if ages:
        results.append(
            measured(
                "sync_age",
                severity="warn" if places else "pass",
                values={"maxAgeNs": worst_age},
                threshold={"frames": 2},
                message=f"held samples are at most {worst_age / 1e6:.1f} ms old",
                places=places,
                declared=ages,
                resolved=ages,
            )
        )
    return _finish(subject, document["schemaVersion"], results, wanted)


def _of_recording(
    path: Path, structure: Mapping[str, Any], wanted: list[str], subject: str, detected: str
) -> dict[str, Any]:
    results = stream_results(path, wanted)
    declared = (structure.get("declared") or {}).get("messageCount")
    counted = structure.get("messageCount")
    known = isinstance(declared, int) and isinstance(counted, int)
    results.append(
        measured(
            "declared_counts",
            severity="pass" if declared == counted else "fail",
            values={"declared": declared, "counted": counted},
            threshold={"difference": 0},
            message=f"{declared} messages declared, {counted} read",
            places=[],
            declared=1,
            resolved=int(known),
        )
    )
    return _finish(subject, detected, results, wanted)


def _of_hdf5(path: Path, wanted: list[str], subject: str, detected: str, fps: float | None) -> dict[str, Any]:
    running = [VECTOR_CHECKS[name]() for name in VECTOR_CHECKS if name in wanted]
    declared = counted = 0
    declares = False
    for file_path in hdf5_files(path):
        with open_hdf5(file_path) as file:
            layout = layout_of(file)
            prefix = "" if not path.is_dir() else f"{file_path.relative_to(path).as_posix()}:"
            for view in _hdf5_views(file, prefix, fps):
                _feed(running, view)
            total = layout.attrs.get("total")
            counted += sum(demo.length for demo in layout.demos)
            if isinstance(total, int):
                declares, declared = True, declared + total
    results = [check.result() for check in running]
    if declares:
        results.append(
            measured(
                "declared_counts",
                severity="pass" if declared == counted else "fail",
                values={"declared": declared, "counted": counted},
                threshold={"difference": 0},
                message=f"{declared} frames declared, {counted} read",
                places=[],
                declared=1,
                resolved=1,
            )
        )
    return _finish(subject, detected, results, wanted)


def _hdf5_views(file: "h5py.File", prefix: str, fps: float | None) -> Iterator[EpisodeView]:
    import numpy as np

    layout = layout_of(file)
    for demo in layout.demos:
        vectors: dict[str, np.ndarray] = {}
        unread: list[str] = []
        for name, item in demo.fields.items():
            if not item.is_numeric or item.zero_width or not item.shape[0] or name in demo.cameras:
                continue
            if item.foreign or item.shape[0] * (item.width or 1) > MAX_NUMBERS:
                unread.append(name)
                continue
            try:
                rows = np.asarray(file[item.path][...])  # pyright: ignore[reportIndexIssue] - a dataset
            except (OSError, RuntimeError, ValueError):
                unread.append(name)
                continue
            vectors[name] = rows.reshape(item.shape[0], -1)
        clock = vectors.get("states") if layout.format == "hdf5_robosuite_raw" else None
        yield EpisodeView(
            ref=prefix + (demo.group or "/"),
            length=demo.length,
            vectors=vectors,
            actions=tuple(name for name in ("actions", "action") if name in vectors),
            stamps_ns=None if clock is None else simulation_clock(layout, clock),
            fps=fps,
            zero_width=tuple(name for name, item in demo.fields.items() if item.zero_width),
            unresolved=tuple(unread),
        )


def _feed(running: list[Check], view: EpisodeView) -> None:
    for check in running:
        check.take(view)


def _vectors(column: Any) -> "np.ndarray":
    import numpy as np

    joined = column.combine_chunks()
    return np.asarray(joined.flatten()).reshape(len(joined), -1)


def _finish(subject: str, kind: str, results: list[dict[str, Any]], wanted: list[str]) -> dict[str, Any]:
    """Put the verdict on top: the worst severity, or ``unresolved`` where nothing could be measured."""
    known = (*VECTOR_CHECKS, *STREAM_CHECKS, "declared_counts", "sync_age")
    results.sort(key=lambda item: known.index(item["check"]))
    results = [item for item in results if item["check"] in wanted]
    coverage = {
        part: sum(item["coverage"][part] for item in results)
        for part in ("declared", "resolved", "unresolved")
    }
    worst = max((item["severity"] for item in results), key=_ORDER.__getitem__, default="pass")
    verdict = worst if coverage["resolved"] else "unresolved"
    counts = {name: sum(item["severity"] == name for item in results) for name in _ORDER}
    return json_safe(
        {
            "reportVersion": REPORT_VERSION,
            "subject": subject,
            "kind": kind,
            "verdict": verdict,
            "clean": verdict == "pass",
            "counts": counts,
            "coverage": coverage,
            "checks": results,
        }
    )
