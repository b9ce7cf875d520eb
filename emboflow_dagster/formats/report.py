"""What a probe reports: ranked format candidates, the structure found, warnings, and what to do next.

Sources: ``asset_probe_reports`` of the database seed (field names), the format and warning names of the
formats specification. This module imports nothing outside the standard library, so that the process which
starts a probe can read a report without loading a single parser.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

MAX_WARNINGS = 200
MAX_TEXT = 1_000

FORMATS: frozenset[str] = frozenset(
    {
        "7z",
        "csv",
        "gzip",
        "hdf5",
        "hdf5_aloha",
        "hdf5_robomimic",
        "hdf5_robosuite_raw",
        "image_sequence",
        "lerobot_v2.0",
        "lerobot_v2.1",
        "lerobot_v3.0",
        "mcap",
        "npy",
        "npy_folder",
        "npz",
        "rlds_tfrecord",
        "rosbag1",
        "rosbag2_mcap",
        "rosbag2_sqlite3",
        "tar.gz",
        "unknown",
        "urdf",
        "video",
        "video_collection",
        "zip",
    }
)
"""Format names that never change; modules may bring more (the list is open)."""

WARNING_CODES: frozenset[str] = frozenset(
    {
        "corrupt_video",
        "declared_count_mismatch",
        "declared_feature_without_data",
        "declared_frames_mismatch",
        "dtype_mismatch",
        "empty_file",
        "git_lfs_pointer",
        "metadata_mismatch",
        "metadata_missing",
        "missing_column",
        "missing_data",
        "missing_episode_meta",
        "missing_parts",
        "missing_references",
        "missing_split_file",
        "missing_stats",
        "missing_videos",
        "mixed_codecs",
        "multiple_video_streams",
        "no_actions",
        "no_messages",
        "no_observations",
        "not_a_robot_dataset",
        "path_template_mismatch",
        "rotated_video",
        "single_message",
        "stream_too_sparse",
        "time_not_monotonic",
        "timestamps_not_from_zero",
        "truncated",
        "undecodable_topics",
        "unindexed",
        "unrecognised_schema",
        "unsupported_serialization",
        "video_freeze",
        "zero_width_dataset",
        # ours, where the specification's list has no name for what was found
        "camera_length_mismatch",
        "compressed_files",
        "corrupt",
        "declared_duration_mismatch",
        "definition_mismatch",
        "depth_left_out",
        "duplicate_column",
        "empty_episode",
        "empty_folder",
        "episode_index_gap",
        "extra_missing",
        "filter_unavailable",
        "fps_mismatch",
        "header_missing",
        "high_bit_depth",
        "interleaved_episodes",
        "invalid_stamp",
        "linked_twice",
        "listing_truncated",
        "missing_cameras",
        "mixed_containers",
        "mixed_modes",
        "mixed_sizes",
        "mixed_types",
        "multiple_recordings",
        "no_episodes",
        "no_frames",
        "no_rows",
        "no_timestamps",
        "no_video_stream",
        "overlapping_recordings",
        "parser_failed",
        "pickled_array",
        "ragged_rows",
        "shape_mismatch",
        "single_frame",
        "split_overlap",
        "step_flags_mismatch",
        "time_gap",
        "timestamp_unit",
        "trailing_bytes",
        "unapplied_wal",
        "unclean_close",
        "unclosed_quote",
        "unknown_format",
        "unreadable",
        "unsupported_picture",
        "unsupported_type",
        "variable_frame_rate",
    }
)
"""Warning codes that never change; modules may bring more (the list is open)."""

_CODE = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One format that the input may be.

    Attributes:
        format: A name of :data:`FORMATS` or another stable name.
        confidence: 0..1; 1 means that the content itself was read as this format.
        evidence: What speaks for it, one short sentence each.
    """

    format: str
    confidence: float
    evidence: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence is {self.confidence}, allowed is 0..1")


@dataclass(frozen=True, slots=True)
class ProbeWarning:
    """What a person should know before using the input; ``path`` is relative to the asset, or a topic."""

    code: str
    message: str
    path: str | None = None

    def __post_init__(self) -> None:
        if not _CODE.match(self.code):
            raise ValueError(f"warning code {self.code!r} is not snake_case")


