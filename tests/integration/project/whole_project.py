"""A project in which every collection has a document and every kind of reference an example."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from emboflow_dagster import Create
from emboflow_dagster.model.collections import COLLECTIONS, META
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.outputs import add_probe_report
from emboflow_dagster.runtime.probe_report import store_probe
from tests.integration.project.flows import HOOK, hook
from tests.integration.project.samples_of_documents import documents

Raw = dict[str, Any]
Found = set[tuple[str, str, str, str | None]]
"""Code, collection, id and field of what was found."""
NAMES = [*COLLECTIONS, META]
FPS = 20
# More than a task document keeps: its log becomes a blob.
LOUD = "def count(ctx, inputs):\n    print(*range(600), sep='\\n')\n"
FLOW: dict[str, Any] = {
    "workflow": "whole",
    "nodes": [
        {"id": "demos", "type": "source", "config": {"types": ["hdf5_dataset"]}},
        {"id": "rest", "type": "source", "config": {"types": ["raw_file", "folder"]}},
        {"id": "any", "type": "set-union", "after": ["demos", "rest"]},
        {"id": "both", "type": "set-intersection", "after": ["demos", "any"]},
        {"id": "less", "type": "set-difference", "after": ["any", "demos"]},
        {"id": "count", "type": "python", "after": ["less"], "codeHook": hook(HOOK)},
        {"id": "episodes", "type": "normalize", "after": ["both"], "config": {"fps": FPS}},
        {"id": "again", "type": "python", "after": ["episodes"], "codeHook": hook(LOUD)},
        {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": "lift"}},
    ],
}


@dataclass
class Whole:
    """The project, everything that is stored of it, and ways to damage that behind the library's back."""

    ef: EmboFlow
    folder: Path
    before: dict[str, list[Raw]]

    def rows(self, name: str) -> list[Raw]:
        return list(self.ef.mongo[name].find().sort("_id", 1))

    def one(self, name: str, **where: Any) -> Raw:
        row = self.ef.mongo[name].find_one(
            {k.replace("__", "."): v for k, v in where.items()}, sort=[("_id", 1)]
        )
        assert row is not None, (name, where)
        return row

    def set(self, name: str, id_: Any, **fields: Any) -> None:
        changes = {k.replace("__", "."): v for k, v in fields.items()}
        done = self.ef.mongo[name].update_one(
            {"_id": id_}, {"$set": changes}, bypass_document_validation=True
        )
        assert done.modified_count == 1

    def drop(self, name: str, id_: Any) -> None:
        assert self.ef.mongo[name].delete_one({"_id": id_}).deleted_count == 1

    def add(self, name: str, row: Raw) -> None:
        self.ef.mongo[name].insert_one(row, bypass_document_validation=True)

    def payload(self, blob: Raw) -> Path:
        path = self.ef.store.path_of(blob["storage_ref"]["key"])
        assert path is not None
        path.chmod(0o644)
        return path

    def found(self) -> Found:
        report = self.ef.verify(all=True)
        assert report.ok == (not report.problems)
        assert json.loads(json.dumps(report.to_json()))["ok"] == report.ok
        return {(p.code, p.collection, p.id, p.field) for p in report.problems}

    def restore(self) -> None:
        for name in NAMES:
            if self.rows(name) != self.before[name]:
                self.ef.mongo[name].delete_many({})
                if self.before[name]:
                    self.ef.mongo[name].insert_many(self.before[name], bypass_document_validation=True)


def write_demos(path: Path, lengths: list[int]) -> Path:
    """A file of demonstrations, one of each length, in robomimic's layout."""
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = '{"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}'
        for number, rows in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = rows
            demo["actions"] = np.linspace(0, 1, rows * 2).reshape(rows, 2)
            demo["obs/state"] = np.linspace(1, 2, rows * 3).reshape(rows, 3)
            demo["states"] = np.zeros((rows, 4))
            demo["rewards"] = np.zeros(rows)
            demo["dones"] = np.zeros(rows, dtype=np.uint8)
    return path


