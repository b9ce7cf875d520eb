"""Nothing is left of a forgotten episode: all of the store and the database are searched for its numbers."""

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py  # noqa: TID253 - the recordings are written here
import numpy as np  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253

from emboflow_dagster import BlobRef, Create
from emboflow_dagster.mongo import log_chunks
from emboflow_dagster.project.dataset_changes import Merge, Relabel
from emboflow_dagster.project.forget.tombstone import kept_of
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.conftest import Opener
from tests.integration.project.versions_made import episode, made

#: A number that nothing else has, the same in 32 and 64 bits.
NUMBER = 7341.28125
_BYTES = (struct.pack("<d", NUMBER), struct.pack("<f", NUMBER), str(NUMBER).encode())
WHY = "no consent"
PRINTS = """
import h5py, pandas
def look(ctx, inputs):
    rows = []
    for asset in ctx.assets:
        with h5py.File(asset.path) as file:
            for name, demo in file["data"].items():
                print(name, list(demo["actions"][:, 0]))
                ctx.log(f"{name}: {list(demo['actions'][:, 0])}")
                rows += [{"name": name, "x": float(x)} for x in demo["actions"][:, 0]]
    return pandas.DataFrame(rows)
"""
FAILS = """
import h5py
def look(ctx, inputs):
    with h5py.File(ctx.assets[0].path) as file:
        raise ValueError(str(float(file["data/demo_0/actions"][3, 0])))
"""
PROCESS = """
def process(episode, context):
    return {"observation.eef_pos": episode["obs/eef_pos"], "action": episode["actions"]}
"""


def hook(source: str, entrypoint: str) -> dict[str, str]:
    return {"language": "python", "entrypoint": entrypoint, "source": source}


def recording(path: Path, seed: int, number: float | None) -> Path:
    with h5py.File(path, "w") as file:
        rows = np.random.default_rng(seed).normal(size=(20, 7))
        if number is not None:
            rows[3] = number
        file.create_dataset("data/demo_0/actions", data=rows)
        file.create_dataset("data/demo_0/obs/eef_pos", data=rows[:, :3])
    return path


