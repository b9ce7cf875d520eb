"""Videos whose title is in another encoding than UTF-8: players show them, and so do we."""

from pathlib import Path

import numpy as np  # noqa: TID253 - this module writes pictures
import pytest

from emboflow_dagster.formats.canonical.from_arrays import camera_of
from emboflow_dagster.formats.previews.bundle import preview_bundle
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.quality.report import quality_report


@pytest.fixture(params=["mkv", "mp4"])
def video(request, tmp_path):
    import av

    path = tmp_path / f"a.{request.param}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Greifer-Uebung"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            picture = np.full((48, 64, 3), number * 20, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert data.count(b"Greifer-Uebung") >= 1
    path.write_bytes(data.replace(b"Greifer-Uebung", "Greifer- übung".encode("latin-1")))
    return path


def test_it_is_read_and_closed(video, tmp_path):
    report = probe_path(video).to_json()
    quality = quality_report(video, checks=["decode_all_frames"])
    preview = preview_bundle(video, tmp_path / "out", kinds=["images"])
    shape = camera_of(video).shape

    assert [warning["code"] for warning in report["warnings"]] == []
    assert report["structureSummary"]["files"][video.name]["frames"] == 12
    assert quality["verdict"] == "pass"
    assert [file["kind"] for file in preview["files"]] == ["images"]
    assert shape == (48, 64, 3)
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert video not in links
