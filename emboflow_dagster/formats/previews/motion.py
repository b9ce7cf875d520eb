"""Pictures of motion: cameras at the same instants above the state, ways in space, a short clip."""

import io
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.previews.plots import (
    MAX_POINTS,
    drawn,
    most_moving,
    plain,
    save,
    to_rgb,
    write_small_png,
)
from emboflow_dagster.formats.previews.scene import Panel, Scene

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

CLIP_SECONDS = 6.0
CLIP_FPS = 10
CLIP_WIDTH = 320
#: No clip is larger; a noisy one is coded more coarsely.
CLIP_BYTES = 600 * 1024
_QUALITIES = ("28", "34", "40", "46")
SYNCED = 6
_CELL, _LEFT, _CAPTION = 150, 64, 14


def save_synced(path: Path, scene: Scene, *, columns: int = SYNCED) -> tuple[int, int]:
    """All cameras at the same instants, a row each, above the first vectors with the instants marked.

    Captions say how far a picture is from its instant. Returns width and height in pixels.

    Raises:
        ValueError: No camera gave a picture.
    """
    from PIL import Image, ImageDraw

    instants = scene.instants(columns)
    rows: list[tuple[str, list[tuple[float, Picture]]]] = []
    for camera, shots in scene.cameras.items():
        found = shots(instants)
        if found:
            rows.append((camera, found))
    if not rows:
        raise ValueError("no camera gave a picture")
    first = rows[0][1][0][1]
    high = max(24, min(_CELL, round(_CELL * first.height / max(1, first.width))))
    panels = scene.panels[:2]
    width = _LEFT + columns * _CELL
    below = _state(panels, instants, scene.duration_s, width) if panels else None
    height = len(rows) * (high + _CAPTION + 4) + 18 + (below.height if below else 0)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 3), f"{scene.title}"[:110].encode("ascii", "replace").decode(), fill="black")
    for number, (camera, found) in enumerate(rows):
        y = 18 + number * (high + _CAPTION + 4)
        for line, text in enumerate(_wrapped(camera)):
            draw.text((3, y + 12 * line), text, fill="black")
        taken: set[int] = set()
        for second, picture in found:
            place = min(range(columns), key=lambda i: abs(instants[i] - second))
            if place in taken:  # a camera with fewer pictures than instants gives one several times
                continue
            taken.add(place)
            thumb = to_rgb(picture)
            scale = min((_CELL - 4) / thumb.width, high / thumb.height)
            thumb = thumb.resize((max(1, round(thumb.width * scale)), max(1, round(thumb.height * scale))))
            x = _LEFT + place * _CELL
            sheet.paste(thumb, (x, y))
            off = second - instants[place]
            note = f"frame {second:.0f}"
            if scene.unit == "s":
                note = f"{second:.2f} s" + (f" ({off * 1e3:+.0f} ms)" if abs(off) > 1e-3 else "")  # noqa: PLR2004 - 1 ms
            draw.text((x, y + high), note, fill="black")
    if below is not None:
        sheet.paste(below, (0, height - below.height))
    write_small_png(path, sheet)
    return sheet.size


def _wrapped(name: str) -> list[str]:
    leaf = name.rstrip("/").replace("observation.images.", "").encode("ascii", "replace").decode()
    return [leaf[start : start + 10] for start in range(0, min(len(leaf), 50), 10)]


