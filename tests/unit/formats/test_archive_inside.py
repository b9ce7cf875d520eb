"""What is in an archive: unpacked in bounded size, probed, and gone afterwards."""

import gzip
import io
import tarfile
import tempfile
import zipfile

import pytest

from emboflow_dagster.formats.archives import inside as archive_inside
from emboflow_dagster.formats.probe import probe_path

ROBOT = b'<robot name="arm"><link name="a"/><link name="b"/><joint name="j" type="revolute"/></robot>'
TABLE = b"t,x\n0,1\n1,2\n"


def packed(*members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(*members, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data or b""))
    return stream.getvalue()


@pytest.fixture
def probed(tmp_path, monkeypatch):
    """Probes bytes as a file; nothing may be left in TMPDIR, nothing may appear beside it."""
    scratch = tmp_path / "scratch" / "deep"
    scratch.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def probe(data, name="a.zip"):
        path = tmp_path / name
        path.write_bytes(data)
        report = probe_path(path)
        assert list(scratch.iterdir()) == []
        assert sorted(p.name for p in tmp_path.rglob("*")) == sorted({name, "scratch", "deep"})
        path.unlink()
        return report

    return probe


PACKERS = [packed, tarred, lambda *m: tarred(*m, mode="w"), lambda *m: tarred(*m, mode="w:xz")]
OUTSIDE = ["../evil.csv", "/evil.csv", "a/../../evil.csv", "C:evil.csv", "evil\u202e.csv", "%2e%2e/evil.csv"]


@pytest.mark.parametrize("pack", PACKERS)
def test_a_dataset_in_an_archive_is_seen(probed, pack):
    report = probed(pack(("arm/arm.urdf", ROBOT), ("arm/readme.md", b"hello")), "a.bin")

    inside = report.structure["inside"]
    assert (inside["format"], inside["files"], inside["leftOut"]) == ("urdf", 2, 0)
    assert inside["structure"]["urdf"]["arm/arm.urdf"]["joints"] == 1
    assert report.structure["members"] == 2


def test_one_compressed_file_is_seen_by_its_own_name(probed):
    report = probed(gzip.compress(TABLE), "joints.csv.gz")

    assert report.format == "gzip"
    assert report.structure["inside"]["format"] == "csv"
    assert report.structure["inside"]["structure"]["rows"] == 2


def test_an_archive_in_an_archive_is_looked_into_once(probed):
    three = packed(("c.csv", TABLE))
    two = packed(("b.urdf", ROBOT), ("c.zip", three))
    report = probed(packed(("arm.urdf", ROBOT), ("b.zip", two)))
    alone = probed(packed(("b.zip", packed(("c.csv", TABLE)))))

    assert report.structure["inside"]["nested"] == {
        "b.zip": {
            "format": "zip",
            "members": 2,
            "uncompressedBytes": len(ROBOT) + len(three),
            "inside": "urdf",
        }
    }
    assert "archive_nested" in report.codes
    assert alone.structure["inside"]["format"] == "zip"
    assert alone.structure["inside"]["structure"]["inside"]["format"] == "csv"


def test_a_third_archive_is_listed_and_not_opened(probed):
    data = packed(("deepest.csv", TABLE))
    for _ in range(4):
        data = packed(("in.zip", data))

    second = probed(data).structure["inside"]["structure"]["inside"]

    assert second["format"] == "zip"
    assert second["structure"]["inside"] is None


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_member_that_leads_elsewhere_is_not_written(probed, name):
    report = probed(tarred((name, TABLE), ("good.csv", TABLE)))

    inside = report.structure["inside"]
    assert (inside["files"], inside["leftOut"], inside["format"]) == (1, 1, "csv")


def test_links_are_not_written_and_nothing_is_written_through_one(probed):
    report = probed(tarred(("in", None), ("in/evil.csv", TABLE), ("good.csv", TABLE)))

    assert "archive_link" in report.codes
    assert report.structure["inside"]["leftOut"] == 1


def test_what_is_too_large_is_listed_only(probed, monkeypatch):
    monkeypatch.setattr(archive_inside, "MAX_BYTES", 1_000)

    report = probed(packed(("a.csv", TABLE * 200)))

    assert "skipped" in report.structure["inside"]
    assert report.structure["members"] == 1


def test_an_archive_that_lies_about_its_size_is_stopped(probed, monkeypatch):
    monkeypatch.setattr(archive_inside, "MAX_BYTES", 1_000)
    data = bytearray(packed(("a.csv", TABLE * 200)))
    for sign, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(sign) + at
        data[place : place + 4] = (500).to_bytes(4, "little")

    inside = probed(bytes(data)).structure["inside"]

    assert inside.get("skipped") or inside["structure"].get("bytes", 0) <= 1_000


def test_what_is_wrong_inside_is_a_warning(probed):
    report = probed(packed(("a/robot.bag", b""), ("a/other.bag", b"#ROSBAG V2.0\n")))

    assert "empty_file" in report.codes
    assert any(w.message.startswith("inside: ") for w in report.warnings)
