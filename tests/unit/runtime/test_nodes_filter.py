"""What the `filter` node's conditions mean, on real probe reports and on made-up ones."""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from emboflow_dagster.errors import ExecutionError, InvalidInputError
from emboflow_dagster.model.asset import Asset, AssetProbeReport, AssetSourceType, AssetStatus, AssetType
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.runtime.node import BoundAsset
from emboflow_dagster.runtime.nodes import _where
from emboflow_dagster.runtime.nodes import filter as filter_node

SAMPLES = Path(os.environ.get("EMBOFLOW_SAMPLES", Path(__file__).resolve().parents[4] / "shared/samples"))


def asset(name: str, kind: AssetType = AssetType.ROSBAG) -> Asset:
    now = utc_now()
    ref = StorageRef(
        bucket="local",
        key="sha256/x",
        uri="file:///s/sha256/x",
        checksum="sha256:" + "0" * 64,
        content_type="application/octet-stream",
        size=10,
    )
    return Asset.checked(
        id=new_id("ast"),
        workspace_id="ws_1",
        project_id="prj_1",
        type=kind,
        source_type=AssetSourceType.REGISTERED_PATH,
        display_name=name,
        status=AssetStatus.READY,
        storage_ref=ref,
        size_bytes=10,
        file_count=1,
        created_by="ada",
        created_at=now,
        updated_at=now,
    )


def report_of(asset_id: str, probe: Mapping[str, Any]) -> AssetProbeReport:
    return AssetProbeReport.model_validate(
        {**probe, "_id": new_id("prb"), "assetId": asset_id, "reportVersion": 1, "createdAt": utc_now()}
    )


def bound(name: str, *, fmt: str = "rosbag1", codes: tuple[str, ...] = (), **summary: Any) -> BoundAsset:
    it = asset(name)
    probe = {
        "detectedFormatCandidates": [{"format": fmt, "confidence": 0.9, "evidence": []}],
        "structureSummary": summary,
        "warnings": [{"code": code, "message": "m"} for code in codes],
        "rawReport": {},
    }
    return BoundAsset(it, report_of(it.id, probe), Path("/nowhere"))


