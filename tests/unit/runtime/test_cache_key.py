"""The cache key: everything that a result depends on changes it, nothing else does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.model.artifact import Artifact, Lineage, ProducerType
from emboflow_dagster.model.asset import (
    Asset,
    AssetProbeReport,
    AssetSourceType,
    AssetStatus,
    AssetType,
    FormatCandidate,
)
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import (
    CachePolicy,
    RunConfig,
    RunSummary,
    RunTask,
    RuntimeSnapshot,
    TaskStatus,
    WorkflowRun,
)
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.model.workflow import CodeHook, ExecutorType, RuntimeGraph
from emboflow_dagster.runtime.cache_key import cache_key
from emboflow_dagster.runtime.cache_policy import policy_of
from emboflow_dagster.runtime.node import NodeInput, NodeType, Sight
from emboflow_dagster.runtime.registry import node_types

NOW = utc_now()


def ref(digest: str) -> StorageRef:
    sha256 = digest * 32
    key = f"sha256/{sha256[:2]}/{sha256[2:]}"
    return StorageRef(
        bucket="local",
        key=key,
        uri=f"file:///store/{key}",
        checksum=f"sha256:{sha256}",
        content_type="application/json",
        size=3,
        object_id=f"obj_{digest}",
        version=0,
    )


class Given:
    """A python task with two assets and one upstream node, each part of it easy to change."""

    def __init__(self) -> None:
        self.slug = "triage"
        self.node_type: NodeType = node_types().require("python")
        self.task = RunTask.checked(
            id="tsk_1",
            workflow_run_id="run_1",
            workflow_version_id="wfv_1",
            node_id="count",
            node_type="python",
            executor_config={"config": {"a": 1, "b": {"x": 1, "y": 2}}, "image": None, "cache": "use"},
            code_hook_spec=CodeHook(entrypoint="f", source="def f(ctx, inputs):\n    return 1\n"),
            artifact_title="Counted",
            status=TaskStatus.RUNNING,
            asset_ids=["ast_1", "ast_2"],
            upstream_node_ids=["look"],
            created_at=NOW,
        )
        self.assets = [self.asset("ast_1", "aa"), self.asset("ast_2", "bb")]
        self.reports = {"ast_1": self.report("ast_1")}
        self.given = NodeInput(
            node_id="look",
            node_type="probe",
            asset_ids=("ast_1", "ast_2"),
            artifacts=(self.artifact("art_1", "cc"), self.artifact("art_2", "dd")),
            preview={"assets": 2},
            fetch=lambda _artifact: Path(),
        )

    @staticmethod
    def asset(asset_id: str, digest: str) -> Asset:
        return Asset.checked(
            id=asset_id,
            workspace_id="ws_1",
            project_id="prj_1",
            type=AssetType.RAW_FILE,
            source_type=AssetSourceType.UPLOAD,
            display_name=f"{asset_id}.csv",
            storage_ref=ref(digest),
            size_bytes=3,
            file_count=1,
            created_by="ada",
            created_at=NOW,
            updated_at=NOW,
        )

    @staticmethod
    def report(asset_id: str, **more: Any) -> AssetProbeReport:
        fields: dict[str, Any] = {
            "id": "prb_1",
            "asset_id": asset_id,
            "report_version": 1,
            "detected_format_candidates": [FormatCandidate(format="csv", confidence=1.0)],
            "structure_summary": {"rows": 2},
            "raw_report": {},
            "created_at": NOW,
        }
        return AssetProbeReport.checked(**{**fields, **more})

    @staticmethod
    def artifact(artifact_id: str, digest: str) -> Artifact:
        return Artifact.checked(
            id=artifact_id,
            workspace_id="ws_1",
            project_id="prj_1",
            type="intermediate_task_output",
            producer_type=ProducerType.RUN_TASK,
            producer_id="tsk_0",
            storage_ref=ref(digest),
            summary={"title": "Looked at", "rows": 2},
            lineage=Lineage(workflow_run_id="run_1"),
            created_by="ada",
            created_at=NOW,
        )

    def of_task(self, **fields: Any) -> None:
        self.task = self.task.model_copy(update=fields)

    def executor(self, **fields: Any) -> None:
        self.of_task(executor_config={**(self.task.executor_config or {}), **fields})

    def first_artifact(self, **fields: Any) -> None:
        first, *rest = self.given.artifacts
        self.given = replace(self.given, artifacts=(first.model_copy(update=fields), *rest))

    def first_asset(self, **fields: Any) -> None:
        self.assets[0] = self.assets[0].model_copy(update=fields)

    def type_of_node(self, **fields: Any) -> None:
        self.node_type = replace(self.node_type, **fields)

    def key(self) -> str:
        inputs = {self.given.node_id: self.given}
        return cache_key(self.task, self.slug, self.node_type, self.assets, self.reports, inputs)


Change = Callable[[Given], object]
COUNTS: dict[str, Change] = {
    "the node type": lambda g: g.type_of_node(id="other"),
    "the version of the node type": lambda g: g.type_of_node(version="2"),
    "the node definition": lambda g: g.of_task(node_definition_id="cn_1@2"),
    "the executor": lambda g: g.of_task(executor_type=ExecutorType.DOCKER),
    "the image": lambda g: g.executor(image="acme/count@sha256:" + "ab" * 32),
    "a value of the config": lambda g: g.executor(config={"a": 2, "b": {"x": 1, "y": 2}}),
    "a key more in the config": lambda g: g.executor(config={"a": 1, "b": {"x": 1, "y": 2}, "c": None}),
    "the kind of artifact": lambda g: g.of_task(artifact_type="quality_report"),
    "the source of the hook": lambda g: g.of_task(
        code_hook_spec=CodeHook(entrypoint="f", source="f = int\n")
    ),
    "the entry point of the hook": lambda g: g.of_task(
        code_hook_spec=g.task.code_hook_spec and g.task.code_hook_spec.model_copy(update={"entrypoint": "g"})
    ),
    "the bytes of an asset": lambda g: g.first_asset(storage_ref=ref("ee")),
    "the name of an asset": lambda g: g.first_asset(display_name="arm.csv"),
    "the type of an asset": lambda g: g.first_asset(type=AssetType.ROSBAG),
    "the files of an asset": lambda g: g.first_asset(top_level_paths=["rows.csv"]),
    "another asset with the same bytes": lambda g: g.first_asset(id="ast_9"),
    "the order of the assets": lambda g: g.assets.reverse(),
    "an asset less": lambda g: g.assets.pop(),
    "what a probe says": lambda g: g.reports.update(ast_1=g.report("ast_1", structure_summary={"rows": 3})),
    "a first probe": lambda g: g.reports.update(ast_2=g.report("ast_2")),
    "the bytes of an artifact from upstream": lambda g: g.first_artifact(storage_ref=ref("ee")),
    "the kind of an artifact from upstream": lambda g: g.first_artifact(type="preview_bundle"),
    "the summary of an artifact from upstream": lambda g: g.first_artifact(summary={"rows": 3}),
    "the order of the artifacts": lambda g: setattr(
        g, "given", replace(g.given, artifacts=g.given.artifacts[::-1])
    ),
    "the preview from upstream": lambda g: setattr(g, "given", replace(g.given, preview={"assets": 3})),
    "the assets that upstream passes on": lambda g: setattr(
        g, "given", replace(g.given, asset_ids=("ast_1",))
    ),
    "the type of the upstream node": lambda g: setattr(g, "given", replace(g.given, node_type="filter")),
    "what a hook calls the upstream node": lambda g: setattr(g, "given", replace(g.given, node_id="seen")),
    "what a hook calls itself": lambda g: g.of_task(node_id="counts"),
    "what a hook calls its workflow": lambda g: setattr(g, "slug", "intake"),
}
COUNTS_NOT: dict[str, Change] = {
    "the ids of run, task and version": lambda g: g.of_task(
        id="tsk_9", workflow_run_id="run_9", workflow_version_id="wfv_9"
    ),
    "the attempt": lambda g: g.of_task(attempt=3),
    "the worker and the times": lambda g: g.of_task(lease_owner="w", started_at=NOW, heartbeat_at=NOW),
    "the title of the artifact": lambda g: g.of_task(artifact_title="Counts"),
    "retries and cache policy": lambda g: g.executor(cache="refresh", retries=3),
    "the order of the keys of the config": lambda g: g.executor(config={"b": {"y": 2, "x": 1}, "a": 1}),
    "a whole number written as a float": lambda g: g.executor(config={"a": 1.0, "b": {"x": 1, "y": 2}}),
    "the title of the node type": lambda g: g.type_of_node(title="Py", description="", kinds=("x",)),
    "when and by whom an asset came": lambda g: g.first_asset(created_by="bob", updated_at=NOW),
    "the status of an asset, to who does not see it": lambda g: g.first_asset(status=AssetStatus.READY),
    "another look that says the same": lambda g: g.reports.update(
        ast_1=g.report("ast_1", id="prb_2", report_version=2, created_at=utc_now())
    ),
    "who made an artifact, and in which run": lambda g: g.first_artifact(
        id="art_9", producer_id="tsk_9", lineage=Lineage(workflow_run_id="run_9"), created_at=utc_now()
    ),
    "the title of an artifact from upstream": lambda g: g.first_artifact(summary={"title": "x", "rows": 2}),
}


@pytest.mark.parametrize("change", COUNTS.values(), ids=COUNTS)
def test_what_a_result_depends_on_changes_the_key(change: Change) -> None:
    before, after = Given(), Given()
    change(after)

    assert after.key() != before.key()


@pytest.mark.parametrize("change", COUNTS_NOT.values(), ids=COUNTS_NOT)
def test_what_no_result_depends_on_does_not(change: Change) -> None:
    before, after = Given(), Given()
    change(after)

    assert after.key() == before.key()


UNSEEN: dict[Sight, Change] = {
    Sight.REPORT: COUNTS["what a probe says"],
    Sight.INPUTS: COUNTS["the bytes of an artifact from upstream"],
    Sight.NAMES: COUNTS["what a hook calls the upstream node"],
    Sight.ITSELF: COUNTS["what a hook calls itself"],
}


@pytest.mark.parametrize("sight", UNSEEN)
def test_what_a_node_cannot_see_does_not_count(sight: Sight) -> None:
    before, after = Given(), Given()
    for given in (before, after):
        given.type_of_node(sees=given.node_type.sees - {sight})
    UNSEEN[sight](after)

    assert after.key() == before.key()


def test_a_node_that_sees_the_status_depends_on_it() -> None:
    before, after = Given(), Given()
    for given in (before, after):
        given.type_of_node(sees=frozenset(Sight))
    after.first_asset(status=AssetStatus.READY)

    assert after.key() != before.key()


def test_a_node_type_that_says_nothing_sees_everything() -> None:
    fields = NodeType.__dataclass_fields__["sees"]

    assert fields.default == frozenset(Sight)


def test_the_key_is_as_the_document_wants_it() -> None:
    given = Given()
    given.type_of_node(version="1")
    given.of_task(cache_key=given.key())

    assert RunTask.checked(**dict(given.task)).cache_key == given.key()
    # Fixed: another value would make every entry of every deployment useless.
    assert given.key() == "sha256:6215e753c904009fedcbe7dca89576377d87a781c487ff8835f202265776be3d"


def run_with(policy: CachePolicy | None) -> WorkflowRun:
    return WorkflowRun.checked(
        id="run_1",
        workflow_definition_id="wf_1",
        workflow_version_id="wfv_1",
        asset_ids=["ast_1"],
        workspace_id="ws_1",
        project_id="prj_1",
        triggered_by="user:ada",
        runtime_snapshot=RuntimeSnapshot(
            workflow_slug="triage",
            version_number=1,
            execution_digest="",
            node_types={},
            edges=[],
            runtime_graph=RuntimeGraph(node_configs={}),
        ),
        summary=RunSummary(),
        created_at=NOW,
        config=RunConfig(cache_policy=policy) if policy else None,
    )


USE, REFRESH, OFF = CachePolicy.USE, CachePolicy.REFRESH, CachePolicy.OFF


@pytest.mark.parametrize(
    ("node", "run", "deployment", "holds"),
    [
        ("use", None, USE, USE),
        ("use", USE, USE, USE),
        ("refresh", None, USE, REFRESH),
        ("use", REFRESH, USE, REFRESH),
        ("off", USE, USE, OFF),
        ("off", REFRESH, USE, OFF),
        ("refresh", USE, USE, REFRESH),
        ("use", OFF, USE, OFF),
        ("use", None, OFF, OFF),
        ("use", USE, REFRESH, REFRESH),
    ],
)
def test_the_strictest_policy_holds(
    node: str, run: CachePolicy | None, deployment: CachePolicy, holds: CachePolicy
) -> None:
    given = Given()
    given.executor(cache=node)

    assert policy_of(run_with(run), given.task, given.node_type, None, deployment).policy == holds


def test_a_task_that_is_executed_again_takes_nothing() -> None:
    given = Given()
    given.of_task(attempt=2)
    told = policy_of(run_with(USE), given.task, given.node_type, None)

    assert told.policy == REFRESH
    assert "attempt 2" in told.reason


@pytest.mark.parametrize(
    ("type_", "config", "holds"),
    [
        ("probe", {}, USE),
        ("probe", {"refresh": True}, OFF),
        ("source", {}, USE),
        ("source", {"statuses": ["ready"]}, OFF),
    ],
)
def test_a_type_that_must_be_executed_every_time_says_so(
    type_: str, config: dict[str, Any], holds: CachePolicy
) -> None:
    node_type = node_types().require(type_)
    options = node_type.options.model_validate(config)
    told = policy_of(run_with(None), Given().task, node_type, options)

    assert told.policy == holds
    assert (type_ in told.reason) == (holds is OFF)
