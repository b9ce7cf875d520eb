"""A preview bundle: a few small pictures of what is inside, and ``index.json`` that says what each shows."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats import preview_plots as plots
from emboflow_dagster.formats.canonical.from_hdf5 import hdf5_files, picture_at
from emboflow_dagster.formats.canonical.reader import CanonicalDataset, open_canonical
from emboflow_dagster.formats.canonical.schema import MANIFEST_FILE
from emboflow_dagster.formats.detect import open_source
from emboflow_dagster.formats.hdf5_layout import Demo, layout_of, open_hdf5
from emboflow_dagster.formats.image_sequence import sequence_entries
from emboflow_dagster.formats.pictures import is_image_type, iter_images
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.quality_streams import read_stamps
from emboflow_dagster.formats.report import json_safe

if TYPE_CHECKING:
    import h5py
    import numpy as np
    from PIL.Image import Image as Picture

INDEX_FILE = "index.json"
MAX_EPISODES = 3
MAX_CAMERAS = 6
MAX_ROWS = 2_000_000
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")


class _Bundle:
    """The files of one bundle as they are made."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        self.files: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def add(self, kind: str, title: str, draw: Callable[[Path], tuple[int, int]]) -> None:
        """Draw one picture under the next name; one that fails becomes a note, not the end of the others."""
        name = f"{len(self.files):02d}-{kind}.png"
        path = self.out_dir / name
        try:
            width, height = draw(path)
        except (OSError, ValueError, RuntimeError) as error:
            path.unlink(missing_ok=True)
            self.notes.append(f"{title}: {error}")
            return
        entry = {"path": name, "kind": kind, "title": title, "width": width, "height": height}
        self.files.append({**entry, "bytes": path.stat().st_size})

    def sheet(self, title: str, pictures: "list[tuple[str, Picture]]") -> None:
        """A contact sheet, where there is a picture."""
        if pictures:
            self.add("images", title, lambda path: plots.save_contact_sheet(path, pictures))
        else:
            self.notes.append(f"{title}: no picture could be read")


