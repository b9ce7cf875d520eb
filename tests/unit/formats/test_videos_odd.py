"""Videos as they come: every container, cut, without a clock, deep, and as cameras of episodes."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av  # noqa: TID253 - this module is about files of these libraries
import numpy as np  # noqa: TID253
import pytest
from PIL import Image  # noqa: TID253

from emboflow_dagster.formats.canonical import from_videos, separate
from emboflow_dagster.formats.canonical.splitting import Split
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.formats.video import warn_about
from emboflow_dagster.formats.video_file import VideoFacts

WIDTH, HEIGHT, FRAMES, RATE = 64, 48, 20, 10


def picture(value: int) -> np.ndarray:
    found = np.full((HEIGHT, WIDTH, 3), value, dtype=np.uint8)
    found[:, value % WIDTH] = 255
    return found


def video(
    path: Path,
    codec: str = "libx264",
    kind: str | None = None,
    *,
    pixels: str = "yuv420p",
    frames: int = FRAMES,
    stamps: "list[int] | None" = None,
    sound: bool = False,
    colour: int | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none"}
        if colour is not None:
            stream.codec_context.color_trc = colour
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1_000)
        if sound:
            container.add_stream("aac", rate=8_000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(10 * number), format="rgb24")
            frame.pts = number if stamps is None else stamps[number]
            if stamps is not None:
                frame.time_base = Fraction(1, 1_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """One whole file of each container."""
    folder = tmp_path_factory.mktemp("films")
    for name, codec, kind, pixels in (
        ("a.mp4", "libx264", None, "yuv420p"),
        ("a.mov", "libx264", None, "yuv420p"),
        ("a.mkv", "libx264", None, "yuv420p"),
        ("a.webm", "libvpx", None, "yuv420p"),
        ("a.avi", "mpeg4", None, "yuv420p"),
        ("a.ts", "libx264", "mpegts", "yuv420p"),
        ("a.h264", "libx264", "h264", "yuv420p"),
        ("a.hevc", "libx265", "hevc", "yuv420p"),
        ("a.mjpeg", "mjpeg", "mjpeg", "yuvj420p"),
    ):
        video(folder / name, codec, kind, pixels=pixels)
    frames = [Image.fromarray(picture(10 * number)) for number in range(FRAMES)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    return folder


def test_each_container_is_known_by_its_first_bytes(films):
    report = probe_path(films)

    files = report.structure["files"]
    assert {name: (f["frames"], f["fps"]) for name, f in files.items()} == {
        f"a.{kind}": (FRAMES, "25/1" if kind == "mjpeg" else "10/1")
        for kind in ("avi", "gif", "h264", "hevc", "mjpeg", "mkv", "mov", "mp4", "ts", "webm")
    }
    assert files["a.mp4"]["intervalsS"] == pytest.approx([0.1, 0.1, 0.1], abs=0.001)
    assert report.codes == {"mixed_codecs", "no_timestamps"}
    raw = {w.path for w in report.warnings if w.code == "no_timestamps"}
    assert raw == {"a.h264", "a.hevc", "a.mjpeg"}
    for path in films.iterdir():
        assert probe_path(path).format == "video", path.name
    found = {e.source["path"]: e for e in from_videos.episodes(films, fps=10)}
    assert {name: e.length for name, e in found.items()} == {
        name: 8 if name == "a.mjpeg" else FRAMES for name in files
    }
    for name in ("a.h264", "a.hevc", "a.ts", "a.gif"):
        greys = [round(float(p[:, 40:].mean())) for p in found[name].cameras["video"].frames()]
        assert np.allclose(greys[:4], [0, 10, 20, 30], atol=6), name


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm", "avi", "ts", "gif", "mjpeg"])
def test_a_cut_video_is_noticed(films, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes((films / path.name).read_bytes())
    cut(path)
    if kind == "ts":  # cut between packets nothing tells of it
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 188 * 188 - 100])

    report = probe_path(path)

    assert "truncated" in report.codes, report.warnings
    assert "no_video_stream" not in report.codes
    if kind in ("mkv", "webm"):
        (found,) = from_videos.episodes(path, fps=10)
        assert (found.length < FRAMES, "truncated_video" in found.flags) == (True, True)


def test_a_live_matroska_without_sizes_is_noticed_too(films, tmp_path):
    with (
        av.open(str(films / "a.mkv")) as source,
        av.open(str(tmp_path / "live.mkv"), "w", format="matroska", options={"live": "1"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)

    assert "truncated" not in probe_path(tmp_path / "live.mkv").codes
    assert "truncated" in probe_path(cut(tmp_path / "live.mkv", 0.7)).codes


def test_what_is_odd_about_a_whole_video_is_told(tmp_path):
    stamps = [0, 100, 200, 300, 430, 500, 620, 700, 800, 950]
    video(tmp_path / "varies.mkv", frames=10, stamps=stamps)
    video(tmp_path / "one.mp4", frames=1)
    video(tmp_path / "deep.mp4", "libx265", pixels="yuv420p10le", colour=16)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=8_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1_024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")

    report = probe_path(tmp_path)
    told = {(w.code, w.path) for w in report.warnings}

    assert told >= {
        ("variable_frame_rate", "varies.mkv"),
        ("single_frame", "one.mp4"),
        ("high_bit_depth", "deep.mp4"),
        ("no_video_stream", "sound.mp4"),
        ("empty_file", "empty.mp4"),
        ("corrupt_video", "text.mp4"),
    }
    assert {path for code, path in told if code == "corrupt_video"} == {"text.mp4"}
    warn_about(VideoFacts(), "none.mp4", none := Probe())
    assert none.codes == {"no_frames"}
    (varies,) = (w.message for w in report.warnings if w.code == "variable_frame_rate")
    assert varies.startswith("frames are 70.0 to 150.0 ms apart, 100.0 ms in the middle")
    deep = report.structure["files"]["deep.mp4"]
    assert (deep["pixelFormat"], deep["bitDepth"], deep["hdr"]) == ("yuv420p10le", 10, "PQ")
    assert probe_path(tmp_path / "sound.mp4").codes == {"no_video_stream"}


def test_cameras_of_an_episode_are_together_and_the_shortest_ends_it(tmp_path):
    for name, frames in {"episode_0/front": 20, "episode_0/wrist": 15, "episode_1/front": 12}.items():
        video(tmp_path / f"in/{name}.mp4", frames=frames)
    skipped = []

    report = probe_path(tmp_path / "in")
    found = list(from_videos.episodes(tmp_path / "in"))
    (written, alone) = separate.write_separate(iter(found), tmp_path / "d", fps=None, skipped=skipped)
    files = list(from_videos.episodes(tmp_path / "in", split=Split("file")))
    named = list(
        from_videos.episodes(
            tmp_path / "in", split=Split("name", pattern="*_{episode}/front.mp4"), skipped=skipped
        )
    )

    division = report.structure["division"]
    assert (division["episodes"], division["cameras"]) == (2, ["front", "wrist"])
    assert division["files"]["episode_0"] == {"front": "episode_0/front.mp4", "wrist": "episode_0/wrist.mp4"}
    assert {(w.code, w.path, w.message) for w in report.warnings} == {
        ("missing_cameras", None, "episode episode_1 has no wrist"),
        (
            "camera_length_mismatch",
            "episode_0",
            "its cameras are not as long as one another: front 2.00 s, wrist 1.50 s",
        ),
    }
    assert [(e.length, sorted(e.cameras), e.flags) for e in found] == [
        (15, ["front", "wrist"], ("uneven_cameras",)),
        (12, ["front"], ()),
    ]
    assert [e.source["path"] for e in found] == [
        "episode_0/front.mp4,episode_0/wrist.mp4",
        "episode_1/front.mp4",
    ]
    assert {name: camera.video is not None for name, camera in found[0].cameras.items()} == {
        "front": False,
        "wrist": True,
    }
    assert (written.manifest.frames, alone.manifest.frames) == (15, 12)
    assert sorted(e.length for e in files) == [12, 15, 20]
    assert [(e.length, list(e.cameras)) for e in named] == [(20, ["video"]), (12, ["video"])]
    assert [item["source"]["path"] for item in skipped] == ["episode_0/wrist.mp4"]
