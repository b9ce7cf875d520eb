"""Earlier results are used again where everything is equal and whole; everything else is computed anew."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.model.collections import CACHE
from emboflow_dagster.model.run import CachePolicy, RunTask, WorkflowRun
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.cached import Cached
from emboflow_dagster.project.execution import Execution
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.run_config import run_config
from tests.integration.project.flows import HOOK, hook, settle
from tests.integration.project.whole_project import write_demos

SUM = "def total(ctx, inputs):\n    return {'sum': sum(inputs['count'].json().values())}\n"
# Other code, other output; other code, the same output.
MORE = HOOK.replace('"assets": len(ctx.assets)', '"assets": len(ctx.assets) + 1')
SAME = HOOK.replace("counted", "counted once more")


def chain(first: str = HOOK, **fields: Any) -> dict[str, Any]:
    """src -> count -> total."""
    return {
        "workflow": "chain",
        "nodes": [
            {"id": "src", "type": "source"},
            {"id": "count", "type": "python", "after": ["src"], "codeHook": hook(first), **fields},
            {"id": "total", "type": "python", "after": ["count"], "codeHook": hook(SUM, "total")},
        ],
    }


DATASET: dict[str, Any] = {
    "workflow": "lift",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "look", "type": "probe", "after": ["src"]},
        {
            "id": "sound",
            "type": "filter",
            "after": ["look"],
            "config": {"where": {"recommended": "normalize"}},
        },
        {"id": "episodes", "type": "normalize", "after": ["sound"], "config": {"fps": 20}},
        {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": "lift"}},
    ],
}


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The nodes that were executed, in order."""
    nodes: list[str] = []
    real = Execution.run

    def run(self: Execution, claimed: Any, *rest: Any) -> Any:
        nodes.append(claimed.task.node_id)
        return real(self, claimed, *rest)

    monkeypatch.setattr(Execution, "run", run)
    return nodes


@pytest.fixture
def rows(ef: EmboFlow, asset_file: Path) -> str:
    return ef.assets.register(asset_file, type="raw_file", name="rows").display_name


def carried_out(
    ef: EmboFlow, workflow: dict[str, Any], *assets: str, cache: str | None = None
) -> WorkflowRun:
    ef.workflows.publish(workflow)
    run = ef.runs.request(workflow["workflow"], assets=assets, config=run_config(cache, None))
    done = ef.runs.work(run.id)
    assert done.status == "success", [t.error_message for t in ef.tasks.list(run.id)]
    return done


def tasks(ef: EmboFlow, run: WorkflowRun) -> dict[str, RunTask]:
    return {task.node_id: task for task in ef.tasks.list(run.id)}


def hits(ef: EmboFlow, run: WorkflowRun) -> list[str]:
    return [node for node, task in tasks(ef, run).items() if task.cache_hit]


def reason(ef: EmboFlow, run: WorkflowRun, node: str) -> str:
    summary = tasks(ef, run)[node].summary
    assert summary is not None
    assert summary.cache is not None
    return summary.cache.reason


# ------------------------------------------------------------------------------------------------ hits


def test_an_identical_second_run_executes_nothing(ef: EmboFlow, rows: str, executed: list[str]) -> None:
    first = carried_out(ef, chain(), rows)
    second = carried_out(ef, chain(), rows)
    before, after = tasks(ef, first), tasks(ef, second)

    assert executed == ["src", "count", "total"]
    assert {node: task.cache_hit for node, task in before.items()} == dict.fromkeys(before, False)
    assert {node: task.cache_hit for node, task in after.items()} == dict.fromkeys(after, True)
    for node, task in after.items():
        assert task.cache_key == before[node].cache_key
        assert task.output_artifact_ids == before[node].output_artifact_ids
        assert task.asset_ids == before[node].asset_ids
        assert task.last_result_preview == before[node].last_result_preview
    assert second.summary.artifact_count == first.summary.artifact_count
    assert [a.id for a in ef.artifacts.of_task(after["count"])] == before["count"].output_artifact_ids
    assert ef.verify().problems == []


