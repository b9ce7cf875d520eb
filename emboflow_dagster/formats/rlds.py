"""RLDS: episodes as TFRecord shards with ``dataset_info.json`` and ``features.json`` beside them.

Each record is one episode; its steps are counted from the values that are there.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.tfrecord_file import BrokenRecordError, records, starts_with_record

MAX_LENGTHS = 500
MAX_JSON_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 16
_SHARD = re.compile(r"(?P<stem>.+)\.tfrecord-(?P<shard>\d{5,9})-of-(?P<of>\d{5,9})\Z")


def matches(source: Source) -> Candidate | None:
    """A file that begins with a checked record; a folder with such files."""
    if not source.is_folder:
        found = "tfrecord" in source.path.name and starts_with_record(source.head)
        return (
            Candidate("rlds_tfrecord", 0.8, ("a TFRecord whose length matches its checksum",))
            if found
            else None
        )
    shards = _shards(source)
    if not shards:
        return None
    described = bool(source.named("dataset_info.json"))
    return Candidate("rlds_tfrecord", 0.9 if described else 0.7, (f"{len(shards)} TFRecord shards",))


def probe(source: Source, report: Probe) -> None:
    """Count episodes and steps in every shard, and compare them with the declared splits."""
    if source.is_folder:
        files = [(entry.path, source.file(entry)) for entry in _shards(source)]
        info, features = _document(source, "dataset_info.json"), _document(source, "features.json")
    else:
        files, info, features = [(source.path.name, source.path)], None, None
    described = dict(_features(features)) if features is not None else {}
    lengths: list[int] = []
    counted: dict[str, int] = {}
    unknown = 0
    for name, path in files:
        before = len(lengths)
        try:
            for record in records(path):
                length = episode_length(record, described)
                unknown += length is None
                lengths.append(length or 0)
        except BrokenRecordError as error:
            report.warn("truncated" if "ends" in str(error) else "corrupt", str(error), name)
        counted[name] = len(lengths) - before
    if info is None and source.is_folder:
        report.warn("metadata_missing", "no dataset_info.json beside the shards", "dataset_info.json")
    if unknown:
        report.warn("unrecognised_schema", f"{unknown} records hold no steps that could be counted")
    if not lengths:
        report.warn("missing_data", "no record could be read")
    declared = _check_splits(info, counted, report) if info is not None else {}
    report.structure.update(
        {
            "episodes": len(lengths),
            "frames": sum(lengths),
            "episodeLengths": lengths[:MAX_LENGTHS],
            "fps": None,
            "features": described,
            "declared": declared,
            "shards": counted,
            "hasActions": any(name.startswith("steps/action") for name in described),
        }
    )
    report.recommend("quality-report")


def episode_length(record: bytes, features: dict[str, dict[str, Any]]) -> int | None:
    """Steps of one record; ``None`` where it has no values whose number per step is known."""
    from tfrecord import example_pb2

    try:
        example = example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue] - made at run time
        found = example.FromString(record).features.feature
    except Exception:  # noqa: BLE001 - protobuf's own errors differ by its implementation
        return None
    votes: dict[int, int] = {}
    for name, feature in found.items():
        if not name.startswith("steps/"):
            continue
        kind = feature.WhichOneof("kind")
        if kind is None:
            continue
        count = len(getattr(feature, kind).value)
        # Pictures and strings are one value a step; without a description flags are too.
        per_step = features.get(name, {}).get("valuesPerStep")
        if kind == "bytes_list" or (per_step is None and name.startswith("steps/is_")):
            per_step = 1
        if per_step and count % per_step == 0:
            votes[count // per_step] = votes.get(count // per_step, 0) + 1
    return max(votes, key=lambda length: votes[length]) if votes else None


def described_features(source: Source) -> dict[str, dict[str, Any]]:
    """Leaves of the ``features.json`` beside the shards: path to ``dtype``, ``shape``, ``valuesPerStep``."""
    document = _document(source, "features.json") if source.is_folder else None
    return dict(_features(document)) if document is not None else {}


def _features(node: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Leaves of ``features.json`` with dtype, shape and how many values a step has."""
    if not isinstance(node, dict) or depth > MAX_DEPTH:
        return
    if isinstance(node.get("featuresDict"), dict):
        inner = node["featuresDict"].get("features")
        for name, child in inner.items() if isinstance(inner, dict) else ():
            yield from _features(child, f"{prefix}{name}/", depth + 1)
    elif isinstance(node.get("sequence"), dict):
        yield from _features(node["sequence"].get("feature"), prefix, depth + 1)
    else:
        for kind in ("tensor", "image", "text", "scalar"):
            if kind in node:
                content = node[kind] if isinstance(node[kind], dict) else {}
                shape = content.get("shape") if isinstance(content.get("shape"), dict) else {}
                dims = [int(d) for d in (shape or {}).get("dimensions", []) if str(d).lstrip("-").isdecimal()]
                known = all(size > 0 for size in dims)
                values = 1 if kind in ("image", "text") else math.prod(dims) if known else None
                dtype = "string" if kind == "text" else content.get("dtype")
                yield prefix.rstrip("/"), {"dtype": dtype, "shape": dims, "valuesPerStep": values}
                return


def _check_splits(info: dict[str, Any], counted: dict[str, int], report: Probe) -> dict[str, Any]:
    declared: dict[str, Any] = {}
    for split in info.get("splits") or []:
        if not isinstance(split, dict):
            continue
        name = str(split.get("name"))
        shards = [int(n) for n in split.get("shardLengths") or [] if str(n).isdecimal()]
        declared[name] = {"episodes": sum(shards), "shards": len(shards)}
        here = {int(m["shard"]): path for path in counted if (m := _of_split(path, name))}
        absent = [index for index in range(len(shards)) if index not in here]
        if absent:
            text = f"split {name} declares {len(shards)} shards, {len(absent)} are not there"
            report.warn("missing_split_file", text, name)
        for index, path in here.items():
            if index < len(shards) and counted[path] != shards[index]:
                text = f"{shards[index]} records declared, {counted[path]} read"
                report.warn("declared_count_mismatch", text, path)
    return declared


def _of_split(path: str, split: str) -> "re.Match[str] | None":
    match = _SHARD.match(path.rpartition("/")[2])
    return match if match and match["stem"].endswith(f"-{split}") else None


def shards(source: Source) -> list[Path]:
    """The shards of an asset in natural order: the file itself, or those of a folder."""
    return [source.file(entry) for entry in _shards(source)] if source.is_folder else [source.path]


def _shards(source: Source) -> list[Entry]:
    found = [entry for entry in source.entries if "tfrecord" in entry.name]
    genuine = [entry for entry in found if starts_with_record(source.head_of(entry))]
    return sorted(genuine, key=lambda entry: natural_key(entry.path))


def _document(source: Source, name: str) -> dict[str, Any] | None:
    entry = next(iter(source.named(name)), None)
    if entry is None or entry.size > MAX_JSON_BYTES:
        return None
    path: Path = source.file(entry)
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


FORMAT = Format(names=("rlds_tfrecord",), matches=matches, probe=probe)