def filled(ef: EmboFlow, folder: Path) -> str:
    """Every derivative that there is; the id of the episode."""
    for name, seed, number in (("one", 1, NUMBER), ("two", 2, None)):
        ef.assets.register(recording(folder / f"{name}.hdf5", seed, number), name=name, type="hdf5_dataset")
    nodes: list[dict[str, Any]] = [
        {"id": "src", "type": "source"},
        {"id": "look", "type": "probe", "after": ["src"]},
        {"id": "prints", "type": "python", "after": ["look"], "codeHook": hook(PRINTS, "look")},
        {"id": "fails", "type": "python", "after": ["look"], "codeHook": hook(FAILS, "look")},
        {"id": "code", "type": "python", "after": ["look"], "codeHook": hook(PROCESS, "process")},
        {"id": "shown", "type": "preview", "after": ["look"]},
        {"id": "judged", "type": "quality-report", "after": ["look"]},
        {"id": "episodes", "type": "normalize", "after": ["code"], "config": {"fps": 20}},
        {"id": "delivery", "type": "export-delivery", "after": ["episodes"], "config": {"format": "mcap"}},
        {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": "lifts"}},
    ]
    ef.workflows.publish({"workflow": "first", "nodes": nodes})
    run = ef.runs.request("first", assets=["one", "two"])
    assert ef.runs.work(run.id).status == "failed"  # of the node that is to fail
    states = {task.node_id: (task.status.value, task.error_message) for task in ef.tasks.list(run.id)}
    assert [name for name, (state, _) in states.items() if state != "success"] == ["fails"], states
    ef.runs.retry_tasks(run.id, ["fails"])
    ef.runs.work(run.id)
    alone = {
        "workflow": "second",
        "nodes": [*nodes[:2], *nodes[7:8], {**nodes[9], "config": {"dataset": "second"}}],
    }
    alone["nodes"][2]["after"] = ["look"]
    ef.workflows.publish(alone)
    assert ef.runs.work(ef.runs.request("second", assets=["two"]).id).status == "success"
    ef.datasets.edit("lifts", [Relabel([0], task="place")])
    entry = next(
        e for e in ef.datasets.episodes("lifts") if e["source"]["assetId"] == ef.assets.get("one").id
    )
    ef.datasets.edit("second", [Merge("lifts", "v1")])
    ef.annotations.flag("lifts", entry["id"], "check", comment=f"jumps to {NUMBER}")
    version = ef.datasets.version("lifts")
    task = ef.annotations.open("lifts", label_type="segment")
    large = {"label": "jump", "at": [NUMBER] * 200_000}
    ef.annotations.add(task.id, large, selector={"episode": entry["id"]})
    assert version.id == ef.datasets.version("lifts").id
    # A worker that died left pieces of a log.
    dead = ef.tasks.get(run.id, "prints")
    ef.mongo[log_chunks.COLLECTION].insert_one(
        {
            "workspaceId": ef.scope.workspace_id,
            "projectId": ef.scope.project_id,
            "logId": "dead",
            "taskId": dead.id,
            "start": 0,
            "end": 10,
            "data": str(NUMBER).encode(),
        }
    )
    return str(entry["id"])


def holds(data: bytes) -> bool:
    """Whether the number is in a payload: as bytes, as text, or in a table or arrays that are compressed."""
    if any(one in data for one in _BYTES):
        return True
    if data[:4] == b"PAR1":
        columns = pq.read_table(io.BytesIO(data)).to_pydict().values()
        return any(str(NUMBER) in json.dumps(column, default=str) for column in columns)
    if data[:2] == b"PK":
        arrays = np.load(io.BytesIO(data)).values()
        return any(bool(np.any(array == NUMBER)) for array in arrays if array.dtype.kind == "f")
    return False


def in_store(ef: EmboFlow) -> dict[str, bytes]:
    """Whatever file of the store has it, by its key."""
    folder = ef.settings.home / "objects"
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    return {name: data for name, data in files.items() if holds(data)}


def in_database(ef: EmboFlow) -> set[str]:
    """Collection and field of every document that has it."""
    found: set[str] = set()
    for name in ef.mongo.db.list_collection_names():
        for row in ef.mongo[name].find():
            found |= {f"{name}.{path}" for path, value in leaves(row, "") if has(value)}
    return found


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


def has(value: Any) -> bool:
    if isinstance(value, bytes):
        return holds(value)
    return value == NUMBER or (isinstance(value, str) and str(NUMBER) in value)


def test_nothing_is_left(opener: Opener, tmp_path: Path) -> None:
    ef = opener(allow_gridfs=True)
    mine_id = filled(ef, tmp_path)
    entry = next(e for e in ef.datasets.episodes("lifts") if e["id"] == mine_id)
    frames = entry["files"]["frames"]
    with ef.store.open(
        f"sha256/{frames['sha256'][:2]}/{frames['sha256'][2:]}", sha256=frames["sha256"], size=frames["size"]
    ) as stream:
        mine = stream.read()
    for home in ("in_object", "gridfs"):
        ef.blobs.put(mine, object_id=f"by-hand-{home}", home=home)

    # The control: all of these have it, and the search sees that.
    before = in_database(ef)
    assert {
        "run_tasks.lastResultPreview.head.x",
        "run_tasks.stdoutLines",
        "run_tasks.logLines",
        "run_tasks.errorMessage",
        "annotations.payload.comment",
        "_emboflow_log_chunks.data",
        "objects.data",
        "fs.chunks.data",
    } <= before, sorted(before)
    assert any(name.startswith("_emboflow_cache.") for name in before)
    assert len(in_store(ef)) > 8

    plan = ef.datasets.forget("lifts", [mine_id], reason=WHY, with_source=True, dry_run=True)
    assert before == in_database(ef)
    told = ef.datasets.forget("lifts", [mine_id], reason=WHY, with_source=True)
    ef.gc()

    assert {row["nodeId"] for row in plan["tasks"]} >= {
        "prints",
        "fails",
        "code",
        "shown",
        "judged",
        "publish",
    }
    # What a person put by hand is theirs; a comment in the audit log is part of its chain. Both are told.
    assert in_database(ef) == {"objects.data", "fs.chunks.data", "audit_logs.afterSummary.comment"}
    left = in_store(ef)
    pages = (b'{"entries":', b"{\n")
    assert [(name, data[:200]) for name, data in left.items() if not data.startswith(pages)] == []
    assert all(b'"stats"' in data for data in left.values())  # labels and statistics, as the tombstone says
    kept = {row["what"]: row["why"] for row in told["kept"]}
    assert "statistics" in kept["pages and manifests of the versions"]
    assert [row["objectId"] for row in told["copies"]] == ["by-hand-gridfs", "by-hand-in_object"]
    assert ef.verify(all=True).problems == []
    assert ef.tasks.list(ef.runs.list()[0].id)


def test_what_stays_is_named_with_its_reason() -> None:
    source = {"id": "ast_1", "name": "one", "alone": True, "inPlace": False, "sha256": "0" * 64}
    note = {
        "versions": [{}],
        "sources": [source, {**source, "inPlace": True}, {**source, "alone": False}],
        "asked": {"withSource": False},
        "payloads": [{"sha256": "1" * 64, "size": 1, "keptBy": "something else"}],
        "dagsterRuns": ["a-run"],
    }
    kept = kept_of(note)
    assert all(row["why"] for row in kept)
    assert [row["why"].partition(";")[0] for row in kept if row["what"] == "recording one"] == [
        "--with-source was not asked for",
        "registered in place: its file is not the store's",
        "other episodes come from it",
    ]
    assert ["a-run"] in [row.get("ids") for row in kept]


def test_annotations_in_documents_and_gridfs_are_emptied(opener: Opener, tmp_path: Path) -> None:
    """Payloads that are blobs elsewhere than in the store: the collections are searched for their text."""
    ef = opener(allow_gridfs=True)
    version = made(ef, tmp_path / "1", "reach", [episode(1), episode(2)])
    task = ef.annotations.open("reach", label_type="segment")
    ids: dict[str, str] = {}
    for home, place in (("in_object", 0), ("gridfs", 0), ("in_object", 1)):
        text = json.dumps({"label": f"{home} of {place}: {NUMBER}"}).encode()
        # Bytes of a version before, that waits in the tail, are another one's.
        object_id = f"said-{home}-{place}"
        ef.blobs.put(b"{}", object_id=object_id, home=home, content_type="application/json")
        blob = ef.blobs.put(text, object_id=object_id, home=home, content_type="application/json")
        fields = {
            "annotationTaskId": task.id,
            "targetRef": {"id": version.id, "selector": {"episode": place}},
            "payload": BlobRef(object_id=blob.object_id, version=blob.version),
        }
        ids[object_id] = ef.cud([Create("annotations", fields)])[0].id
    whole = ef.annotations.add(task.id, {"label": "all of it"}).id
    assert {"objects.data", "fs.chunks.data"} <= in_database(ef)

    told = ef.datasets.forget("reach", [0], reason=WHY)

    assert {row["id"] for row in told["annotations"]} == {ids["said-in_object-0"], ids["said-gridfs-0"]}
    held = [row["_id"] for row in ef.mongo["objects"].find() if has(row.get("data"))]
    assert held == ["said-in_object-1"]  # of the other episode
    assert not any(has(row["data"]) for row in ef.mongo["fs.chunks"].find())
    assert ef.blobs.read("said-gridfs-0", 0) == b"{}"
    kept = {row["what"]: row for row in told["kept"]}
    assert kept["annotations of whole versions"]["ids"] == [whole]
    assert "oplog" in kept["MongoDB's oplog and files"]["what"]
    assert ef.verify(all=True).problems == []
    ef.gc()
    assert ef.verify(all=True).problems == []
