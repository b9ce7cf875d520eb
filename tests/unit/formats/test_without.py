"""Copies of recordings without some episodes: the bytes of the copy are searched."""

from pathlib import Path

import h5py  # noqa: TID253 - this module is about files that these libraries write
import numpy as np  # noqa: TID253
from mcap.reader import make_reader  # noqa: TID253
from mcap.writer import Writer  # noqa: TID253

from emboflow_dagster.blobs.forgotten_place import Place
from emboflow_dagster.formats.probe import format_of
from emboflow_dagster.formats.without import without

SHA = "0" * 64
S = 10**9
NUMBER = np.float64(7341.28125)


def demos(path: Path, numbers: list[float]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for place, number in enumerate(numbers):
            file[f"data/demo_{place}/actions"] = np.full((5, 2), number)
            file[f"data/demo_{place}"].attrs["place"] = place
        file["data"].attrs["total"] = 5 * len(numbers)
        file["first"] = h5py.SoftLink("/data/demo_0")
        file["second"] = h5py.SoftLink("/data/demo_1/actions")
        file["away"] = h5py.ExternalLink("/etc/other.hdf5", "/x")
    return path


def made(path: Path, places: list[Place], out: Path) -> Path | str:
    out.mkdir()
    told = without(path, format_of(path), places, out)
    assert (told["path"] is None) == (told["why"] is not None)
    return out / told["path"] if told["path"] else told["why"]


def test_a_demonstration_leaves_a_file(tmp_path: Path) -> None:
    source = demos(tmp_path / "a.hdf5", [0.5, float(NUMBER), 2.5])
    before = source.read_bytes()
    assert NUMBER.tobytes() in before  # the control
    copy = made(source, [Place(SHA, None, "data/demo_1")], tmp_path / "1")
    assert isinstance(copy, Path)
    assert source.read_bytes() == before
    assert NUMBER.tobytes() not in copy.read_bytes()
    with h5py.File(copy) as file:
        assert list(file["data"]) == ["demo_0", "demo_2"]
        assert (file["data"].attrs["total"], file["data/demo_2"].attrs["place"]) == (15, 2)
        assert sorted(file) == ["data", "first"]  # no link to what is gone, none out of the file
        assert file["first/actions"][0, 0] == 0.5
    every = [Place(SHA, None, f"data/demo_{place}") for place in range(3)]
    assert made(source, every, tmp_path / "2") == "nothing else is in it"
    assert list((tmp_path / "2").iterdir()) == []
    assert made(source, [Place(SHA, None, "/")], tmp_path / "3") == "nothing else is in it"
    assert "no group of its own" in str(made(source, [Place(SHA, None, "part 3")], tmp_path / "4"))


def test_files_leave_a_folder(tmp_path: Path) -> None:
    for name, number in (("a", 1.0), ("b", float(NUMBER)), ("sub/c", 3.0)):
        demos(tmp_path / "all" / f"{name}.hdf5", [number])
    places = [Place(SHA, "b.hdf5", "data/demo_0")]
    copy = made(tmp_path / "all", places, tmp_path / "1")
    assert isinstance(copy, Path)
    assert sorted(f.relative_to(copy).as_posix() for f in copy.rglob("*.hdf5")) == ["a.hdf5", "sub/c.hdf5"]
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "films" / name).write_bytes(name.encode())
    (tmp_path / "2").mkdir()
    told = without(tmp_path / "films", "video_collection", [Place(SHA, "a.mp4", "/")], tmp_path / "2")
    assert [f.name for f in (tmp_path / "2" / told["path"]).iterdir()] == ["b.mp4"]


def test_a_time_leaves_a_recording(tmp_path: Path) -> None:
    source = tmp_path / "a.mcap"
    with source.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("n", "jsonschema", b"{}")
        channel = writer.register_channel("/n", "json", schema)
        for second in range(10):
            writer.add_message(channel, second * S, b'{"n": %d}' % (1000 + second), second * S)
        writer.add_attachment(0, 0, "picture.jpg", "image/jpeg", b"of somebody")
        writer.finish()
    copy = made(source, [Place(SHA, None, None, 2 * S, 5 * S)], tmp_path / "1")
    assert isinstance(copy, Path)
    with copy.open("rb") as stream:
        reader = make_reader(stream)
        stamps = [message.log_time // S for _, _, message in reader.iter_messages()]
        assert stamps == [0, 1, 5, 6, 7, 8, 9]
        assert list(reader.iter_attachments()) == []
    assert b"of somebody" in source.read_bytes()
    assert b"of somebody" not in copy.read_bytes()
    assert made(source, [Place(SHA, None, None)], tmp_path / "2") == "nothing else is in it"
    # Another file's, or a time in which there is nothing: who knows where it is then.
    for number, place in enumerate((Place(SHA, "b.mcap", None), Place(SHA, None, None, 90 * S, 95 * S))):
        assert "not found" in str(made(source, [place], tmp_path / f"not-{number}"))


def test_what_cannot_be_cut_says_why(tmp_path: Path) -> None:
    for form, shared in (("lerobot_v3.0", True), ("rlds", True), ("zip", False)):
        told = without(tmp_path, form, [Place(SHA, None, "episode 1")], tmp_path)
        assert told["path"] is None
        assert told["why"].startswith("its episodes share files: ") == shared
        assert told["why"].endswith(f"no copy of {form} without one is made")
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "out").mkdir()
    broken = without(tmp_path / "a.hdf5", "hdf5", [Place(SHA, None, "data/demo_1")], tmp_path / "out")
    assert "cannot be read whole" in broken["why"]
