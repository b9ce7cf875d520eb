"""Archives as they come: cut, joined, split, encrypted, with junk behind them, and in every compression."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile

import pytest
from backports import zstd  # noqa: TID253 - this module is about what this library wrote

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.archives.extract import Bounds, extract
from emboflow_dagster.formats.probe import probe_path

TABLE = b"a,x\n" + b"".join(b"%d,%d\n" % (i, i * 7919 % 1_013) for i in range(2_000))
BAG = b"#ROSBAG V2.0\n"
INFO = json.dumps({"codebase_version": "v2.1", "fps": 10, "features": {}}).encode()
TREE = [("run/a.csv", TABLE), ("run/b.csv", TABLE.replace(b"1", b"2")), ("run/c.csv", TABLE)]


class _Pipe(io.RawIOBase):
    """Where a zip is written without going back: sizes stand behind the members."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def seekable(self):
        return False

    def write(self, data):
        self.data += data
        return len(data)


def _zip(members, compression=zipfile.ZIP_DEFLATED, pipe=None):
    target = io.BytesIO()
    with zipfile.ZipFile(pipe or target, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return bytes(pipe.data) if pipe else target.getvalue()


def _tar(members):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def _sparse(size):
    """GNU's old form: a file that is all one hole but for a block."""
    block = bytearray(tarfile.TarInfo("core").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"%011o\0" % 512
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"x" * 512 + bytes(10_240)


def _encrypted(data):
    changed = bytearray(data)
    for sign, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        changed[data.index(sign) + at] |= 1
    return bytes(changed)


def _broken_header(data):
    changed = bytearray(data)
    changed[data.index(b"run/c.csv") + 150] ^= 0x55
    return bytes(changed)


def _zip64(data):
    """As writers do that put every size into the 64-bit record."""
    at = data.rindex(b"PK\5\6")
    count, size, place = struct.unpack_from("<HII", data, at + 10)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, place)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:at] + record + locator + end


WHOLE = _zip(TREE)
SPLIT = WHOLE[: -(22 - 4)] + b"\3\0\3\0" + WHOLE[-(22 - 8) :]

