"""Node types on real recordings, with their parsers in real child processes."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emboflow_dagster.errors import ErrorKind, ExecutionError, InvalidInputError, LimitError
from emboflow_dagster.model.artifact import Artifact, Lineage, ProducerType
from emboflow_dagster.model.asset import Asset, AssetProbeReport, AssetSourceType, AssetStatus, AssetType
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.dataset import CANONICAL_SCHEMA
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.run import MAX_PREVIEW_BYTES, RunTask, TaskStatus
from emboflow_dagster.model.storage import LISTING_TYPE, StorageRef
from emboflow_dagster.runtime.child import child_call, run_child
from emboflow_dagster.runtime.in_child import each, failed_probe
from emboflow_dagster.runtime.node import BoundAsset, NodeContext, NodeInput, NodeResult, RefusedError
from emboflow_dagster.runtime.registry import node_types

SAMPLES = Path(os.environ.get("EMBOFLOW_SAMPLES", Path(__file__).resolve().parents[3] / "shared/samples"))

pytestmark = pytest.mark.samples


@pytest.fixture(autouse=True)
def samples() -> None:
    if not SAMPLES.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"no samples at {SAMPLES}")
        pytest.skip(f"no samples at {SAMPLES}; EMBOFLOW_SAMPLES names them")


def ref(size: int = 10) -> StorageRef:
    return StorageRef(
        bucket="local",
        key="sha256/x",
        uri="file:///s/sha256/x",
        checksum="sha256:" + "1" * 64,
        content_type="application/octet-stream",
        size=size,
    )


def bound(name: str, path: Path | None = None, *, report: dict[str, Any] | None = None) -> BoundAsset:
    now = utc_now()
    asset = Asset.checked(
        id=new_id("ast"),
        workspace_id="ws_1",
        project_id="prj_1",
        type=AssetType.RAW_FILE,
        source_type=AssetSourceType.REGISTERED_PATH,
        display_name=name,
        status=AssetStatus.READY if report else AssetStatus.REGISTERED,
        storage_ref=ref(),
        size_bytes=10,
        file_count=1,
        created_by="ada",
        created_at=now,
        updated_at=now,
    )
    stored = None
    if report is not None:
        raw = {**report, "_id": new_id("prb"), "assetId": asset.id, "reportVersion": 1, "createdAt": now}
        stored = AssetProbeReport.model_validate(raw)
    return BoundAsset(asset, stored, path or SAMPLES / name)


def probed(*names: str) -> list[BoundAsset]:
    from emboflow_dagster.formats.probe import probe_path

    return [bound(name, report=probe_path(SAMPLES / name).to_json()) for name in names]


def given(result: NodeResult, node: str) -> NodeInput:
    """What a node's successor gets, with the payloads where they are."""
    paths: dict[str, Path] = {}
    artifacts = []
    for output in result.outputs:
        artifact = Artifact.checked(
            id=new_id("art"),
            workspace_id="ws_1",
            project_id="prj_1",
            type=output.type,
            producer_type=ProducerType.RUN_TASK,
            producer_id="tsk_1",
            storage_ref=ref(),
            summary=output.summary,
            lineage=Lineage(),
            created_by="ada",
            created_at=utc_now(),
        )
        assert isinstance(output.payload, Path)
        paths[artifact.id] = output.payload
        artifacts.append(artifact)
    return NodeInput(node, node, (), tuple(artifacts), result.preview, lambda artifact: paths[artifact.id])


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    def run(
        kind: str,
        assets: Sequence[BoundAsset],
        config: dict[str, Any] | None = None,
        inputs: dict[str, NodeInput] | None = None,
    ) -> SimpleNamespace:
        workdir = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        workdir.mkdir()
        said = SimpleNamespace(log=[], err=[])
        node_type = node_types().require(kind)
        task = RunTask.checked(
            id=new_id("tsk"),
            workflow_run_id="run_1",
            workflow_version_id="wfv_1",
            node_id="mine",
            node_type=kind,
            status=TaskStatus.RUNNING,
            asset_ids=[],
            created_at=utc_now(),
        )
        context = NodeContext(
            task=task,
            workflow_slug="wf",
            workflow_version=1,
            assets=list(assets),
            options=node_type.options.model_validate(config or {}),
            inputs=inputs or {},
            workdir=workdir,
            log=said.log.append,
            child=child_call(
                workdir, on_stdout=said.log.append, on_stderr=said.err.append, on_log=said.log.append
            ),
        )
        result = node_type.run(context)
        # Whatever a node shows must fit where it is stored.
        check_freeform(result.preview, max_bytes=MAX_PREVIEW_BYTES, map_keys=True)
        for output in result.outputs:
            check_freeform(output.summary, max_bytes=16 << 10)
        json.dumps(result.page, allow_nan=False)
        said.result = result
        return said

    return run