def build(ef: EmboFlow, folder: Path) -> None:
    """Fill ``ef`` by its own verbs; what no verb makes yet is inserted as a valid document."""
    (folder / "logs" / "deep").mkdir(parents=True)
    (folder / "logs" / "a.txt").write_text("a")
    (folder / "logs" / "deep" / "b.txt").write_text("b")
    (folder / "rows.csv").write_text("t,x\n0,1\n")
    (folder / "kept.csv").write_text("t,x\n5,5\n")
    (folder / "kept").mkdir()
    (folder / "kept" / "c.txt").write_text("c")
    ef.assets.register(write_demos(folder / "one.hdf5", [4, 6]), type="hdf5_dataset", name="one")
    ef.assets.register(write_demos(folder / "two.hdf5", [5]), type="hdf5_dataset", name="two")
    ef.assets.register(folder / "rows.csv", type="raw_file", name="rows")
    ef.assets.register(folder / "logs", type="folder", name="logs")
    ef.assets.register(folder / "kept.csv", type="raw_file", name="kept-file", in_place=True)
    ef.assets.register(folder / "kept", type="folder", name="kept-folder", in_place=True)
    for name in ("rows", "one", "two", "one"):
        ef.assets.probe(name)
    _probe_at_length(ef, "rows")
    ef.workflows.publish(FLOW)
    ef.workflows.publish({**FLOW, "name": "Whole"})
    for names in (["one", "rows", "logs"], ["two", "one", "kept-file", "kept-folder"]):
        done = ef.runs.work(ef.runs.request("whole", assets=names).id)
        assert done.status == "success", [t.error_message for t in ef.tasks.list(done.id)]
    for number in range(3):
        ef.blobs.put(f"content {number}".encode(), object_id="model", custom_metadata={"n": number})
    for document in _without_a_verb(ef):
        ef.mongo[document.collection].insert_one(document.to_mongo())  # type: ignore[attr-defined]
    _label_at_length(ef)


def _label_at_length(ef: EmboFlow) -> None:
    """An annotation whose payload is a blob."""
    blob = ef.blobs.put(b"[[0, 1, 2, 3]]", content_type="application/json", object_id="label")
    fields = {"annotationTaskId": "ant_1", "targetRef": {"id": ef.assets.get("one").id}}
    payload = {"objectId": blob.object_id, "version": blob.version}
    ef.cud([Create("annotations", {**fields, "payload": payload})])


def _probe_at_length(ef: EmboFlow, name: str) -> None:
    """A report that no document holds: it refers to a blob."""
    report = ef.assets.reports(name)[0].to_json()
    found = {k: v for k, v in report.items() if k not in ("_id", "assetId", "reportVersion", "createdAt")}
    probe = store_probe(ef.blobs, {**found, "rawReport": {"text": "x" * 300_000}})
    asset = ef.assets.get(name)
    ef.mongo.in_transaction(lambda session: add_probe_report(ef.mongo, ef.scope, session, asset.id, probe))


def _without_a_verb(ef: EmboFlow) -> list[BaseModel]:
    made = documents()
    place = {"workspace_id": ef.scope.workspace_id, "project_id": ef.scope.project_id}
    asset, run = ef.assets.get("one"), ef.runs.list()[0]
    version = ef.workflows.version("whole").model_copy(
        update={
            "id": "wfv_plugged",
            "version_number": 3,
            "plugin_refs": made["workflow_definition_versions"].plugin_refs,  # type: ignore[attr-defined]
        }
    )
    ef.workflows.documents.change(version.workflow_definition_id, {"latestVersionNumber": 3})
    again = run.model_copy(update={"id": "run_again", "retry_of_run_id": run.id})
    nothing = {"workflow_run_id": "run_again", "output_artifact_ids": [], "log_ref": None}
    tasks = [task.model_copy(update={"id": f"{task.id}_again", **nothing}) for task in ef.tasks.list(run.id)]
    again = again.model_copy(update={"summary": run.summary.model_copy(update={"artifact_count": 0})})
    target = made["annotation_tasks"].target_ref.model_copy(update={"id": asset.id})  # type: ignore[attr-defined]
    return [
        version,
        again,
        *tasks,
        made["memberships"].model_copy(update=place | {"user_id": "ada"}),
        made["custom_nodes"].model_copy(update=place),
        made["plugins"].model_copy(update={"workspace_id": ef.scope.workspace_id}),
        made["storage_connections"].model_copy(update={"workspace_id": ef.scope.workspace_id}),
        made["annotation_tasks"].model_copy(update=place | {"target_ref": target}),
        made["annotations"].model_copy(update=place | {"target_ref": target}),
    ]
