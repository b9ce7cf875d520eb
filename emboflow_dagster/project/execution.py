"""What a claimed task is given and how its node is executed; what comes out is settled by others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from emboflow_dagster.blobs.forgotten_place import Place
from emboflow_dagster.errors import ErrorKind, TransitionError
from emboflow_dagster.model.artifact import Lineage
from emboflow_dagster.model.asset import AssetSourceType, AssetStatus
from emboflow_dagster.model.base import invalid
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.project.artifacts import Artifacts
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.project.gate import Gate
from emboflow_dagster.project.runs import Runs
from emboflow_dagster.runtime import custom_node
from emboflow_dagster.runtime.cache_key import cache_key, code_digest
from emboflow_dagster.runtime.child import child_call
from emboflow_dagster.runtime.cutting import cut
from emboflow_dagster.runtime.digest import sha256_of
from emboflow_dagster.runtime.forgotten import held_back, reads_on, told_back
from emboflow_dagster.runtime.logs import TaskLog
from emboflow_dagster.runtime.node import (
    BoundAsset,
    FetchVersion,
    NodeContext,
    NodeInput,
    NodeResult,
    NodeType,
    Reach,
    Sight,
)
from emboflow_dagster.runtime.record import Claimed
from emboflow_dagster.runtime.registry import node_types

Log = Callable[[str], None]


class Prepared(NamedTuple):
    """What a task is executed with, and the digest over all of it."""

    node_type: NodeType
    options: Any
    inputs: Mapping[str, NodeInput]
    key: str
    forgotten: Mapping[str, list[Place]]
    traces: Sequence[Any]
    """The numbers of all episodes that were forgotten."""
    held: frozenset[str]
    """Assets that it is not handed, because of an episode that was forgotten."""
    tombstones: frozenset[str]
    """Those that it heeds."""


class Execution:
    """Executes claimed tasks of one project."""

    def __init__(
        self,
        assets: Assets,
        artifacts: Artifacts,
        runs: Runs,
        gate: Gate,
        fetch_version: FetchVersion | None = None,
    ) -> None:
        self._assets = assets
        self._artifacts = artifacts
        self._runs = runs
        self._gate = gate
        self._fetch_version = fetch_version

    def hold(self, run: WorkflowRun, task: RunTask) -> None:
        """Let a task that people have to decide about wait for them; see :meth:`Gate.hold`."""
        node_type = _type_of(task)
        inputs = self._inputs(Claimed(run, task), node_type, Path())
        self._gate.hold(task, _options(node_type, task), inputs)

    def prepare(self, claimed: Claimed, folder: Path) -> Prepared:
        """Gather what a claimed task is given, and its cache key; no bytes are read.

        Raises:
            TransitionError: An upstream node has never succeeded, or an asset is archived.
            InvalidInputError: An option of the node is not allowed.
        """
        task = claimed.task
        node_type = _type_of(task)
        options = _options(node_type, task)
        inputs = self._inputs(claimed, node_type, folder)
        found = self._assets.documents.find({"_id": {"$in": task.asset_ids}}, limit=0)
        by_id = {asset.id: asset for asset in found}
        assets = [by_id[asset_id] for asset_id in task.asset_ids]
        for asset in assets:
            if asset.status == AssetStatus.ARCHIVED:
                raise TransitionError(f"asset {asset.display_name} is archived")
        reports = self._assets.latest_reports(task.asset_ids) if Sight.REPORT in node_type.sees else {}
        slug = claimed.run.runtime_snapshot.workflow_slug
        key = cache_key(task, slug, node_type, assets, reports, inputs)
        forgotten, traces, tombstones = self._assets.forgotten(assets)
        if not node_type.needs_bytes or node_type.reports:
            forgotten = {}
        if forgotten:  # what was made while they were not is another result
            places = {asset: [place.to_json() for place in told] for asset, told in forgotten.items()}
            key = f"sha256:{sha256_of({'key': key, 'forgotten': places})}"
        held = held_back(node_type, task, forgotten)
        if held:  # before there were copies without them such a task had nothing
            key = f"sha256:{sha256_of({'key': key, 'cut': 1})}"
        return Prepared(node_type, options, inputs, key, forgotten, traces, held, tombstones)

    def run(self, claimed: Claimed, prepared: Prepared, folder: Path, lines: TaskLog, tee: Log) -> NodeResult:
        """Execute a claimed task; nothing is written to the database.

        Args:
            claimed: The task and its run.
            prepared: What :meth:`prepare` gathered.
            folder: An empty folder for inputs and outputs.
            lines: Takes the task's standard output and error.
            tee: Takes its log lines.

        Raises:
            EmboflowError: Whatever the node, an input or an option failed with.
        """
        task = claimed.task
        node_type, inputs = prepared.node_type, prepared.inputs
        if not task.asset_ids and not node_type.runs_on_empty:
            tee("no asset is left for this node; it is not executed")
            return NodeResult(outcome="empty", preview={"assets": 0})
        workdir = folder / "out"
        workdir.mkdir()
        with self._bound(task, node_type, tee, prepared, folder / "cut") as assets:
            if prepared.held and not assets and not reads_on(node_type, inputs):
                return NodeResult(outcome="empty", preview={"assets": 0, "heldBack": len(prepared.held)})
            context = NodeContext(
                task=task,
                workflow_slug=claimed.run.runtime_snapshot.workflow_slug,
                workflow_version=claimed.run.runtime_snapshot.version_number,
                assets=assets,
                options=prepared.options,
                inputs=inputs,
                workdir=workdir,
                log=tee,
                child=child_call(
                    workdir,
                    on_stdout=lines.streams["stdout"],
                    on_stderr=lines.streams["stderr"],
                    on_log=tee,
                ),
                out=lines.streams["stdout"],
                err=lines.streams["stderr"],
                version=self._fetch_version,
                forgotten=prepared.forgotten,
                traces=prepared.traces,
                held=prepared.held,
                there=self._assets.probe_there,
                review=self._gate.review(task, inputs) if node_type.waits else None,
            )
            return node_type.run(context)

    @contextmanager
    def _bound(
        self, task: RunTask, node_type: NodeType, tee: Log, prepared: Prepared, cuts: Path
    ) -> Iterator[list[BoundAsset]]:
        with ExitStack() as stack:
            rows: list[BoundAsset] = []
            for asset_id in task.asset_ids:
                asset = self._assets.documents.get(asset_id)
                if asset.status == AssetStatus.ARCHIVED:
                    raise TransitionError(f"asset {asset.display_name} is archived")
                there = node_type.looks_there and asset.source_type == AssetSourceType.OBJECT_STORAGE
                held = asset_id in prepared.held
                if held and there:
                    tee(told_back([asset.display_name]))
                    continue
                path = Path()
                if node_type.needs_bytes and not there:
                    path = stack.enter_context(self._assets.path(asset, say=tee))
                report = self._assets.latest_report(asset)
                if held:
                    places = prepared.forgotten[asset_id]
                    form = report.format if report else "unknown"
                    cuts.mkdir(exist_ok=True)
                    child = child_call(cuts, on_stdout=tee, on_stderr=tee, on_log=tee)
                    made, said = cut(child, asset, form, path, places, cuts / asset_id)
                    tee(said)
                    if made is None:
                        continue
                    path = made
                rows.append(BoundAsset(asset, report, path))
            yield rows

    def _inputs(self, claimed: Claimed, node_type: NodeType, folder: Path) -> dict[str, NodeInput]:
        task = claimed.task
        here = self._runs.recorder.of_nodes(claimed.run, task.upstream_node_ids)
        found = {up: here.get(up) or self._made_last(claimed, up) for up in task.upstream_node_ids}
        inputs = {node_id: self._input(before, folder) for node_id, before in found.items()}
        for wanted, reach in sorted(node_type.reaches.items()):
            waiting, seen = list(found), set(found)
            while waiting:
                node_id = waiting.pop(0)
                given = inputs.get(node_id) or self._input(found[node_id], folder)
                there = given.artifact(wanted) is not None
                if there:
                    inputs.setdefault(node_id, given)
                if there and reach is Reach.NEAREST:
                    continue
                for further in found[node_id].upstream_node_ids:
                    if further not in seen:
                        seen.add(further)
                        waiting.append(further)
                        if further not in found:
                            found[further] = self._before(claimed, further)
        return inputs

    def _before(self, claimed: Claimed, node_id: str) -> RunTask:
        """The task whose artifacts an earlier node gives."""
        return self._runs.recorder.of_nodes(claimed.run, [node_id]).get(node_id) or self._made_last(
            claimed, node_id
        )

    def _made_last(self, claimed: Claimed, node_id: str) -> RunTask:
        """What a node that was not selected in this run made last."""
        found = self._runs.last_success(claimed.run.workflow_definition_id, node_id)
        if found is None:
            raise TransitionError(
                f"node {node_id} has never succeeded", kind=ErrorKind.UPSTREAM_NOT_SUCCEEDED
            )
        return found

    def _input(self, found: RunTask, folder: Path) -> NodeInput:
        return NodeInput(
            node_id=found.node_id,
            node_type=found.node_type,
            asset_ids=tuple(found.asset_ids),
            artifacts=tuple(self._artifacts.of_task(found)),
            preview=found.last_result_preview,
            fetch=partial(self._artifacts.fetch_into, folder / "in"),
        )

    def lineage(self, claimed: Claimed, prepared: Prepared, *, cached: bool) -> Lineage:
        """Where what a task makes comes from; the cache key only where it may be found by it."""
        task = claimed.task
        return Lineage(
            input_artifact_ids=[a.id for given in prepared.inputs.values() for a in given.artifacts],
            asset_ids=list(task.asset_ids),
            workflow_run_id=task.workflow_run_id,
            node_id=task.node_id,
            attempt=task.attempt,
            cache_key=prepared.key if cached else None,
            code_digest=f"sha256:{code_digest(task, prepared.node_type)}",
        )


def _type_of(task: RunTask) -> NodeType:
    """The type of a task: of the installation, or of the project as it was when the run was requested."""
    kept = (task.executor_config or {}).get(custom_node.FROZEN)
    return node_types().require(task.node_type) if kept is None else custom_node.node_type(kept)


def _options(node_type: NodeType, task: RunTask) -> Any:
    config = (task.executor_config or {}).get("config") or {}
    try:
        return node_type.options.model_validate(config)
    except ValidationError as error:
        raise invalid(error, f"{task.node_id}.config") from None