@dataclass(slots=True)
class Probe:
    """A report under construction; probers add to it, :meth:`to_json` gives the stored form.

    ``structure`` and ``raw`` hold JSON values only (the export turns a NaN or infinity into ``None``). Their
    keys are the recording's own words: topic names, HDF5 paths and file names may contain dots.
    """

    candidates: list[Candidate] = field(default_factory=list)
    structure: dict[str, Any] = field(default_factory=dict)
    warnings: list[ProbeWarning] = field(default_factory=list)
    recommended_next_nodes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    _by_code: dict[str, set[ProbeWarning]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def format(self) -> str:
        """The most likely format, ``unknown`` where nothing fits."""
        ranked = self.ranked()
        return ranked[0].format if ranked else "unknown"

    @property
    def codes(self) -> frozenset[str]:
        """The codes of all warnings."""
        return frozenset(warning.code for warning in self.warnings)

    def ranked(self) -> list[Candidate]:
        """Candidates, most likely first; equals keep the order in which they were added."""
        return sorted(self.candidates, key=lambda candidate: -candidate.confidence)

    def suggest(self, format: str, confidence: float, *evidence: str) -> None:  # noqa: A002 - the seed's word
        """Add a candidate; of one already there the evidence adds up and the higher confidence stays."""
        for index, known in enumerate(self.candidates):
            if known.format == format:
                merged = dict.fromkeys((*known.evidence, *evidence))
                self.candidates[index] = Candidate(format, max(known.confidence, confidence), tuple(merged))
                return
        self.candidates.append(Candidate(format, confidence, evidence))

    def warn(self, code: str, message: str, path: str | None = None) -> None:
        """Add a warning once; the same code, message and path again is not repeated.

        Of one code as many are kept as a report can hold: a folder may have a hundred thousand bad files.
        """
        known = self._by_code.setdefault(code, set())
        if len(known) > MAX_WARNINGS:
            return
        warning = ProbeWarning(code, message[:MAX_TEXT], None if path is None else path[:MAX_TEXT])
        if warning not in known:
            known.add(warning)
            self.warnings.append(warning)

    def recommend(self, *node_types: str) -> None:
        """Add node types that make sense as the next step, in order, each once."""
        for node_type in node_types:
            if node_type not in self.recommended_next_nodes:
                self.recommended_next_nodes.append(node_type)

    def to_json(self) -> dict[str, Any]:
        """The report with the seed's field names, JSON values only.

        ``warnings`` holds at most 200 with at least one of every code that fits; ``truncated`` says whether
        some were left out.
        """
        kept = _first_of_each_code_first(self.warnings)[:MAX_WARNINGS]
        return {
            "detectedFormatCandidates": [
                {"format": c.format, "confidence": c.confidence, "evidence": list(c.evidence)}
                for c in self.ranked()
            ],
            "structureSummary": json_safe(self.structure),
            "warnings": [
                {"code": w.code, "message": _text(w.message)}
                | ({} if w.path is None else {"path": _text(w.path)})
                for w in kept
            ],
            "truncated": len(kept) < len(self.warnings),
            "recommendedNextNodes": list(self.recommended_next_nodes),
            "rawReport": json_safe(self.raw),
        }


def json_safe(value: Any) -> Any:
    r"""``value`` with everything JSON has no word for replaced.

    NaN and infinities become ``None``, tuples and sets become lists, bytes and unknown objects become text,
    lone surrogates (file names that are not UTF-8) become ``\udcXX`` escapes, integers beyond 64 bits become
    text, since no database field holds them.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(str(key)): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_safe(item) for item in value]
    if isinstance(value, bytes):
        return value[:MAX_TEXT].decode("utf-8", "backslashreplace")
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return json_safe(value.item())
    return _text(str(value))


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def _first_of_each_code_first(warnings: list[ProbeWarning]) -> list[ProbeWarning]:
    if len(warnings) <= MAX_WARNINGS:
        return warnings
    first: dict[str, ProbeWarning] = {}
    for warning in warnings:
        first.setdefault(warning.code, warning)
    kept = set(map(id, first.values()))
    return [*first.values(), *(w for w in warnings if id(w) not in kept)]
