"""The node types: found by themselves, documented, and strict about their configuration."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from emboflow_dagster.runtime.node import Narrowing, NodeType
from emboflow_dagster.runtime.registry import NodeTypes, node_types

EXPECTED = {
    "source": {"source-asset"},
    "probe": {"inspect"},
    "filter": set(),
    "set-union": {"union"},
    "set-intersection": {"set-intersect", "intersection"},
    "set-difference": {"difference"},
    "quality-report": {"quality-check"},
    "preview": {"preview-bundle"},
    "normalize": {"normalise"},
    "transform": set(),
    "publish-dataset": {"publish"},
    "export-delivery": set(),
    "export-training-config": set(),
    "python": {"python-transform"},
    "extract-archive": {"extract"},
    "merge": set(),
    "container": set(),
    "annotation": set(),
    "recover": {"salvage"},
}


@pytest.fixture
def types() -> NodeTypes:
    return node_types()


def test_these_types_exist_under_these_names(types: NodeTypes) -> None:
    assert {t.id: set(t.aliases) for t in types} == EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_type_says_what_it_does(types: NodeTypes, name: str) -> None:
    node_type: NodeType = types.require(name)

    assert len(node_type.description) > 40
    assert len(node_type.kinds) <= 3
    for option, field in node_type.options.model_fields.items():
        assert field.description, f"{name}.{option} is not described"


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("source-asset", {}),
        ("source", {"types": ["rosbag"], "names": ["run-*"], "statuses": ["ready"]}),
        ("inspect", {"depth": "full", "countMessages": True}),
        ("extract-archive", {"maxBytes": 1 << 20, "maxMembers": 5, "maxRatio": 200, "links": "reject"}),
        ("merge", {"on": "feature-schema", "mismatch": "separate-versions"}),
        ("filter", {"where": {"warnings": {"noneOf": ["truncated"]}}, "onEmpty": "fail"}),
        (
            "quality-check",
            {"checks": ["time_monotonic", "gap_ratio", "declared_vs_counted"], "maxGapRatio": 0.05},
        ),
        ("quality-report", {"failOn": ["any"]}),
        ("quality-check", {"checks": ["video_freeze", "frame_count", "stats_recompute", "timestamp_grid"]}),
        ("quality-check", {"checks": ["decode_all_frames", "declared_vs_decoded"]}),
        (
            "quality-report",
            {
                "thresholds": {"gap_ratio": {"gaps": {"warn": 3}}},
                "consumers": {"training": {"jumps": {"jumps": {"fail": 9}}}, "delivery": {"jumps": None}},
                "failFor": ["delivery"],
            },
        ),
        ("preview", {"plots": ["message_rate", "signals", "trajectory", "timeline", "clip", "synced"]}),
        ("preview", {"viewer": "mcap"}),
        ("preview-bundle", {"plots": ["message_rate"], "images": 8}),
        ("normalize", {"fps": 20, "robotType": "Panda", "task": "t", "target": "emboflow-canonical/1"}),
        ("normalize", {"fps": 20, "clock": "bag", "topics": {"/imu": "observation.imu"}}),
        ("publish", {"dataset": "lift-demos", "tag": "v1"}),
        ("python-transform", {"language": "python", "network": "none", "memoryMb": 512}),
        ("set-union", {}),
    ],
)
def test_configurations_of_real_workflows_are_taken(
    types: NodeTypes, name: str, config: dict[str, Any]
) -> None:
    types.require(name).options.model_validate(config)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("source", {"type": ["rosbag"]}, "type"),
        ("source", {"types": ["rosbags"]}, "types"),
        ("probe", {"depth": "headers"}, "depth"),
        ("probe", {"countMessages": False}, "countMessages"),
        ("probe", {"timeoutSeconds": 0}, "timeoutSeconds"),
        ("quality-report", {"checks": ["gapz"]}, "unknown check gapz"),
        ("quality-report", {"maxGapRatio": 5}, "maxGapRatio"),
        ("quality-report", {"thresholds": {"gapz": {}}}, "unknown check gapz"),
        ("quality-report", {"thresholds": {"jumps": {"leaps": {"warn": 1}}}}, "does not measure 'leaps'"),
        (
            "quality-report",
            {"consumers": {"a": {"jumps": {"jumps": {"max": 1}}}}},
            "limits are warn and fail",
        ),
        ("quality-report", {"failFor": ["nobody"]}, "which is no consumer"),
        ("preview", {"images": 0}, "images"),
        ("preview", {"plots": ["pie"]}, "plots"),
        ("normalize", {"fps": 0}, "fps"),
        ("normalize", {"target": "lerobot"}, "target"),
        ("normalize", {"onMismatch": "ignore"}, "onMismatch"),
        ("publish-dataset", {}, "dataset"),
        ("publish-dataset", {"dataset": "No Slug"}, "dataset"),
        ("publish-dataset", {"dataset": "a", "tag": "/"}, "tag"),
        ("python", {"limits": {"memory": 3}}, "limits.memory"),
        ("python", {"limits": {"memoryMb": 3}}, "memoryMb"),
        ("python", {"memoryMb": 512, "limits": {"memoryMb": 600}}, "the same limit"),
        ("set-union", {"order": "a"}, "order"),
    ],
)
def test_other_configurations_are_refused(
    types: NodeTypes, name: str, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        types.require(name).options.model_validate(config)

    assert words in str(caught.value)


def test_checks_have_one_name(types: NodeTypes) -> None:
    from emboflow_dagster.formats.quality.report import CHECKS
    from emboflow_dagster.runtime.nodes import quality_report

    options: Any = types.require("quality-report").options.model_validate(
        {"checks": ["gap_ratio", "gaps"], "failOn": ["declared_vs_counted"]}
    )

    assert options.checks == ["gaps"]
    assert options.fail_on == ["declared_counts"]
    assert set(quality_report.CHECKS) == set(CHECKS)


def test_limits_of_a_hook_never_become_its_config(types: NodeTypes) -> None:
    options: Any = types.require("python").options.model_validate(
        {"memoryMb": 512, "limits": {"cpuSeconds": 9}, "mine": {"a": 1}, "other": [2]}
    )

    assert (options.limits.memory_mb, options.limits.cpu_seconds, options.limits.timeout_seconds) == (
        512,
        9,
        600,
    )
    assert options.config == {"mine": {"a": 1}, "other": [2]}


@pytest.mark.parametrize("narrowing", list(Narrowing))
def test_a_set_operation_reports_what_came_in_and_what_is_left(
    types: NodeTypes, narrowing: Narrowing
) -> None:
    node_type = types.require(f"set-{narrowing.value}")
    given = {name: SimpleNamespace(asset_ids=ids) for name, ids in {"a": ("1", "2"), "b": ("2",)}.items()}
    context: Any = SimpleNamespace(
        task=SimpleNamespace(node_type=node_type.id), inputs=given, assets=[], log=lambda _: None
    )

    result = node_type.run(context)

    assert node_type.narrowing is narrowing
    assert node_type.runs_on_empty
    assert result.asset_ids is None
    assert result.preview is not None
    assert result.preview["inputs"] == [{"node": "a", "assets": 2}, {"node": "b", "assets": 1}]
    assert result.outcome == "empty"