def test_a_hit_says_whose_it_is(ef: EmboFlow, rows: str) -> None:
    first = carried_out(ef, chain(), rows)
    task = tasks(ef, carried_out(ef, chain(), rows))["count"]
    third = tasks(ef, carried_out(ef, chain(), rows))["count"]

    assert task.summary is not None
    assert task.summary.cache is not None
    assert task.to_json()["summary"]["cache"] == {
        "policy": "use",
        "reason": f"hit of run {first.id}, task count",
        "workflowRunId": first.id,
        "nodeId": "count",
        "taskId": tasks(ef, first)["count"].id,
        "waitedMs": 0,
    }
    assert any(f"hit of run {first.id}" in line for line in task.log_lines)
    assert third.summary is not None
    assert third.summary.cache == task.summary.cache
    assert reason(ef, first, "count") == "no task with this key has left anything"


def test_a_dataset_is_not_made_again(ef: EmboFlow, tmp_path: Path, executed: list[str]) -> None:
    name = ef.assets.register(write_demos(tmp_path / "a.hdf5", [4, 6]), type="hdf5_dataset").display_name
    first = carried_out(ef, DATASET, name)
    again = carried_out(ef, DATASET, name)
    worked = tasks(ef, again)

    # The first run probed the asset; that it has a report now, and another status, makes no difference.
    assert executed == ["src", "look", "sound", "episodes", "publish"]
    assert hits(ef, again) == executed
    assert len(ef.datasets.versions("lift")) == 1
    assert len(ef.assets.reports(name)) == 1
    assert worked["publish"].last_result_preview == tasks(ef, first)["publish"].last_result_preview
    assert ef.verify().problems == []

    # Somebody publishes other content in between: what was published before is not the newest any more.
    other = ef.assets.register(write_demos(tmp_path / "b.hdf5", [3]), type="hdf5_dataset").display_name
    carried_out(ef, DATASET, other)
    del executed[:]
    third = carried_out(ef, DATASET, name)
    assert executed == ["publish"]
    assert "has had another version since v1" in reason(ef, third, "publish")
    assert [v.version_tag for v in ef.datasets.versions("lift")] == ["v3", "v2", "v1"]

    # Looked into again: what the probe node left is not the newest either.
    ef.assets.probe(name)
    del executed[:]
    fourth = carried_out(ef, DATASET, name)
    assert executed == ["look"]
    assert "probed again since" in reason(ef, fourth, "look")

    # A version that is gone is made again.
    version = ef.datasets.versions("lift")[0]
    ef.mongo["dataset_versions"].delete_one({"_id": version.id})
    ef.mongo["datasets"].update_one(
        {"_id": version.dataset_id}, {"$set": {"latestVersionId": version.parent_version_id}}
    )
    del executed[:]
    fifth = carried_out(ef, DATASET, name)
    assert executed == ["publish"]
    assert f"dataset version {version.id} is gone" in reason(ef, fifth, "publish")


def test_other_code_is_executed_and_what_comes_after_only_if_its_output_differs(
    ef: EmboFlow, rows: str, executed: list[str]
) -> None:
    carried_out(ef, chain(), rows)
    del executed[:]
    same = carried_out(ef, chain(SAME), rows)
    assert executed == ["count"]
    assert hits(ef, same) == ["src", "total"]

    del executed[:]
    more = carried_out(ef, chain(MORE), rows)
    assert executed == ["count", "total"]
    assert hits(ef, more) == ["src"]


def test_titles_and_layout_change_nothing_but_config_does(
    ef: EmboFlow, rows: str, executed: list[str]
) -> None:
    carried_out(ef, chain(), rows)
    del executed[:]
    carried_out(ef, {**chain(title="Counted"), "layout": {"src": {"x": 1, "y": 2}}}, rows)
    assert executed == []
    carried_out(ef, chain(config={"limits": {"memoryMb": 2048}}), rows)
    assert executed == ["count"]


def test_another_asset_with_the_same_bytes_is_another_asset(
    ef: EmboFlow, rows: str, tmp_path: Path, executed: list[str]
) -> None:
    carried_out(ef, chain(), rows)
    copy = tmp_path / "copy.csv"
    copy.write_bytes((tmp_path / "rows.csv").read_bytes())
    twin = ef.assets.register(copy, type="raw_file", name="twin")
    del executed[:]
    done = carried_out(ef, chain(), "twin")

    assert executed == ["src", "count", "total"]
    assert tasks(ef, done)["src"].asset_ids == [twin.id]


