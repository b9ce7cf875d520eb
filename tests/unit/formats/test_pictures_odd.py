"""Pictures as they come: every kind, deep, cut, mixed, and as cameras of episodes."""

import struct
from pathlib import Path

import numpy as np  # noqa: TID253 - this module is about files of these libraries
import pytest
from PIL import Image  # noqa: TID253

from emboflow_dagster.formats import image_sequence
from emboflow_dagster.formats.canonical import from_images, separate
from emboflow_dagster.formats.canonical.splitting import Split
from emboflow_dagster.formats.detect import Entry
from emboflow_dagster.formats.picture_names import episodes_of, sequences_of
from emboflow_dagster.formats.probe import probe_path


def picture(value: int, *, width: int = 32, height: int = 24) -> Image.Image:
    noise = np.random.default_rng(value).integers(0, 60, (height, width, 3))
    return Image.fromarray((noise + value).astype(np.uint8))


def save(folder: Path, names: list[str], **how: int) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(10 * number, **how).save(folder / name)
    return folder


def deep() -> Image.Image:
    return Image.fromarray(np.arange(32 * 24, dtype=np.uint16).reshape(24, 32) * 80)


@pytest.mark.parametrize(
    ("suffix", "kind", "bits"),
    [
        ("tif", "tiff", 8),
        ("ppm", "pnm", 8),
        ("webp", "webp", 8),
        ("bmp", "bmp", 8),
        ("jpg", "jpeg", 8),
        ("png", "png", 8),
    ],
)
def test_sequences_of_every_kind(tmp_path, suffix, kind, bits):
    # No leading zeros: 10 comes behind 9.
    save(tmp_path, [f"{number}.{suffix}" for number in range(12)])

    report = probe_path(tmp_path)
    (found,) = from_images.episodes(tmp_path)

    shown = {key: report.structure[key] for key in ("frames", "width", "height", "mode", "bitDepth", "kinds")}
    assert shown == {
        "frames": 12,
        "width": 32,
        "height": 24,
        "mode": "RGB",
        "bitDepth": bits,
        "kinds": {kind: 12},
    }
    assert (report.format, report.codes) == ("image_sequence", frozenset())
    means = [float(p.mean()) for p in found.cameras["images"].frames()]
    assert means == sorted(means)
    data = (tmp_path / f"5.{suffix}").read_bytes()
    (tmp_path / f"5.{suffix}").write_bytes(data[: len(data) * 3 // 4])
    told = [(w.code, w.path) for w in probe_path(tmp_path).warnings]
    assert told == [("truncated", f"5.{suffix}")]


def test_deep_pictures_say_so(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.tif", "b/2.tif", "c/1.pgm", "c/2.pgm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        deep().save(tmp_path / name)
    skipped = []

    for folder in "abc":
        report = probe_path(tmp_path / folder)
        assert (report.structure["bitDepth"], report.structure["frames"]) == (16, 2), folder
        assert report.codes == {"high_bit_depth"}
        assert list(from_images.episodes(tmp_path / folder, skipped=skipped)) == []
    assert all("depth is no video" in item["reason"] for item in skipped)


def test_a_tiff_of_many_pages_is_a_sequence(tmp_path):
    pages = [picture(20 * number) for number in range(5)]
    pages[0].save(tmp_path / "stack.tiff", save_all=True, append_images=pages[1:])

    report = probe_path(tmp_path / "stack.tiff")
    (found,) = from_images.episodes(tmp_path / "stack.tiff")

    assert (report.format, report.structure["frames"], report.codes) == ("image_sequence", 5, frozenset())
    assert found.length == 5
    assert [
        np.array_equal(p, np.asarray(q)) for p, q in zip(found.cameras["images"].frames(), pages, strict=True)
    ]


def test_what_pillow_does_not_read_is_said(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.exr").write_bytes(b"v/1\x01" + bytes(100))
    skipped = []

    report = probe_path(tmp_path)

    assert (report.format, report.codes) == ("image_sequence", {"unsupported_picture"})
    assert "Pillow reads no OpenEXR" in report.warnings[0].message
    assert list(from_images.episodes(tmp_path, skipped=skipped)) == []
    assert "0.exr is no readable picture" in skipped[0]["reason"]


def test_what_differs_and_what_is_missing_is_told(tmp_path):
    save(tmp_path, [f"{number}.png" for number in (1, 2, 3, 5, 9, 10, 11, 12)])
    picture(1, width=16).save(tmp_path / "2.png")
    picture(1).convert("L").save(tmp_path / "3.png")

    told = {w.code: w.message for w in probe_path(tmp_path).warnings}

    assert told == {
        "missing_parts": "4 numbers are missing in the sequence: 4, 6 to 8",
        "mixed_sizes": "pictures of 2 different sizes: 32x24, 16x24",
        "mixed_modes": "pictures of 2 kinds of pixels: RGB of 8 bits, L of 8 bits",
    }


def test_a_cut_picture_leaves_its_place(tmp_path):
    save(tmp_path / "in", [f"{number}.png" for number in range(6)])
    for name in ("0.png", "3.png"):
        path = tmp_path / "in" / name
        path.write_bytes(path.read_bytes()[:-200])
    data = (tmp_path / "in/5.png").read_bytes()
    (tmp_path / "in/5.png").write_bytes(data[:60] + bytes(len(data) - 76) + data[-16:])

    assert [(w.code, w.path) for w in probe_path(tmp_path / "in").warnings] == [
        ("truncated", "0.png"),
        ("truncated", "3.png"),
        ("corrupt", "5.png"),
    ]
    (found,) = from_images.episodes(tmp_path / "in")
    assert found.valid is not None
    assert (found.valid.tolist(), found.flags) == (
        [False, True, True, False, True, False],
        ("damaged_pictures",),
    )
    (written,) = separate.write_separate(iter([found]), tmp_path / "d", fps=10, skipped=[])
    assert written.manifest.frames == 6
    shown = [p[0, 0, 0] for p in found.cameras["images"].frames()]
    assert (shown[0], shown[2]) == (shown[1], shown[3])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            [f"front_{n}.png" for n in range(4)] + [f"wrist_{n}.png" for n in range(4)],
            {".": ["front", "wrist"]},
        ),
        ([f"{n:03d}_cam{c}.png" for n in range(4) for c in (0, 1)], {".": ["cam0", "cam1"]}),
        ([f"{d}/{n}.png" for d in ("kinect", "lidar") for n in range(4)], {".": ["kinect", "lidar"]}),
        ([f"{n}/{m}.png" for n in (2, 10) for m in range(3)], {"2": [""], "10": [""]}),
        (
            [f"episode_{e}/{c}/{n}.png" for e in (0, 1) for c in ("front", "wrist") for n in range(3)],
            {"episode_0": ["front", "wrist"], "episode_1": ["front", "wrist"]},
        ),
        (
            [f"ep{e}_{c}_{n:04d}.png" for e in (0, 1) for c in ("front", "wrist") for n in range(3)],
            {"ep0": ["front", "wrist"], "ep1": ["front", "wrist"]},
        ),
        ([f"13050311{n:02d}.175304.png" for n in range(30)], {"": [""]}),
        ([f"{d}/{n}.png" for d, many in (("a", 3), ("b", 4)) for n in range(many)], {"a": [""], "b": [""]}),
        (
            [f"left/rgb_{n}.png" for n in range(3)] + [f"right/{n}.png" for n in range(3)],
            {".": ["left", "right"]},
        ),
    ],
)
def test_names_say_cameras_and_episodes(names, expected):
    division = episodes_of(sequences_of([Entry(name, 1) for name in names]))

    assert {episode: list(cameras) for episode, cameras in division.episodes.items()} == expected


def test_episodes_of_pictures_with_cameras(tmp_path):
    for episode, counts in {"episode_0": (3, 3), "episode_1": (4, 3), "episode_2": (2,)}.items():
        for camera, count in zip(("front", "wrist"), counts, strict=False):
            save(tmp_path, [f"{episode}/{camera}/{n}.png" for n in range(count)])
    skipped = []

    report = probe_path(tmp_path)
    found = list(from_images.episodes(tmp_path, skipped=skipped))
    each = list(from_images.episodes(tmp_path, split=Split("file")))
    named = list(from_images.episodes(tmp_path, split=Split("name", pattern="{episode}/front")))

    assert report.structure["division"]["files"]["episode_0"] == {
        "front": "episode_0/front",
        "wrist": "episode_0/wrist",
    }
    assert {(w.code, w.path, w.message) for w in report.warnings} == {
        ("missing_cameras", None, "episode episode_2 has no wrist"),
        (
            "camera_length_mismatch",
            "episode_1",
            "its cameras have not equally many pictures: front 4, wrist 3",
        ),
    }
    assert [(e.source["ref"], e.length, sorted(e.cameras)) for e in found] == [
        ("episode_0/front,episode_0/wrist", 3, ["front", "wrist"]),
        ("episode_2/front", 2, ["front"]),
    ]
    assert [item["reason"][:30] for item in skipped] == ["folders of one episode must ho"]
    assert (len(each), [e.length for e in named]) == (5, [3, 4, 2])


def test_of_too_many_pictures_the_ends_are_looked_at(tmp_path, monkeypatch):
    save(tmp_path, [f"{n:02d}.jpg" for n in range(30)])
    for name in ("02.jpg", "25.jpg"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(image_sequence, "MAX_DECODED", 10)

    told = {(w.code, w.path) for w in probe_path(tmp_path).warnings}

    assert told == {("truncated", "02.jpg"), ("truncated", "25.jpg"), ("listing_truncated", None)}


def test_headers_that_lie_are_no_crash(tmp_path):
    for number, data in enumerate(
        (
            b"BM" + struct.pack("<I", 2**31) + bytes(60),
            b"P6 9999999 9999999 255\n",
            b"II*\x00" + bytes(8),
            b"RIFF\xff\xff\xff\x7fWEBPVP8 ",
        )
    ):
        suffix = ("bmp", "ppm", "tif", "webp")[number]
        for name in "12":
            (tmp_path / suffix / f"{name}.{suffix}").parent.mkdir(exist_ok=True)
            (tmp_path / suffix / f"{name}.{suffix}").write_bytes(data)
        report = probe_path(tmp_path / suffix)
        assert report.format == "image_sequence"
        assert report.codes & {"corrupt", "truncated", "unsupported_picture"}
        assert list(from_images.episodes(tmp_path / suffix, skipped=[])) == []
