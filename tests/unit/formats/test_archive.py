"""Archives made here to hurt: named as what they are, listed within bounds, never unpacked to disk."""

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile

import pytest

from emboflow_dagster.formats.archive import list_archive
from emboflow_dagster.formats.archives.members import extension
from emboflow_dagster.formats.archives.streams import Unpacked
from emboflow_dagster.formats.probe import probe_path


def _zip(members, mode=0o100644):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _tar(members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        for name, content, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _probe(tmp_path, data, name="x.bin"):
    path = tmp_path / name
    path.write_bytes(data)
    report = probe_path(path)
    assert [p.name for p in tmp_path.iterdir()] == [name], "something was unpacked"
    return report


HOSTILE = {
    "zip, up": (_zip([("../../evil", b"x")]), "archive_path_traversal"),
    "zip, up inside": (_zip([("a/../../e", b"x")]), "archive_path_traversal"),
    "tar, up": (_tar([("../evil", b"x", {})]), "archive_path_traversal"),
    "tar.gz, up": (_tar([("a/../../e", b"x", {})], "w:gz"), "archive_path_traversal"),
    "zip, absolute": (_zip([("/etc/cron.d/x", b"x")]), "archive_path_absolute"),
    "zip, drive": (_zip([("C:/x", b"x")]), "archive_path_absolute"),
    "tar, absolute": (_tar([("/etc/x", b"x", {})]), "archive_path_absolute"),
    "zip, backslash": (_zip([("..\\..\\x", b"x")]), "archive_path_backslash"),
    "zip, encoded": (_zip([("%2e%2e/x", b"")]), "archive_path_encoded"),
    "zip, newline": (_zip([("a\nb", b"x")]), "archive_path_control"),
    "tar, right to left": (_tar([("a\u202eb", b"x", {})]), "archive_path_control"),
    "zip, long": (_zip([("a" * 300, b"x")]), "archive_path_too_long"),
    "zip, link": (_zip([("l", b"/etc/passwd")], stat.S_IFLNK | 0o777), "archive_link"),
    "tar, link": (_tar([("l", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})]), "archive_link"),
    "tar, hard link": (_tar([("l", b"", {"type": tarfile.LNKTYPE, "linkname": "../x"})]), "archive_link"),
    "tar, device": (_tar([("d", b"", {"type": tarfile.CHRTYPE})]), "archive_special"),
    "tar, pipe": (_tar([("d", b"", {"type": tarfile.FIFOTYPE})]), "archive_special"),
    "tar, set-user": (_tar([("x", b"x", {"mode": 0o4755})]), "archive_mode"),
    "zip, case": (_zip([("A.txt", b"1"), ("a.txt", b"2")]), "archive_duplicate"),
    "tar, twice": (_tar([("a", b"1", {}), ("a", b"2", {})]), "archive_duplicate"),
    "tar, below a file": (_tar([("a", b"1", {}), ("a/b", b"2", {})]), "archive_duplicate"),
    "zip, nested": (_zip([("in.zip", _zip([("x", b"1")]))]), "archive_nested"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_named(tmp_path, case):
    data, code = HOSTILE[case]

    report = _probe(tmp_path, data)

    assert code in report.codes
    assert report.format in ("zip", "tar", "tar.gz")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (_zip([(f"z{i}", bytes(6 << 20)) for i in range(4)]), "zip"),
        (_tar([("z", bytes(60 << 20), {})], "w:gz"), "gzip"),
        (lzma.compress(bytes(30 << 20)), "xz"),
        (bz2.compress(bytes(30 << 20)), "bzip2"),
    ],
)
def test_a_bomb_is_named_and_not_unpacked_to_its_end(tmp_path, data, kind):
    report = _probe(tmp_path, data)

    assert "archive_bomb" in report.codes
    assert report.format in (kind, f"tar.{kind[:2]}")


def test_an_honest_ratio_of_forty_to_one_is_no_bomb(tmp_path):
    lines = b"".join(b'{"joint": "elbow", "position": %d}\n' % (i % 37) for i in range(200_000))
    data = gzip.compress(lines)
    assert 20 < len(lines) / len(data) < 200

    report = _probe(tmp_path, data, "log.json.gz")

    assert report.codes == frozenset()
    assert report.structure["uncompressedBytes"] == len(lines)
    assert report.structure["names"] == ["log.json"]


