"""A prefix of an object store: what its listing says, and what the heads and ends of its objects declare.

Nothing is downloaded whole: a zip's table of contents, an MCAP's summary, a parquet footer, the headers of an
HDF5 file and of a video are read by ranges. Counts are the declared ones here, and are called so.
"""

import io
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from emboflow_dagster.formats.archives.members import extension
from emboflow_dagster.formats.detect import is_lfs_pointer, signature
from emboflow_dagster.formats.ranged import BLOCK, Ranged
from emboflow_dagster.formats.report import Probe

OBJECT_BUDGET: Final = 8 * 1024 * 1024
MAX_EXTENSIONS: Final = 100
MAX_NAMES: Final = 100

#: Documents that say what a whole folder is.
TELLS_FOLDER: Final = ("meta/info.json", "dataset_info.json")

Row = tuple[str, int, str, str]
"""A looked-at object: its path below the prefix, its bytes, the URL that reads it, the server's tag."""


def probe_prefix(url: str, counts: dict[str, Any], rows: Sequence[Row]) -> Probe:
    """The report of a prefix.

    Args:
        url: The prefix, for people.
        counts: ``files``, ``bytes`` and ``extensions`` of the whole listing.
        rows: Objects to look into.
    """
    report = Probe()
    objects: dict[str, dict[str, Any]] = {}
    fetched = 0
    for path, size, where, tag in rows:
        source = Ranged(where, size, budget=OBJECT_BUDGET, tag=tag)
        objects[path] = _look(path, source, report)
        fetched += source.fetched
    report.structure |= {**counts, "objects": objects, "lookedAt": len(objects), "counted": "declared"}
    report.raw |= {"kind": "prefix", "url": url, "fetchedBytes": fetched}
    formats: dict[str, int] = {}
    for entry in objects.values():
        formats[entry["format"]] = formats.get(entry["format"], 0) + 1
    formats.pop("unknown", None)
    _suggest_datasets(objects, report)
    for name, number in sorted(formats.items(), key=lambda item: (-item[1], item[0])):
        share = number / max(1, len(objects))
        report.suggest(name, round(0.5 + 0.4 * share, 3), f"{number} of {len(objects)} objects looked at")
    if not formats:
        report.suggest("unknown", 0.51, f"a prefix of {counts['files']} objects")
    if not counts["files"]:
        report.warn("empty_folder", "nothing is below the prefix")
    report.recommend("filter")
    return report


def _look(path: str, source: Ranged, report: Probe) -> dict[str, Any]:
    found: dict[str, Any] = {"format": "unknown", "bytes": source.size}
    if not source.size:
        report.warn("empty_file", "the object has no bytes", path)
        return found
    try:
        head = source.read(min(source.size, 4_096))
        if is_lfs_pointer(head):
            report.warn("git_lfs_pointer", "a Git LFS pointer, not the file itself", path)
            return found
        if path.endswith(TELLS_FOLDER):
            return found | _folder(path, head + source.read(source.size - len(head)))
        kind = signature(head) or ("csv" if path.lower().endswith(".csv") else "unknown")
        found["format"] = _NAMES.get(kind, kind)
        look = _LOOKS.get(kind)
        if look is not None:
            source.seek(0)
            found |= look(source, head)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - one object that cannot be read hides no other
        report.warn("unreadable", f"{type(error).__name__}: {error}"[:300], path)
    return found


def _folder(path: str, data: bytes) -> dict[str, Any]:
    """What a LeRobot or RLDS dataset says of itself; nothing where it is neither."""
    from emboflow_dagster.formats.lerobot_info import VERSIONS, info_of

    info = info_of(json.loads(data))
    if info is None:
        return {}
    if path.endswith(TELLS_FOLDER[0]):
        if info.version is None:
            return {}
        told = {"episodes": info.integer("total_episodes"), "frames": info.integer("total_frames")}
        return {"format": VERSIONS[info.version], **told, "fps": info.fps, "features": info.features}
    splits = [split for split in info.document.get("splits") or [] if isinstance(split, dict)]
    if not splits:
        return {}
    lengths = [int(n) for split in splits for n in split.get("shardLengths") or [] if str(n).isdecimal()]
    return {"format": "rlds_tfrecord", "episodes": sum(lengths)}


def _suggest_datasets(objects: dict[str, dict[str, Any]], report: Probe) -> None:
    """A dataset's own document says more of a prefix than the kinds of its objects."""
    told = {
        path: entry for path, entry in objects.items() if "episodes" in entry and path.endswith(TELLS_FOLDER)
    }
    for path, entry in told.items():
        report.suggest(entry["format"], 0.95, f"{path} says so")
    if len(told) == 1:
        (entry,) = told.values()
        report.structure["declared"] = {name: entry[name] for name in ("episodes", "frames") if name in entry}
    elif told:
        report.warn("multiple_recordings", f"{len(told)} datasets are below the prefix")


