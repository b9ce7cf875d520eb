"""Numbered pictures: one camera's frames, several cameras, several episodes; or a TIFF of many pages."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.folder import folder_summary
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.picture_file import (
    BYTE_BITS,
    SUFFIXES,
    CutPictureError,
    PictureFacts,
    UnreadPictureError,
    ends_early,
    measure_picture,
    picture_kind,
)
from emboflow_dagster.formats.picture_names import episodes_of, missing_numbers, named_gaps, sequences_of
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.video import warn_of_episodes

MIN_FRAMES: Final = 2
#: Pictures and pixels that are decoded; of more the last bytes alone are looked at.
MAX_DECODED: Final = 20_000
MAX_DECODED_PIXELS: Final = 4_000_000_000
MAX_LOOKED_AT: Final = 20
MAX_SEQUENCES: Final = 100
#: Warnings of one kind about pictures; the rest is counted.
MAX_TOLD: Final = 50
MAX_WORDS: Final = 5


def matches(source: Source) -> Candidate | None:
    """A folder where nine of ten files are pictures, or a TIFF."""
    if not source.is_folder:
        if picture_kind(source.head) == "tiff":
            return Candidate("image_sequence", 0.9, ("tiff signature",))
        return None
    pictures = sequence_entries(source)
    if len(pictures) < MIN_FRAMES or len(pictures) < 0.9 * len(source.entries):
        return None
    if not any(_is_picture(source, entry) for entry in pictures[:MAX_LOOKED_AT]):
        return None
    return Candidate("image_sequence", 0.6, (f"{len(pictures)} of {len(source.entries)} files are pictures",))


def _is_picture(source: Source, entry: Entry) -> bool:
    """By its first bytes; a picture that is called as another kind of picture is one."""
    return picture_kind(source.head_of(entry)) is not None


@dataclass(slots=True)
class _Found:
    """What the pictures of a sequence are; memory does not grow with their number."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[tuple[str, int]] = field(default_factory=Counter)
    frames: int = 0

    def add(self, facts: PictureFacts) -> None:
        self.sizes[facts.width, facts.height] += 1
        self.modes[facts.mode, facts.bit_depth] += 1
        self.frames += facts.pages - 1


class _Reading:
    """Pictures of all sequences, decoded as far as the limits go."""

    def __init__(self, source: Source, report: Probe) -> None:
        self.source = source
        self.report = report
        self.decoded = self.pixels = self.unread = 0
        self.kinds: Counter[str] = Counter()
        self.told: Counter[str] = Counter()

    def read(self, entries: Sequence[Entry]) -> _Found:
        found = _Found(frames=len(entries))
        for entry in entries:
            if entry.size:  # an empty one is told by the caller
                self._read(entry, found)
        return found

    def _read(self, entry: Entry, found: _Found) -> None:
        path = self.source.file(entry) if self.source.is_folder else self.source.path
        head = self.source.head_of(entry) if self.source.is_folder else self.source.head
        try:
            if self.decoded >= MAX_DECODED or self.pixels >= MAX_DECODED_PIXELS:
                self._look_at_end(entry, head)
                return
            facts = measure_picture(path, head, decode=True)
        except CutPictureError as error:
            self._tell("truncated", f"the picture is cut: {error}", entry)
        except UnreadPictureError as error:
            self._tell("unsupported_picture", str(error), entry)
        except (ValueError, OSError) as error:
            self._tell("corrupt", f"not a readable picture: {error}", entry)
        else:
            found.add(facts)
            self.kinds[facts.kind] += 1
            self.pixels += facts.width * facts.height * facts.pages
        self.decoded += 1

    def _look_at_end(self, entry: Entry, head: bytes) -> None:
        self.unread += 1
        kind = picture_kind(head)
        if kind is None:
            self._tell("corrupt", "not a readable picture: it does not begin as one does", entry)
        elif cut := ends_early(self.source.file(entry), kind):
            self._tell("truncated", f"the picture is cut: {cut}", entry)

    def _tell(self, code: str, text: str, entry: Entry) -> None:
        self.told[code] += 1
        if self.told[code] <= MAX_TOLD:
            self.report.warn(code, text, entry.path)

    def finish(self) -> None:
        for code, count in self.told.items():
            if count > MAX_TOLD:
                self.report.warn(code, f"{count - MAX_TOLD} more pictures")
        if self.unread:
            text = (
                f"{self.decoded} pictures were decoded, of {self.unread} more the last bytes were looked at"
            )
            self.report.warn("listing_truncated", text)


