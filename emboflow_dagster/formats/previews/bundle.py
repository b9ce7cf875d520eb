"""A preview bundle: a few small pictures and clips of what is inside; ``index.json`` says what each shows."""

import io
import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.from_arrays import FORMAT as ARRAYS
from emboflow_dagster.formats.canonical.from_arrays import is_folder
from emboflow_dagster.formats.canonical.from_hdf5 import hdf5_files, picture_at
from emboflow_dagster.formats.canonical.reader import CanonicalDataset, open_canonical
from emboflow_dagster.formats.canonical.schema import MANIFEST_FILE
from emboflow_dagster.formats.detect import open_source
from emboflow_dagster.formats.hdf5_layout import Demo, layout_of, open_hdf5
from emboflow_dagster.formats.image_sequence import sequence_entries
from emboflow_dagster.formats.pictures import is_image_type, iter_images
from emboflow_dagster.formats.previews import motion, plots
from emboflow_dagster.formats.previews.arrays import Shown, shown
from emboflow_dagster.formats.previews.mcap import save_mcap
from emboflow_dagster.formats.previews.scene import (
    Scene,
    indexed_shots,
    path_of,
    recording_scene,
    video_shots,
)
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.quality.streams import read_stamps
from emboflow_dagster.formats.report import json_safe
from emboflow_dagster.formats.video import videos_of

if TYPE_CHECKING:
    import h5py
    import numpy as np
    from PIL.Image import Image as Picture

    from emboflow_dagster.formats.quality.lerobot import LeRobotTree

INDEX_FILE = "index.json"
MAX_EPISODES = 3
MAX_CAMERAS = 6
MAX_ROWS = 2_000_000
#: What a bundle can hold; ``mcap`` only when asked for.
KINDS = ("joints", "timeline", "images", "synced", "trajectory", "clip")


class _Bundle:
    """The files of one bundle as they are made."""

    def __init__(self, out_dir: Path, kinds: Collection[str]) -> None:
        self.out_dir = out_dir
        self.kinds = kinds
        self.files: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def add(
        self, kind: str, title: str, draw: Callable[[Path], tuple[int, int]], suffix: str = ".png"
    ) -> None:
        """Draw one picture under the next name; one that fails becomes a note, not the end of the others."""
        if kind not in self.kinds:
            return
        name = f"{len(self.files):02d}-{kind}{suffix}"
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
        elif "images" in self.kinds:
            self.notes.append(f"{title}: no picture could be read")

    def scene(self, scene: Scene) -> None:
        """What shows several things at once: cameras in step, ways in space, a clip, an export."""
        if scene.cameras:
            title = f"{scene.title}: {', '.join(scene.cameras)} at the same instants"
            self.add("synced", title[:200], lambda path: motion.save_synced(path, scene))
        ways = [way for way in map(path_of, scene.panels) if way is not None]
        if ways:
            title = f"{scene.title}: the way of {', '.join(name for name, _ in ways[:3])}"
            self.add("trajectory", title[:200], lambda path: motion.save_trajectory(path, ways, scene.title))
        if scene.cameras:
            title = f"{scene.title}: the first seconds of {', '.join(list(scene.cameras)[:3])}"
            self.add("clip", title[:200], lambda path: motion.save_clip(path, scene), ".mp4")
        if scene.cameras or scene.panels:
            title = f"{scene.title}: for Foxglove and other viewers"
            self.add("mcap", title[:200], lambda path: save_mcap(path, scene), ".mcap")