def preview_bundle(
    path: Path, out_dir: Path, *, images: int = 8, probe: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make pictures of an asset or a canonical dataset.

    States and actions over time (HDF5, canonical), message rates per topic (recordings), contact sheets
    (HDF5 cameras, picture folders, image topics, videos). Every file is a PNG under 300 KiB.

    Args:
        path: What is shown.
        out_dir: Absent or empty; created.
        images: Thumbnails per contact sheet.
        probe: The probe report of `path` (its JSON), so that it is not probed again.

    Returns:
        The content of ``index.json``: ``{"subject", "kind", "files": [{path, kind, title, width, height,
        bytes}], "notes": [...]}``. An input of which nothing can be shown gives no files and a note.

    Raises:
        InvalidInputError: The output folder has content.
        OSError: The input cannot be read.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    if any(out_dir.iterdir()):
        raise InvalidInputError(f"{out_dir.name}: the output folder is not empty")
    bundle = _Bundle(out_dir)
    if path.is_dir() and (path / MANIFEST_FILE).is_file():
        kind = "canonical"
        _of_canonical(open_canonical(path), bundle, images)
    else:
        report = dict(probe) if probe is not None else probe_path(path).to_json()
        candidates = report.get("detectedFormatCandidates") or [{"format": "unknown"}]
        kind = str(candidates[0]["format"])
        structure = report.get("structureSummary") or {}
        if kind.startswith("hdf5"):
            _of_hdf5(path, bundle, images)
        elif kind.startswith(("rosbag", "mcap")):
            _of_recording(path, structure, bundle, images)
        elif kind == "image_sequence":
            _of_pictures(path, bundle, images)
        elif kind.startswith(("video", "lerobot")):
            _of_videos(path, bundle, images)
    if not bundle.files and not bundle.notes:
        bundle.notes.append(f"{kind}: nothing in it can be shown as a picture")
    index = json_safe({"subject": path.name, "kind": kind, "files": bundle.files, "notes": bundle.notes})
    text = json.dumps(index, indent=2, ensure_ascii=False, allow_nan=False)
    (out_dir / INDEX_FILE).write_text(text + "\n", encoding="utf-8")
    return index


def _of_canonical(dataset: CanonicalDataset, bundle: _Bundle, images: int) -> None:
    import numpy as np

    features = dataset.manifest.features
    for row in dataset.episodes():
        index = row["episode_index"]
        if index >= MAX_EPISODES:
            break
        seconds = np.arange(row["length"]) / dataset.fps
        panels = [
            (name, seconds, dataset.vector(name, index), features[name]["names"])
            for name in sorted(dataset.features, key=lambda name: not name.startswith("action"))[:4]
        ]
        title = f"episode {index}: {', '.join(row['tasks'])} ({row['length']} frames)"
        bundle.add("joints", title, lambda path, p=panels, t=title: plots.save_lines(path, p, t))
    for entry in dataset.manifest.files:
        if entry["path"].endswith("episode_000000.mp4"):
            bundle.sheet(entry["path"], _video_frames(dataset.path(entry["path"]), images))


def _of_hdf5(path: Path, bundle: _Bundle, images: int) -> None:
    files = hdf5_files(path)
    for file_path in files[:MAX_EPISODES]:
        with open_hdf5(file_path) as file:
            layout = layout_of(file)
            for demo in layout.demos[: MAX_EPISODES if len(files) == 1 else 1]:
                name = f"{file_path.name}:{demo.group or '/'}"
                panels = _demo_panels(file, demo, layout.control_hz)
                if panels:
                    title = f"{name} ({demo.length} frames)"
                    bundle.add("joints", title, lambda path, p=panels, t=title: plots.save_lines(path, p, t))
            for demo in layout.demos[:1]:
                for camera, item in list(demo.cameras.items())[:MAX_CAMERAS]:
                    if not item.foreign:
                        picked = _picked(item.shape[0], images)
                        found = [(f"{i}", picture_at(file[item.path], item, i)) for i in picked]
                        bundle.sheet(f"{file_path.name}: camera {camera}", _as_pictures(found))


def _demo_panels(file: "h5py.File", demo: Demo, hz: float | None) -> list[Any]:
    import numpy as np

    panels = []
    for item in (demo.action, demo.state, demo.fields.get("observations/qvel")):
        if item is None or item.foreign or not item.width or item.shape[0] > MAX_ROWS:
            continue
        values = np.asarray(file[item.path][...])  # pyright: ignore[reportIndexIssue] - a dataset
        seconds = np.arange(len(values)) / (hz or 1.0)
        names = [str(index) for index in range(values.shape[1])]
        unit = "s" if hz else "frames"
        panels.append((f"{item.path}, over {unit}", seconds, values, names))
    return panels


def _of_recording(path: Path, structure: Mapping[str, Any], bundle: _Bundle, images: int) -> None:
    import numpy as np

    stamps, _, _ = read_stamps(path)
    streams = {topic: np.frombuffer(found, dtype=np.int64) for topic, found in stamps.items() if found}
    if streams:
        title = f"{path.name}: {sum(map(len, streams.values()))} messages on {len(streams)} topics"
        bundle.add("timeline", title, lambda out: plots.save_rates(out, streams, title))
    else:
        bundle.notes.append("the recording holds no message")
    topics = structure.get("topics") or {}
    cameras = [name for name, topic in topics.items() if is_image_type(topic["type"]) and topic["count"]]
    for topic in cameras[:MAX_CAMERAS]:
        every = max(1, topics[topic]["count"] // max(1, images))
        found = []
        for stamp, data in iter_images(path, topic, images, every=every):
            picture = _open_picture(data)
            if picture is not None:
                found.append((f"{stamp / 1e9:.3f}", picture))
        bundle.sheet(topic, found)


def _of_pictures(path: Path, bundle: _Bundle, images: int) -> None:
    source = open_source(path)
    entries = sequence_entries(source)
    picked = [entries[index] for index in _picked(len(entries), images)]
    found = []
    for entry in picked:
        picture = _open_picture(source.file(entry).read_bytes())
        if picture is not None:
            found.append((entry.name, picture))
    bundle.sheet(f"{len(entries)} pictures", found)


def _of_videos(path: Path, bundle: _Bundle, images: int) -> None:
    source = open_source(path)
    files = [source.file(e) for e in source.with_suffix(*VIDEO_SUFFIXES)] if source.is_folder else [path]
    for file in files[:MAX_CAMERAS]:
        bundle.sheet(file.name, _video_frames(file, images))


def _video_frames(path: Path, images: int) -> "list[tuple[str, Picture]]":
    """Frames spread evenly over the first video stream; what cannot be decoded is left out."""
    import av
    from av.error import FFmpegError

    found = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return []
            span = container.duration or 0
            for index in range(images):
                container.seek(span * index // images)
                frame = next(container.decode(video=0), None)
                if frame is not None:
                    found.append((f"{frame.time or 0:.2f} s", frame.to_image()))
    except (FFmpegError, ValueError):
        return found
    return found


def _picked(count: int, wanted: int) -> list[int]:
    """Indices spread evenly over `count`, the first included."""
    return sorted({index * count // wanted for index in range(wanted)}) if count and wanted > 0 else []


def _as_pictures(found: "list[tuple[str, np.ndarray | None]]") -> "list[tuple[str, Picture]]":
    from PIL import Image

    return [(text, Image.fromarray(array)) for text, array in found if array is not None]


def _open_picture(data: bytes) -> "Picture | None":
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.copy()
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None
