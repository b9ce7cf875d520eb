"""Every sample's probe beside what independent tools found, field by field: the report of differences.

A field of ``TRUTH/*.json`` is compared, or named in :data:`ELSEWHERE` with the reason why a probe does not
say it; a field that is neither is a difference, so that nothing is left out unseen. ``make compare-samples``
writes ``docs/samples.md``; ``tests/unit/formats/test_samples_compared.py`` holds that the report is empty.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.report import Probe
from tests.sample_files import SAMPLES

#: Fields of the truth that are no statement of a probe, by the name (or the end of the name) they have.
ELSEWHERE = {
    "tool": "which tool found it",
    "note": "which tool found it",
    "file": "the name of the sample's file; compared as the name in `files` where a report has that",
    "detail.attrs": "bounded attributes stand in rawReport",
    "detail.h5py": "which tool found it",
    "layout": "is the format: compared in the column before",
    "lerobot_doctor": "another tool's verdict",
    "instructions": "values: read when a dataset is normalised",
    "image_shape": "values: read when a dataset is normalised",
    "action_min": "values: read when a dataset is normalised",
    "action_max": "values: read when a dataset is normalised",
    "action_mean": "values: read when a dataset is normalised",
    "action_nan": "values: read when a dataset is normalised",
    "action_sha256_f32_in_file_order": "values: read when a dataset is normalised",
    "first_file_path": "values: read when a dataset is normalised",
    "parquet.vectors": "values: the quality report's",
    "parquet.timestamp_dt": "values: the quality report's; what is not increasing is a warning",
    "parquet.tool": "which tool found it",
    "ncols": "the length of `columns`, which are compared",
    "member_count": "the length of `names`, which are compared",
}
#: LeRobot's column types in DuckDB's words.
_DUCKDB = {
    "VARCHAR": "string",
    "BIGINT": "int64",
    "INTEGER": "int32",
    "DOUBLE": "double",
    "FLOAT": "float",
    "BOOLEAN": "bool",
    "BLOB": "binary",
}


@dataclass(slots=True)
class Compared:
    """One sample's comparison: how many fields were equal, and each that was not."""

    name: str
    format: str
    fields: int = 0
    differences: list[str] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)

    def equal(self, what: str, truth: Any, ours: Any) -> None:
        """Compare one field; mappings and lists of mappings are taken apart."""
        if isinstance(truth, Mapping) and isinstance(ours, Mapping):
            for key in [*truth, *(key for key in ours if key not in truth)]:
                self.equal(f"{what}.{key}", truth.get(key, "absent"), ours.get(key, "absent"))
            return
        self.fields += 1
        if truth != ours:
            self.differences.append(f"{what}: the truth is {truth!r:.200}, the probe says {ours!r:.200}")

    def near(self, what: str, truth: float | None, ours: float | None, *, within: float) -> None:
        """Compare numbers that another tool rounded."""
        self.fields += 1
        if (truth is None) != (ours is None) or (
            truth is not None and ours is not None and abs(truth - ours) > within
        ):
            self.differences.append(f"{what}: the truth is {truth!r}, the probe says {ours!r}")


def names() -> list[str]:
    """The samples there are, as ``kind/name``."""
    expected = SAMPLES / "EXPECT.json"
    return sorted(json.loads(expected.read_text())) if expected.is_file() else []


def expected(name: str) -> dict[str, Any]:
    """``asset_type``, ``format``, ``must_warn`` and ``note`` of one sample."""
    return _expected()[name]


@cache
def _expected() -> dict[str, Any]:
    return json.loads((SAMPLES / "EXPECT.json").read_text())


def truth(name: str) -> dict[str, Any]:
    """What independent tools found in one sample."""
    return json.loads((SAMPLES / "TRUTH" / f"{name.replace('/', '__')}.json").read_text())["truth"]


@cache
def probed(name: str) -> Probe:
    """The sample's probe, made once a process; nobody may change it."""
    return probe_path(SAMPLES / name, asset_type=expected(name)["asset_type"])