def test_an_archived_asset_is_refused_although_there_is_a_result(ef: EmboFlow, rows: str) -> None:
    carried_out(ef, chain(), rows)
    run = ef.runs.request("chain", assets=[rows])
    ef.mongo["assets"].update_one({"displayName": rows}, {"$set": {"status": "archived"}})
    done = ef.runs.work(run.id)

    assert done.status == "failed"
    assert tasks(ef, done)["src"].error_message == f"asset {rows} is archived"


def test_other_projects_have_a_cache_of_their_own(
    ef: EmboFlow, opener: Callable[..., EmboFlow], rows: str, asset_file: Path, executed: list[str]
) -> None:
    carried_out(ef, chain(), rows)
    other = opener(project="sorting")
    other.assets.register(asset_file, type="raw_file", name="rows")
    del executed[:]
    done = carried_out(other, chain(), rows)

    assert executed == ["src", "count", "total"]
    assert hits(other, done) == []
    keys = {raw["_id"].partition(":")[0] for raw in ef.mongo[CACHE].find({}, {"_id": 1})}
    assert keys >= {ef.scope.project_id, other.scope.project_id}


def test_a_failure_is_no_result(ef: EmboFlow, rows: str, executed: list[str]) -> None:
    ef.workflows.publish(chain("def count(ctx, inputs):\n    raise ValueError('no')\n"))
    for _ in range(2):
        run = ef.runs.work(ef.runs.request("chain", assets=[rows]).id)
        task = tasks(ef, run)["count"]
        assert (task.status, task.cache_hit) == ("failed", False)
        assert task.cache_key is not None

    assert executed == ["src", "count", "count"]


def test_a_retried_task_is_executed_and_replaces_the_result(
    ef: EmboFlow, rows: str, executed: list[str]
) -> None:
    run = carried_out(ef, chain(), rows)
    del executed[:]
    ef.runs.retry_tasks(run.id, ["count"])
    ef.runs.work(run.id)
    retried = tasks(ef, run)["count"]

    assert executed == ["count"]
    assert "attempt 2" in reason(ef, run, "count")
    later = tasks(ef, carried_out(ef, chain(), rows))["count"]
    assert later.output_artifact_ids == retried.output_artifact_ids
    assert ef.verify().problems == []


# ---------------------------------------------------------------------------------------------- policies


def test_off_takes_nothing_and_leaves_nothing(ef: EmboFlow, rows: str, executed: list[str]) -> None:
    carried_out(ef, chain(), rows, cache="off")
    carried_out(ef, chain(), rows, cache="off")
    use = carried_out(ef, chain(), rows)
    off = carried_out(ef, chain(), rows, cache="off")

    assert executed == ["src", "count", "total"] * 4
    assert hits(ef, use) == hits(ef, off) == []
    assert off.config is not None
    assert off.config.to_json() == {"cachePolicy": "off", "label": None}
    assert reason(ef, off, "count") == "the run was requested with --cache off"
    assert tasks(ef, off)["count"].cache_key == tasks(ef, use)["count"].cache_key


def test_refresh_executes_and_leaves_the_new_result(ef: EmboFlow, rows: str, executed: list[str]) -> None:
    old = carried_out(ef, chain(), rows)
    new = carried_out(ef, chain(), rows, cache="refresh")
    use = carried_out(ef, chain(), rows)

    assert executed == ["src", "count", "total"] * 2
    made = {run.id: tasks(ef, run)["count"].output_artifact_ids for run in (old, new, use)}
    assert made[old.id] != made[new.id] == made[use.id]


def test_a_nodes_own_policy_holds_against_its_run(ef: EmboFlow, rows: str, executed: list[str]) -> None:
    carried_out(ef, chain(cache="off"), rows, cache="use")
    del executed[:]
    done = carried_out(ef, chain(cache="off"), rows, cache="use")

    assert executed == ["count"]
    assert hits(ef, done) == ["src", "total"]
    assert reason(ef, done, "count") == "the node says `cache: off`"


