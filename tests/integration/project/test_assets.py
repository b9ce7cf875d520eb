"""Assets: what is taken in, what is refused, what a probe leaves behind."""

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import bson
import pytest

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
from emboflow_dagster.model.asset import AssetType
from emboflow_dagster.project import assets as assets_module
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.probe_report import bounded, store_probe
from tests.integration.project.flows import SMALL

TYPES = (
    "raw_file", "archive", "folder", "video_collection", "standard_dataset", "rosbag", "hdf5_dataset",
    "object_storage_prefix",
)  # fmt: skip


def stored(ef: EmboFlow, asset_id: str) -> dict[str, Any]:
    row = ef.mongo["assets"].find_one({"_id": asset_id})
    assert row is not None
    return row


# ---------------------------------------------------------------------------------------------- register


def test_the_eight_types_are_taken_and_a_ninth_is_not(ef: EmboFlow, tmp_path: Path) -> None:
    assert {t.value for t in AssetType} == set(TYPES)
    for kind in TYPES:
        path = tmp_path / f"{kind}.bin"
        path.write_text(kind)
        asset = ef.assets.register(path, type=kind)
        assert (asset.type.value, asset.status.value, asset.source_type.value) == (
            kind,
            "registered",
            "upload",
        )
    assert {a.type.value for a in ef.assets.list()} == set(TYPES)

    with pytest.raises(InvalidInputError, match="video_collection"):
        ef.assets.register(path, type="video")
    assert ef.mongo["assets"].count_documents({}) == 8
    assert [a.type.value for a in ef.assets.list(type="rosbag")] == ["rosbag"]


def test_a_folder_of_two_thousand_files_is_a_small_document(ef: EmboFlow, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for number in range(2_000):
        place = folder / f"part-{number % 250:03}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_bytes(b"x" * (number % 50))
    seen: list[tuple[int, int]] = []
    asset = ef.assets.register(folder, type="folder", progress=lambda files, size: seen.append((files, size)))
    raw = stored(ef, asset.id)

    assert (asset.file_count, asset.size_bytes) == (2_000, sum(n % 50 for n in range(2_000)))
    assert len(asset.top_level_paths) == 100
    assert asset.top_level_paths[:2] == ["part-000", "part-001"]
    assert len(bson.encode(raw)) < 64 << 10
    assert seen[-1] == (2_000, asset.size_bytes)
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)
    with ef.assets.path(asset) as view:
        files = sorted(p for p in view.rglob("*") if p.is_file())
        assert len(files) == 2_000
        assert (view / "part-049" / "1799.txt").read_bytes() == b"x" * 49
    assert not view.exists()
    assert ef.verify().problems == []


@pytest.mark.parametrize("kind", ["file link", "folder link", "broken link", "link out", "fifo", "socket"])
@pytest.mark.parametrize("in_place", [False, True])
def test_links_and_devices_in_a_folder_are_refused_by_name(
    ef: EmboFlow, tmp_path: Path, kind: str, in_place: bool
) -> None:
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    odd = folder / "sub" / "odd"
    server = None
    match kind:
        case "file link":
            odd.symlink_to(folder / "a.txt")
        case "folder link":
            odd.symlink_to(folder)
        case "broken link":
            odd.symlink_to("nowhere")
        case "link out":
            odd.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(odd)
        case _:
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(odd))
    try:
        with pytest.raises(InvalidInputError, match="odd"):
            ef.assets.register(folder, type="folder", in_place=in_place)
    finally:
        if server is not None:
            server.close()
    assert ef.assets.list() == []


