"""Every way something is written, as an operation that can be interrupted anywhere and done again.

Each says what it leaves when it was done exactly once: how many documents of which collection, which audit
rows. Work on tasks is real but for the node itself, whose result is prepared: what is interrupted here are
the writes, not the parsers.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from emboflow_dagster.errors import AlreadyExistsError, ExecutionError, IntegrityError, TransitionError
from emboflow_dagster.model.collections import COLLECTIONS, META
from emboflow_dagster.model.run import RUN_ACTIVE, TaskStatus
from emboflow_dagster.mongo import outbox
from emboflow_dagster.project import assets as assets_module
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.node import DatasetDraft, NodeOutput, NodeResult
from emboflow_dagster.runtime.record import Claimed
from tests.integration.faults.operation import Ack, Counts, Operation
from tests.integration.faults.operations_datasets import DATASETS
from tests.integration.faults.operations_files import FILES
from tests.integration.faults.operations_ownership import MORE_OWNERSHIP, OWNERSHIP, ClaimOne
from tests.integration.project.flowcept_documents import Writer
from tests.integration.project.flows import HOOK, hook

FLOW: dict[str, Any] = {
    "workflow": "flow",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "count", "type": "python", "after": ["src"], "codeHook": hook(HOOK)},
    ],
}
DATASET_FLOW: dict[str, Any] = {
    "workflow": "lift",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "episodes", "type": "normalize", "after": ["src"], "config": {"fps": 20}},
        {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": "lift"}},
    ],
}
RUN = "run_01JD0000000000000000000001"
DAGSTER_RUN = str(UUID(int=7))
# Unowned heads of interrupted puts may stay; what refers to them is counted exactly.
UNCOUNTED = frozenset({"objects", "object_history"})


class RegisterFile(Operation):
    name = "register-file"
    adds: ClassVar[Counts] = {"assets": 2}
    audit: ClassVar[Counts] = {"asset.register": 2}

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        (folder / "rows.csv").write_text("t,x\n0,1\n")
        (folder / "more.csv").write_text("t,x\n0,2\n")

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        for name in ("rows", "more"):
            ack(ef.assets.register(folder / f"{name}.csv", type="raw_file").id)

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        there = {asset.id for asset in ef.assets.list()}
        return [id_ for id_ in acked if id_ not in there]

    def wrong(self, ef: EmboFlow) -> list[str]:
        names = sorted(asset.display_name for asset in ef.assets.list())
        return [] if names == ["more.csv", "rows.csv"] else [f"the assets are {names}"]


class RegisterOneName(Operation):
    """Only for several at once: each has a file of its own content, all files have the same name."""

    name = "register-one-name"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        path = folder / str(os.getpid()) / "rows.csv"
        path.parent.mkdir()
        path.write_text(f"t,x\n0,{os.getpid()}\n")
        ack(ef.assets.register(path, type="raw_file").display_name)


class RegisterFolder(Operation):
    name = "register-folder"
    adds: ClassVar[Counts] = {"assets": 1}
    audit: ClassVar[Counts] = {"asset.register": 1}

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        (folder / "logs" / "deep").mkdir(parents=True)
        (folder / "logs" / "a.txt").write_text("a")
        (folder / "logs" / "deep" / "b.txt").write_text("b")

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.assets.register(folder / "logs", type="folder").id)

    def wrong(self, ef: EmboFlow) -> list[str]:
        asset = ef.assets.get("logs")
        with ef.assets.path(asset) as path:
            found = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        return [] if found == ["a.txt", "deep/b.txt"] else [f"the folder has {found}"]


class RegisterInPlace(RegisterFolder):
    name = "register-in-place"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.assets.register(folder / "logs", type="folder", in_place=True).id)


class Probe(Operation):
    name = "probe"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        (folder / "rows.csv").write_text("t,x\n0,1\n")
        ef.assets.register(folder / "rows.csv", type="raw_file")
        ef.assets.probe("rows.csv")
        report = ef.assets.reports("rows.csv")[0].to_json()
        kept = ("detectedFormatCandidates", "structureSummary", "warnings", "truncated")
        probe = {key: report[key] for key in (*kept, "recommendedNextNodes", "rawReport")}
        (folder / "probe.json").write_text(json.dumps(probe))
        ef.mongo["asset_probe_reports"].delete_many({})
        ef.mongo["assets"].update_many({}, {"$set": {"status": "registered", "detectedFormats": []}})

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        canned = json.loads((folder / "probe.json").read_text())
        real = assets_module.probe_safely
        assets_module.probe_safely = lambda *_, **__: canned
        try:
            ack(ef.assets.probe("rows.csv").id)
        finally:
            assets_module.probe_safely = real

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        if ef.assets.get("rows.csv").status == "probing":
            return ["the asset is left in status probing"]
        there = {report.id for report in ef.assets.reports("rows.csv")}
        return [id_ for id_ in acked if id_ not in there]

    def wrong(self, ef: EmboFlow) -> list[str]:
        # Looking twice gives two reports: the unacknowledged one is there 0 or 1 times.
        numbers = [report.report_version for report in ef.assets.reports("rows.csv")]
        rows = Counter(row.action for row in ef.audit.list())["asset.probe"] - 1
        status = ef.assets.get("rows.csv").status.value
        fine = numbers in ([1], [2, 1]) and rows == len(numbers) and status == "ready"
        return [] if fine else [f"reports {numbers}, {rows} audit rows, status {status}"]


class PublishFirst(Operation):
    name = "publish-first"
    adds: ClassVar[Counts] = {"workflow_definitions": 1, "workflow_definition_versions": 1}
    audit: ClassVar[Counts] = {"workflow.publish": 1}
    flow: ClassVar[dict[str, Any]] = FLOW
    number = 1

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.workflows.publish(self.flow).version.id)

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        there = [v.id for v in ef.workflows.versions("flow")] if acked else []
        return [id_ for id_ in acked if id_ not in there]

    def wrong(self, ef: EmboFlow) -> list[str]:
        head = ef.workflows.get("flow")
        numbers = [v.version_number for v in ef.workflows.versions("flow")]
        fine = numbers == list(range(self.number, 0, -1)) and head.latest_version_number == self.number
        return [] if fine else [f"the versions are {numbers}, the head is {head.latest_version_number}"]


class PublishSecond(PublishFirst):
    name = "publish-second"
    adds: ClassVar[Counts] = {"workflow_definition_versions": 1}
    flow: ClassVar[dict[str, Any]] = {**FLOW, "name": "Flow two"}
    number = 2

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        ef.workflows.publish(FLOW)


class WithAsset(Operation):
    """A published workflow and an asset to run it on."""

    flow: ClassVar[dict[str, Any]] = FLOW

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        (folder / "rows.csv").write_text("t,x\n0,1\n")
        ef.assets.register(folder / "rows.csv", type="raw_file")
        ef.workflows.publish(self.flow)


class CreateDataset(Operation):
    name = "create-dataset"
    adds: ClassVar[Counts] = {"datasets": 1}
    audit: ClassVar[Counts] = {"dataset.create": 1}

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.datasets.create("lift", type="canonical").id)

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        try:
            self.act(ef, folder, lambda _: None)
        except AlreadyExistsError:
            ef.datasets.get("lift")


class Request(WithAsset):
    name = "request"
    adds: ClassVar[Counts] = {"workflow_runs": 1, "run_tasks": 2}
    audit: ClassVar[Counts] = {"run.create": 1}

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.runs.request("flow", assets=["rows.csv"], run_id=RUN).id)

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        there = {run.id for run in ef.runs.list()}
        return [id_ for id_ in acked if id_ not in there]


class Adopt(WithAsset):
    name = "adopt"
    adds: ClassVar[Counts] = {"workflow_runs": 1, "run_tasks": 2}
    audit: ClassVar[Counts] = {"run.create": 1}

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        version = ef.workflows.version("flow").id
        ack(ef.runs.adopt(DAGSTER_RUN, workflow_version_id=version).id)


class WithRun(WithAsset):
    """... and a queued run of it."""

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        super().prepare(ef, folder)
        ef.runs.request(self.flow["workflow"], assets=["rows.csv"], run_id=RUN)


class Bind(WithRun):
    name = "bind"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.runs.claim(RUN, DAGSTER_RUN).id)

    def wrong(self, ef: EmboFlow) -> list[str]:
        found = ef.runs.get(RUN).dagster_run_ids
        return [] if found == [DAGSTER_RUN] else [f"dagsterRunIds are {found}"]


class Claim(WithRun):
    name = "claim"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.runs.recorder.claim(RUN, "src", "worker").task.id)

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        try:
            self.act(ef, folder, lambda _: None)
        except TransitionError:  # the interrupted one has it
            if ef.tasks.get(RUN, "src").status != TaskStatus.RUNNING:
                raise

    def wrong(self, ef: EmboFlow) -> list[str]:
        task, run = ef.tasks.get(RUN, "src"), ef.runs.get(RUN)
        found = (task.status.value, task.attempt, task.lease_owner, run.status.value)
        return [] if found == ("running", 1, "worker", "running") else [f"task and run are {found}"]


class WithClaimed(WithRun):
    """... and its first task taken by a worker."""

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        super().prepare(ef, folder)
        ef.runs.recorder.claim(RUN, "src", "worker")

    @staticmethod
    def claimed(ef: EmboFlow) -> Claimed:
        return Claimed(ef.runs.get(RUN), ef.tasks.get(RUN, "src"))


class Again(WithClaimed):
    name = "again"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        claimed = self.claimed(ef)
        if claimed.task.attempt == 1:
            ack(ef.runs.recorder.again(claimed, "worker").task.id)

    def wrong(self, ef: EmboFlow) -> list[str]:
        attempt = ef.tasks.get(RUN, "src").attempt
        return [] if attempt == 2 else [f"the attempt is {attempt}"]


class SettleLost(WithClaimed):
    name = "settle-lost"
    cancelled: ClassVar[bool] = False
    ends: ClassVar[tuple[str, str, str]] = ("failed", "failed", "pending")

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.runs.settle_lost(RUN, "the worker was killed", cancelled=self.cancelled).id)

    def wrong(self, ef: EmboFlow) -> list[str]:
        run = ef.runs.get(RUN)
        found = (run.status.value, *(task.status.value for task in ef.runs.tasks(run)))
        return [] if found == self.ends else [f"run and tasks are {found}"]


class SettleCancelled(SettleLost):
    name = "settle-cancelled"
    cancelled = True
    ends = ("cancelled", "cancelled", "cancelled")


class Work(WithRun):
    """Claimed, executed, put, settled; whoever comes after a kill ends the lost run and asks for another."""

    name = "work-artifact"
    threads: ClassVar[bool] = True  # one of them keeps the log
    audit: ClassVar[Counts] = {"run.create": 1}
    last: ClassVar[str] = "count"

    def result(self, node_id: str, ef: EmboFlow, folder: Path) -> NodeResult:
        if node_id == "src":
            return NodeResult(preview={"assets": 1})
        outputs = [NodeOutput("report", f"{n}".encode(), "text/plain") for n in range(2)]
        return NodeResult(outputs=tuple(outputs), preview={"n": 2})

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        self.scripted(ef, folder)
        ef.runs.work(RUN)
        ack(ef.tasks.get(RUN, self.last).status.value)

    def scripted(self, ef: EmboFlow, folder: Path) -> None:
        """Nodes give what is prepared; more lines than the document keeps, so that the log is a blob."""

        def run(claimed: Claimed, _: Any, __: Path, lines: Any, ___: Any) -> NodeResult:
            for number in range(600):
                lines.add("stdout", f"{number}")
            return self.result(claimed.task.node_id, ef, folder)

        ef.tasks._execution.run = run  # type: ignore[method-assign]

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        status = ef.tasks.get(RUN, self.last).status.value
        return [f"acknowledged as {one}, found {status}" for one in acked if one != status]

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        self.scripted(ef, folder)
        run = RUN
        for number in range(2, 5):
            if any(t.status == TaskStatus.RUNNING for t in ef.tasks.list(run)):
                ef.runs.settle_lost(run, "the worker was killed")
            done = ef.runs.work(run)
            if done.status not in RUN_ACTIVE and done.status != "failed":
                return
            run = ef.runs.request(self.flow["workflow"], assets=["rows.csv"], run_id=f"{RUN[:-1]}{number}").id

    def wrong(self, ef: EmboFlow) -> list[str]:
        ended = [run for run in ef.runs.list() if run.status == "success"]
        if len(ended) != 1:
            return [f"the runs are {[run.status.value for run in ef.runs.list()]}"]
        task = ef.tasks.get(ended[0].id, self.last)
        found = len(ef.artifacts.list(producer_id=task.id))
        named = len(task.output_artifact_ids)
        wanted = self.artifacts()
        lines = list(ef.tasks.logs(ended[0].id, self.last, streams=("stdout",)))
        return [
            text
            for fine, text in (
                ((found, named) == (wanted, wanted), f"{found} artifacts, {named} named by the task"),
                (len(lines) == 600, f"{len(lines)} lines of log"),
            )
            if not fine
        ]

    @staticmethod
    def artifacts() -> int:
        return 2

    def documents(self) -> Mapping[str, int]:
        # A lost run stays as a failed one: there may be one or two.
        return {}


class WorkDataset(Work):
    name = "work-dataset"
    flow = DATASET_FLOW
    last = "publish"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        from emboflow_dagster.runtime.normalizing import normalize
        from emboflow_dagster.runtime.publishing import version
        from tests.integration.project.whole_project import write_demos

        super().prepare(ef, folder)
        path = write_demos(folder / "demos.hdf5", [4, 6])
        asset = ef.assets.get("rows.csv")
        row = {"id": asset.id, "name": "demos", "path": str(path), "format": "hdf5", "sha256": "0" * 64}
        wishes: dict[str, Any] = dict.fromkeys(("robotType", "task"))
        wishes |= {"fps": 20, "topics": [], "mapping": {}, "ratePolicy": "hold", "videos": False}
        out = str(folder / "package")
        normalize({"assets": [row], "out": out, "onMismatch": "raise", **wishes})
        version(out, str(folder / "version"))

    def result(self, node_id: str, ef: EmboFlow, folder: Path) -> NodeResult:
        package = folder / "package"
        if node_id == "src":
            return NodeResult()
        if node_id == "episodes":
            output = NodeOutput("normalized_dataset_package", package, "application/octet-stream")
            return NodeResult(outputs=(output,))
        draft = DatasetDraft(
            "lift", "canonical", folder / "version", "emboflow-canonical/1", {"episodes": 2}, {}
        )
        return NodeResult(dataset=draft)

    def wrong(self, ef: EmboFlow) -> list[str]:
        tags = [v.version_tag for v in ef.datasets.versions("lift")]
        commits = len(ef.audit.list(action="dataset.commit"))
        fine = tags == ["v1"] and commits == 1 and len(ef.datasets.list()) == 1
        return [*super().wrong(ef), *([] if fine else [f"versions {tags}, {commits} commits"])]

    @staticmethod
    def artifacts() -> int:
        return 0


class Fail(Work):
    name = "work-failure"

    def result(self, node_id: str, ef: EmboFlow, folder: Path) -> NodeResult:
        if node_id == "src":
            return NodeResult()
        raise ExecutionError("no such joint")

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        self.scripted(ef, folder)
        if any(t.status == TaskStatus.RUNNING for t in ef.tasks.list(RUN)):
            ef.runs.settle_lost(RUN, "the worker was killed")
        ef.runs.work(RUN)

    def wrong(self, ef: EmboFlow) -> list[str]:
        run = ef.runs.get(RUN)
        statuses = [task.status.value for task in ef.runs.tasks(run)]
        fine = run.status == "failed" and "running" not in statuses and "queued" not in statuses
        return [] if fine else [f"run {run.status.value} with tasks {statuses}"]


class PutNew(Operation):
    name = "put-new"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        blob = ef.blobs.put(b"one", object_id="model", custom_metadata={"n": 1})
        ack(f"{blob.version} {blob.data_sha256}")

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        there = [f"{blob.version} {blob.data_sha256}" for blob in ef.blobs.history("model")]
        return [one for one in acked if one not in there]

    def wrong(self, ef: EmboFlow) -> list[str]:
        try:
            found = [ef.blobs.read("model", blob.version) for blob in ef.blobs.history("model")]
        except IntegrityError as error:
            return [error.message]
        return [] if found == [b"one"] else [f"the versions are {found}"]


class PutNext(PutNew):
    name = "put-next"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        ef.blobs.put(b"zero", object_id="model")

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        for content in ("one", "two", "three"):
            blob = ef.blobs.put(content.encode(), object_id="model", request_id=content)
            ack(f"{blob.version} {blob.data_sha256}")

    def wrong(self, ef: EmboFlow) -> list[str]:
        found = [ef.blobs.read("model", blob.version) for blob in ef.blobs.history("model")]
        ef.blobs.put(b"four", object_id="model")
        older = sorted(row["version"] for row in ef.mongo["object_history"].find({"object_id": "model"}))
        fine = found == [b"three", b"two", b"one", b"zero"] and older == [0, 1, 2, 3]
        return [] if fine else [f"the versions are {found}, in history are {older}"]


class PutOwn(PutNew):
    """A content that no other process puts."""

    name = "put-own"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        blob = ef.blobs.put(str(os.getpid()).encode(), object_id="model")
        ack(f"{blob.version} {blob.data_sha256}")

    def wrong(self, ef: EmboFlow) -> list[str]:
        return []


class PutOften(PutNext):
    """The same as a stream, whose copies into history nobody waits for: who goes on looks how far it came."""

    name = "put-often"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        with streaming():
            for content in ("one", "two", "three")[len(ef.blobs.history("model")) - 1 :]:
                blob = ef.blobs.put(content.encode(), object_id="model")
                ack(f"{blob.version} {blob.data_sha256}")


class PutOwnOften(PutOwn):
    """A stream of contents that no other process puts."""

    name = "put-own-often"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        with streaming():
            for number in range(12):
                blob = ef.blobs.put(f"{os.getpid()} {number}".encode(), object_id="model")
                ack(f"{blob.version} {blob.data_sha256}")


@contextmanager
def streaming() -> Iterator[None]:
    """From the second put of an object on it is a stream."""
    before, outbox.STREAM = outbox.STREAM, 0
    try:
        yield
    finally:
        outbox.STREAM = before


class PutGridFS(PutNext):
    """Payloads of two batches of chunks each."""

    name = "put-gridfs"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        self.put(ef, "zero")

    def put(self, ef: EmboFlow, word: str) -> str:
        content = word.encode() * (6 << 18)
        blob = ef.blobs.put(content, object_id="model", request_id=word, home="gridfs")
        return f"{blob.version} {blob.data_sha256}"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        for word in ("one", "two"):
            ack(self.put(ef, word))

    def wrong(self, ef: EmboFlow) -> list[str]:
        try:
            found = [ef.blobs.read("model", blob.version)[:4] for blob in ef.blobs.history("model")]
        except IntegrityError as error:
            return [error.message]
        self.put(ef, "three")
        fine = found == [b"twot", b"oneo", b"zero"]
        return [] if fine else [f"the versions begin with {found}"]


class PutMetadata(PutNew):
    name = "put-metadata"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        for home in ("in_object", "object_store", "gridfs"):
            ef.blobs.put(home.encode(), object_id=home, home=home)

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        for home in ("in_object", "object_store", "gridfs"):
            ef.blobs.update_object_metadata(home, custom_metadata={"stage": "best"}, tags=["$a"])
            ack(home)

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        return [home for home in acked if ef.blobs.get(home).tags != ["$a"]]

    def wrong(self, ef: EmboFlow) -> list[str]:
        found = {
            home: [(blob.tags, ef.blobs.read(home, blob.version)) for blob in ef.blobs.history(home)]
            for home in ("in_object", "object_store", "gridfs")
        }
        wanted = {home: [(["$a"], home.encode()), ([], home.encode())] for home in found}
        return [] if found == wanted else [f"the versions are {found}"]


class ImportFlowcept(Operation):
    """A small Flowcept database with a lost version in the middle."""

    name = "import-flowcept"
    wanted: ClassVar = {("m", 0): b"zero", ("m", 2): b"two", ("m", 3): b"three", ("n", 0): b"other"}

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        name = f"{ef.mongo.db.name}_source"
        ef.mongo.client.drop_database(name)
        to = Writer(ef.mongo.client[name])
        to.older("m", 0, **to.inside(b"zero"))
        to.older("m", 2, **to.outside(b"two"))
        to.head("m", 3, **to.outside(b"three"))
        to.head("n", 0, **to.inside(b"other"))

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        report = ef.blobs.import_flowcept(ef.mongo.uri, f"{ef.mongo.db.name}_source")
        ack(f"{report.counts['new'] + report.counts['unchanged']}")

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        return [one for one in acked if self.wrong(ef)]

    def wrong(self, ef: EmboFlow) -> list[str]:
        rows = [blob for key in "mn" for blob in ef.blobs.history(key)]
        found = {(b.object_id, b.version): ef.blobs.read(b.object_id, b.version) for b in rows if b.completed}
        return [] if found == self.wanted and len(rows) == 5 else [f"the versions are {found}"]


class Collect(Operation):
    """Withdrawn, ruled out, orphaned and kept payloads; one of them has a writer that died at the archive."""

    name = "gc"
    audit: ClassVar[Counts] = {}

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        for content in ("one", "two", "three", "four"):
            ef.blobs.put(content.encode(), object_id="model")
        ef.blobs.retain("model", keep_last=3)
        ef.blobs.put(b"gone", object_id="gone")
        ef.blobs.put(b"shared", object_id="shared")
        ef.blobs.put(b"shared", object_id="other")
        for name in ("gone", "shared"):
            ef.blobs.withdraw(name, reason="a test")
        ef.blobs.put_payload(b"nobody's", content_type="text/plain")
        (ef.store.root / "tmp" / "put-1-dead").write_bytes(b"half")
        row = ef.mongo["object_history"].find_one_and_delete({"_id": "model.v2"}) or {}
        ef.mongo["objects"].update_one({"_id": "model"}, {"$set": {"tail": [{**row, "_id": "model"}]}})
        for path in ef.store.root.rglob("*"):
            if path.is_file():
                os.utime(path, (1e9, 1e9))

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        os.environ["EMBOFLOW_GC_UNSAFE_GRACE"] = "1"
        try:
            ef.gc(grace_s=0)
        finally:
            del os.environ["EMBOFLOW_GC_UNSAFE_GRACE"]
        ack("collected")

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        found = []
        for object_id, version, content in _KEPT:
            if ef.blobs.read(object_id, version) != content:
                found.append(f"{object_id} version {version}")
        return found

    def wrong(self, ef: EmboFlow) -> list[str]:
        tombstones = sorted(row["name"] for row in ef.mongo[META].find({"kind": "tombstone"}))
        payloads = len(list(ef.store.iter_keys()))
        aside = [path for path in (ef.store.root / "condemned").rglob("*") if path.is_file()]
        tail = (ef.mongo["objects"].find_one({"_id": "model"}) or {}).get("tail")
        fine = tombstones == ["gone.v0", "model.v0"] and payloads == 4 and not aside and tail == []
        return [] if fine else [f"tombstones {tombstones}, {payloads} payloads, {aside} aside, tail {tail}"]


_KEPT = (("model", 1, b"two"), ("model", 2, b"three"), ("model", 3, b"four"), ("shared", 0, b"shared"))


class FirstOpen(Operation):
    name = "first-open"
    opening = True
    adds: ClassVar[Counts] = {"users": 1, "workspaces": 1, "memberships": 1, "projects": 1}
    audit: ClassVar[Counts] = {"workspace.create": 1, "project.create": 1}

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.scope.project_id)

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        return [id_ for id_ in acked if id_ != ef.scope.project_id]


class FirstInit(FirstOpen):
    """The same on a database without collections."""

    name = "first-init"

    def wrong(self, ef: EmboFlow) -> list[str]:
        report = ef.init()
        drift = [*report.created, *report.repaired, *report.conflicts]
        return [f"init had to do {drift}"] if drift else []


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        RegisterFile(),
        RegisterFolder(),
        RegisterInPlace(),
        Probe(),
        PublishFirst(),
        PublishSecond(),
        CreateDataset(),
        Request(),
        Adopt(),
        Bind(),
        Claim(),
        Again(),
        SettleLost(),
        SettleCancelled(),
        Work(),
        WorkDataset(),
        Fail(),
        PutNew(),
        PutNext(),
        PutOften(),
        PutGridFS(),
        PutMetadata(),
        ImportFlowcept(),
        Collect(),
        FirstOpen(),
        FirstInit(),
        *OWNERSHIP,
        *((*MORE_OWNERSHIP, *FILES, *DATASETS) if os.environ.get("EMBOFLOW_FAULTS") == "all" else ()),
    )
}
#: What a child can be told to do.
KNOWN = {**OPERATIONS, **{one.name: one for one in (RegisterOneName(), PutOwn(), PutOwnOften(), ClaimOne())}}


def counts(ef: EmboFlow) -> Counter[str]:
    """Documents by collection, and audit rows by action."""
    found = Counter({name: ef.mongo[name].count_documents({}) for name in COLLECTIONS})
    for row in ef.mongo["audit_logs"].find({}, {"action": 1}):
        found[f"audit {row['action']}"] += 1
    return found


def differences(operation: Operation, ef: EmboFlow, before: Counter[str]) -> list[str]:
    """Where the database is not as after doing the operation once."""
    found = list(operation.wrong(ef))
    wanted = operation.documents()
    if wanted:
        now = counts(ef)
        rows = {**wanted, **{f"audit {action}": n for action, n in operation.audit.items()}}
        found += [
            f"{name}: {now[name] - before[name]} more; once gives {rows.get(name, 0)}"
            for name in sorted((now.keys() | before.keys()) - UNCOUNTED)
            if now[name] - before[name] != rows.get(name, 0)
        ]
    report = ef.verify(all=True)
    return found + [f"verify: {p.code} {p.collection} {p.id} {p.message}" for p in report.problems]