def _zip(source: Ranged, _: bytes) -> dict[str, Any]:
    import zipfile

    with zipfile.ZipFile(io.BufferedReader(source, BLOCK)) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    return {
        "members": len(infos),
        "uncompressedBytes": sum(info.file_size for info in infos),
        "names": [info.orig_filename for info in infos[:MAX_NAMES]],
    }


def _mcap(source: Ranged, _: bytes) -> dict[str, Any]:
    from mcap.reader import SeekingReader

    summary = SeekingReader(io.BufferedReader(source, BLOCK)).get_summary()
    if summary is None or summary.statistics is None:
        return {"messageCount": None}
    said = summary.statistics
    topics = {
        channel.topic: {
            "type": summary.schemas[channel.schema_id].name if channel.schema_id in summary.schemas else "",
            "count": said.channel_message_counts.get(number, 0),
        }
        for number, channel in summary.channels.items()
    }
    return {
        "messageCount": said.message_count,
        "durationNs": said.message_end_time - said.message_start_time if said.message_count else None,
        "topics": topics,
    }


def _rosbag1(source: Ranged, _: bytes) -> dict[str, Any]:
    from emboflow_dagster.formats.rosbag1_index import summary

    return summary(io.BufferedReader(source, BLOCK), source.size)


def _sqlite3(source: Ranged, _: bytes) -> dict[str, Any]:
    from emboflow_dagster.formats.rosbag2_ends import summary

    return summary(io.BufferedReader(source, BLOCK), source.size)


def _parquet(source: Ranged, _: bytes) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.PythonFile(source, mode="r")) as file:
        names = [str(name) for name in file.schema_arrow.names[:MAX_NAMES]]
        return {"rows": file.metadata.num_rows, "columns": names}


def _hdf5(source: Ranged, _: bytes) -> dict[str, Any]:
    import h5py

    from emboflow_dagster.formats.hdf5_layout import layout_of

    with h5py.File(source, "r") as file:
        layout = layout_of(file)
    fields = layout.fields[:MAX_NAMES]
    return {
        "format": layout.format,
        "datasets": {item.path: {"shape": list(item.shape), "dtype": item.dtype} for item in fields},
        "datasetCount": len(layout.fields),
        "episodes": len(layout.demos),
    }


def _video(source: Ranged, _: bytes) -> dict[str, Any]:
    import av

    with av.open(io.BufferedReader(source, BLOCK), "r", metadata_errors="replace") as container:
        if not container.streams.video:
            return {}
        stream = container.streams.video[0]
        rate = stream.average_rate
        return {
            "codec": stream.codec_context.codec.canonical_name,
            "width": stream.codec_context.width,
            "height": stream.codec_context.height,
            "fps": f"{rate.numerator}/{rate.denominator}" if rate else None,
            "frames": stream.frames or None,
            "durationS": container.duration / 1e6 if container.duration is not None else None,
        }


def _npy(_: Ranged, head: bytes) -> dict[str, Any]:
    from emboflow_dagster.formats.npy_header import npy_header

    found = npy_header(head) or {}
    return {name: found[name] for name in ("shape", "dtype") if name in found}


def _csv(_: Ranged, head: bytes) -> dict[str, Any]:
    line = head.decode("utf-8-sig", "replace").partition("\n")[0]
    return {"columns": [cell.strip() for cell in line.split(",")][:MAX_NAMES]}


_NAMES: Final = {"mp4": "video", "matroska": "video", "avi": "video"}
_LOOKS: Final[dict[str, Callable[[Ranged, bytes], dict[str, Any]]]] = {
    "zip": _zip,
    "mcap": _mcap,
    "rosbag1": _rosbag1,
    "sqlite3": _sqlite3,
    "parquet": _parquet,
    "hdf5": _hdf5,
    "mp4": _video,
    "matroska": _video,
    "npy": _npy,
    "csv": _csv,
}


class Counts:
    """``files``, ``bytes`` and ``extensions`` of a listing that goes by."""

    def __init__(self) -> None:
        self.files = self.bytes = 0
        self.extensions: dict[str, int] = {}

    def add(self, path: str, size: int) -> None:
        """Count an object."""
        ext = extension(path)
        ext = ext if ext in self.extensions or len(self.extensions) < MAX_EXTENSIONS else ""
        self.extensions[ext] = self.extensions.get(ext, 0) + 1
        self.files += 1
        self.bytes += size

    def to_json(self) -> dict[str, Any]:
        """As a report has them."""
        return {"files": self.files, "bytes": self.bytes, "extensions": self.extensions}


def probe_json(url: str, counts: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """:func:`probe_prefix` as JSON, for a child process."""
    report = probe_prefix(
        url, counts, [(path, size, where, tag) for path, size, where, tag in rows]
    ).to_json()
    json.dumps(report, allow_nan=False)
    return report
