"""Small pictures for previews: lines over time, rates of topics, contact sheets. Each file stays small."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

#: No file of a preview is larger.
MAX_BYTES = 300 * 1024
MAX_LINES = 16
#: Colours before they come again, dashed.
COLOURS = 10
MAX_POINTS = 2_000
MAX_TOPICS = 40
BINS = 240
THUMB = (192, 144)
COLUMNS = 4


def save_lines(
    path: Path,
    panels: Sequence[tuple[str, "np.ndarray", "np.ndarray", Sequence[str]]],
    title: str,
    unit: str = "s",
) -> tuple[int, int]:
    """One panel per vector: title, seconds ``(n,)``, values ``(n, dim)``, names. Returns width and height.

    At most 2,000 points are drawn of at most 16 dimensions, those that move most. ``unit`` is ``frames``
    where seconds count them.
    """
    import numpy as np

    figure = drawn(9.6, 0.6 + 2.4 * len(panels))
    for index, (name, seconds, values, names) in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, index + 1)
        step = max(1, len(seconds) // MAX_POINTS)
        finite = np.where(np.isfinite(values[::step]), values[::step], np.nan)
        chosen = most_moving(finite)
        lines = axes.plot(seconds[::step], finite[:, chosen], linewidth=0.9)
        for place, line in enumerate(lines):
            line.set_linestyle("-" if place < COLOURS else "--")
        more = f" of {values.shape[1]}, those that move most" if len(chosen) < values.shape[1] else ""
        axes.set_title(plain(f"{name} ({len(chosen)}{more})"), fontsize=9, loc="left")
        axes.grid(visible=True, linewidth=0.3)
        axes.tick_params(labelsize=7)
        axes.margins(x=0.01)
        # Beside the axes, where it hides no line.
        told = [plain(names[place] if place < len(names) else str(place), 24) for place in chosen]
        beside: dict[str, Any] = {"bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2, "frameon": False}
        axes.legend(lines, told, fontsize=6, loc="upper left", **beside)
        if index == len(panels) - 1:
            axes.set_xlabel("seconds" if unit == "s" else f"{unit} (no rate is known)", fontsize=7)
    figure.suptitle(plain(title), fontsize=10)
    return save(figure, path)


def most_moving(values: "np.ndarray") -> list[int]:
    """The dimensions of ``(n, dim)`` that range widest, 16 at most, in their own order."""
    import numpy as np

    if not values.size:
        return list(range(min(values.shape[1], MAX_LINES)))
    ranges = np.nanmax(values, axis=0, initial=-np.inf) - np.nanmin(values, axis=0, initial=np.inf)
    moves = np.nan_to_num(ranges, nan=0.0, posinf=0.0, neginf=0.0)
    return np.sort(np.argsort(-moves, kind="stable")[:MAX_LINES]).tolist()


def save_rates(path: Path, stamps: Mapping[str, "np.ndarray"], title: str) -> tuple[int, int]:
    """Messages per second of each topic over the recording, the 40 busiest. Returns width and height."""
    import numpy as np

    busiest = sorted(stamps, key=lambda topic: (-len(stamps[topic]), topic))[:MAX_TOPICS]
    rows = sorted(busiest)
    start = min(int(stamps[topic].min()) for topic in rows)
    end = max(int(stamps[topic].max()) for topic in rows)
    span = max((end - start) / 1e9, 1e-9)
    grid = np.zeros((len(rows), BINS))
    for index, topic in enumerate(rows):
        seconds = (stamps[topic] - start) / 1e9
        grid[index], _ = np.histogram(seconds, bins=BINS, range=(0.0, span))
    grid *= BINS / span
    figure = drawn(9.6, max(1.9, 1.0 + 0.24 * len(rows)))
    axes = figure.add_subplot(1, 1, 1)
    image = axes.imshow(
        np.log1p(grid), aspect="auto", extent=(0.0, span, len(rows) - 0.5, -0.5), cmap="viridis",
        interpolation="nearest", vmin=0.0,
    )  # fmt: skip
    axes.set_yticks(range(len(rows)), [plain(f"{t} ({len(stamps[t])})", 48) for t in rows], fontsize=6)
    axes.set_xlabel("seconds", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    top = float(grid.max())
    steps = [0, *(rate for rate in (1, 10, 100, 1_000, 10_000, 100_000) if rate < 0.7 * top), top]
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    told = [f"{rate:.0f}" if rate >= 1 else f"{rate:.2g}" for rate in steps]
    bar.set_ticks(np.log1p(steps).tolist(), labels=told)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("messages/s", fontsize=7)
    figure.suptitle(plain(title), fontsize=10)
    return save(figure, path)


def save_contact_sheet(path: Path, pictures: Sequence[tuple[str, "Picture"]]) -> tuple[int, int]:
    """Thumbnails in rows of four with their captions. Returns width, height in pixels."""
    from PIL import Image, ImageDraw

    caption = 14
    thumbs = []
    for _, picture in pictures:
        thumb = to_rgb(picture)
        thumb.thumbnail(THUMB)
        thumbs.append(thumb)
    # As high as the highest: pictures of a wide camera leave no empty band below them.
    high = max(thumb.height for thumb in thumbs)
    cell = (THUMB[0] + 4, high + caption + 4)
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (cell[0] * min(COLUMNS, len(pictures)), cell[1] * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for index, ((text, _), thumb) in enumerate(zip(pictures, thumbs, strict=True)):
        x, y = cell[0] * (index % COLUMNS) + 2, cell[1] * (index // COLUMNS) + 2
        sheet.paste(thumb, (x, y))
        draw.text((x, y + high), text.encode("ascii", "replace").decode()[:32], fill="black")
    write_small_png(path, sheet)
    return sheet.size


def to_rgb(picture: "Picture") -> "Picture":
    """An 8 bit RGB copy; 16 bit depth is stretched to what it holds, since a plain conversion saturates."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        import numpy as np

        depth = np.asarray(picture, dtype=np.float64)
        top = float(depth.max()) or 1.0
        return Image.fromarray((np.clip(depth / top, 0, 1) * 255).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")


def write_small_png(path: Path, picture: "Picture") -> None:
    """Write a PNG below the size limit: with fewer colours, then smaller, where the picture is noisy."""
    for colours in (None, 256, 64):
        data = _png(picture if colours is None else picture.quantize(colours))
        if len(data) <= MAX_BYTES:
            path.write_bytes(data)
            return
    scaled = picture
    while len(data) > MAX_BYTES:
        scaled = scaled.resize((max(1, scaled.width * 2 // 3), max(1, scaled.height * 2 // 3)))
        data = _png(scaled.quantize(64))
    path.write_bytes(data)


def _png(picture: "Picture") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def drawn(width: float, height: float, *, tight: bool = True) -> "Figure":
    """An empty figure of that many inches at 80 pixels each; ``tight`` lays its axes out by itself."""
    # The object interface alone: pyplot keeps figures alive in global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=80, layout="constrained" if tight else None)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> tuple[int, int]:
    """Write a figure as a small PNG. Returns width and height in pixels."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    buffer.seek(0)
    with Image.open(buffer) as image:
        picture = image.convert("RGB")
    write_small_png(path, picture)
    return picture.size


def plain(text: str, limit: int = 90) -> str:
    """Text that matplotlib draws as it stands: a dollar sign would start its formula language."""
    clean = "".join(char if char.isprintable() else "?" for char in text).replace("$", r"\$")
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
