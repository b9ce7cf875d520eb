"""RLDS: episodes as TFRecord shards with ``dataset_info.json`` and ``features.json`` beside them.

Each record is one episode; its steps are counted from the values that are there.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.tfrecord_file import BrokenRecordError, records, starts_with_record

MAX_LENGTHS = 500
MAX_JSON_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 16
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SHARD = re.compile(r"(?P<stem>.+)\.tfrecord-(?P<shard>\d{5,9})-of-(?P<of>\d{5,9})\Z")


class Group(NamedTuple):
    """The shards of one folder, and what is described beside them."""

    folder: str
    shards: list[Entry]
    info: dict[str, Any] | None
    features: dict[str, dict[str, Any]]


def matches(source: Source) -> Candidate | None:
    """A file that begins with a checked record; a folder with such files."""
    if not source.is_folder:
        if "tfrecord" not in source.path.name or not starts_with_record(source.head):
            return None
        # Surer than that it is a gzip file: what is inside was looked at.
        packed = source.head.startswith(b"\x1f\x8b")
        return Candidate(
            "rlds_tfrecord", 0.97 if packed else 0.8, ("a TFRecord whose length matches its checksum",)
        )
    shards = _shards(source)
    if not shards:
        return None
    described = bool(source.named("dataset_info.json"))
    return Candidate("rlds_tfrecord", 0.9 if described else 0.7, (f"{len(shards)} TFRecord shards",))


def probe(source: Source, report: Probe) -> None:
    """Count episodes and steps in every shard, and compare them with the declared splits."""
    lengths: list[int] = []
    counted: dict[str, int] = {}
    unknown = odd = empty = 0
    declared: dict[str, Any] = {}
    found, passed = groups(source)
    for group in found:
        for entry in group.shards:
            before = len(lengths)
            bad: list[int] = []
            try:
                for _, record in records(_place(source, entry), bad.append):
                    steps, fits = _steps(record, group.features)
                    unknown += steps is None
                    empty += steps == 0
                    odd += not fits
                    lengths.append(steps or 0)
            except BrokenRecordError as error:
                report.warn("truncated" if "ends" in str(error) else "corrupt", str(error), entry.path)
            if bad:
                text = f"{len(bad)} records do not match their checksum: {', '.join(map(str, bad[:5]))}"
                report.warn("corrupt", text, entry.path)
            counted[entry.path] = len(lengths) - before + len(bad)
        if group.info is not None:
            own = _check_splits(group.info, {e.path: counted[e.path] for e in group.shards}, report)
            declared |= {
                f"{group.folder}/{k}".lstrip("/") if len(found) > 1 else k: v for k, v in own.items()
            }
        elif source.is_folder:
            where = f"{group.folder}/dataset_info.json".lstrip("/")
            report.warn("metadata_missing", "no dataset_info.json beside the shards", where)
    _check_numbers([entry for group in found for entry in group.shards], report)
    if passed:
        text = f"older versions are not read: {', '.join(passed[:5])}; read is {found[0].folder}"
        report.warn("multiple_recordings", text)
    elif len(found) > 1:
        report.warn("multiple_recordings", f"{len(found)} folders of shards, read one after the other")
    if unknown:
        report.warn("unrecognised_schema", f"{unknown} records hold no steps that could be counted")
    if empty:
        report.warn("empty_episode", f"{empty} records hold no step")
    if odd:
        text = f"in {odd} records is_first, is_last or is_terminal are not where an episode begins and ends"
        report.warn("step_flags_mismatch", text)
    if not lengths:
        report.warn("missing_data", "no record could be read")
    described = found[0].features if found else {}
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


def _steps(record: bytes, features: dict[str, dict[str, Any]]) -> tuple[int | None, bool]:
    """Steps of a record, and whether its flags say that it begins and ends where it does."""
    found = example_of(record)
    if found is None:
        return None, True
    length = _length(found, features)
    return length, not length or flags_fit(found, length)


def flags_fit(found: Any, length: int) -> bool:
    """``is_first`` is set at the first step alone, ``is_last`` at the last, ``is_terminal`` not before."""
    for name, place in (("is_first", 0), ("is_last", length - 1), ("is_terminal", length - 1)):
        if (path := f"steps/{name}") not in found:
            continue
        values = list(found[path].int64_list.value)
        if len(values) != length:
            continue
        there = [step for step, value in enumerate(values) if value]
        if there != [place] and (name != "is_terminal" or there):
            return False
    return True


def example_of(record: bytes) -> Any:
    """The features of a record by name, ``None`` where it is no example."""
    from tfrecord import example_pb2

    try:
        example = example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue] - made at run time
        return example.FromString(record).features.feature
    except Exception:  # noqa: BLE001 - protobuf's own errors differ by its implementation
        return None


def episode_length(record: bytes, features: dict[str, dict[str, Any]]) -> int | None:
    """Steps of one record; ``None`` where it has no values whose number per step is known."""
    found = example_of(record)
    return None if found is None else _length(found, features)


def _length(found: Any, features: dict[str, dict[str, Any]]) -> int | None:
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


def groups(source: Source) -> tuple[list[Group], list[str]]:
    """The shards folder by folder, and the folders that are passed over: older versions of a dataset.

    Folders side by side that are called ``1.0.0`` and ``1.1.0`` are versions of one dataset, as
    TensorFlow Datasets lays them out: the newest is read.
    """
    if not source.is_folder:
        return [Group("", [Entry(source.path.name, source.size)], None, {})], []
    by_folder: dict[str, list[Entry]] = {}
    for entry in _shards(source):
        by_folder.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    newest: dict[str, str] = {}
    for folder in by_folder:
        parent, _, name = folder.rpartition("/")
        if _VERSION.fullmatch(name):
            newest[parent] = max(newest.get(parent, folder), folder, key=natural_key)
    passed = [
        folder
        for folder in by_folder
        if _VERSION.fullmatch(folder.rpartition("/")[2]) and newest[folder.rpartition("/")[0]] != folder
    ]
    found = []
    for folder in sorted(by_folder.keys() - set(passed), key=natural_key):
        described = _document(source, "features.json", folder)
        features = dict(_features(described)) if described is not None else {}
        info = _document(source, "dataset_info.json", folder)
        found.append(Group(folder, by_folder[folder], info, features))
    return found, passed


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


def _place(source: Source, entry: Entry) -> Path:
    return source.file(entry) if source.is_folder else source.path


def _check_numbers(found: list[Entry], report: Probe) -> None:
    """Shards that the names of the others tell of are there."""
    there: dict[tuple[str, int], set[int]] = {}
    for entry in found:
        if match := _SHARD.match(entry.path):
            there.setdefault((match["stem"], int(match["of"])), set()).add(int(match["shard"]))
    for (stem, of), numbers in there.items():
        if len(numbers) < of:
            first = next(number for number in range(of) if number not in numbers)
            text = f"{of - len(numbers)} of {of} shards are not there; the first is {first}"
            report.warn("missing_split_file", text, stem)


def _shards(source: Source) -> list[Entry]:
    found = [entry for entry in source.entries if "tfrecord" in entry.name]
    genuine = [entry for entry in found if starts_with_record(source.head_of(entry))]
    return sorted(genuine, key=lambda entry: natural_key(entry.path))


def _document(source: Source, name: str, folder: str) -> dict[str, Any] | None:
    """The one beside the shards, else the shallowest that is not beside others."""
    named = source.named(name)
    beside = [entry for entry in named if entry.path.rpartition("/")[0] == folder]
    above = [
        entry for entry in named if f"{folder}/".startswith(f"{entry.path.rpartition('/')[0]}/".lstrip("/"))
    ]
    entry = next(iter(beside or above), None)
    if entry is None or entry.size > MAX_JSON_BYTES:
        return None
    path: Path = source.file(entry)
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


FORMAT = Format(names=("rlds_tfrecord",), matches=matches, probe=probe)