# name: (bytes, kind, members, {code: what its message says})
ODD = {
    "a.tar.zst": (zstd.compress(_tar(TREE)), "tar.zst", 3, {}),
    "b.tar.zst": (zstd.compress(_tar(TREE))[:-30], "tar.zst", None, {"truncated": "too early"}),
    "junk.tar.zst": (zstd.compress(_tar(TREE)) + b"junk", "tar.zst", 3, {"trailing_bytes": "no other"}),
    "bomb.zst": (zstd.compress(bytes(40 << 20)), "zstd", 1, {"archive_bomb": "stopped"}),
    "cut.zip": (WHOLE[:-100], "zip", 3, {"truncated": "3 members stand whole"}),
    "cut2.zip": (WHOLE[: len(WHOLE) // 2], "zip", 1, {"truncated": "1 members stand whole"}),
    "piped.zip": (_zip(TREE, pipe=_Pipe())[:-100], "zip", 3, {"truncated": "3 members stand whole"}),
    "stored.zip": (_zip(TREE, zipfile.ZIP_STORED)[:-100], "zip", 3, {"truncated": "3 members stand whole"}),
    "no.zip": (b"PK\3\4" + b"nothing" * 20, "zip", 0, {"corrupt": "neither"}),
    "junk.zip": (WHOLE + b"j" * 100, "zip", 3, {"trailing_bytes": "100 bytes"}),
    "sfx.zip": (b"MZ" + bytes(500) + WHOLE, "zip", 3, {}),
    "split.zip": (SPLIT, "zip", 0, {"archive_multi_part": "zip -s 0"}),
    "split.z01": (b"PK\7\x08" + WHOLE[:900], "zip", 0, {"archive_multi_part": "join"}),
    "large.zip": (_zip64(WHOLE), "zip", 3, {}),
    "secret.zip": (_encrypted(_zip(TREE[:1])), "zip", 1, {"archive_encrypted": "register what comes out"}),
    "cut.7z": (
        b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<IQQI", 0, 9_000, 50, 0),
        "7z",
        0,
        {"truncated": "9082"},
    ),
    "joined.tar": (_tar(TREE) + _tar(TREE[:1]), "tar", 3, {"trailing_bytes": "another tar"}),
    "joined.tar.gz": (
        gzip.compress(_tar(TREE)) + gzip.compress(_tar(TREE)),
        "tar.gz",
        3,
        {"trailing_bytes": "tar"},
    ),
    "header.tar": (_broken_header(_tar(TREE)), "tar", 2, {"corrupt": "header at byte"}),
    "cut.tar": (_tar(TREE)[:30_000], "tar", None, {"truncated": "members stand before"}),
    "sparse.tar": (_sparse(1 << 30), "tar", 1, {"archive_bomb": "1073741824 bytes from 512"}),
    "latin.tar": (_tar([("caf\udce9.csv", TABLE)]), "tar", 1, {"archive_path_encoding": "UTF-8"}),
    "junk.csv.gz": (gzip.compress(TABLE) + b"junk", "gzip", 1, {"trailing_bytes": "no other"}),
    "a.rar": (b"Rar!\x1a\x07\x01\0" + bytes(50), "rar", 0, {"archive_not_read": "unar"}),
    "a.lz4": (b"\x04\x22\x4d\x18" + bytes(50), "lz4", 0, {"archive_not_read": "lz4 -d"}),
}


def test_each_oddity_is_said_with_what_stands_there(tmp_path):
    wrong = {}
    for name, (data, kind, members, codes) in ODD.items():
        path = tmp_path / name
        path.write_bytes(data)
        report = probe_path(path)
        said = {warning.code: warning.message for warning in report.warnings}
        fits = members is None or report.structure["members"] == members
        texts = said.keys() == codes.keys() and all(text in said[code] for code, text in codes.items())
        offered = "extract-archive" in report.recommended_next_nodes
        taken = not codes or (codes.keys() == {"trailing_bytes"} and not kind.startswith("tar"))
        if report.format != kind or not fits or not texts or offered != taken:
            wrong[name] = (report.format, report.structure["members"], said, offered)

    assert wrong == {}


def test_names_that_are_utf8_without_saying_so_are_read_as_such(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(_zip([("caXXX.csv", TABLE)]).replace(b"caXXX", b"caf\xc3\xa9"))

    assert probe_path(path).structure["names"] == ["café.csv"]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("x.bag.gz", gzip.compress),
        ("x.bag.zst", zstd.compress),
        ("x.bag.bz2", bz2.compress),
        ("x.bag.xz", lzma.compress),
    ],
)
def test_a_recording_is_seen_through_any_compression(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(BAG + bytes(100)))

    inside = probe_path(path).structure["inside"]

    assert inside["format"] == "rosbag1"
    assert inside["recordings"] == [{"name": "x.bag", "assetType": "rosbag", "format": "rosbag1"}]


def test_what_would_be_an_asset_each_is_listed(tmp_path):
    path = tmp_path / "a.tar.zst"
    members = [
        ("all/ds/meta/info.json", INFO),
        ("all/one.bag", BAG),
        ("all/two.bag", BAG),
        ("all/t.csv", TABLE),
    ]
    path.write_bytes(zstd.compress(_tar(members)))

    found = probe_path(path).structure["inside"]["recordings"]

    assert [(one["name"], one["assetType"], one["format"]) for one in found] == [
        ("all/ds", "standard_dataset", "lerobot_v2.1"),
        ("all/one.bag", "rosbag", "rosbag1"),
        ("all/t.csv", "raw_file", "csv"),
        ("all/two.bag", "rosbag", "rosbag1"),
    ]


def test_zstd_is_unpacked_and_a_second_tar_is_never_lost(tmp_path):
    inner = zstd.compress(_tar([("deep.csv", TABLE)]))
    packed = zstd.compress(BAG)
    (tmp_path / "a.tar.zst").write_bytes(
        zstd.compress(_tar([*TREE, ("inner.tar.zst", inner), ("bag/rec_0.db3.zstd", packed)]))
    )
    (tmp_path / "joined.tar").write_bytes(_tar(TREE) + _tar(TREE))
    (tmp_path / "junk.csv.zst").write_bytes(zstd.compress(TABLE) + b"junk")
    bounds = 10 << 20, 100

    found = extract(tmp_path / "a.tar.zst", tmp_path / "one", Bounds(*bounds))
    junk = extract(tmp_path / "junk.csv.zst", tmp_path / "two", Bounds(*bounds))
    with pytest.raises(InvalidInputError, match="trailing_bytes"):
        extract(tmp_path / "joined.tar", tmp_path / "three", Bounds(*bounds))

    files = {path.relative_to(tmp_path / "one").as_posix(): path for path in (tmp_path / "one").rglob("*.*")}
    assert set(files) == {"run/a.csv", "run/b.csv", "run/c.csv", "inner/deep.csv", "bag/rec_0.db3.zstd"}
    assert files["bag/rec_0.db3.zstd"].read_bytes() == packed  # its metadata.yaml names it so
    assert (found.archives, (tmp_path / "two/junk.csv").read_bytes()) == (2, TABLE)
    assert len(junk.left_out) == 1