def probe(source: Source, report: Probe) -> None:
    """Every picture decoded, what they have in common, gaps in their numbers, and which episodes they are."""
    pictures = sequence_entries(source)
    sequences = sequences_of(pictures)
    reading = _Reading(source, report)
    found = {name: reading.read(entries) for name, entries in sequences.items()}
    reading.finish()
    sizes, modes = Counter[tuple[int, int]](), Counter[tuple[str, int]]()
    for name, entries in sequences.items():
        sizes += found[name].sizes
        modes += found[name].modes
        _warn_of(name, entries, found[name], report)
    width, height = max(sizes, key=lambda size: sizes[size]) if sizes else (None, None)
    mode, bits = max(modes, key=lambda one: modes[one]) if modes else (None, None)
    if source.is_folder:
        report.structure.update(folder_summary(source))
    frames = sum(one.frames for one in found.values())
    report.structure.update({"frames": frames, "width": width, "height": height})
    report.structure.update({"mode": mode, "bitDepth": bits, "kinds": dict(reading.kinds)})
    if bits is not None and bits > BYTE_BITS:
        text = f"{bits} bits a colour ({mode}): depth is no video, and normalised pictures have 8"
        report.warn("high_bit_depth", text)
    if frames == 1:
        report.warn("single_frame", "one picture is no sequence")
    if len(sequences) > 1:
        counts = {name or ".": one.frames for name, one in found.items()}
        report.structure["sequences"] = dict(list(counts.items())[:MAX_SEQUENCES])
        _divide(sequences, {name: one.frames for name, one in found.items()}, report)
    report.suggest("image_sequence", 0.9 if sizes else 0.4, f"{sum(sizes.values())} pictures opened")
    report.recommend("preview", *(("normalize",) if sizes else ()))


def _warn_of(name: str, entries: Sequence[Entry], found: _Found, report: Probe) -> None:
    if missing := missing_numbers(entries):
        text = f"{missing} numbers are missing in the sequence: {named_gaps(entries)}"
        report.warn("missing_parts", text, name or None)
    if len(found.sizes) > 1:
        each = ", ".join(f"{width}x{height}" for (width, height), _ in found.sizes.most_common(MAX_WORDS))
        report.warn("mixed_sizes", f"pictures of {len(found.sizes)} different sizes: {each}", name or None)
    if len(found.modes) > 1:
        each = ", ".join(f"{mode} of {bits} bits" for (mode, bits), _ in found.modes.most_common(MAX_WORDS))
        report.warn("mixed_modes", f"pictures of {len(found.modes)} kinds of pixels: {each}", name or None)


def _divide(sequences: dict[str, list[Entry]], frames: dict[str, int], report: Probe) -> None:
    division = episodes_of(sequences)
    report.structure["division"] = division.to_json()
    warn_of_episodes(division, report)
    told = 0
    for episode, cameras in division.episodes.items():
        counts = {camera: frames[name] for camera, name in cameras.items()}
        if len(set(counts.values())) < MIN_FRAMES:
            continue
        told += 1
        if told <= MAX_TOLD:
            each = ", ".join(f"{camera or '.'} {count}" for camera, count in counts.items())
            text = f"its cameras have not equally many pictures: {each}"
            report.warn("camera_length_mismatch", text, episode)


def sequence_entries(source: Source) -> list[Any]:
    """The pictures of a folder, or the one file, in natural order."""
    if not source.is_folder:
        return [Entry(source.path.name, source.size)]
    return sorted(source.with_suffix(*SUFFIXES), key=lambda entry: natural_key(entry.path))


FORMAT = Format(names=("image_sequence",), matches=matches, probe=probe)