def compare(name: str, found: Mapping[str, Any] | None = None) -> Compared:
    """One sample beside its truth.

    Args:
        name: As :func:`names` gives it.
        found: Another truth than the sample's own.
    """
    probe, wanted = probed(name), expected(name)
    result = Compared(name, probe.format)
    result.equal("format", wanted["format"], probe.format)
    for code in wanted["must_warn"]:
        result.equal(f"must_warn.{code}", True, code in probe.codes)
    left = dict(truth(name) if found is None else found)
    kind = name.partition("/")[0]
    _KINDS[kind](result, left, probe)
    for key in list(left):
        if key in ELSEWHERE:
            result.elsewhere.add(key)
        else:
            result.differences.append(f"{key}: a field of the truth that nothing is compared with")
    return result


def _bag(result: Compared, left: dict[str, Any], probe: Probe) -> None:
    reindexed = left.pop("after_rosbag_reindex", None)
    if "error" in left:
        error = left.pop("error")
        if reindexed is None:
            result.equal("error", True, not probe.structure.get("messageCount"))
            return
        result.equal("error", "unindexed" in error, "unindexed" in probe.codes)
        left |= reindexed
    _bag_counts(result, left, probe.structure)
    _bag_times(result, left, probe.structure)
    details = list(probe.raw["files"].values())
    for name, found in left.pop("mcap", {}).items():
        detail = probe.raw["files"][name]
        result.equal(f"mcap.{name}.message_count", found["message_count"], probe.structure["files"][name])
        _mcap(result, f"mcap.{name}", found, detail)
    if "profile" in left:
        _mcap(result, "mcap", left, details[0])
        for key in ("profile", "library", "attachments", "metadata", "complete", "indexed"):
            left.pop(key)
    if "compression" in left:
        # A bag without messages has no chunk: python3-rosbag calls that not indexed and not compressed.
        chunks = set(details[0]["compression"])
        result.equal("compression", left.pop("compression"), next(iter(chunks), None))
        result.equal("version", left.pop("version"), 2.0)
        indexed = bool(chunks) and ("unindexed" not in probe.codes or reindexed is not None)
        result.equal("indexed", left.pop("indexed"), indexed)
    _bag_metadata(result, left, probe)


def _bag_counts(result: Compared, left: dict[str, Any], structure: Mapping[str, Any]) -> None:
    result.equal("messageCount", left.pop("message_count"), structure["messageCount"])
    topics = left.pop("topics")
    result.equal(
        "topics",
        {topic: {"type": entry["type"], "count": entry["count"]} for topic, entry in topics.items()},
        structure["topics"],
    )
    for topic, entry in topics.items():
        for ours, keys in (("firstNs", ("first_ns", "first")), ("lastNs", ("last_ns", "last"))):
            stamp = next((entry[key] for key in keys if entry.get(key) is not None), None)
            if stamp is not None:
                result.equal(f"streams.{topic}.{ours}", int(stamp), structure["streams"][topic][ours])
    if "files" in left:
        result.equal("files", left.pop("files"), structure["files"])


def _bag_times(result: Compared, left: dict[str, Any], structure: Mapping[str, Any]) -> None:
    start, end, duration = structure["startNs"], structure["endNs"], structure["durationNs"]
    if "start_ns" in left:
        for name, ours in (("start_ns", start), ("end_ns", end)):
            value = left.pop(name)
            result.equal(name, None if value is None else int(value), ours)
        if "duration_ns" in left:
            result.equal("durationNs", left.pop("duration_ns"), duration or 0)
        if "duration_s" in left:
            result.near("duration_s", left.pop("duration_s") or 0.0, _seconds(duration) or 0.0, within=1e-9)
        return
    seconds = {name: left.pop(name) for name in ("start_s", "end_s", "duration_s")}
    if seconds["duration_s"] is not None and seconds["duration_s"] < 0:
        # python3-rosbag trusts the order of the chunks here and ends before it starts: the stamps are its
        # three values in another order.
        result.near("start_s", min(1.0, seconds["start_s"]), _seconds(start), within=1e-6)
        result.near("end_s", max(3.0, seconds["end_s"]), _seconds(end), within=1e-6)
        return
    for name, ours in (("start_s", start), ("end_s", end)):
        result.near(name, seconds[name], _seconds(ours), within=1e-6)
    result.near("duration_s", seconds["duration_s"] or 0.0, _seconds(duration) or 0.0, within=1e-6)


