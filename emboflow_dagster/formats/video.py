"""Videos: a single one, or a folder of them. Frames are counted by decoding."""

from pathlib import Path

from emboflow_dagster.formats.detect import Entry, Format, Source, signature
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.video_file import SIGNATURES, SUFFIXES, VideoFacts, measure_video

MAX_FILES = 1_000


def matches(source: Source) -> Candidate | None:
    """A container's signature; a folder where most files are videos."""
    if not source.is_folder:
        kind = signature(source.head)
        if kind not in SIGNATURES:
            return None
        return Candidate("video", 0.9, (f"{kind} signature",))
    videos = _videos(source)
    if not videos or 2 * len(videos) <= len(source.entries):
        return None
    name = "video" if len(videos) == 1 else "video_collection"
    return Candidate(name, 0.6, (f"{len(videos)} of {len(source.entries)} files are videos",))


def probe(source: Source, report: Probe) -> None:
    """Decode every video."""
    if source.is_folder:
        files = [(entry.path, source.file(entry)) for entry in _videos(source)]
    else:
        files = [(source.path.name, source.path)]
    if len(files) > MAX_FILES:
        report.warn("listing_truncated", f"{len(files)} videos; {MAX_FILES} were decoded")
    found: dict[str, VideoFacts] = {}
    for name, path in files[:MAX_FILES]:
        try:
            found[name] = measure_video(path)
        except ValueError as error:
            report.warn("corrupt_video", f"not readable: {error}", name)
            continue
        warn_about(found[name], name, report)
    codecs = sorted({facts.codec for facts in found.values()})
    if len(codecs) > 1:
        report.warn("mixed_codecs", f"the videos are coded as {', '.join(codecs)}")
    report.structure["files"] = {name: facts.as_structure() for name, facts in found.items()}
    report.structure["frames"] = sum(facts.frames for facts in found.values())
    report.structure["codecs"] = codecs
    if found:
        name = "video" if len(files) == 1 else "video_collection"
        report.suggest(name, 0.95, f"{len(found)} of {len(files)} decoded")
        report.recommend("preview", "quality-report")


def warn_about(facts: VideoFacts, name: str, report: Probe) -> None:
    """Warnings that follow from one video alone."""
    if facts.errors or not facts.frames:
        report.warn("corrupt_video", f"{facts.errors} errors, {facts.frames} frames could be decoded", name)
    if facts.declared_frames is not None and facts.declared_frames != facts.frames:
        text = f"the header declares {facts.declared_frames} frames, {facts.frames} could be decoded"
        report.warn("declared_frames_mismatch", text, name)
    if facts.rotation:
        report.warn("rotated_video", f"players turn it by {facts.rotation} degrees", name)
    if facts.video_streams > 1:
        report.warn("multiple_video_streams", f"{facts.video_streams} video streams; the first is read", name)
    if facts.freezes:
        count = sum(length for _, length in facts.freezes)
        report.warn("video_freeze", f"{count} of {facts.frames} frames repeat the one before them", name)
    if not facts.complete:
        report.warn("listing_truncated", "a part of its frames was counted and not decoded", name)


def _videos(source: Source) -> list[Entry]:
    return [e for e in source.with_suffix(*SUFFIXES) if signature(source.head_of(e)) in SIGNATURES]


def is_video(path: Path) -> bool:
    """Whether a file starts as a video container does."""
    with path.open("rb") as stream:
        return signature(stream.read(4_096)) in SIGNATURES


FORMAT = Format(names=("video", "video_collection"), matches=matches, probe=probe)