def payload(result: NodeResult) -> Any:
    (output,) = result.outputs
    return output.payload


def test_probe_gives_what_the_samples_must_give(node) -> None:
    expected = json.loads((SAMPLES / "EXPECT.json").read_text())
    names = [
        "rosbag1/turtlesim_lz4",
        "rosbag1/empty_file",
        "rosbag2/talker_sqlite3",
        "mcap/nav_sample",
        "hdf5/robosuite_101_lift_panda",
        "archive/dlt_csv_gz",
    ]
    assets = [bound(name) for name in names]

    ran = node("probe", assets)

    assert set(ran.result.probes) == {asset.id for asset in assets}
    reports = json.loads(payload(ran.result))["reports"]
    for name, entry in zip(names, reports, strict=True):
        assert entry["format"] == expected[name]["format"], name
        assert set(expected[name]["must_warn"]) <= set(entry["warnings"]), name
    for asset in assets:
        bound(asset.name, report=ran.result.probes[asset.id])  # it can be stored
    assert ran.result.asset_ids is None


def test_probe_uses_a_known_report_unless_told_otherwise(node) -> None:
    (known,) = probed("rosbag1/rosout_sample")
    new = bound("rosbag1/no_messages")

    used = node("probe", [known, new]).result
    looked = node("probe", [known, new], {"refresh": True}).result

    assert set(used.probes) == {new.id}
    assert set(looked.probes) == {known.id, new.id}


PARTS = """
import os, time
from emboflow_dagster.runtime import in_child

def act(what):
    if what == "crash": os.abort()
    if what == "hang": time.sleep(60)
    if what == "raise": raise ValueError("not this one")
    if what == "hoard": return len(bytearray(900 << 20))
    return what

in_child.act = act
one_by_one = in_child.one_by_one
"""


