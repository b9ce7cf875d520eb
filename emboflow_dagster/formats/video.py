"""Videos: a single one, or a folder of them. Frames are counted by decoding."""

from collections.abc import Mapping
from pathlib import Path

from emboflow_dagster.formats.detect import Entry, Format, Source
from emboflow_dagster.formats.media_places import Division, divide
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.video_container import SUFFIXES, kind_of_file, missing_end, video_kind
from emboflow_dagster.formats.video_file import NoVideoError, VideoFacts, measure_video

MAX_FILES = 1_000
#: Cameras of one episode may differ by so many frames, or by so much of a second.
MAX_APART_FRAMES = 2
MAX_APART_S = 0.1
#: A file whose frames end so long before what it declares ends early.
MAX_SHORT_S = 0.5
#: Warnings of one kind about episodes.
MAX_TOLD = 20
_BYTE_BITS = 8


def matches(source: Source) -> Candidate | None:
    """A container's signature; a folder where most files are videos."""
    if not source.is_folder:
        kind = video_kind(source.head, source.path.name)
        if kind is None:
            return None
        return Candidate("video", 0.9, (f"{kind} signature",))
    videos = videos_of(source)
    if not videos or 2 * len(videos) <= len(source.entries):
        return None
    name = "video" if len(videos) == 1 else "video_collection"
    return Candidate(name, 0.6, (f"{len(videos)} of {len(source.entries)} files are videos",))


def probe(source: Source, report: Probe) -> None:
    """Decode every video, and say which episodes and cameras their names tell."""
    if source.is_folder:
        files = [(entry.path, source.file(entry)) for entry in videos_of(source)]
        _warn_of_others(source, {name for name, _ in files}, report)
    else:
        files = [(source.path.name, source.path)]
    if len(files) > MAX_FILES:
        report.warn("listing_truncated", f"{len(files)} videos; {MAX_FILES} were decoded")
    found: dict[str, VideoFacts] = {}
    for name, path in files[:MAX_FILES]:
        cut = missing_end(path)
        if cut:
            report.warn("truncated", f"the end of the file is missing: {cut}", name)
        try:
            found[name] = measure_video(path)
        except NoVideoError as error:
            report.warn("no_video_stream", str(error), name)
            continue
        except ValueError as error:
            report.warn("corrupt_video", f"not readable: {error}", name)
            continue
        warn_about(found[name], name, report)
        if not cut:
            _warn_of_a_short_one(found[name], name, report)
    codecs = sorted({facts.codec for facts in found.values()})
    if len(codecs) > 1:
        report.warn("mixed_codecs", f"the videos are coded as {', '.join(codecs)}")
    report.structure["files"] = {name: facts.as_structure() for name, facts in found.items()}
    report.structure["frames"] = sum(facts.frames for facts in found.values())
    report.structure["codecs"] = codecs
    if len(files) > 1:
        division = divide([name for name, _ in files])
        report.structure["division"] = division.to_json()
        warn_of_episodes(division, report)
        _warn_of_lengths(division, found, report)
    if found:
        name = "video" if len(files) == 1 else "video_collection"
        report.suggest(name, 0.95, f"{len(found)} of {len(files)} decoded")
        report.recommend("preview", "quality-report")


def warn_about(facts: VideoFacts, name: str, report: Probe) -> None:
    """Warnings that follow from one video alone."""
    if facts.errors or (not facts.frames and facts.declared_frames):
        report.warn("corrupt_video", f"{facts.errors} errors, {facts.frames} frames could be decoded", name)
    elif not facts.frames:
        report.warn("no_frames", "a whole file without a frame", name)
    if facts.frames == 1:
        report.warn("single_frame", "one frame: it has no rate", name)
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
    if facts.varies and facts.intervals_s:
        low, middle, high = (f"{1e3 * value:.1f}" for value in facts.intervals_s)
        text = f"frames are {low} to {high} ms apart, {middle} ms in the middle; set `fps` to normalise"
        report.warn("variable_frame_rate", text, name)
    if not facts.clock:
        rate = facts.fps or "25/1"
        report.warn("no_timestamps", f"a raw stream has no clock: {rate} frames a second are assumed", name)
    if facts.bit_depth > _BYTE_BITS or facts.hdr:
        text = (
            f"{facts.bit_depth} bits a colour ({facts.pixel_format}{', ' + facts.hdr if facts.hdr else ''})"
        )
        report.warn("high_bit_depth", f"{text}: normalised pictures have 8", name)
    if not facts.complete:
        report.warn("listing_truncated", "a part of its frames was counted and not decoded", name)


def _warn_of_a_short_one(facts: VideoFacts, name: str, report: Probe) -> None:
    """Its frames end before the file is to end; other streams, such as sound, may be longer."""
    if facts.streams != 1 or facts.duration_s is None or facts.intervals_s is None or not facts.complete:
        return
    usual = facts.intervals_s[1]
    short = facts.duration_s - (facts.last_s + usual)
    if short > max(MAX_SHORT_S, 3 * usual):
        text = f"{facts.duration_s:.3f} s are declared, the frames end {short:.3f} s before"
        report.warn("declared_duration_mismatch", text, name)


def warn_of_episodes(division: Division, report: Probe) -> None:
    """Say which episodes lack a camera that others have."""
    lacking = division.incomplete()
    for episode, cameras in list(lacking.items())[:MAX_TOLD]:
        report.warn("missing_cameras", f"episode {episode} has no {', '.join(cameras)[:200]}")
    if len(lacking) > MAX_TOLD:
        report.warn("missing_cameras", f"{len(lacking) - MAX_TOLD} more episodes lack a camera")


def _warn_of_lengths(division: Division, found: Mapping[str, VideoFacts], report: Probe) -> None:
    told = 0
    for episode, cameras in division.episodes.items():
        facts = {camera: found[path] for camera, path in cameras.items() if path in found}
        lengths = {camera: _seconds(one) for camera, one in facts.items()}
        known = [seconds for seconds in lengths.values() if seconds is not None]
        usual = max((one.intervals_s[1] for one in facts.values() if one.intervals_s), default=0.0)
        if len(known) < 2 or max(known) - min(known) <= max(MAX_APART_S, MAX_APART_FRAMES * usual):  # noqa: PLR2004
            continue
        told += 1
        if told <= MAX_TOLD:
            each = ", ".join(f"{camera} {seconds:.2f} s" for camera, seconds in lengths.items() if seconds)
            text = f"its cameras are not as long as one another: {each}"
            report.warn("camera_length_mismatch", text, episode)


def _seconds(facts: VideoFacts) -> float | None:
    return facts.last_s - facts.first_s + facts.intervals_s[1] if facts.intervals_s else None


def _warn_of_others(source: Source, known: set[str], report: Probe) -> None:
    """Files that are called as videos and are none; an empty one and a pointer are told by the caller."""
    for entry in source.with_suffix(*SUFFIXES):
        if entry.path not in known and entry.size and entry.suffix != ".ts":
            report.warn("corrupt_video", "it does not begin as a video does, and is left out", entry.path)


def videos_of(source: Source) -> list[Entry]:
    """The videos of a folder, by their names and first bytes."""
    return [e for e in source.with_suffix(*SUFFIXES) if video_kind(source.head_of(e), e.name)]


def is_video(path: Path) -> bool:
    """Whether a file starts as a video does."""
    return kind_of_file(path) is not None


FORMAT = Format(names=("video", "video_collection"), matches=matches, probe=probe)
