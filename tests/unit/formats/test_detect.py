"""Which format an input is, the registry, and the report it ends in."""

import json
import math
from pathlib import Path

import pytest

from emboflow_dagster.formats import detect, probe
from emboflow_dagster.formats.detect import Entry, Format, formats, is_lfs_pointer, open_source, signature
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.report import (
    MAX_WARNINGS,
    WARNING_CODES,
    Candidate,
    Probe,
    ProbeWarning,
    json_safe,
)

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"#ROSBAG V2.0\nrest", "rosbag1"),
        (b"\x89MCAP0\r\nrest", "mcap"),
        (b"SQLite format 3\x00", "sqlite3"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (b"PK\x03\x04", "zip"),
        (b"\x00\x00\x00\x20ftypisom", "mp4"),
        (b"\0" * 257 + b"ustar\x0000", "tar"),
        (b"MCAP", None),
        (b"", None),
    ],
)
def test_signatures_are_read_at_their_offsets(head, name):
    assert signature(head) == name


def test_a_git_lfs_pointer_is_told_by_its_first_line():
    assert is_lfs_pointer(LFS_POINTER)
    assert not is_lfs_pointer(b"version 1")
    assert not is_lfs_pointer(b"")


def test_every_format_module_is_found_and_no_name_is_given_twice():
    names = [name for entry in formats() for name in entry.names]
    assert {"rosbag1", "rosbag2_sqlite3", "rosbag2_mcap", "mcap"} <= set(names)
    assert len(names) == len(set(names))


def test_a_listing_has_relative_paths_and_follows_no_link(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.TXT").write_bytes(b"22")
    (tmp_path / "one.bag").write_bytes(b"1")
    (tmp_path / "link.bag").symlink_to("/etc/hostname")
    (tmp_path / "loop").symlink_to(tmp_path)

    source = open_source(tmp_path)

    assert source.entries == (Entry("b/two.TXT", 2), Entry("one.bag", 1))
    assert source.entries[0].suffix == ".txt"
    assert source.size == 3
    assert source.complete


def test_a_listing_that_is_too_long_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(detect, "MAX_ENTRIES", 3)
    for number in range(5):
        (tmp_path / f"{number}.xyz").write_bytes(b"x")

    assert "listing_truncated" in probe_path(tmp_path).codes


@pytest.mark.parametrize("name", ["demo.bag", "demo.mcap", "demo.db3", "demo.bin"])
def test_garbage_is_unknown_whatever_its_name_says(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x13\x37 this is nothing" * 50)
    report = probe_path(path)

    assert report.format == "unknown"
    assert "unknown_format" in report.codes


@pytest.mark.parametrize("name", ["demo.bag", "demo.mcap", "demo.db3"])
def test_an_empty_file_and_a_pointer_have_their_own_warnings(tmp_path, name):
    empty, pointer = tmp_path / name, tmp_path / f"pointer-{name}"
    empty.write_bytes(b"")
    pointer.write_bytes(LFS_POINTER)

    for path, code in ((empty, "empty_file"), (pointer, "git_lfs_pointer")):
        report = probe_path(path)
        assert report.format == "unknown"
        assert code in report.codes
    assert {(w.code, w.path) for w in probe_path(tmp_path).warnings} >= {
        ("empty_file", name),
        ("git_lfs_pointer", f"pointer-{name}"),
    }


def test_a_missing_path_is_a_report(tmp_path):
    report = probe_path(tmp_path / "nowhere")

    assert report.format == "unknown"
    assert report.codes == {"unreadable"}


@pytest.mark.parametrize(
    "error", [ValueError("boom"), EOFError("cut"), RecursionError("deep"), OSError(5, "io")]
)
def test_a_failing_parser_ends_as_a_warning_that_names_the_cause(tmp_path, monkeypatch, error):
    def fail(_source: object, report: Probe) -> None:
        report.structure["before"] = 1
        raise error

    broken = Format(("broken",), lambda _source: Candidate("broken", 1.0, ("test",)), fail)
    monkeypatch.setattr(probe, "formats", lambda: (broken,))
    path = tmp_path / "file"
    path.write_bytes(b"x")

    report = probe_path(path)

    assert report.format == "broken"
    assert report.structure == {"before": 1}
    assert any(type(error).__name__ in warning.message for warning in report.warnings)


def test_a_failing_detector_hides_no_other_format(tmp_path, monkeypatch):
    def fail(_source: object) -> None:
        raise KeyError("x")

    good = Format(("good",), lambda _source: Candidate("good", 0.9), lambda _source, _report: None)
    monkeypatch.setattr(probe, "formats", lambda: (Format(("bad",), fail, good.probe), good))
    path = tmp_path / "file"
    path.write_bytes(b"x")

    report = probe_path(path)

    assert report.format == "good"
    assert "parser_failed" in report.codes


def test_candidates_are_ranked_and_evidence_adds_up():
    report = Probe()
    report.suggest("a", 0.2, "name")
    report.suggest("b", 0.6)
    report.suggest("a", 0.9, "content", "name")

    assert report.format == "a"
    assert report.to_json()["detectedFormatCandidates"] == [
        {"format": "a", "confidence": 0.9, "evidence": ["name", "content"]},
        {"format": "b", "confidence": 0.6, "evidence": []},
    ]


def test_a_report_keeps_two_hundred_warnings_and_one_of_every_code():
    report = Probe()
    for number in range(500):
        report.warn("corrupt", f"chunk {number}")
    report.warn("unindexed", "last", "a.bag")

    stored = report.to_json()

    assert len(stored["warnings"]) == MAX_WARNINGS
    assert stored["truncated"] is True
    assert {"code": "unindexed", "message": "last", "path": "a.bag"} in stored["warnings"]
    assert set(stored) == {
        "detectedFormatCandidates",
        "structureSummary",
        "warnings",
        "truncated",
        "recommendedNextNodes",
        "rawReport",
    }


def test_reports_hold_json_values_only():
    value = json_safe(
        {
            "nan": math.nan,
            "inf": math.inf,
            "big": 2**63,
            "small": -(2**63),
            "bytes": b"\xff",
            1: {"t": (1, 2)},
        }
        | {"path": Path("x"), "name": "\udcff\x00"}
    )

    assert value == {
        "nan": None,
        "inf": None,
        "big": "9223372036854775808",
        "small": -(2**63),
        "bytes": "\\xff",
        "1": {"t": [1, 2]},
        "path": "x",
        "name": "\\udcff\\x00",
    }
    json.dumps(value, allow_nan=False).encode("utf-8")


def test_candidates_and_codes_are_checked():
    with pytest.raises(ValueError, match=r"allowed is 0\.\.1"):
        Candidate("mcap", 1.5)
    with pytest.raises(ValueError, match="snake_case"):
        ProbeWarning("Not A Code", "x")
    for code in WARNING_CODES:
        ProbeWarning(code, "x")