ONE = bound(
    "run 7.bag",
    codes=("single_message", "truncated"),
    messageCount=12,
    hasActions=True,
    ratio=1,
    topics={
        "/imu.data": {"type": "sensor_msgs/msg/Imu", "count": 7},
        "/odom": {"type": "nav/Odom", "count": 5},
    },
)


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ({}, True),
        ({"format": "rosbag1"}, True),
        ({"format": "mcap"}, False),
        ({"format": ["mcap", "rosbag1"]}, True),
        ({"format": {"in": ["mcap"]}}, False),
        ({"type": "rosbag"}, True),
        ({"name": {"matches": "run *.bag"}}, True),
        ({"name": {"matches": "RUN*"}}, False),
        ({"name": {"contains": "7"}}, True),
        ({"warnings": "truncated"}, True),
        ({"warnings": {"noneOf": ["no_messages", "unindexed"]}}, True),
        ({"warnings": {"noneOf": ["truncated"]}}, False),
        ({"warnings": {"anyOf": ["no_messages", "truncated"]}}, True),
        ({"warnings": {"allOf": ["single_message", "truncated"]}}, True),
        ({"warnings": {"allOf": ["single_message", "no_messages"]}}, False),
        ({"summary.messageCount": 12}, True),
        ({"summary": {"messageCount": 12}}, True),
        ({"summary": {"messageCount": {"min": 12, "max": 12}}}, True),
        ({"summary.messageCount": {"gt": 12}}, False),
        ({"summary.messageCount": {"lt": 13}}, True),
        ({"summary.hasActions": True}, True),
        ({"summary.hasActions": False}, False),
        ({"summary.hasActions": 1}, False),
        ({"summary.ratio": True}, False),
        ({"summary.ratio": 1.0}, True),
        ({"summary.absent": {"exists": False}}, True),
        ({"summary.absent": {"exists": True}}, False),
        ({"summary.absent": 3}, False),
        ({"summary.absent": {"min": 0}}, False),
        ({"summary.absent": {"not": 3}}, True),
        ({"summary.hasActions": {"min": 0}}, False),
        ({"topics.type": {"contains": "sensor_msgs/Imu"}}, True),
        ({"topics.type": "sensor_msgs/msg/Imu"}, True),
        ({"topics.type": {"noneOf": ["sensor_msgs/Imu"]}}, False),
        ({"topics.name": "/imu.data"}, True),
        ({"summary.topics./imu.data.count": 7}, True),
        ({"topics.count": {"min": 7}}, True),
        ({"topics.count": {"min": 8}}, False),
        ({"not": {"format": "rosbag1"}}, False),
        ({"not": {"format": "rosbag1", "summary.messageCount": 13}}, True),
        ({"any": [{"format": "mcap"}, {"format": "rosbag1"}]}, True),
        ({"any": [{"format": "mcap"}, {"summary.messageCount": 13}]}, False),
        ({"all": [{"format": "rosbag1"}, {"summary.messageCount": 13}]}, False),
        ({"summary.messageCount": {"not": {"min": 10, "max": 20}}}, False),
        ({"summary.messageCount": {"not": {"min": 13}}}, True),
        ([{"path": "summary.messageCount", "min": 5}, {"path": "format", "equals": "rosbag1"}], True),
        ([{"path": "summary.messageCount", "min": 50}], False),
        ([{"path": "summary.messageCount"}], True),
        ([{"path": "summary.absent"}], False),
    ],
)
def test_a_condition_means(where: Any, holds: bool) -> None:
    reasons = _where.parse(where).reasons(_where.document_of(ONE))

    assert (not reasons) is holds, reasons


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"warning": "x"}, "did you mean 'warnings'"),
        ({"summary.messageCount": {"minimum": 3}}, None),
        ({"warnings": {"nonOf": ["x"]}}, "did you mean 'noneOf'"),
        ({"warnings": {"noneOf": "truncated"}}, "a list is needed"),
        ({"warnings": {"noneOf": []}}, "a list is needed"),
        ({"summary.messageCount": {"min": "12"}}, "a number is needed"),
        ({"summary.messageCount": {"min": True}}, "a number is needed"),
        ({"format": {"exists": "yes"}}, "a bool is needed"),
        ({"format": {"not": {"near": 1}}}, "found the operator 'near'"),
        ({"any": "x"}, "a mapping of paths"),
        ({"format": {"matches": 3}}, "a text is needed"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(where: Any, words: str | None) -> None:
    if words is None:  # below `summary` unknown words are names of the report
        _where.parse(where)
        return
    with pytest.raises(InvalidInputError, match=words):
        _where.parse(where)
    with pytest.raises(ValidationError, match=words):
        filter_node.FilterOptions.model_validate({"where": where})


def test_deep_and_many_conditions_are_refused() -> None:
    deep: Any = {"format": "x"}
    for _ in range(40):
        deep = {"not": deep}

    with pytest.raises(InvalidInputError, match="nested deeper"):
        _where.parse(deep)
    with pytest.raises(InvalidInputError, match="at most 200"):
        _where.parse([{"format": "x"}] * 201)


def context(assets: list[BoundAsset], config: dict[str, Any]) -> Any:
    options = filter_node.NODE.options.model_validate(config)
    return SimpleNamespace(assets=assets, options=options, log=lambda _: None)


def test_kept_and_rejected_are_told_with_reasons() -> None:
    bad = bound("bad.bag", codes=("no_messages",), messageCount=0)

    result = filter_node.run(context([ONE, bad], {"where": {"warnings": {"noneOf": ["no_messages"]}}}))

    assert result.asset_ids == (ONE.id,)
    assert result.preview is not None
    assert result.preview["rejected"] == [
        {"id": bad.id, "name": "bad.bag", "reasons": ["warnings: has no_messages"]}
    ]
    assert result.outcome == "done"


def test_an_asset_that_was_not_probed_is_never_good() -> None:
    unknown = BoundAsset(asset("new.bag"), None, Path("/nowhere"))
    where = {"warnings": {"noneOf": ["truncated"]}}

    by_report = filter_node.run(context([unknown], {"where": where}))
    by_name = filter_node.run(context([unknown], {"where": {"name": "new.bag"}}))

    assert by_report.asset_ids == ()
    assert by_report.outcome == "empty"
    assert by_report.preview is not None
    assert "not probed" in by_report.preview["rejected"][0]["reasons"][0]
    assert by_name.asset_ids == (unknown.id,)


def test_nothing_left_fails_only_when_asked() -> None:
    where = {"format": "mcap"}

    assert filter_node.run(context([ONE], {"where": where})).asset_ids == ()
    with pytest.raises(ExecutionError, match=r"no asset is left of 1 \(run 7.bag: format: found rosbag1"):
        filter_node.run(context([ONE], {"where": where, "onEmpty": "fail"}))


def test_the_preview_of_many_rejected_assets_fits_a_task() -> None:
    many = [bound(f"{'long name ' * 20}{i}", codes=("no_messages",)) for i in range(400)]

    preview = filter_node.run(context(many, {"where": {"warnings": {"noneOf": ["no_messages"]}}})).preview

    assert preview is not None
    assert preview["rejectedCount"] == 400
    assert len(json.dumps(preview)) < 64 << 10


def needs_samples() -> None:
    if not SAMPLES.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"no samples at {SAMPLES}")
        pytest.skip(f"no samples at {SAMPLES}; EMBOFLOW_SAMPLES names them")


@functools.cache
def probed(name: str) -> BoundAsset:
    from emboflow_dagster.formats.probe import probe_path

    it = asset(name)
    path = SAMPLES / name
    return BoundAsset(it, report_of(it.id, probe_path(path).to_json()), path)


@pytest.mark.samples
@pytest.mark.parametrize(
    "workflow", ["01-bag-intake-triage", "02-hdf5-demos-to-delivery", "05-resample-annotate"]
)
def test_real_workflows_keep_what_they_expect(workflow: str) -> None:
    needs_samples()
    file = json.loads((SAMPLES / "workflows" / f"{workflow}.json").read_text())
    configs = {n["nodeId"]: n["executorConfig"] for n in file["runtimeGraph"]["nodes"]}
    expected = file["expectedRun"]["effectiveAssetIds"]
    left = list(file["assetBindings"]["src"])
    filters = [n["nodeId"] for n in file["logicGraph"]["nodes"] if n["nodeType"] == "filter"]
    assert filters

    for node in filters:
        result = filter_node.run(context([probed(name) for name in left], configs[node]))
        names = {probed(name).id: name for name in left}
        assert result.asset_ids is not None
        left = [names[asset_id] for asset_id in result.asset_ids]
        assert left == expected[node]
