"""Archives made here to hurt are refused whole; what is honest comes out byte for byte."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from emboflow_dagster.errors import ErrorKind, InvalidInputError, LimitError
from emboflow_dagster.formats.archives.extract import Bounds, Extracted, extract
from tests.sample_files import SAMPLES, needed
from tests.unit.formats.test_archive import HOSTILE, _tar, _zip

CONTENT = {"a.txt": b"a" * 10, "deep/er/b.bin": bytes(range(256)) * 500, "empty": b""}


def bounds(**changes) -> Bounds:
    return Bounds(**{"max_bytes": 10 << 20, "max_members": 1_000, **changes})


def unpack(tmp_path: Path, data: bytes, name: str = "x.bin", *, nested: bool = True, **changes):
    """What came out, by path; the check that nothing is beside it."""
    given = tmp_path / "given"
    given.mkdir(exist_ok=True)
    (given / name).write_bytes(data)
    out = tmp_path / "out"
    try:
        found: Extracted = extract(given / name, out, bounds(**changes), nested=nested)
    except (InvalidInputError, LimitError):
        assert not out.exists(), "something of a refused archive is left"
        raise
    finally:
        assert sorted(p.name for p in tmp_path.iterdir()) in (["given"], ["given", "out"])
        assert [p.name for p in given.iterdir()] == [name]
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert (found.files, found.bytes) == (len(files), sum(map(len, files.values())))
    return files, found


TREE = [(name, content, {}) for name, content in CONTENT.items()]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.zip", _zip(list(CONTENT.items()))),
        ("x.tar", _tar(TREE)),
        ("x.tgz", _tar(TREE, "w:gz")),
        ("x.tar.bz2", _tar(TREE, "w:bz2")),
        ("x.tar.xz", _tar(TREE, "w:xz")),
    ],
)
def test_what_went_in_comes_out(tmp_path: Path, name, data):
    files, found = unpack(tmp_path, data, name)
    assert files == CONTENT
    assert (found.archives, found.left_out) == (1, [])
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or not path.stat().st_mode & 0o7111


def test_a_compressed_file_loses_its_suffix(tmp_path: Path):
    for name, pack in (("log.csv.gz", gzip.compress), ("b.bz2", bz2.compress), ("c.xz", lzma.compress)):
        folder = tmp_path / name
        folder.mkdir()
        files, _ = unpack(folder, pack(b"t,x\n0,1\n"), name)
        assert files == {name.rpartition(".")[0]: b"t,x\n0,1\n"}


#: Listed with a warning that refuses nothing: a mode is not kept, an inner archive is unpacked.
HARMLESS = {"archive_nested", "archive_mode"}


@pytest.mark.parametrize("what", sorted(name for name, (_, code) in HOSTILE.items() if code not in HARMLESS))
def test_hostile_archives_are_refused_whole(tmp_path: Path, what):
    data, _ = HOSTILE[what]
    with pytest.raises((InvalidInputError, LimitError)):
        unpack(tmp_path, data)


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (_tar([("ok", b"x", {}), ("../evil", b"x", {})]), ErrorKind.PATH_TRAVERSAL, r"x\.bin: \.\./evil: "),
        (
            _tar([("l", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})]),
            ErrorKind.PATH_TRAVERSAL,
            "archive_link: a link to '/etc/passwd'",
        ),
        (b"PK\x03\x04 no zip at all", ErrorKind.FILE_CORRUPT, "corrupt: not readable"),
        (b"no archive", ErrorKind.FORMAT_UNSUPPORTED, "no archive's"),
        (_tar(TREE, "w:gz")[:-20], ErrorKind.FILE_CORRUPT, "truncated"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, data, kind, said):
    with pytest.raises(InvalidInputError, match=said) as caught:
        unpack(tmp_path, data)
    assert caught.value.kind is kind


def test_links_can_be_left_out(tmp_path: Path):
    link = ("l", b"", {"type": tarfile.SYMTYPE, "linkname": "a.txt"})
    files, found = unpack(tmp_path, _tar([*TREE, link]), links="skip")
    assert files == CONTENT
    assert found.left_out == ["x.bin: l: a link"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_bytes": 100}, "declares 128010 bytes"),
        ({"max_members": 2}, "more than 2 members"),
        ({"max_bytes": 4 << 20}, "declares"),
        ({"max_ratio": 3.0}, "more than 3 bytes for each"),
    ],
)
def test_every_bound_holds(tmp_path: Path, changes, said):
    # Half random: an honest ratio of about 6:1, far from a bomb.
    block = os.urandom(1 << 20)
    big = _tar([*TREE, ("big", block + bytes(5 << 20), {})], "w:gz")
    small = changes.get("max_bytes") == 100 or "max_members" in changes
    with pytest.raises(LimitError, match=said) as caught:
        unpack(tmp_path, _tar(TREE) if small else big, **changes)
    assert caught.value.kind is ErrorKind.LIMIT_SIZE


def test_a_zip_that_declares_less_than_it_holds(tmp_path: Path):
    data = bytearray(_zip([("a", bytes(100_000))]))
    size = (100_000).to_bytes(4, "little")
    assert data.count(size) == 2  # local header, table of contents
    with pytest.raises((InvalidInputError, LimitError)):
        unpack(tmp_path, bytes(data).replace(size, (10).to_bytes(4, "little")))


def test_archives_in_archives_are_unpacked_once(tmp_path: Path):
    innermost = _zip([("c.txt", b"c")])
    inner = _zip([("b.txt", b"b"), ("again.zip", innermost)])
    whole = _zip([("inner.zip", inner), ("inner/there.txt", b"t"), ("log.gz", gzip.compress(b"l"))])
    files, found = unpack(tmp_path, whole, "whole.zip")
    assert files == {
        "inner/there.txt": b"t",
        "inner.zip.unpacked/b.txt": b"b",
        "inner.zip.unpacked/again.zip": innermost,
        "log/log": b"l",
    }
    assert found.archives == 3
    (tmp_path / "plain").mkdir()
    plain, _ = unpack(tmp_path / "plain", whole, "whole.zip", nested=False)
    assert set(plain) == {"inner.zip", "inner/there.txt", "log.gz"}


def test_the_bounds_are_those_of_all_of_it(tmp_path: Path):
    inner = gzip.compress(os.urandom(600_000))
    whole = _tar([(f"{i}.gz", inner, {}) for i in range(3)])
    unpack(tmp_path, whole, max_bytes=4 << 20)
    (tmp_path / "again").mkdir()
    with pytest.raises(LimitError, match=r"2\.gz: it declares 600000 bytes"):
        unpack(tmp_path / "again", whole, max_bytes=3_200_000)
    (tmp_path / "bad").mkdir()
    hostile = _zip([("ok.txt", b"x"), ("inner.zip", _zip([("../../evil", b"x")]))])
    with pytest.raises(InvalidInputError, match=r"inner\.zip: \.\./\.\./evil"):
        unpack(tmp_path / "bad", hostile)


@pytest.mark.samples
def test_a_real_one(tmp_path: Path):
    path = SAMPLES / "archive" / "arx5p2_urdf_zip" / "arx5p2.zip"
    needed(path.is_file())
    files, _ = unpack(tmp_path, path.read_bytes(), path.name, max_bytes=100 << 20, max_members=5_000)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert files == {i.filename: archive.read(i) for i in archive.infolist() if not i.is_dir()}