def test_one_bad_input_does_not_cost_the_others(tmp_path, monkeypatch) -> None:
    (tmp_path / "batch_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    started = []

    def child(_target: str, *args: Any, **limits: Any) -> Any:
        started.append(len(args[1]))
        return run_child("batch_parts:one_by_one", *args, **limits)

    calls = [["a"], ["crash"], ["b"], ["raise"], ["hang"], ["c"], ["hoard"], ["d"]]
    found = each(child, "act", calls, tmp_path, seconds=1.5, memory_mb=512)

    assert [found[0], found[2], found[5], found[7]] == ["a", "b", "c", "d"]
    assert isinstance(found[1], ExecutionError)
    assert "SIGABRT" in found[1].message
    assert found[3].message == "not this one"
    assert isinstance(found[4], LimitError)
    assert found[4].kind is ErrorKind.LIMIT_TIME
    assert found[6].kind is ErrorKind.LIMIT_MEMORY
    assert started == [8, 6, 3, 1, 1]
    report = failed_probe(found[1])
    assert bound("x", tmp_path, report=report).report.warnings[0].code == "parser_failed"  # type: ignore[union-attr]


def test_demonstrations_become_one_dataset(node) -> None:
    assets = probed(
        "hdf5/robosuite_101_lift_panda", "hdf5/robosuite_030_BaxterLift", "hdf5/robosuite_141_lift"
    )

    made = node(
        "normalize", assets, {"fps": 20, "robotType": "Panda", "task": "manipulate", "onMismatch": "drop"}
    ).result
    upstream = {"n": given(made, "n")}
    draft = node("publish-dataset", assets, {"dataset": "lift", "tag": "v7"}, upstream).result.dataset
    quality = node("quality-report", assets, {}, upstream)
    preview = node("preview", assets, {}, upstream).result

    # Workflow 02 of the samples: 4 episodes, 1796 frames; Baxter has no actions.
    assert made.asset_ids == (assets[0].id, assets[2].id)
    assert made.outputs[0].content_type == LISTING_TYPE
    assert (made.preview["episodes"], made.preview["frames"]) == (4, 1796)
    assert [row["episodes"] for row in made.preview["sources"]] == [1, 0, 3]
    assert made.preview["sources"][1]["left out"] != ""
    manifest = json.loads((payload(made) / "manifest.json").read_text())
    assert [source["assetId"] for source in manifest["sourceAssets"]] == list(made.asset_ids)
    assert manifest["robotType"] == "Panda"

    assert (draft.name, draft.tag, draft.canonical_schema_version) == ("lift", "v7", CANONICAL_SCHEMA)
    assert draft.stats["episodes"] == 4
    assert draft.stats["frames"] == 1796
    assert draft.stats["durationSec"] == 1796 / 20
    assert draft.source_asset_id is None
    version = json.loads((draft.package / "manifest.json").read_text())
    assert version["tree"]["episodes"] == 4
    assert {path.name for path in (draft.package / "objects").iterdir()} >= {version["tree"]["sha256"]}

    report = json.loads((payload(quality.result) / "report.json").read_text())
    assert report["subjects"] == 1
    assert report["reports"][0]["kind"] == CANONICAL_SCHEMA
    assert "<html" in (payload(quality.result) / "report.html").read_text()

    index = json.loads((payload(preview) / "index.json").read_text())
    assert index["subjects"][0]["files"]
    picture = preview.page["picture"]["markdown"]
    assert picture.count("](data:image/jpeg;base64,") >= 1
    assert len(picture) < 150 << 10
    assert "<img src=" in (payload(preview) / "index.html").read_text()


def test_damaged_recordings_are_recovered_and_whole_ones_go_along(node, tmp_path) -> None:
    from emboflow_dagster.formats.probe import probe_path
    from emboflow_dagster.runtime import derived

    cut = tmp_path / "cut.bag"
    cut.write_bytes((SAMPLES / "rosbag1/turtlesim_example/example.bag").read_bytes()[:300_000])
    gone = tmp_path / "gone.bag"
    gone.write_bytes(cut.read_bytes()[:4_200])
    assets = [
        *probed("rosbag1/unindexed", "rosbag2/talker_sqlite3", "raw_file/gait_cycle_csv"),
        bound("cut", cut),
        bound("gone", gone),
    ]

    ran = node("recover", assets)

    rows = {row["name"]: row for row in ran.result.preview["rows"]}
    assert [row["outcome"] for row in rows.values()] == [
        "recovered",
        "whole",
        "no recording",
        "recovered",
        "nothing can be read",
    ]
    assert ran.result.asset_ids == tuple(asset.id for asset in assets[:4])
    found = derived.read(payload(ran.result))
    assert [(entry.asset_id, entry.format) for entry in found] == [
        (assets[0].id, "rosbag1"),
        (assets[1].id, "rosbag2_sqlite3"),
        (assets[3].id, "rosbag1"),
    ]
    for entry in found:
        report = probe_path(Path(entry.path))
        assert not report.codes & {"truncated", "unindexed", "corrupt"}
        assert (
            report.structure["messageCount"]
            == rows[next(a.name for a in assets if a.id == entry.asset_id)]["messages"]
        )
    assert rows["cut"]["messages"] == probe_path(cut).structure["recoverable"]["messages"] > 0


def test_topics_of_a_bag_become_an_episode(node) -> None:
    assets = probed("rosbag1/robot_localization_test2")

    made = node("normalize", assets, {"fps": 20}).result

    # Workflow 05: counted on the grid that the topics share.
    assert (made.preview["episodes"], made.preview["frames"]) == (1, 1224)


def test_features_that_differ_are_refused_with_the_difference(node) -> None:
    assets = probed("hdf5/robosuite_101_lift_panda", "hdf5/robosuite_101_door_panda")

    with pytest.raises(InvalidInputError, match=r"observation\.environment_state.*23.*32"):
        node("normalize", assets, {"fps": 20, "onMismatch": "fail"})
    dropped = node("normalize", assets, {"fps": 20, "onMismatch": "drop"}).result

    assert dropped.asset_ids == (assets[0].id,)


@pytest.mark.parametrize(
    ("names", "config", "words"),
    [
        (["hdf5/h5py_vlen_string", "archive/dlt_csv_gz"], {"fps": 20}, "gzip cannot be normalised"),
        (["rosbag1/no_messages"], {"fps": 20}, "no episode"),
        (["rosbag1/turtlesim_example"], {}, "frame rate is not known"),
        (["hdf5/robosuite_101_lift_panda"], {"fps": 50}, "recorded at 20 Hz; 50 fps"),
        (["rosbag1/turtlesim_example"], {"fps": 20, "topics": ["/nope"]}, "no numbers in '/nope'"),
    ],
)
def test_what_gives_no_episode_says_why(node, names, config, words) -> None:
    with pytest.raises(InvalidInputError) as caught:
        node("normalize", probed(*names), config)

    assert words in caught.value.message


def test_the_frame_rate_is_the_recorded_one(node) -> None:
    made = node("normalize", probed("hdf5/robosuite_101_lift_panda")).result

    assert made.preview["fps"] == 20.0


def test_a_damaged_package_is_not_published(node) -> None:
    from emboflow_dagster.errors import IntegrityError

    assets = probed("hdf5/robosuite_101_lift_panda")
    made = node("normalize", assets, {"fps": 20}).result
    upstream = {"n": given(made, "n")}
    frames = payload(made) / "frames.parquet"
    data = bytearray(frames.read_bytes())
    data[len(data) // 2] ^= 1
    frames.write_bytes(data)

    with pytest.raises(IntegrityError, match=r"frames\.parquet"):
        node("publish-dataset", assets, {"dataset": "lift"}, upstream)


def test_publishing_needs_exactly_one_package(node) -> None:
    with pytest.raises(InvalidInputError, match="exactly one normalized_dataset_package"):
        node("publish-dataset", [], {"dataset": "lift"}, {})


def test_quality_of_recordings_names_what_it_found(node) -> None:
    assets = probed("rosbag1/unsorted_chunks", "rosbag1/aruco_images", "rosbag1/empty_file")

    ran = node("quality-check", assets, {"checks": ["time_monotonic", "rate_jitter", "declared_vs_counted"]})

    verdicts = {row["subject"]: row["verdict"] for row in ran.result.preview["rows"]}
    assert verdicts["rosbag1/unsorted_chunks"] == "fail"
    assert verdicts["rosbag1/empty_file"] == "unresolved"
    assert len((payload(ran.result) / "report.html").read_text().split("<details")) == 4
    assert ran.result.preview["qualityWarnings"] == ["rate_jitter"]
    with pytest.raises(RefusedError, match="unsorted_chunks: time_monotonic") as refused:
        node("quality-check", assets, {"failOn": ["time_monotonic"]})
    assert (payload(refused.value.result) / "evidence.parquet").is_file()


def test_gaps_are_judged_by_the_share_that_is_allowed(node) -> None:
    assets = probed("rosbag1/turtlesim_example")

    strict = node("quality-check", assets, {"checks": ["gap_ratio"], "maxGapRatio": 0}).result
    lenient = node("quality-check", assets, {"checks": ["gap_ratio"], "maxGapRatio": 1}).result

    (report,) = json.loads((payload(strict) / "report.json").read_text())["reports"]
    (gaps,) = report["checks"]
    assert 0 < gaps["values"]["gapRatio"]["max"] < 1
    assert gaps["threshold"] == {"gapRatio": {"fail": 0}}
    assert (strict.preview["verdict"], lenient.preview["verdict"]) == ("fail", "pass")


def test_the_samples_own_expectations_hold(node) -> None:
    """Workflows 03 and 06 of the samples, as far as they are about quality."""
    videos = probed("video/corrupted_mp4", "video/flipping_a_pancake")
    decode = {"checks": ["decode_all_frames", "declared_vs_decoded"], "failOn": ["decode_all_frames"]}
    with pytest.raises(RefusedError, match=r"corrupted_mp4: decode_all_frames: 2 frames") as refused:
        node("quality-check", videos, decode)
    assert refused.value.result.preview["failedChecks"] == ["decode_all_frames"]

    tree = probed("standard_dataset/gr00t_picknplace_v20")
    named = ["video_freeze", "frame_count", "stats_recompute", "timestamp_grid"]
    # As it was recorded: the stamps begin at 0.05 s, which `repair` of that workflow puts right.
    with pytest.raises(RefusedError, match=r"1 checks failed: .*timestamp_grid") as refused:
        node("quality-check", tree, {"checks": named, "failOn": ["frame_count", "timestamp_grid"]})
    assert refused.value.result.preview["qualityWarnings"] == ["video_freeze"]


def test_recordings_that_a_node_made_are_measured_and_shown_in_place_of_assets(node, tmp_path) -> None:
    from emboflow_dagster.runtime import derived

    assets = probed("rosbag1/turtlesim_example")
    folder = tmp_path / "made"
    (folder / "000").mkdir(parents=True)
    (folder / "000" / "x.bag").write_bytes(
        (SAMPLES / "rosbag1/unsorted_chunks").glob("*").__next__().read_bytes()
    )
    bundle = derived.output(
        folder, [derived.Derived(assets[0].id, "0" * 64, "cut out", "000/x.bag", "rosbag1")]
    )
    upstream = {"cut": given(NodeResult(outputs=(bundle,)), "cut")}

    measured = node("quality-report", assets, {}, upstream).result
    shown = node("preview", assets, {"plots": ["timeline"]}, upstream).result

    assert [(row["subject"], row["verdict"]) for row in measured.preview["rows"]] == [("cut out", "fail")]
    assert [row["subject"] for row in shown.preview["rows"]] == ["cut out"]
    assert shown.preview["pictures"] == 1


def test_previews_of_recordings_say_what_cannot_be_shown(node) -> None:
    assets = probed("rosbag1/turtlesim_example", "rosbag1/empty_file")

    ran = node("preview", assets, {"plots": ["message_rate"], "images": 4})

    index = json.loads((payload(ran.result) / "index.json").read_text())
    first, second = index["subjects"]
    assert [file["kind"] for file in first["files"]] == ["timeline"]
    assert (payload(ran.result) / first["folder"] / first["files"][0]["path"]).read_bytes()[:4] == b"\x89PNG"
    assert second["files"] == []
    assert second["notes"]


def test_source_narrows_by_type_name_and_status(node) -> None:
    a, b = bound("run-1.bag", SAMPLES), bound("demo.hdf5", SAMPLES)

    assert node("source", [a, b]).result.asset_ids == (a.id, b.id)
    assert node("source", [a, b], {"names": ["run-*"]}).result.asset_ids == (a.id,)
    assert node("source", [a, b], {"names": [b.id]}).result.asset_ids == (b.id,)
    assert node("source", [a, b], {"types": ["rosbag"]}).result.asset_ids == ()
    assert node("source", [a, b], {"statuses": ["ready"]}).result.asset_ids == ()
    ran = node("source", [a, b], {"names": ["nope"]})
    assert ran.result.outcome == "empty"
    assert "no asset of the run is named 'nope'" in ran.log