def _mcap(result: Compared, where: str, found: Mapping[str, Any], detail: Mapping[str, Any]) -> None:
    result.equal(f"{where}.profile", found["profile"], detail["profile"])
    result.equal(f"{where}.library", found["library"], detail["library"])
    result.equal(f"{where}.attachments", found["attachments"], detail["attachments"])
    result.equal(f"{where}.metadata", found["metadata"], detail["metadataRecords"])
    if isinstance(found.get("indexed"), Mapping):
        indexed = found["indexed"]
        result.equal(f"{where}.chunks", indexed["chunks"], detail["chunks"])
        result.equal(
            f"{where}.stat_messages", int(indexed["stat_messages"]), detail["declared"]["messageCount"]
        )
        names_of = {name or "none" for name in indexed["compressions"]}
        result.equal(f"{where}.compressions", names_of, set(detail["compression"]))


def _bag_metadata(result: Compared, left: dict[str, Any], probe: Probe) -> None:
    if "metadata_yaml" not in left:
        return
    document = left.pop("metadata_yaml")
    declared = probe.structure["declared"]
    missing = left.pop("metadata_missing_files", [])
    mismatch = left.pop("metadata_mismatch", {})
    if document is None:
        result.equal("metadata_yaml", True, "metadata_missing" in probe.codes)
        return
    start = document["start_ns"] if document["start_ns"] < 2**63 - 1 else None
    result.equal("metadata_yaml.version", document["version"], declared["metadataVersion"])
    result.equal("metadata_yaml.storage", document["storage"], declared["storage"])
    result.equal("metadata_yaml.message_count", document["message_count"], declared["messageCount"])
    result.equal("metadata_yaml.duration_ns", document["duration_ns"], declared["durationNs"])
    result.equal("metadata_yaml.start_ns", start, declared["startNs"])
    result.equal("metadata_yaml.files", document["files"], declared["files"])
    result.equal("metadata_yaml.compression", document["compression"], declared["compression"]["format"])
    result.equal("metadata_yaml.serialization", document["serialization"], declared["serialization"])
    result.equal("metadata_missing_files", bool(missing), "missing_parts" in probe.codes)
    # An empty bag "starts" at the largest number there is: no date, and no disagreement.
    real = {k: v for k, v in mismatch.items() if not (k == "start_ns" and v[0] == 2**63 - 1)}
    result.equal("metadata_mismatch", bool(real), "metadata_mismatch" in probe.codes)


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / 1e9


def _hdf5(result: Compared, left: dict[str, Any], probe: Probe) -> None:
    structure, listed, detail = probe.structure, left.pop("h5ls"), left.pop("detail")
    result.equal(
        "datasets",
        {path.lstrip("/"): shape for path, shape in listed.items()},
        {path: entry["shape"] for path, entry in structure["datasets"].items()},
    )
    for path, entry in detail["datasets"].items():
        result.equal(f"datasets.{path}.dtype", entry["dtype"], structure["datasets"][path]["dtype"])
    result.equal("datasetCount", len(listed), structure["datasetCount"])
    result.elsewhere |= {"detail.attrs", "detail.h5py"}
    robot = left["layout"] is not None
    for theirs, ours in (("episodes", "episodes"), ("total_steps", "frames")):
        if theirs in left:
            count = left.pop(theirs)  # null, not 0, where it is no robot dataset
            result.equal(ours, count if robot else None, structure[ours])
    for theirs, ours in (
        ("episode_lengths", "episodeLengths"),
        ("has_actions", "hasActions"),
        ("has_observations", "hasObservations"),
    ):
        if theirs in left:
            result.equal(ours, left.pop(theirs), structure[ours])
    if "cameras" in left:
        result.equal("cameras", sorted(left.pop("cameras")), structure["cameras"])
    if "zero_width" in left:
        found = left.pop("zero_width")
        warned = {w.path for w in probe.warnings if w.code == "zero_width_dataset"}
        result.equal("zero_width", {str(path).lstrip("/") for path in found}, warned)