def preview_bundle(
    path: Path,
    out_dir: Path,
    *,
    images: int = 8,
    probe: Mapping[str, Any] | None = None,
    kinds: Collection[str] = KINDS,
) -> dict[str, Any]:
    """Make pictures and clips of an asset or a canonical dataset.

    States and actions over time (HDF5, LeRobot, canonical), message rates per topic (recordings), contact
    sheets of cameras, all cameras at the same instants above the state, ways in space (end effector,
    odometry, GPS), a clip of a few seconds. Pictures are PNG under 300 KiB, clips H.264 mp4 under 600 KiB.

    Args:
        path: What is shown.
        out_dir: Absent or empty; created.
        images: Thumbnails per contact sheet.
        probe: The probe report of `path` (its JSON), so that it is not probed again.
        kinds: Of :data:`KINDS`, and ``mcap``: what is made.

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
    bundle = _Bundle(out_dir, kinds)
    if path.is_dir() and (path / MANIFEST_FILE).is_file():
        kind = "canonical"
        _of_canonical(open_canonical(path), bundle, images)
    elif is_folder(path):
        kind = ARRAYS
        _of_arrays(path, bundle, images)
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
        elif kind.startswith("lerobot"):
            _of_lerobot(path, bundle)
            _of_videos(path, bundle, images)
        elif kind.startswith("rlds"):
            _of_rlds(path, bundle, images)
        elif kind.startswith("video"):
            _of_videos(path, bundle, images)
            _clips_of_videos(path, bundle)
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
            (_with_unit(name, features[name]), seconds, dataset.vector(name, index), features[name]["names"])
            for name in sorted(dataset.features, key=lambda name: not name.startswith("action"))[:4]
        ]
        tasks = ", ".join(task for task in row["tasks"] if task)
        title = f"episode {index}{': ' if tasks else ''}{tasks} ({row['length']} frames)"
        bundle.add("joints", title, lambda path, p=panels, t=title: plots.save_lines(path, p, t))
    videos = [e["path"] for e in dataset.manifest.files if e["path"].endswith("/episode_000000.mp4")]
    for name in videos[:MAX_CAMERAS]:
        bundle.sheet(name, _video_frames(dataset.path(name), images))
    first = next(iter(dataset.episodes()), None)
    if first is None:
        return
    seconds = np.arange(first["length"]) / dataset.fps
    scene = Scene("episode 0", first["length"] / dataset.fps)
    scene.cameras = {name.split("/")[-2]: video_shots(dataset.path(name)) for name in videos[:MAX_CAMERAS]}
    scene.panels = [
        (name, seconds, dataset.vector(name, first["episode_index"]), features[name]["names"])
        for name in _state_first(dataset.features)
    ]
    bundle.scene(scene)


def _with_unit(name: str, spec: Mapping[str, Any]) -> str:
    return f"{name}, {spec['unit']}" if spec.get("unit") else name


def _of_arrays(path: Path, bundle: _Bundle, images: int) -> None:
    for number, one in enumerate(islice(shown(path), MAX_EPISODES)):
        if one.note:
            bundle.notes.append(f"{one.title}: {one.note}")
        if one.panels:
            bundle.add("joints", one.title, partial(_draw_lines, one))
        if number == 0 and one.scene is not None:
            for camera, file in list(one.videos.items())[:MAX_CAMERAS]:
                bundle.sheet(f"{one.title}: camera {camera}", _video_frames(file, images))
            bundle.scene(one.scene)


def _draw_lines(one: Shown, path: Path) -> tuple[int, int]:
    unit = one.scene.unit if one.scene is not None else "s"
    return plots.save_lines(path, one.panels[:4], one.title, unit)


def _state_first(names: Collection[str]) -> list[str]:
    """Vectors in the order in which they tell most of where the robot is."""
    return sorted(names, key=lambda name: ("state" not in name, not name.startswith("action"), name))


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
                    unit = "s" if layout.control_hz else "frames"
                    bundle.add(
                        "joints", title, partial(plots.save_lines, panels=panels, title=title, unit=unit)
                    )
            for demo in layout.demos[:1]:
                cameras = {n: i for n, i in list(demo.cameras.items())[:MAX_CAMERAS] if not i.closed}
                for camera, item in cameras.items():
                    picked = _picked(item.shape[0], images)
                    found = [(f"{i}", picture_at(file[item.path], item, i)) for i in picked]
                    bundle.sheet(f"{file_path.name}: camera {camera}", _as_pictures(found))
                bundle.scene(_hdf5_scene(file, demo, cameras, layout.control_hz, file_path.name))


def _hdf5_scene(
    file: "h5py.File", demo: Demo, cameras: Mapping[str, Any], hz: float | None, name: str
) -> Scene:
    import numpy as np

    scene = Scene(f"{name}:{demo.group or '/'}", max(1, demo.length) / (hz or 1.0))
    scene.unit, hz = "s" if hz else "frames", hz or 1.0
    for camera, item in cameras.items():

        def read(index: int, item: Any = item) -> "Picture | None":
            return next(iter(_as_pictures([("", picture_at(file[item.path], item, index))])), ("", None))[1]

        scene.cameras[camera] = indexed_shots(read, item.shape[0], hz)
    wanted = dict.fromkeys(item.path for item in (demo.state, demo.action) if item is not None)
    wanted |= dict.fromkeys(item.path for item in demo.fields.values() if _may_be_place(item.path))
    by_path = {item.path: item for item in demo.fields.values()}
    for path in wanted:
        item = by_path[path]
        if item.closed or not item.width or not item.is_numeric or item.shape[0] > MAX_ROWS:
            continue
        values = np.asarray(file[path][: item.shape[0]], np.float64)  # pyright: ignore[reportIndexIssue] - a dataset
        names = [str(index) for index in range(values.shape[1])]
        scene.panels.append((path, np.arange(len(values)) / hz, values, names))
    return scene


def _may_be_place(path: str) -> bool:
    leaf = path.rpartition("/")[2].lower()
    return "eef_pos" in leaf or leaf.endswith(("ee_pos", "_xyz", "position"))


def _of_lerobot(path: Path, bundle: _Bundle) -> None:
    from emboflow_dagster.formats.quality.lerobot import trees

    for tree in trees(path)[:MAX_EPISODES]:
        _of_tree(tree, bundle)


def _of_tree(tree: "LeRobotTree", bundle: _Bundle) -> None:
    declared = tree.info.document.get("features")
    entries = declared.items() if isinstance(declared, dict) else ()
    names = {name: feature.get("names") for name, feature in entries if isinstance(feature, dict)}
    for count, view in enumerate(tree.views(decode=False)):
        if count >= MAX_EPISODES:
            break
        fps = tree.info.fps or 1.0
        seconds = _seconds(view.length, fps)
        wanted = _state_first((*view.actions, *view.states))
        panels = [
            (n, seconds, view.vectors[n], _names(names.get(n), view.vectors[n].shape[1])) for n in wanted
        ]
        title = f"{view.ref} ({view.length} frames)"
        if panels:
            bundle.add("joints", title, lambda path, p=panels, t=title: plots.save_lines(path, p[:4], t))
        if count == 0 and view.number is not None:
            scene = Scene(view.ref, view.length / fps, panels=list(panels))
            for camera in tree.info.videos[:MAX_CAMERAS]:
                file = tree.video_file(camera, view.number)
                if file is not None and tree.info.version != "v3.0":
                    scene.cameras[camera] = video_shots(file)
            bundle.scene(scene)


def _seconds(length: int, fps: float) -> "np.ndarray":
    import numpy as np

    return np.arange(length) / fps


def _names(found: Any, width: int) -> list[str]:
    """Names of dimensions, as LeRobot writes them in several ways; their numbers where it does not."""
    if isinstance(found, dict):
        found = next((value for value in found.values() if isinstance(value, list)), None)
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    if isinstance(found, list) and len(found) == width:
        return [str(name) for name in found]
    return [str(index) for index in range(width)]


def _demo_panels(file: "h5py.File", demo: Demo, hz: float | None) -> list[Any]:
    import numpy as np

    panels = []
    for item in (demo.action, demo.state, demo.fields.get("observations/qvel")):
        if item is None or item.closed or not item.width or item.shape[0] > MAX_ROWS:
            continue
        values = np.asarray(file[item.path][: item.shape[0]])  # pyright: ignore[reportIndexIssue] - a dataset
        seconds = np.arange(len(values)) / (hz or 1.0)
        names = [str(index) for index in range(values.shape[1])]
        panels.append((item.path, seconds, values, names))
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
        start = structure.get("startNs")
        for stamp, data in iter_images(path, topic, images, every=every):
            picture = _open_picture(data)
            if picture is not None:
                found.append((f"{(stamp - (start if isinstance(start, int) else 0)) / 1e9:.2f} s", picture))
        bundle.sheet(topic, found)
    if any(kind in bundle.kinds for kind in ("synced", "trajectory", "clip", "mcap")):
        scene = recording_scene(path, structure, _open_picture)
        if scene is not None:
            bundle.scene(scene)


def _of_rlds(path: Path, bundle: _Bundle, images: int) -> None:
    from emboflow_dagster.formats.previews.rlds import rlds_shown

    for number, one in enumerate(islice(rlds_shown(path), MAX_EPISODES)):
        if one.panels:
            bundle.add("joints", one.title, partial(_draw_lines, one))
        if number == 0 and one.scene is not None:
            for camera, shots in list(one.scene.cameras.items())[:MAX_CAMERAS]:
                found = shots(one.scene.instants(images))
                bundle.sheet(f"{one.title}: camera {camera}", [(f"frame {at:.0f}", p) for at, p in found])
            bundle.scene(one.scene)


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
    files = [source.file(e) for e in videos_of(source)] if source.is_folder else [path]
    for file in files[:MAX_CAMERAS]:
        bundle.sheet(file.name, _video_frames(file, images))


def _clips_of_videos(path: Path, bundle: _Bundle) -> None:
    source = open_source(path)
    files = [source.file(e) for e in videos_of(source)] if source.is_folder else [path]
    for file in files[:2]:
        title = f"{file.name}: the first seconds"
        scene = Scene(file.name, motion.CLIP_SECONDS, cameras={"video": video_shots(file)})
        bundle.add("clip", title, lambda out, s=scene: motion.save_clip(out, s), ".mp4")


def _video_frames(path: Path, images: int) -> "list[tuple[str, Picture]]":
    """Frames spread evenly over the first video stream; what cannot be decoded is left out."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            span = (container.duration or 0) / 1e6 if container.streams.video else None
    except (FFmpegError, ValueError):
        return []
    if span is None:
        return []
    found = video_shots(path)([span * index / images for index in range(images)])
    # A short video gives a frame several times.
    return list({f"{second:.2f} s": picture for second, picture in found}.items())


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