def test_entries_that_share_bytes_are_a_bomb(tmp_path):
    data = _zip([("a.bin", b"A" * 100_000)])
    start, end = data.find(b"PK\1\2"), data.rfind(b"PK\5\6")
    directory, tail = data[start:end], bytearray(data[end:])
    struct.pack_into("<HHII", tail, 8, 2, 2, 2 * len(directory), start)

    report = _probe(tmp_path, data[:start] + directory + directory.replace(b"a.bin", b"b.bin") + bytes(tail))

    assert "archive_bomb" in report.codes


def test_a_table_of_contents_that_lies_about_a_size_is_named(tmp_path):
    data = bytearray(_zip([("a", b"x" * 1_000)]))
    at = data.find(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 10)

    assert "corrupt" in _probe(tmp_path, bytes(data)).codes


@pytest.mark.parametrize(
    "data",
    [
        b"PK\3\4",
        _zip([("a", random.Random(1).randbytes(1_000))])[:600],
        b"\x1f\x8b" + bytes(20),
        gzip.compress(b"x" * 5_000)[:-4],
        _tar([("a", random.Random(1).randbytes(5_000), {})], "w:gz")[:-20],
        _tar([("a", b"x" * 50_000, {})])[:5_000],
        lzma.compress(random.Random(1).randbytes(5_000))[:-30],
    ],
)
def test_a_damaged_archive_gives_a_report(tmp_path, data):
    report = _probe(tmp_path, data)

    assert report.codes & {"corrupt", "truncated"}
    assert report.structure["complete"] is False


def test_a_tar_in_gzip_is_listed_as_such(tmp_path):
    members = [(f"run/{i}.csv", b"a,b\n1,2\n" * i, {}) for i in range(1, 150)]

    report = _probe(tmp_path, _tar(members, "w:gz"), "run.tar.gz")

    assert report.format == "tar.gz"
    assert report.structure["members"] == 149
    assert report.structure["uncompressedBytes"] == sum(len(content) for _, content, _ in members)
    assert len(report.structure["names"]) == 100
    assert report.structure["memberExtensions"] == {"csv": 149}
    assert report.codes == frozenset()


@pytest.mark.parametrize(
    ("kind", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)]
)
def test_streams_one_behind_the_other_are_read_to_the_last(kind, pack):
    first, second = random.Random(2).randbytes(700_000), b"y" * 300
    stream = Unpacked(io.BytesIO(pack(first) + pack(second)), kind)

    assert io.BufferedReader(stream).read() == first + second
    assert stream.count == len(first) + len(second)


def test_a_7z_that_is_only_its_first_bytes_is_damaged(tmp_path):
    report = _probe(tmp_path, b"7z\xbc\xaf\x27\x1c" + bytes(26), "x.7z")

    assert report.format == "7z"
    assert report.codes & {"corrupt", "truncated"} or report.structure["members"] == 0


def test_several_archives_are_one_asset(tmp_path):
    (tmp_path / "a.zip").write_bytes(_zip([("x.csv", b"1")]))
    (tmp_path / "b.zip").write_bytes(_zip([("y.csv", b"22"), ("z/", b"")]))

    report = probe_path(tmp_path)

    assert report.format == "zip"
    assert report.structure["members"] == 2
    assert report.structure["uncompressedBytes"] == 3
    assert "b.zip:y.csv" in report.structure["names"]


def test_a_zip_of_many_members_is_counted_to_the_last(tmp_path):
    path = tmp_path / "many.zip"
    path.write_bytes(_zip([(f"f{i}", b"") for i in range(3_000)]))

    kind, listing = list_archive(path)

    assert (kind, listing.members, len(listing.names)) == ("zip", 3_000, 100)


@pytest.mark.parametrize(
    ("name", "found"),
    [("a/B.HDF5", "hdf5"), ("LICENSE", "license"), ("a.tar.gz", "gz"), (".gitignore", "gitignore")],
)
def test_extensions(name, found):
    assert extension(name) == found