def _lerobot(result: Compared, left: dict[str, Any], probe: Probe) -> None:
    structure = probe.structure
    if "total_steps" in left:
        result.equal("episodes", left.pop("episodes"), structure["episodes"])
        result.equal("frames", left.pop("total_steps"), structure["frames"])
        result.equal("episodeLengths", left.pop("episode_lengths"), structure["episodeLengths"])
        return
    info = left.pop("info")
    result.equal("fps", info.get("fps"), structure["fps"])
    result.equal("robotType", info.get("robot_type"), structure["robotType"])
    result.equal("features", left.pop("declared_features"), structure["features"])
    for name in ("total_episodes", "total_frames", "total_tasks", "total_videos", "total_chunks", "splits"):
        result.equal(f"declared.{name}", info.get(name, "absent"), structure["declared"].get(name, "absent"))
    result.elsewhere |= {"parquet.vectors", "parquet.timestamp_dt"}
    tables = left.pop("parquet", None)
    result.equal("episodes", tables["episodes"] if tables else 0, structure["episodes"])
    result.equal("frames", tables["rows"] if tables else 0, structure["frames"])
    if tables:
        result.equal("episodeLengths", tables["episode_lengths"], structure["episodeLengths"])
        columns = {name: _duckdb(kind) for name, kind in tables["columns"].items()}
        found = {name: _plain(kind) for name, kind in structure["columns"].items()}
        result.equal(
            "columns", {n: k for n, k in columns.items() if k}, {n: found[n] for n in found if columns.get(n)}
        )
        late = any(abs(first) > 1e-4 for first in tables["first_timestamp_per_episode"])
        result.equal("timestamps_not_from_zero", late, "timestamps_not_from_zero" in probe.codes)
    videos = {
        path: {
            "codec": entry["codec"],
            "width": int(entry["width"]),
            "height": int(entry["height"]),
            "fps": entry["fps"],
            "frames": int(entry["frames"]),
        }
        for path, entry in left.pop("videos").items()
    }
    ours = {path: structure["videoFiles"].get(path, "absent") for path in videos}
    result.equal("videoFiles", videos, ours)
    meta = structure["meta"]
    for path, there in left.pop("has").items():
        result.equal(f"meta.{path}", there, meta["has"].get(path.removeprefix("meta/"), False))
    for key in [key for key in left if key.startswith("meta_")]:
        name = key.removeprefix("meta_")
        result.equal(f"meta.lines.{name}", left.pop(key), meta["lines"].get(name))


def _duckdb(kind: str) -> str | None:
    if kind.startswith("STRUCT"):
        return None
    depth = kind.count("[")
    return "list<" * depth + _DUCKDB[kind.partition("[")[0]] + ">" * depth


def _plain(kind: str) -> str:
    # list<element: float> and fixed_size_list<element: float>[2] are DuckDB's FLOAT[] and FLOAT[2].
    text = kind.partition(">[")[0] + (">" if ">[" in kind else "")
    for name in ("element: ", "item: ", "fixed_size_"):
        text = text.replace(name, "")
    return text


def _archive(result: Compared, left: dict[str, Any], probe: Probe) -> None:
    result.equal("members", left.pop("file_members"), probe.structure["members"])
    result.equal("uncompressedBytes", left.pop("uncompressed_bytes"), probe.structure["uncompressedBytes"])
    result.equal("names", sorted(left.pop("names")), sorted(probe.structure["names"]))


def _folder(result: Compared, left: dict[str, Any], probe: Probe) -> None:
    structure = probe.structure
    for key in ("files", "bytes", "extensions"):
        result.equal(key, left.pop(key), structure[key])
    pointers = {w.path for w in probe.warnings if w.code == "git_lfs_pointer"}
    result.equal("lfs_pointers", set(left.pop("lfs_pointers")), pointers)
    for file, robot in left.pop("urdf").items():
        found = structure["urdf"][file]
        for theirs, ours in (
            ("robot", "robot"),
            ("links", "links"),
            ("joints", "joints"),
            ("mesh_refs", "meshRefs"),
        ):
            result.equal(f"urdf.{file}.{ours}", robot[theirs], found[ours])
        result.equal(f"urdf.{file}.readable", robot["check_urdf_ok"], "corrupt" not in probe.codes)
    if "jpg_size" in left:
        result.equal("size", left.pop("jpg_size"), [f"{structure['width']}x{structure['height']}"])
        result.equal("frames", structure["extensions"]["jpg"], structure["frames"])