def test_a_deployment_can_switch_it_off(
    ef: EmboFlow, opener: Callable[..., EmboFlow], rows: str, executed: list[str]
) -> None:
    carried_out(ef, chain(), rows)
    done = carried_out(opener(cache=CachePolicy.OFF), chain(), rows)

    assert executed == ["src", "count", "total"] * 2
    assert reason(ef, done, "count") == "EMBOFLOW_CACHE is off"


# --------------------------------------------------------------------------------- what is not whole


def payload(ef: EmboFlow, artifact: str) -> Path:
    path = ef.store.path_of(ef.artifacts.get(artifact).storage_ref.key)  # type: ignore[attr-defined]
    assert path is not None
    path.chmod(0o644)
    return path


def note(kind: Mark) -> Callable[[EmboFlow, str], None]:
    def write(ef: EmboFlow, artifact: str) -> None:
        ref = ef.artifacts.get(artifact).storage_ref
        more = {"objectId": ref.object_id, "version": ref.version, "key": ref.key, "damage": "hash-mismatch"}
        marks.write(
            ef.mongo,
            kind,
            marks.name_of(str(ref.object_id), int(ref.version or 0)),
            ef.scope.workspace_id,
            **more,
        )

    return write


def collected(ef: EmboFlow, artifact: str) -> None:
    """As its owner lets go of it: the note, and a collection after the grace."""
    ref = ef.artifacts.get(artifact).storage_ref
    settle(ef)
    name = marks.name_of(str(ref.object_id), int(ref.version or 0))
    said = {"record": "artifacts", "field": "storageRef", "recordId": artifact, "releasedBy": "ada"}
    long_ago = ef.mongo.server_time().replace(year=2020)
    marks.write(ef.mongo, Mark.RELEASE, name, ef.scope.workspace_id, releasedAt=long_ago, **said)
    assert name in ef.gc(grace_s=0).versions


DAMAGES: dict[str, tuple[Callable[[EmboFlow, str], Any], str]] = {
    "a payload that is gone": (lambda ef, a: payload(ef, a).unlink(), "payload-missing"),
    "a payload with another byte": (lambda ef, a: payload(ef, a).write_bytes(b'{"assets":2}'), "-mismatch"),
    "a payload that is cut": (lambda ef, a: payload(ef, a).write_bytes(b"{"), "size-mismatch"),
    "an artifact that is gone": (lambda ef, a: ef.mongo["artifacts"].delete_one({"_id": a}), "is gone"),
    "a blob that is gone": (
        lambda ef, a: ef.mongo["objects"].delete_one({"_id": ef.artifacts.get(a).storage_ref.object_id}),
        "is gone",
    ),
    "an artifact of another key": (
        lambda ef, a: ef.mongo["artifacts"].update_one(
            {"_id": a}, {"$set": {"lineage.cacheKey": "sha256:" + "0" * 64}}
        ),
        "another key",
    ),
    "a version that was let go": (note(Mark.RELEASE), "was let go"),
    "a version in quarantine": (note(Mark.QUARANTINE), "is in quarantine"),
    "a version that gc collected": (collected, "was collected"),
}


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")


@pytest.mark.usefixtures("no_grace")
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_computed_anew_and_says_why(
    ef: EmboFlow, rows: str, executed: list[str], damage: str
) -> None:
    story(ef, rows, executed, damage)


def story(ef: EmboFlow, rows: str, executed: list[str], damage: str) -> None:
    harm, said = DAMAGES[damage]
    first = carried_out(ef, chain(), rows)
    harm(ef, tasks(ef, first)["count"].output_artifact_ids[0])
    del executed[:]
    second = carried_out(ef, chain(), rows)
    third = carried_out(ef, chain(), rows)

    assert executed == ["count"]
    assert said in reason(ef, second, "count")
    assert f"what run {first.id}, task count left is not used" in reason(ef, second, "count")
    fresh = tasks(ef, second)["count"].output_artifact_ids
    assert ef.blobs.read_ref(ef.artifacts.get(fresh[0]).storage_ref)
    assert tasks(ef, third)["count"].output_artifact_ids == fresh
    assert hits(ef, third) == ["src", "count", "total"]