def test_what_is_not_there_and_what_is_no_file_is_refused(ef: EmboFlow, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFoundError, match="nothing-here"):
        ef.assets.register(tmp_path / "nothing-here", type="raw_file")
    with pytest.raises(InvalidInputError, match="pipe"):
        ef.assets.register(tmp_path / "pipe", type="raw_file")


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("where", ["file", "folder", "below"])
def test_a_name_that_is_no_text_is_refused_before_anything_is_read(
    ef: EmboFlow, tmp_path: Path, where: str, in_place: bool
) -> None:
    bad = tmp_path / "f" / os.fsdecode(b"caf\xe9")
    target = {"file": bad, "folder": bad, "below": bad.parent}[where]
    (bad if where == "folder" else bad.parent).mkdir(parents=True)
    (bad / "a.txt" if where == "folder" else bad).write_text("a")
    read = []

    with pytest.raises(InvalidInputError, match=r"caf\\udce9.*UTF-8") as caught:
        ef.assets.register(
            target, type="raw_file", in_place=in_place, name="odd", progress=lambda *done: read.append(done)
        )

    assert (caught.value.kind, read, ef.assets.list()) == (ErrorKind.PATH_ENCODING, [], [])


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_cannot_be_read_is_named(ef: EmboFlow, in_place: bool) -> None:
    unreadable = Path("/proc/self/mem")  # for root too: address 0 is never mapped

    with pytest.raises(InvalidInputError, match=r"/proc/self/mem cannot be read: Input/") as caught:
        ef.assets.register(unreadable, type="raw_file", in_place=in_place)

    assert (caught.value.kind, ef.assets.list()) == (ErrorKind.FILE_UNREADABLE, [])


def test_a_folder_that_holds_everything_registered_is_refused(ef: EmboFlow, tmp_path: Path) -> None:
    home = ef.settings.home
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "loop").symlink_to("loop")
    (home / "demo" / "recordings").mkdir(parents=True)

    for folder in (home, home.parent, tmp_path / "link"):
        with pytest.raises(InvalidInputError, match="EMBOFLOW_HOME") as caught:
            ef.assets.register(folder, type="folder")
        assert caught.value.kind == ErrorKind.PATH_RESERVED
    with pytest.raises(NotFoundError):
        ef.assets.register(tmp_path / "loop", type="folder")
    assert ef.assets.register(home / "demo" / "recordings", type="folder").file_count == 0


def test_a_url_is_not_taken_for_a_lost_file(ef: EmboFlow) -> None:
    with pytest.raises(NotFoundError) as caught:
        ef.assets.register("s3://bucket/prefix", type="folder")  # tests/integration/s3 has the type it is

    assert "URLs cannot" in (caught.value.hint or "")


def test_the_same_content_under_the_same_name_is_the_same_asset(ef: EmboFlow, asset_file: Path) -> None:
    first = ef.assets.register(asset_file, type="raw_file")
    again = ef.assets.register(asset_file, type="raw_file")
    other = ef.assets.register(asset_file, type="raw_file", name="another name")

    assert again == first
    assert other.id != first.id
    assert other.storage_ref.checksum == first.storage_ref.checksum
    assert len(list(ef.store.iter_keys())) == 1
    assert ef.audit.list(action="asset.register")[0].resource_id == other.id
    assert len(ef.audit.list(action="asset.register")) == 2
    assert ef.verify().problems == []


def test_other_content_needs_another_name(ef: EmboFlow, asset_file: Path) -> None:
    first = ef.assets.register(asset_file, type="raw_file", name="rows")
    asset_file.write_text("changed\n")

    with pytest.raises(AlreadyExistsError, match="rows"):
        ef.assets.register(asset_file, type="raw_file", name="rows")
    # A name that nobody chose gets a number; the same file again is found again.
    ef.assets.register(asset_file, type="raw_file", name="rows.csv")
    asset_file.write_text("changed again\n")
    second = ef.assets.register(asset_file, type="raw_file")
    assert second.display_name == "rows.csv (2)"
    assert ef.assets.register(asset_file, type="raw_file") == second
    assert ef.assets.get("rows") == first


