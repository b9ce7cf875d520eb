"""A folder of numbered pictures: one camera's frames, or several cameras in folders of their own."""

import re
from typing import Any

from emboflow_dagster.formats.detect import Entry, Format, Source, signature
from emboflow_dagster.formats.folder import folder_summary
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.report import Candidate, Probe

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
MIN_FRAMES = 2
MAX_OPENED = 2_000
_NUMBER = re.compile(r"(\d+)(?=\D*\Z)")


def matches(source: Source) -> Candidate | None:
    """A folder where nine of ten files are pictures."""
    if not source.is_folder:
        return None
    pictures = _pictures(source)
    if len(pictures) < MIN_FRAMES or len(pictures) < 0.9 * len(source.entries):
        return None
    if signature(source.head_of(pictures[0])) not in ("jpeg", "png") and pictures[0].suffix in (
        ".jpg",
        ".png",
    ):
        return None
    return Candidate("image_sequence", 0.6, (f"{len(pictures)} of {len(source.entries)} files are pictures",))


def probe(source: Source, report: Probe) -> None:
    """Sizes of the pictures (headers only), gaps in their numbers, and whether each opens."""
    from PIL import Image, UnidentifiedImageError

    pictures = _pictures(source)
    sizes: dict[tuple[int, int], int] = {}
    for entry in pictures[:MAX_OPENED]:
        try:
            with Image.open(source.file(entry)) as image:
                sizes[image.size] = sizes.get(image.size, 0) + 1
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
            report.warn("corrupt", f"not a readable picture: {error}", entry.path)
    if len(pictures) > MAX_OPENED:
        report.warn("listing_truncated", f"{len(pictures)} pictures; {MAX_OPENED} were opened")
    width, height = max(sizes, key=lambda size: sizes[size]) if sizes else (None, None)
    if len(sizes) > 1:
        report.warn("mixed_sizes", f"pictures of {len(sizes)} different sizes")
    sequences = _sequences(pictures)
    for folder, entries in sequences.items():
        missing = missing_numbers(entries)
        if missing:
            report.warn("missing_parts", f"{missing} numbers are missing in the sequence", folder or None)
    report.structure.update(folder_summary(source))
    report.structure.update({"frames": len(pictures), "width": width, "height": height})
    if len(sequences) > 1:
        report.structure["sequences"] = {
            name or ".": len(found) for name, found in list(sequences.items())[:100]
        }
    report.suggest("image_sequence", 0.9 if sizes else 0.4, f"{sum(sizes.values())} pictures opened")
    report.recommend("preview")


def missing_numbers(entries: list[Entry]) -> int:
    """How many numbers between first and last are not there; 0 where names hold no distinct numbers."""
    found: list[int] = []
    for entry in entries:
        match = _NUMBER.search(entry.name.rpartition(".")[0])
        if match is None or len(match.group(1)) > 15:  # noqa: PLR2004 - a hash, not a number
            return 0
        found.append(int(match.group(1)))
    if len(set(found)) != len(found):
        return 0
    gap = max(found) - min(found) + 1 - len(found)
    # Stamps as names leave gaps everywhere: those are no missing frames.
    return gap if gap <= len(found) else 0


def _sequences(pictures: list[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in pictures:
        found.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    return found


def _pictures(source: Source) -> list[Entry]:
    return sorted(source.with_suffix(*SUFFIXES), key=lambda entry: natural_key(entry.path))


def sequence_entries(source: Source) -> list[Any]:
    """The pictures of a folder in natural order."""
    return _pictures(source)


FORMAT = Format(names=("image_sequence",), matches=matches, probe=probe)