@pytest.mark.usefixtures("no_grace")
@pytest.mark.parametrize("damage", ["a payload that is gone", "a version that was let go"])
def test_a_cache_that_does_not_verify_is_caught(
    ef: EmboFlow, rows: str, executed: list[str], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(Cached, "_read", lambda *_: None)
    monkeypatch.setattr(Cached, "_refuse_noted", lambda *_: None)

    with pytest.raises(AssertionError):
        story(ef, rows, executed, damage)


def let_go_while_it_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the payloads were read, before the transaction: somebody lets the artifact go."""
    real = Cached.look
    done: list[str] = []

    def look(self: Cached, key: str, result: Any, asset_ids: list[str]) -> Any:
        hit = real(self, key, result, asset_ids)
        if result.node_id == "count" and not done:
            blob = hit.blobs[0]
            name = marks.name_of(blob.object_id, blob.version)
            marks.write(self._opened.mongo, Mark.RELEASE, name, self._opened.scope.workspace_id)
            done.append(name)
        return hit

    monkeypatch.setattr(Cached, "look", look)


def race(ef: EmboFlow, rows: str, executed: list[str]) -> None:
    carried_out(ef, chain(), rows)
    del executed[:]
    second = carried_out(ef, chain(), rows)

    assert executed == ["count"]
    assert "was let go" in reason(ef, second, "count")


def test_a_hit_that_races_a_release_is_no_hit(
    ef: EmboFlow, rows: str, executed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go_while_it_is_settled(monkeypatch)
    race(ef, rows, executed)


def test_a_hit_that_is_not_confirmed_is_caught(
    ef: EmboFlow, rows: str, executed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go_while_it_is_settled(monkeypatch)
    monkeypatch.setattr(Cached, "confirm", lambda *_: None)

    with pytest.raises(AssertionError):
        race(ef, rows, executed)


def test_the_rule_of_what_is_kept_knows_what_a_key_stands_for(ef: EmboFlow, rows: str) -> None:
    old = tasks(ef, carried_out(ef, chain(), rows))["count"]
    blob = ef.artifacts.of_task(old)[0].storage_ref.object_id
    assert any(edge.kind is EdgeKind.CACHE for edge in ef.blobs.why_kept(str(blob)))
    carried_out(ef, chain(), rows, cache="refresh")

    # The artifact is still that of its task; the key stands for another one now.
    kinds = {edge.kind for edge in ef.blobs.why_kept(str(blob))}
    assert EdgeKind.CACHE not in kinds
    assert {EdgeKind.RECORD, EdgeKind.TASK} <= kinds


def test_verify_finds_a_hit_that_names_what_was_not_made_for_its_key(ef: EmboFlow, rows: str) -> None:
    carried_out(ef, chain(), rows)
    second = tasks(ef, carried_out(ef, chain(), rows))
    wrong = second["total"].output_artifact_ids
    ef.mongo["run_tasks"].update_one(
        {"_id": second["count"].id}, {"$set": {"outputArtifactIds": wrong, "summary.artifactIds": wrong}}
    )

    assert [(p.id, p.field) for p in ef.verify().problems] == [(second["count"].id, "outputArtifactIds")]


def test_gc_forgets_what_tasks_left_half_a_year_ago_and_nothing_younger(ef: EmboFlow, rows: str) -> None:
    carried_out(ef, chain(), rows)
    entries = ef.mongo[CACHE]
    first, second, *_ = entries.find().sort("_id", 1)
    for id_, days in ((first["_id"], 181), (second["_id"], 179)):
        then = ef.mongo.server_time() - timedelta(days=days)
        entries.update_one({"_id": id_}, {"$set": {"begunAt": then, "storedAt": then}})

    assert ef.gc(dry_run=True).cached == 0
    assert ef.gc().cached == 1
    assert entries.find_one({"_id": first["_id"]}) is None
    assert entries.find_one({"_id": second["_id"]}) is not None
    assert ef.verify().ok