def _state(panels: Sequence[Panel], instants: Sequence[float], duration_s: float, width: int) -> "Picture":
    """The vectors over the same seconds, as wide as the pictures above."""
    import numpy as np
    from PIL import Image

    figure = drawn(width / 80, 0.25 + 1.35 * len(panels), tight=False)
    left = _LEFT / width
    for index, (name, seconds, values, _) in enumerate(panels):
        tall = 0.86 / len(panels)
        axes = figure.add_axes(
            (left, 0.1 + tall * (len(panels) - 1 - index) + 0.02, 1 - left - 4 / width, tall - 0.1)
        )
        step = max(1, len(seconds) // MAX_POINTS)
        finite = np.where(np.isfinite(values[::step]), values[::step], np.nan)
        # What moves most tells most of what the pictures above show.
        axes.plot(seconds[::step], finite[:, most_moving(finite)], linewidth=0.8)
        axes.set_xlim(0, duration_s)
        for instant in instants:
            axes.axvline(instant, color="#c8433c", linewidth=0.8, linestyle=":")
        axes.set_title(plain(name), fontsize=7, loc="left", pad=2)
        axes.tick_params(labelsize=6)
        axes.grid(visible=True, linewidth=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    buffer.seek(0)
    with Image.open(buffer) as image:
        return image.convert("RGB")


def save_trajectory(path: Path, ways: Sequence[tuple[str, "np.ndarray"]], title: str) -> tuple[int, int]:
    """Each way from above, coloured from start to end, and in space where it has three coordinates.

    Args:
        path: The PNG.
        ways: What it is, points ``(n, 2 or 3)``; at most three are drawn.
        title: Above all.
    """
    import numpy as np

    ways = ways[:3]
    solid = any(points.shape[1] > 2 for _, points in ways)  # noqa: PLR2004 - z
    figure = drawn(8.8 if solid else 5.2, 0.5 + 3.4 * len(ways))
    for index, (name, points) in enumerate(ways):
        step = max(1, len(points) // MAX_POINTS)
        shown = points[::step]
        time = np.linspace(0, 1, len(shown))
        axes = figure.add_subplot(len(ways), 2 if solid else 1, index * (2 if solid else 1) + 1)
        axes.plot(shown[:, 0], shown[:, 1], linewidth=0.5, color="#9aa3ad")
        axes.scatter(shown[:, 0], shown[:, 1], c=time, s=4, cmap="viridis")
        axes.plot(*shown[0, :2], "o", color="#14632f", markersize=6, label="start")
        axes.plot(*shown[-1, :2], "s", color="#94231c", markersize=6, label="end")
        globe = name.endswith("longitude and latitude")
        # A degree of longitude is as long as one of latitude at the equator alone.
        north = max(0.01, math.cos(math.radians(float(np.median(shown[:, 1]))))) if globe else 1.0
        axes.set_aspect(1 / north, adjustable="datalim")
        axes.set_xlabel("longitude, degrees" if globe else "x", fontsize=7)
        axes.set_ylabel("latitude, degrees" if globe else "y", fontsize=7)
        axes.set_title(plain(f"{name}, from above, dark to light"), fontsize=8, loc="left")
        axes.legend(fontsize=6, loc="best")
        axes.grid(visible=True, linewidth=0.3)
        axes.tick_params(labelsize=6)
        if shown.shape[1] > 2:  # noqa: PLR2004 - z
            space: Any = figure.add_subplot(len(ways), 2, index * 2 + 2, projection="3d")
            space.plot(shown[:, 0], shown[:, 1], shown[:, 2], linewidth=0.5, color="#9aa3ad")
            space.scatter(shown[:, 0], shown[:, 1], shown[:, 2], c=time, s=3, cmap="viridis")
            space.set_title("in space", fontsize=8, loc="left")
            space.set_xlabel("x", fontsize=6, labelpad=-4)
            space.set_ylabel("y", fontsize=6, labelpad=-4)
            space.set_zlabel("z", fontsize=6, labelpad=-4)
            space.tick_params(labelsize=5)
    figure.suptitle(plain(title), fontsize=9)
    return save(figure, path)


def save_clip(path: Path, scene: Scene) -> tuple[int, int]:
    """The first seconds of at most three cameras side by side: a small H.264 mp4. Returns width and height.

    Raises:
        ValueError: No camera gave two pictures.
    """
    # Where the rate is not known every other frame is shown, as of 20 a second.
    seconds = min(CLIP_SECONDS if scene.unit == "s" else 2 * CLIP_SECONDS * CLIP_FPS, scene.duration_s)
    count = max(2, int(seconds * CLIP_FPS if scene.unit == "s" else seconds / 2))
    instants = [seconds * place / count for place in range(count)]
    rows: list[list[Picture]] = []
    for shots in list(scene.cameras.values())[:3]:
        found = shots(instants)
        if len(found) > 1:
            # One picture for each instant: a camera that is slower shows its last one longer.
            rows.append([min(found, key=lambda item: abs(item[0] - at))[1] for at in instants])
    if not rows:
        raise ValueError("no camera gave two pictures")
    frames = _side_by_side(rows)
    size = (0, 0)
    for quality in _QUALITIES:
        size = _encode(path, frames, quality)
        if path.stat().st_size <= CLIP_BYTES:
            break
    return size


def _side_by_side(rows: "Sequence[Sequence[Picture]]") -> "list[np.ndarray]":
    import numpy as np
    from PIL import Image

    wide = CLIP_WIDTH if len(rows) == 1 else CLIP_WIDTH * 2 // 3
    sizes = []
    for pictures in rows:
        first = pictures[0]
        sizes.append((wide, max(2, round(wide * first.height / max(1, first.width)))))
    high = min(2 * CLIP_WIDTH, max(height for _, height in sizes))
    high += high % 2
    frames = []
    for place in range(len(rows[0])):
        sheet = Image.new("RGB", (wide * len(rows) + (wide * len(rows)) % 2, high), "black")
        for number, (pictures, size) in enumerate(zip(rows, sizes, strict=True)):
            sheet.paste(to_rgb(pictures[place]).resize(size), (number * wide, 0))
        frames.append(np.asarray(sheet))
    return frames


def _encode(path: Path, frames: "Sequence[np.ndarray]", quality: str) -> tuple[int, int]:
    import av
    from av.error import FFmpegError

    height, width = frames[0].shape[:2]
    try:
        with av.open(
            str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "faststart"}
        ) as out:
            stream = out.add_stream("libx264", rate=Fraction(CLIP_FPS))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": quality, "preset": "veryfast", "x264-params": "mbtree=0:rc-lookahead=0"}
            stream.codec_context.thread_count = 1
            for place, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = place
                frame.time_base = Fraction(1, CLIP_FPS)
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
    except FFmpegError as error:
        raise ValueError(f"the clip could not be encoded: {error}") from error
    return width, height


def thumbnail(path: Path, wide: int, limit: int) -> bytes | None:
    """A PNG as a JPEG of at most `limit` bytes, for a page to show inline; ``None`` where it is too much."""
    from PIL import Image

    with Image.open(path) as image:
        picture = image.convert("RGB")
    if picture.width > wide:
        picture = picture.resize(
            (wide, max(1, round(picture.height * wide / picture.width))), Image.Resampling.LANCZOS
        )
    for quality in (80, 65, 45, 25):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= limit:
            return buffer.getvalue()
    return None


#: What an inline picture is chosen by: what tells most comes first.
_TELLING = ("synced", "trajectory", "images", "joints", "timeline")
_THUMB_WIDE, _THUMB_BYTES = 640, 22 * 1024


def thumbnails(folder: Path, files: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, str]]:
    """The most telling pictures of a bundle, one of each kind, as ``{"title", "data"}`` (JPEG, base64)."""
    import base64

    first = {kind: next((f for f in files if f["kind"] == kind), None) for kind in _TELLING}
    found = []
    for file in [file for file in first.values() if file is not None][:count]:
        data = thumbnail(folder / file["path"], _THUMB_WIDE, _THUMB_BYTES)
        if data is not None:
            found.append({"title": file["title"], "data": base64.b64encode(data).decode()})
    return found


def index_page(subjects: Sequence[Mapping[str, Any]]) -> str:
    """``index.html`` of a bundle: every picture and clip of every subject, from the files beside it."""
    import html

    style = (
        ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;"
        "max-width:64rem;padding:0 1rem;color:#1f2328}"
        "img,video{max-width:100%;border:1px solid #e3e6ea;border-radius:4px}figure{margin:.8rem 0}"
        "figcaption,.m{color:#656d76;font-size:.9em}h2{border-top:1px solid #e3e6ea;padding-top:1rem}"
        "@media(prefers-color-scheme:dark){body{background:#15181c;color:#dde2e8}"
        "figcaption,.m{color:#9aa4af}img,video,h2{border-color:#39414a}a{color:#7ab7ff}}"
    )
    parts = []
    for subject in subjects:
        kind = html.escape(subject["kind"])
        parts.append(f"<h2>{html.escape(str(subject['subject']))} <span class='m'>{kind}</span></h2>")
        for file in subject["files"]:
            place = html.escape(f"{subject['folder']}/{file['path']}", quote=True)
            title = html.escape(file["title"])
            shown = (
                f"<video src='{place}' controls muted loop playsinline width='{file['width']}'></video>"
                if file["kind"] == "clip"
                else f"<img src='{place}' alt='{title}' loading='lazy'>"
            )
            if file["path"].endswith((".png", ".mp4")):
                parts.append(f"<figure>{shown}<figcaption>{title}</figcaption></figure>")
            else:
                parts.append(f"<p><a href='{place}'>{title}</a></p>")
        parts += [f"<p class='m'>{html.escape(note)}</p>" for note in subject["notes"]]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Preview</title>"
        f"<style>{style}</style></head><body><h1>Preview</h1>{''.join(parts)}</body></html>\n"
    )