def test_a_name_is_accepted_wherever_an_id_is(ef: EmboFlow, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file", name="rows of arm 1")

    assert ef.assets.get("rows of arm 1") == ef.assets.get(asset.id) == asset
    assert ef.assets.probe("rows of arm 1").asset_id == asset.id
    assert [r.asset_id for r in ef.assets.reports("rows of arm 1")] == [asset.id]
    ef.workflows.publish(SMALL)
    assert ef.runs.request("small", assets=["rows of arm 1"]).asset_ids == [asset.id]
    with pytest.raises(NotFoundError) as caught:
        ef.assets.get("rows of arm 2")
    assert "rows of arm 1" in str(caught.value.hint)


def test_a_name_that_several_have_is_ambiguous(ef: EmboFlow, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file", name="twin")
    ef.mongo["assets"].insert_one({**stored(ef, asset.id), "_id": "ast_twin"})

    with pytest.raises(InvalidInputError) as caught:
        ef.assets.get("twin")
    assert caught.value.kind == ErrorKind.AMBIGUOUS
    assert ef.assets.get("ast_twin").display_name == "twin"


@pytest.mark.parametrize("name", [" x", "a\nb", "a\u202eb", "p\u0430yload"])
def test_a_bad_name_is_refused_and_nothing_is_written(ef: EmboFlow, asset_file: Path, name: str) -> None:
    with pytest.raises(InvalidInputError):
        ef.assets.register(asset_file, type="raw_file", name=name)
    assert ef.mongo["assets"].count_documents({}) == 0


# ---------------------------------------------------------------------------------------------- in place


def test_a_file_in_place_is_not_copied_and_checked_at_use(ef: EmboFlow, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file", in_place=True)

    assert (asset.source_type.value, asset.storage_ref.bucket) == ("registered_path", "path")
    assert list(ef.store.iter_keys()) == []
    with ef.assets.path(asset) as path:
        assert path.read_bytes() == asset_file.read_bytes()
    assert ef.assets.probe(asset.id).format == "csv"
    asset_file.write_text("t,x\n0,9\n1,2\n")  # as long as before
    for use in (lambda: ef.assets.probe(asset.id), lambda: ef.assets.path(asset).__enter__()):
        with pytest.raises(IntegrityError, match=r"rows\.csv.*changed"):
            use()
    asset_file.unlink()
    with pytest.raises(IntegrityError) as caught:
        ef.assets.probe(asset.id)
    assert caught.value.kind == ErrorKind.PAYLOAD_MISSING
    assert "without --in-place" in str(caught.value.hint)


def test_a_run_over_a_changed_file_fails_by_name(ef: EmboFlow, tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    folder.mkdir()
    (folder / "one.txt").write_text("1")
    (folder / "two.txt").write_text("2")
    asset = ef.assets.register(folder, type="folder", in_place=True)
    assert ef.verify().problems == []
    ef.workflows.publish(SMALL)
    (folder / "two.txt").write_text("3")
    done = ef.runs.work(ef.runs.request("small", assets=[asset.id]).id)

    assert done.status.value == "failed"
    assert "two.txt changed" in str(ef.tasks.get(done.id, "count").error_message)
    assert [(p.code, p.id) for p in ef.verify().problems] == [("hash-mismatch", asset.id)]


# ------------------------------------------------------------------------------------------------- probe


def test_reports_are_numbered_and_earlier_ones_never_change(ef: EmboFlow, asset_file: Path) -> None:
    asset = ef.assets.register(asset_file, type="raw_file")
    kept: list[bytes] = []
    for number in (1, 2, 3):
        report = ef.assets.probe(asset.id)
        assert report.report_version == number
        rows = list(ef.mongo["asset_probe_reports"].find().sort("reportVersion", 1))
        assert [bson.encode(row) for row in rows[:-1]] == kept
        kept.append(bson.encode(rows[-1]))

    assert [r.report_version for r in ef.assets.reports(asset.id)] == [3, 2, 1]
    assert ef.assets.latest_report(asset) == ef.assets.reports(asset.id)[0]
    after = ef.assets.get(asset.id)
    assert (after.status.value, after.detected_formats) == ("ready", ["csv"])
    assert [r.action for r in ef.audit.list(resource_id=asset.id)] == ["asset.probe"] * 3 + ["asset.register"]
    assert ef.verify().problems == []


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("noise.bag", bytes(range(256)) * 40, "rosbag"),
        ("empty.mcap", b"", "rosbag"),
        ("cut.mcap", b"\x89MCAP0\r\n\x01\xff\xff", "rosbag"),
        ("broken.hdf5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 500, "hdf5_dataset"),
        ("broken.zip", b"PK\x03\x04" + b"\x00" * 30, "archive"),
        ("no.mp4", b"\x00\x00\x00\x18ftypmp42", "video_collection"),
        ("text.csv", "\ud800".encode("utf-8", "surrogatepass") * 9, "raw_file"),
    ],
)
def test_a_probe_of_garbage_is_a_report_with_a_warning(
    ef: EmboFlow, tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    report = ef.assets.probe(ef.assets.register(path, type=kind).id)

    assert report.warnings
    assert ef.assets.get(name).status.value == "ready"
    assert ef.verify().problems == []


def test_an_empty_folder_is_a_report_too(ef: EmboFlow, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    asset = ef.assets.register(tmp_path / "nothing", type="folder")
    report = ef.assets.probe(asset.id)

    assert (asset.file_count, asset.size_bytes, asset.top_level_paths) == (0, 0, [])
    assert {w.code for w in report.warnings} & {"empty_folder", "empty_file"}
    assert ef.verify().problems == []


@pytest.mark.parametrize(("limit", "value"), [("PROBE_MEMORY_MB", 1), ("PROBE_TIMEOUT_S", 0.01)])
def test_a_parser_that_is_killed_is_a_report_with_a_warning(
    ef: EmboFlow, asset_file: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(assets_module, limit, value)
    report = ef.assets.probe(ef.assets.register(asset_file, type="raw_file").id)

    assert [w.code for w in report.warnings] == ["parser_failed"]
    assert report.format == "unknown"
    assert ef.assets.list()[0].status.value == "ready"
    assert ef.verify().problems == []


def probe_of(structure: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "detectedFormatCandidates": [{"format": "mcap", "confidence": 0.9, "evidence": ["magic"]}],
        "structureSummary": structure,
        "warnings": [],
        "truncated": False,
        "recommendedNextNodes": ["filter"],
        "rawReport": raw,
    }


@pytest.fixture
def probing(ef: EmboFlow, asset_file: Path, monkeypatch: pytest.MonkeyPatch):
    """Stores what a parser is said to have found."""
    asset = ef.assets.register(asset_file, type="raw_file")

    def probe(structure: dict[str, Any], raw: dict[str, Any]):
        monkeypatch.setattr(assets_module, "probe_safely", lambda *_, **__: probe_of(structure, raw))
        return ef.assets.probe(asset.id)

    return probe


def test_names_of_a_recording_are_kept_exactly(ef: EmboFlow, probing) -> None:
    topics = {"/arm.left/joint_states": {"count": 3}, "a.b.c": {".": 1, "x/y": [{"é.ü": 1}]}, "": {}, " ": 0}
    structure = {"topics": {k: v for k, v in topics.items() if k}}
    report = probing(structure, {"files": {"data.0.bag": {"sha.256": "x"}}})

    assert report.structure_summary == structure
    assert list(report.structure_summary["topics"]) == list(structure["topics"])
    found = ef.assets.reports(report.asset_id)[0]
    assert found == report
    assert ef.verify().problems == []


LARGE = {
    f"/topic.{n}/with/a/long/name": {"count": n, "type": "sensor_msgs/msg/JointState"} for n in range(9_000)
}


@pytest.mark.parametrize(
    ("structure", "raw"),
    [
        ({"n": 1}, {"topics": LARGE}),
        ({"topics": LARGE, "messageCount": 7}, {}),
        ({"topics": [{"name": k} for k in LARGE], "messageCount": 7}, {"text": "x" * 300_000}),
        ({"messageCount": 7, "groups": {"$x": 1, "": 2, "\uff04y": {"$z": []}}}, {}),
    ],
    ids=["raw report", "structure", "both", "refused keys"],
)
def test_a_report_that_no_document_holds_is_in_a_blob_whole(
    ef: EmboFlow, probing, structure: dict[str, Any], raw: dict[str, Any]
) -> None:
    report = probing(structure, raw)
    ref = report.raw_report_ref
    assert ref is not None
    whole = json.loads(ef.blobs.read(ref.object_id, ref.version))

    assert report.raw_report == {"ref": {"objectId": ref.object_id, "version": ref.version}}
    assert (whole["structureSummary"], whole["rawReport"]) == (structure, raw)
    assert report.structure_summary.get("messageCount") == structure.get("messageCount")
    assert set(report.structure_summary) == set(structure)
    assert [w.code for w in report.warnings] == ["listing_truncated"]
    assert ref.object_id in report.warnings[0].message
    document = ef.mongo["asset_probe_reports"].find_one({"_id": report.id})
    assert len(bson.encode(document)) < 1 << 20  # type: ignore[arg-type]
    blob = ef.blobs.get(ref.object_id)
    assert (blob.owner_record, blob.owner_record_field, blob.owner_record_id) == (
        "asset_probe_reports",
        "rawReport",
        report.id,
    )
    assert ef.verify().problems == []
    ef.mongo["objects"].update_one({"_id": ref.object_id}, {"$set": {"owner_record_id": None}})
    assert [(p.code, p.id) for p in ef.verify().problems] == [("owner-mismatch", report.id)]


def test_a_report_that_fits_stays_as_it_is(ef: EmboFlow) -> None:
    probe = probe_of({"a": 1}, {"ref": "no reference"})
    assert store_probe(ef.blobs, probe) == probe
    assert ef.mongo["objects"].count_documents({}) == 0


def test_a_structure_that_is_deep_or_wide_is_cut_to_what_fits() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"d": deep}
    wide = {str(n): {str(m): "x" * 100 for m in range(300)} for n in range(300)}

    assert bounded({"deep": deep, "n": 1})["n"] == 1
    assert 0 < len(bounded(wide)) <= 300
    assert bounded({"text": "x" * 10_000})["text"].endswith("…")


def test_nothing_is_left_half_done_when_a_report_is_refused(
    ef: EmboFlow, asset_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = ef.assets.register(asset_file, type="raw_file")
    wrong = {**probe_of({}, {}), "detectedFormatCandidates": [{"format": "x", "confidence": 2.0}]}
    monkeypatch.setattr(assets_module, "probe_safely", lambda *_, **__: wrong)

    with pytest.raises(InvalidInputError, match="confidence"):
        ef.assets.probe(asset.id)

    assert ef.assets.reports(asset.id) == []
    assert ef.assets.get(asset.id).detected_formats == []
    assert ef.audit.list(action="asset.probe") == []
    assert ef.verify().problems == []


def refused(*_: object, **__: object) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def test_a_folder_in_place_is_read_whole_linked_itself_or_copied(
    ef: EmboFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lake"
    (folder / "a").mkdir(parents=True)
    (folder / "a/x.csv").write_text("t,v\n1,2\n")
    (folder / "y.csv").write_text("t,v\n1,2\n")
    asset = ef.assets.register(folder, type="folder", in_place=True)

    def counted() -> int:
        return ef.assets.probe(asset.id).structure_summary["extensions"]["csv"]

    assert counted() == 2
    monkeypatch.setattr(os, "link", refused)  # as from another file system
    assert counted() == 2
    (folder / "later.csv").write_text("t,v\n1,2\n")
    assert counted() == 2
    assert sorted(path.name for path in folder.rglob("*.csv")) == ["later.csv", "x.csv", "y.csv"]


def test_a_snapshot_of_the_hub_is_registered_through_its_links_and_others_are_not(
    ef: EmboFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "datasets--a--b"
    snapshot, blobs = cache / "snapshots/abc", cache / "blobs"
    (snapshot / "meta").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "e1").write_bytes(b"a,b\n1,2\n")
    (snapshot / "meta/rows.csv").symlink_to("../../../blobs/e1")

    for in_place in (False, True):
        asset = ef.assets.register(snapshot, type="folder", name=f"x{in_place}", in_place=in_place)
        report = ef.assets.probe(asset.id)
        assert report.structure_summary["extensions"] == {"csv": 1}

    monkeypatch.setattr(os, "link", refused)  # as from another file system
    assert ef.assets.probe(asset.id).structure_summary["extensions"] == {"csv": 1}
    with pytest.raises(InvalidInputError) as caught:
        ef.assets.register(cache, type="folder", name="whole")
    assert "snapshots/<revision>" in str(caught.value.hint)
    (blobs / "out").symlink_to("/etc/passwd")
    (blobs / "folder").mkdir()
    for target in ("../../../blobs/out", "../../../blobs/folder", "../../../blobs/e2", "/etc/passwd", ".."):
        odd = snapshot / "meta/odd"
        odd.symlink_to(target)
        with pytest.raises(InvalidInputError, match="neither a file nor a folder"):
            ef.assets.register(snapshot, type="folder", name="y")
        odd.unlink()


def test_a_path_that_is_too_long_to_be_kept_is_refused_in_place_and_stored_else(
    ef: EmboFlow, tmp_path: Path
) -> None:
    below = tmp_path / "f"
    for _ in range(5):
        below /= "d" * 240
    below.mkdir(parents=True)
    (below / "a.csv").write_text("a,b\n1,2\n")

    with pytest.raises(InvalidInputError) as caught:
        ef.assets.register(tmp_path / "f", type="folder", in_place=True)

    assert caught.value.kind is ErrorKind.PATH_TOO_LONG
    assert ef.assets.register(tmp_path / "f", type="folder").file_count == 1
