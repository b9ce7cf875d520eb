"""Folders, tables, pictures and robot descriptions made here."""

import json
import os
import subprocess
import sys

import numpy as np  # noqa: TID253 - this module is about files that these libraries write
import pytest
from PIL import Image  # noqa: TID253

from emboflow_dagster.formats.npy_header import npy_header
from emboflow_dagster.formats.probe import probe_path

ROBOT = """<robot name="arm"><link name="a"/><link name="b"/>
<joint name="j" type="revolute"/><link name="c"><visual><geometry>
<mesh filename="{mesh}"/></geometry></visual></link></robot>"""


def test_a_plain_folder_is_counted(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one.TXT").write_text("hello")
    (tmp_path / "two.txt").write_text("x")
    (tmp_path / "README").write_text("yz")

    report = probe_path(tmp_path)

    assert report.format == "unknown"
    assert report.structure == {"files": 3, "bytes": 8, "extensions": {"readme": 1, "txt": 2}}
    assert report.codes == {"unknown_format"}


def test_a_folder_of_endless_suffixes_stays_small(tmp_path):
    for index in range(150):
        (tmp_path / f"f.x{index}").write_text("")

    extensions = probe_path(tmp_path).structure["extensions"]

    assert len(extensions) == 101
    assert extensions[""] == 50


def test_arrays_are_read_from_their_headers(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 3), dtype=np.float32))
    np.save(tmp_path / "b.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "c.npz", x=np.arange(4))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-7])

    report = probe_path(tmp_path)

    assert report.format == "npy_folder"
    assert report.structure["arrayCount"] == 4
    assert report.structure["arrays"]["a.npy"] == {"shape": [5, 3], "dtype": "<f4"}
    assert {(w.code, w.path) for w in report.warnings} == {
        ("pickled_array", "b.npy"),
        ("truncated", "cut.npy"),
    }


@pytest.mark.parametrize(
    "head", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x05\x00{'a'", b"\x93NUMPY\x01\x00\x04\x00()()"]
)
def test_a_broken_array_header_is_none(head):
    assert npy_header(head) is None


def test_a_table_counts_lines_and_reads_its_header(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('time;"joint, 1";joint 2\n0;1;2\n1;2;3')

    report = probe_path(path)

    assert report.format == "csv"
    said = {"rows": 2, "columns": ["time", "joint, 1", "joint 2"], "delimiter": ";"}
    assert report.structure | said == report.structure


def test_a_ragged_table_with_two_equal_columns_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("a,a\n1,2\n1,2,3\n")

    assert probe_path(tmp_path / "t.csv").codes == {"ragged_rows", "duplicate_column"}


def test_a_csv_that_is_no_text_is_not_a_table(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b\x00\xff")

    assert probe_path(tmp_path / "t.csv").format == "unknown"


def test_a_sequence_with_a_missing_and_a_broken_picture(tmp_path):
    for index in (1, 2, 3, 5, 6):
        Image.new("RGB", (32, 24)).save(tmp_path / f"frame_{index:04d}.png")
    (tmp_path / "frame_0007.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")

    report = probe_path(tmp_path)

    assert report.format == "image_sequence"
    assert (report.structure["frames"], report.structure["width"], report.structure["height"]) == (6, 32, 24)
    assert {(w.code, w.path) for w in report.warnings} == {
        ("missing_parts", None),
        ("corrupt", "frame_0007.png"),
    }


def test_a_robot_description_and_a_mesh_that_is_not_there(tmp_path):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes/here.stl").write_bytes(b"solid")
    (tmp_path / "a.urdf").write_text(ROBOT.format(mesh="package://arm/meshes/here.stl"))
    (tmp_path / "b.urdf").write_text(ROBOT.format(mesh="meshes/gone.stl"))

    report = probe_path(tmp_path)

    assert report.format == "urdf"
    assert report.structure["urdf"]["a.urdf"]["missingMeshes"] == 0
    wanted = {
        "robot": "arm",
        "links": 3,
        "joints": 1,
        "meshRefs": 1,
        "jointTypes": {"revolute": 1},
        "missingMeshes": 1,
    }
    assert wanted.items() <= report.structure["urdf"]["b.urdf"].items()
    assert ("missing_references", "b.urdf") in {(w.code, w.path) for w in report.warnings}


def test_entities_in_a_robot_description_are_refused(tmp_path):
    bomb = '<!DOCTYPE r [<!ENTITY a "x"><!ENTITY b "&a;&a;">]>' + ROBOT.format(mesh="&b;")
    (tmp_path / "a.urdf").write_text(bomb)

    report = probe_path(tmp_path / "a.urdf")

    assert "corrupt" in report.codes
    assert report.structure["urdf"] == {}


MANY = 100_000 if os.environ.get("EMBOFLOW_FAULTS") == "all" else 20_000
MEASURED = """
import json, resource, sys, time
from pathlib import Path
from emboflow_dagster.formats.probe import probe_path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.process_time()
report = probe_path(Path(sys.argv[1])).to_json()
text = json.dumps(report)
used = time.process_time() - begun
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"seconds": used, "kib": grown, "chars": len(text), "report": report}))
"""


def test_many_files_take_little_time_and_memory_and_give_a_small_exact_report(tmp_path):
    picture = tmp_path / "one.png"
    Image.new("RGB", (2, 2)).save(picture)
    contents = {"txt": b"x" * 700, "csv": b"a,b\n1,2\n", "png": picture.read_bytes(), "stl": b"solid"}
    root = tmp_path / "many"
    for number in range(MANY):
        folder = root / f"{number // 1_000:03d}"
        suffix = tuple(contents)[number % 4]
        if number % 1_000 == 0:
            folder.mkdir(parents=True)
        if number % 1_000 < 4:
            (folder / f"{number:06d}.{suffix}").write_bytes(contents[suffix])
        else:
            os.link(
                folder / f"{number - number % 1_000 + number % 4:06d}.{suffix}",
                folder / f"{number:06d}.{suffix}",
            )

    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(root)], capture_output=True, text=True, check=True, timeout=200
    )
    found = json.loads(done.stdout)

    structure = found["report"]["structureSummary"]
    assert structure["files"] == MANY
    assert structure["bytes"] == sum(map(len, contents.values())) * MANY // 4
    assert structure["extensions"] == dict.fromkeys(contents, MANY // 4)
    assert found["chars"] < 4_000
    assert found["kib"] < (40 << 10) + MANY  # 16 MiB of heads, a listing of some hundred bytes a file
    assert found["seconds"] < 10


def test_as_many_warnings_as_files_are_no_work(tmp_path):
    for number in range(3_000):
        (tmp_path / f"{number}.csv").touch()

    report = probe_path(tmp_path)

    assert len(report.warnings) < 300
    stored = report.to_json()
    assert len(stored["warnings"]) == 200
    assert stored["truncated"]
