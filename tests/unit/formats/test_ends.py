"""Bags and databases of which only the ends are read: the same numbers as reading all of it."""

import io
from pathlib import Path

import pytest

from emboflow_dagster.formats import rosbag1_index, rosbag2_ends
from emboflow_dagster.formats.framing import CutError, DamagedError
from emboflow_dagster.formats.probe import probe_path
from tests import mutants
from tests.sample_files import SAMPLES, needed


def summary(path: Path):
    with path.open("rb") as file:
        of = rosbag1_index if path.suffix == ".bag" else rosbag2_ends
        return of.summary(file, path.stat().st_size)


@pytest.mark.samples
def test_the_ends_say_what_the_whole_says():
    needed(SAMPLES.is_dir())
    files = [p for p in SAMPLES.rglob("*") if p.suffix in (".bag", ".db3")]
    small = sorted(p for p in files if 300 < p.stat().st_size < 1 << 20)
    assert len(small) > 10
    for path in small:
        found, whole = summary(path), probe_path(path)
        assert found["messageCount"] == (
            None if "unindexed" in whole.codes else whole.structure["messageCount"]
        )
        if found["messageCount"] is not None:
            assert found["durationNs"] == whole.structure["durationNs"], path.name
            assert sorted(found["topics"]) == sorted(whole.structure["topics"]), path.name


@pytest.mark.parametrize("kind", ["rosbag1", "rosbag2 sqlite3"])
def test_a_damaged_end_is_an_error_or_a_number_never_a_crash(tmp_path: Path, kind):
    mutants.WRITERS[kind](tmp_path)
    [path] = [p for p in tmp_path.rglob("*") if p.suffix in (".bag", ".db3")]
    data = path.read_bytes()
    of = rosbag1_index if path.suffix == ".bag" else rosbag2_ends
    for at in range(20, len(data), max(1, len(data) // 200)):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        for one in (bytes(broken), data[:at]):
            try:
                found = of.summary(io.BufferedReader(io.BytesIO(one)), len(one))
            except (CutError, DamagedError, ValueError, KeyError, IndexError, OSError):
                continue
            assert set(found) & {"messageCount", "tables"}
