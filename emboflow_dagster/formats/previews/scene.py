"""One episode or recording as previews see it: cameras that give pictures by time, vectors over time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.messages import iter_numeric
from emboflow_dagster.formats.pictures import is_image_type, iter_images

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

MAX_CAMERAS = 6
#: Pictures of one topic that are decoded to find those nearest to the instants.
MAX_SAMPLED = 120
MAX_TOPIC_ROWS = 200_000
#: Seconds over which the instants of a clip are taken from one seek on.
_NEAR_S = 12.0

#: x, y and z of these are no place.
_NO_PLACE = ("angular", "linear", "orient", "rot", "quat", "vel", "acc", "torque", "force")
_AXES = 3

Panel = tuple[str, "np.ndarray", "np.ndarray", Sequence[str]]
"""Title, seconds ``(n,)``, values ``(n, dim)``, names."""
Shots = Callable[[Sequence[float]], "list[tuple[float, Picture]]"]
"""Gives for each second that of the nearest picture, and the picture; what cannot be read is left out."""


@dataclass(slots=True)
class Scene:
    """What is seen and measured over one stretch of time; seconds count from its start."""

    title: str
    duration_s: float
    cameras: dict[str, Shots] = field(default_factory=dict)
    panels: list[Panel] = field(default_factory=list)
    unit: str = "s"
    """``frames`` where the input does not say how fast it was recorded: then seconds count frames."""

    def instants(self, count: int) -> list[float]:
        """Seconds spread evenly, the first at half a step: the ends of recordings show least."""
        return [self.duration_s * (2 * place + 1) / (2 * count) for place in range(count)]


def video_shots(path: Path) -> Shots:
    """Pictures of a video file by time."""

    def shots(seconds: Sequence[float]) -> "list[tuple[float, Picture]]":
        import av
        from av.error import FFmpegError

        found: list[tuple[float, Picture]] = []
        try:
            with av.open(str(path), metadata_errors="replace") as container:
                if not container.streams.video:
                    return []
                stream = container.streams.video[0]
                half = 0.5 / float(stream.average_rate or Fraction(30))
                at = -1.0
                frames: Any = iter(())
                for second in sorted(seconds):
                    if at < 0 or second - at > _NEAR_S or second < at:
                        container.seek(int(second * 1e6), backward=True)
                        frames = container.decode(video=0)
                    frame = next((f for f in frames if (f.time or 0.0) >= second - half), None)
                    if frame is None:
                        at = -1.0
                        continue
                    at = float(frame.time or 0.0)
                    # Turned as a player turns it; a frame tells by how much against the clock.
                    turned = round(getattr(frame, "rotation", 0) or 0) % 360
                    picture = frame.to_image()
                    found.append((at, picture.rotate(turned, expand=True) if turned else picture))
        except (FFmpegError, ValueError, OSError):
            return found
        return found

    return shots


def indexed_shots(read: "Callable[[int], Picture | None]", count: int, fps: float) -> Shots:
    """Pictures that are read by their number."""

    def shots(seconds: Sequence[float]) -> "list[tuple[float, Picture]]":
        found = []
        for second in seconds:
            index = min(count - 1, max(0, round(second * fps)))
            picture = read(index)
            if picture is not None:
                found.append((index / fps, picture))
        return found

    return shots


def topic_shots(
    path: Path, topic: str, count: int, start_ns: int, opened: "Callable[[bytes], Picture | None]"
) -> Shots:
    """Pictures of an image topic: of at most 120 that are decoded, those nearest to the instants."""
    every = max(1, -(-count // MAX_SAMPLED))
    known: list[tuple[float, bytes]] = []

    def shots(seconds: Sequence[float]) -> "list[tuple[float, Picture]]":
        if not known:
            sampled = iter_images(path, topic, MAX_SAMPLED, every=every)
            known.extend(((stamp - start_ns) / 1e9, data) for stamp, data in sampled)
        found = []
        for second in seconds if known else ():
            near = min(known, key=lambda item: abs(item[0] - second))
            picture = opened(near[1])
            if picture is not None:
                found.append((near[0], picture))
        return found

    return shots


def recording_scene(
    path: Path, structure: Mapping[str, Any], opened: "Callable[[bytes], Picture | None]"
) -> Scene | None:
    """A recording: its image topics, and numbers of its topics over time (the most telling first)."""
    import numpy as np

    start, end = structure.get("startNs"), structure.get("endNs")
    if not isinstance(start, int) or not isinstance(end, int) or end <= start:
        return None
    topics = structure.get("topics") or {}
    scene = Scene(path.name, (end - start) / 1e9)
    for name, topic in topics.items():
        if is_image_type(topic["type"]) and topic["count"] and len(scene.cameras) < MAX_CAMERAS:
            scene.cameras[name] = topic_shots(path, name, topic["count"], start, opened)
    rows: dict[str, tuple[tuple[str, ...], list[int], list[tuple[float, ...]]]] = {}
    for row in iter_numeric(path):
        names, stamps, values = rows.setdefault(row.topic, (row.names, [], []))
        if row.names == names and len(values) < MAX_TOPIC_ROWS:
            stamps.append(row.stamp_ns)
            values.append(row.values)
    order = sorted(rows, key=lambda topic: (_rank(str((topics.get(topic) or {}).get("type") or "")), topic))
    for topic in order:
        names, stamps, values = rows[topic]
        if len(values) > 1:
            seconds = (np.array(stamps, dtype=np.int64) - start) / 1e9
            scene.panels.append((topic, seconds, np.array(values, dtype=np.float64), names))
    return scene


def _rank(type_name: str) -> int:
    kinds = ("JointState", "Odometry", "Pose", "NavSatFix", "Twist", "Imu", "TFMessage")
    leaf = type_name.replace(".", "/").rpartition("/")[2]
    return next((place for place, kind in enumerate(kinds) if leaf.startswith(kind)), len(kinds))


def place_columns(names: Sequence[str]) -> tuple[tuple[int, ...], str] | None:
    """The columns of a position (x, y and z where there is one) among a vector's names, and what they are.

    >>> place_columns(["pose.pose.position.x", "pose.pose.position.y", "w"])
    ((0, 1), 'pose.pose.position')
    """
    lower = [name.lower() for name in names]
    if "latitude" in lower and "longitude" in lower:
        return (lower.index("longitude"), lower.index("latitude")), "longitude and latitude"
    for place, name in enumerate(lower):
        if name.startswith("transforms."):  # one topic for all frames of a robot: no way of any of them
            continue
        if name != "x" and not name.endswith((".x", "_x", "/x")):
            continue
        stem = name[:-1]
        if any(word in stem for word in _NO_PLACE):
            continue
        if f"{stem}y" in lower:
            found = (place, lower.index(f"{stem}y"))
            if f"{stem}z" in lower:
                found = (*found, lower.index(f"{stem}z"))
            return found, names[place][:-1].rstrip("._/") or "position"
    return None


def path_of(panel: Panel) -> "tuple[str, np.ndarray] | None":
    """The way ``(n, 2 or 3)`` that a panel holds, and what it is called; ``None`` where it holds none."""
    import numpy as np

    title, _, values, names = panel
    leaf = title.split(",")[0].rpartition("/")[2].lower()
    found = place_columns(names)
    named = "eef_pos" in leaf or leaf.endswith(("position", "ee_pos", "_xyz"))
    if found is None and named and values.shape[1] == _AXES:
        found = ((0, 1, 2), leaf)
    if found is None:
        return None
    columns, what = found
    points = values[:, list(columns)]
    points = points[np.isfinite(points).all(axis=1)]
    if points.shape[1] > 2 and len(points) and not np.ptp(points[:, 2]) > 0:  # noqa: PLR2004 - z
        points = points[:, :2]  # a robot on the floor
    if len(points) < 2 or not (np.ptp(points, axis=0) > 0).any():  # noqa: PLR2004 - a way needs two points
        return None
    return (what if what in title else f"{title.split(',')[0]}: {what}"), points
