"""7z archives: listed, looked into and unpacked as every other archive is, within the same bounds."""

import io
import os
import shutil
from pathlib import Path

import py7zr  # noqa: TID253 - the archives are written here
import pytest

from emboflow_dagster.errors import EmboflowError, ErrorKind, InvalidInputError, LimitError
from emboflow_dagster.formats.archive import list_archive
from emboflow_dagster.formats.archives import seven_zip as archive_7z
from emboflow_dagster.formats.archives.extract import extract
from emboflow_dagster.formats.archives.walk import members
from emboflow_dagster.formats.probe import probe_path
from tests.mutant_files import SEVEN_ZIP
from tests.unit.formats.test_archive_extract import CONTENT, bounds, unpack

WORD = "open sesame"
FILTERS = {
    "lzma2": [{"id": py7zr.FILTER_LZMA2, "preset": 3}],
    "lzma": [{"id": py7zr.FILTER_LZMA}],
    "delta": [{"id": py7zr.FILTER_DELTA, "dist": 2}, {"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "bcj": [{"id": py7zr.FILTER_X86}, {"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "bzip2": [{"id": py7zr.FILTER_BZIP2}],
    "deflate": [{"id": py7zr.FILTER_DEFLATE}],
    "zstd": [{"id": py7zr.FILTER_ZSTD, "level": 3}],
    "brotli": [{"id": py7zr.FILTER_BROTLI, "level": 3}],
    "copy": [{"id": py7zr.FILTER_COPY}],
}


def packed(content: dict[str, bytes], filters: list[dict[str, int]] | None = None, **how) -> bytes:
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w", filters=filters, **how) as archive:
        for name, data in content.items():
            archive.writestr(data, name)
    return stream.getvalue()


def renamed(data: bytes, old: str, new: str) -> bytes:
    """Another name of the same length in an archive whose header is not encoded."""
    return patched(data, old.encode("utf-16-le"), new.encode("utf-16-le"))


def patched(data: bytes, before: bytes, after: bytes) -> bytes:
    """Other bytes in a header, which is not encoded, and its checksums made anew."""
    import zlib

    assert len(before) == len(after)
    assert data.count(before) == 1
    out = bytearray(data.replace(before, after))
    start, size = (int.from_bytes(out[at : at + 8], "little") for at in (12, 20))
    out[28:32] = zlib.crc32(out[32 + start : 32 + start + size]).to_bytes(4, "little")
    out[8:12] = zlib.crc32(out[12:32]).to_bytes(4, "little")
    return bytes(out)


def plain(content: dict[str, bytes], filters: list[dict[str, int]] | None = None) -> bytes:
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w", filters=filters) as archive:
        archive.set_encoded_header_mode(False)
        for name, data in content.items():
            archive.writestr(data, name)
    return stream.getvalue()


@pytest.mark.parametrize("method", sorted(FILTERS))
def test_what_went_in_comes_out(tmp_path: Path, method):
    content = {**CONTENT, "noise": os.urandom(300_000), "long": b"t,x\n0,1\n" * 20_000}
    files, found = unpack(tmp_path, packed(content, FILTERS[method]), "x.7z", max_ratio=10_000)
    assert files == content
    assert (found.archives, found.left_out) == (1, [])


def test_ppmd_is_named_and_not_tried(tmp_path: Path):
    lzma = plain({"a.txt": b"some text"}, FILTERS["lzma"])
    data = patched(lzma, b"\x23\x03\x01\x01", b"\x23\x03\x04\x01")  # a coder with properties: its method
    with pytest.raises(InvalidInputError, match="PPMd"):
        unpack(tmp_path, data, "x.7z")
    assert list_archive(tmp_path / "given" / "x.7z")[1].members == 1


def test_what_7zip_itself_wrote_is_listed_and_looked_into(tmp_path: Path):
    path = tmp_path / "a.7z"
    path.write_bytes(bytes.fromhex(SEVEN_ZIP))
    report = probe_path(path)
    assert (report.format, report.structure["members"], report.structure["complete"]) == ("7z", 2, True)
    assert report.structure["inside"]["files"] == 2
    assert not report.codes & {"corrupt", "truncated", "listing_unavailable"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.7z"]


def test_several_folders_and_an_archive_in_it(tmp_path: Path):
    target = tmp_path / "x.7z"
    with py7zr.SevenZipFile(target, "w") as archive:
        archive.writestr(b"1" * 1000, "one.txt")
    with py7zr.SevenZipFile(target, "a") as archive:  # a stream of its own
        archive.writestr(packed({"deep/two.csv": b"t,x\n1,2\n"}), "inner.7z")
    report = probe_path(target)
    assert report.structure["inside"]["nested"]["inner.7z"]["members"] == 1
    extract(target, tmp_path / "out", bounds())
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "inner/deep/two.csv",
        "one.txt",
    ]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../../evil.bin", "archive_path_traversal"),
        ("/etc/x/evil.b", "archive_path_absolute"),
        ("a/..\\..\\evil.b", "archive_path_traversal"),
        ("C:/x/y/evil.b", "archive_path_absolute"),
        ("ab\u202ecod/eil.b", "archive_path_control"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name, code):
    data = renamed(plain({"x" * len(name): b"evil", "good": b"g"}), "x" * len(name), name)
    path = tmp_path / "x.7z"
    path.write_bytes(data)
    assert code in {problem[0] for problem in list_archive(path)[1].problems}
    with pytest.raises(EmboflowError) as said:
        extract(path, tmp_path / "out", bounds())
    assert said.value.kind is ErrorKind.PATH_TRAVERSAL
    assert probe_path(path).structure["inside"]["leftOut"] == 1
    assert not (tmp_path / "out").exists()


def test_links_and_duplicates(tmp_path: Path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x")
    (tmp_path / "tree" / "link").symlink_to("file")
    path = tmp_path / "x.7z"
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.writeall(tmp_path / "tree", "tree")
    assert "archive_link" in {problem[0] for problem in list_archive(path)[1].problems}
    with pytest.raises(EmboflowError, match="archive_link"):
        extract(path, tmp_path / "out", bounds())
    found = extract(path, tmp_path / "out", bounds(links="skip"))
    assert (found.files, len(found.left_out)) == (1, 1)
    path.write_bytes(renamed(plain({"aa": b"1", "bb": b"2"}), "bb", "AA"))
    with pytest.raises(EmboflowError, match="archive_duplicate"):
        extract(path, tmp_path / "out2", bounds())


@pytest.mark.parametrize("header", [False, True])
def test_encrypted_ones_have_their_code(tmp_path: Path, header):
    path = tmp_path / "x.7z"
    path.write_bytes(packed({"a.csv": b"t,x\n"}, password=WORD, header_encryption=header))
    report = probe_path(path)
    assert "archive_encrypted" in report.codes
    assert report.structure["members"] == (0 if header else 1)
    with pytest.raises(EmboflowError, match="archive_encrypted"):
        extract(path, tmp_path / "out", bounds())
    assert not (tmp_path / "out").exists()


def test_bombs_and_bounds(tmp_path: Path, monkeypatch):
    path = tmp_path / "x.7z"
    path.write_bytes(packed({"zeros": bytes(4 << 20)}))
    assert "archive_bomb" in probe_path(path).codes
    with pytest.raises(EmboflowError) as said:
        extract(path, tmp_path / "out", bounds(max_bytes=1 << 30))
    assert said.value.kind is ErrorKind.LIMIT_SIZE
    path.write_bytes(packed({f"{n}": os.urandom(50_000) for n in range(30)}))
    for how in ({"max_members": 29}, {"max_bytes": 1_000_000}):
        with pytest.raises(LimitError):
            extract(path, tmp_path / "out", bounds(**how))
    monkeypatch.setattr(archive_7z, "MAX_DICTIONARY", 1 << 16)
    with pytest.raises(LimitError, match="decoder would need") as said:
        extract(path, tmp_path / "out", bounds())
    assert said.value.kind is ErrorKind.LIMIT_MEMORY
    assert "decoder would need" in probe_path(path).structure["inside"]["skipped"]
    assert not (tmp_path / "out").exists()


def test_members_come_as_streams_in_bounded_memory(tmp_path: Path):
    import tracemalloc

    path = tmp_path / "x.7z"
    path.write_bytes(packed({"noise": bytes(48 << 20)}, FILTERS["copy"]))
    tracemalloc.start()
    try:
        size = 0
        for _, stream in members(path, "7z"):
            assert stream is not None
            while piece := stream.read(1 << 20):
                size += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 48 << 20
    assert peak < 20 << 20


def test_damage_is_told_and_never_a_crash(tmp_path: Path):
    data = packed({"a.csv": b"t,x\n0,1\n" * 300, "b/c.bin": os.urandom(2_000)})
    path = tmp_path / "x.7z"
    refused = 0
    for at in range(6, len(data), max(1, len(data) // 60)):
        for broken in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            path.write_bytes(broken)
            probe_path(path)
            try:
                extract(path, tmp_path / "out", bounds())
            except EmboflowError:
                refused += 1
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert refused > 100