def _raw_file(result: Compared, left: dict[str, Any], probe: Probe) -> None:
    result.equal("rows", left.pop("rows"), probe.structure["rows"])
    result.equal("columns", left.pop("columns"), probe.structure["columns"])


def _video(result: Compared, left: dict[str, Any], probe: Probe) -> None:
    files = left.pop("files")
    result.equal("files", sorted(files), sorted(probe.structure["files"]))
    for name, entry in files.items():
        found = probe.structure["files"][name]
        video = next(s for s in entry["streams"] if s["codec_type"] == "video")
        where = f"files.{name}"
        result.equal(f"{where}.codec", video["codec_name"], found["codec"])
        result.equal(f"{where}.width", video["width"], found["width"])
        result.equal(f"{where}.height", video["height"], found["height"])
        result.equal(f"{where}.fps", video["avg_frame_rate"], found["fps"])
        result.equal(f"{where}.frames", int(video["nb_read_frames"]), found["frames"])
        result.near(f"{where}.durationS", float(entry["duration"]), found["durationS"], within=1e-6)
        result.equal(f"{where}.streams", len(entry["streams"]), found["streams"])
        result.equal(f"{where}.rotation", video.get("rotation", 0), found["rotation"])
        if "nb_frames" in video:
            result.equal(f"{where}.declaredFrames", int(video["nb_frames"]), found["declaredFrames"])
        warned = {w.code for w in probe.warnings if w.path == name}
        result.equal(f"{where}.damaged", entry["decode_error_lines"] > 0, "corrupt_video" in warned)
        result.equal(f"{where}.freezes", entry["freezes_ge_250ms"] > 0, "video_freeze" in warned)


_KINDS: dict[str, Callable[[Compared, dict[str, Any], Probe], None]] = {
    "archive": _archive,
    "folder": _folder,
    "hdf5": _hdf5,
    "mcap": _bag,
    "raw_file": _raw_file,
    "rosbag1": _bag,
    "rosbag2": _bag,
    "standard_dataset": _lerobot,
    "video": _video,
}


def report(results: list[Compared]) -> str:
    """``docs/samples.md``: one line a sample, every difference by its field, what is not compared and why."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: list[Compared]) -> Iterator[str]:
    fields, wrong = sum(r.fields for r in results), sum(len(r.differences) for r in results)
    yield "# Probes beside the truth of the samples"
    yield ""
    yield (
        f"`make compare-samples` wrote this: {len(results)} recordings and datasets that nobody here made, "
        f"{fields} fields that independent tools found, {wrong} differences."
    )
    yield ""
    yield "| sample | format | fields compared | differences |"
    yield "|---|---|---|---|"
    for result in results:
        yield f"| {result.name} | {result.format} | {result.fields} | {len(result.differences)} |"
    yield ""
    yield "## Differences"
    yield ""
    for result in results:
        for difference in result.differences:
            yield f"- {result.name}: {difference}"
    if not wrong:
        yield "None."
    yield ""
    yield "## What the tools found and a probe does not say"
    yield ""
    for key in sorted({key for result in results for key in result.elsewhere}):
        yield f"- `{key}`: {ELSEWHERE[key]}"


def main() -> int:
    """Compare all samples, write the report, and say on stdout what differs."""
    results = [compare(name) for name in names()]
    if not results:
        sys.stderr.write(f"no samples under {SAMPLES}; set EMBOFLOW_SAMPLES\n")
        return 1
    target = Path(__file__).parents[1] / "docs" / "samples.md"
    target.write_text(report(results), encoding="utf-8")
    wrong = [f"{r.name}: {difference}" for r in results for difference in r.differences]
    sys.stdout.write("\n".join([*wrong, f"{len(results)} samples, {len(wrong)} differences"]) + "\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
