"""The command on a real database: what --json prints is what MongoDB holds, read with plain pymongo."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient

from emboflow_dagster.cli.command_line import exit_status
from emboflow_dagster.cli.output import console
from tests.integration.project.flowcept_documents import GOOD, Writer, write_defects, write_good

COMMAND = Path(sys.executable).parent / "emboflow"
#: What takes longer than a second is said before.
ERROR = re.compile(r"\A(?:[^\n]* \.\.\.\n)*error\[([a-z-]+)\]: [^\n]+\n(?:hint: [^\n]+\n)?\Z")
WORKFLOW = """\
workflow: episodes
name: Episodes
description: From a demonstration to a dataset version
nodes:
  - {id: source, type: source}
  - {id: probe, type: probe, after: [source]}
  - {id: normalize, type: normalize, after: [probe], config: {fps: 20}}
  - {id: publish, type: publish-dataset, after: [normalize], config: {dataset: reach}}
  - id: count
    type: python
    after: [probe]
    codeHook:
      entrypoint: count
      source: |
        def count(ctx, inputs):
            print("to stdout")
            ctx.log("one \\x1b[31mline")
            return {"assets": len(ctx.assets)}
"""
FAILING = """\
workflow: fails
nodes:
  - {id: source, type: source}
  - id: boom
    type: python
    after: [source]
    codeHook: {entrypoint: boom, source: "def boom(ctx, inputs):\\n    raise ValueError('no luck')\\n"}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.raw)


def in_this_process(environment: Mapping[str, str], *arguments: str) -> Ended:
    """How a command ends that is given here, with more in the environment."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment)
    console.cache_clear()  # the width of the test before
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = exit_status(arguments)
        out.flush()
        return Ended(status, out.buffer.getvalue(), err.getvalue())
    finally:
        os.environ.clear()
        os.environ.update(before)


class Deployment:
    """A home, a database, and the command on both."""

    def __init__(self, home: Path, uri: str) -> None:
        self.home = home
        self.environment = {
            "EMBOFLOW_HOME": str(home),
            "EMBOFLOW_MONGO_URI": uri,
            "EMBOFLOW_DATABASE": f"cli_{uuid4().hex[:12]}",
            "EMBOFLOW_ACTOR": "user:ada",
        }
        self.client: MongoClient[dict[str, Any]] = MongoClient(uri, tz_aware=True, tzinfo=UTC)
        self.db = self.client[self.environment["EMBOFLOW_DATABASE"]]

    def here(self, *arguments: str) -> Ended:
        """In this process: fast."""
        return in_this_process(self.environment, *arguments)

    def outside(self, *arguments: str, **environment: str) -> Ended:
        """In a process of its own: real."""
        ended = subprocess.run(
            [COMMAND, *arguments],
            env={**os.environ, **self.environment, **environment},
            cwd=self.home.parent,
            capture_output=True,
            check=False,
            timeout=120,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr.decode())


def plain(value: Any) -> Any:
    """A document as JSON has it."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, mongo_uri: str) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("cli") / "home", mongo_uri)
    yield deployment
    deployment.client.drop_database(deployment.db.name)
    deployment.client.close()


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from emboflow_dagster.formats.demo_recordings.make import make_recordings

    made = make_recordings(tmp_path_factory.mktemp("recordings"))
    return next(r.path for r in made if r.asset_type == "hdf5_dataset")


@pytest.fixture(scope="module")
def story(deployment: Deployment, demonstrations: Path) -> dict[str, Any]:
    """register, probe, publish, run: what each command printed."""
    file = deployment.home.parent / "episodes.yaml"
    file.write_text(WORKFLOW)
    failing = deployment.home.parent / "fails.yaml"
    failing.write_text(FAILING)
    told: dict[str, Any] = {}
    told["init"] = deployment.here("init", "--json").json
    told["register"] = deployment.here(
        "asset", "register", str(demonstrations), "--name", "reach", "--json"
    ).json
    told["probe"] = deployment.here("asset", "probe", "reach", "--json").json
    told["publish"] = deployment.here("workflow", "publish", str(file), "--json").json
    told["again"] = deployment.here("workflow", "publish", str(file), "--json").json
    told["fails"] = deployment.here("workflow", "publish", str(failing), "--json").json
    run = ("workflow", "run", "episodes", "--asset", "reach", "--wait", "--timeout", "100", "--json")
    told["run"] = deployment.outside(*run).json
    return told


def test_init_says_what_it_made_and_then_that_nothing_is_left_to_do(story, deployment):
    again = deployment.here("init", "--json").json

    assert set(story["init"]["created"]) >= {"assets", "workflow_runs", "objects"}
    assert again["created"] == again["repaired"] == again["conflicts"] == []
    assert again["unchanged"] > 0


def test_what_register_and_show_print_is_the_stored_asset(story, deployment):
    stored = deployment.db["assets"].find_one({"displayName": "reach"})
    shown = deployment.here("asset", "show", "reach", "--json").json

    assert stored is not None
    assert shown == plain(stored)
    assert story["register"].keys() == shown.keys()
    assert shown["type"] == "hdf5_dataset"
    assert shown["createdBy"] == "ada"
    assert deployment.here("asset", "list", "--json").json == [shown]
    assert deployment.here("asset", "show", stored["_id"][:4] + stored["_id"][-8:], "--json").json == shown


def test_registering_it_again_is_the_same_asset(story, deployment, demonstrations):
    again = deployment.here("asset", "register", str(demonstrations), "--name", "reach", "--json").json

    assert again["_id"] == story["register"]["_id"]


def test_what_probe_prints_is_the_stored_report(story, deployment):
    stored = deployment.db["asset_probe_reports"].find_one({"_id": story["probe"]["_id"]})

    assert story["probe"] == plain(stored)
    assert story["probe"]["detectedFormatCandidates"][0]["format"] == "hdf5_robomimic"
    reports = deployment.here("asset", "reports", "reach", "--json").json
    assert story["probe"] in reports
    assert [r["reportVersion"] for r in reports] == sorted(
        (r["reportVersion"] for r in reports), reverse=True
    )


def test_publish_prints_the_version_and_whether_it_is_new(story, deployment):
    stored = plain(deployment.db["workflow_definition_versions"].find_one({"_id": story["publish"]["_id"]}))

    assert story["publish"] == {**stored, "slug": "episodes", "unchanged": False}
    assert story["again"] == {**stored, "slug": "episodes", "unchanged": True}
    assert deployment.here("workflow", "versions", "episodes", "--json").json == [stored]
    head = plain(deployment.db["workflow_definitions"].find_one({"slug": "episodes"}))
    assert deployment.here("workflow", "show", "episodes", "--json").json == {**head, "version": stored}
    assert head in deployment.here("workflow", "list", "--json").json


def test_run_wait_and_show_print_the_stored_run_with_its_tasks(story, deployment):
    stored = plain(deployment.db["workflow_runs"].find_one({"_id": story["run"]["_id"]}))
    tasks = plain(list(deployment.db["run_tasks"].find({"workflowRunId": story["run"]["_id"]})))
    shown = deployment.here("run", "show", story["run"]["_id"], "--json").json

    assert story["run"] == stored
    assert stored["status"] == "success"
    assert len(stored["dagsterRunIds"]) == 1
    assert [t["nodeId"] for t in shown["tasks"]] == ["source", "probe", "normalize", "publish", "count"]
    assert sorted(shown.pop("tasks"), key=lambda t: t["_id"]) == sorted(tasks, key=lambda t: t["_id"])
    assert shown == stored
    assert deployment.here("run", "wait", stored["_id"], "--json").json["_id"] == stored["_id"]
    assert (
        stored
        in deployment.here("run", "list", "--workflow", "episodes", "--status", "success", "--json").json
    )


def test_tasks_and_their_logs(story, deployment):
    run = story["run"]["_id"]
    stored = plain(deployment.db["run_tasks"].find_one({"workflowRunId": run, "nodeId": "count"}))

    assert deployment.here("task", "show", f"{run}:count", "--json").json == stored
    assert stored in deployment.here("task", "list", run, "--json").json
    rows = deployment.here("task", "logs", f"{run}:count", "--json").json
    assert {"stream": "stdout", "line": "to stdout"} in rows
    assert {"stream": "log", "line": "one \x1b[31mline"} in rows
    assert deployment.here("task", "logs", f"{run}:count", "--stream", "log").out == "one \\x1b[31mline\n"


def test_artifacts_are_listed_shown_and_fetched(story, deployment, tmp_path):
    run = story["run"]["_id"]
    listed = deployment.here("artifact", "list", "--run", run, "--json").json
    [count] = [a for a in listed if a["lineage"]["nodeId"] == "count"]

    assert len(listed) == deployment.db["artifacts"].count_documents({"lineage.workflowRunId": run})
    assert count == plain(deployment.db["artifacts"].find_one({"_id": count["_id"]}))
    assert deployment.here("artifact", "show", count["_id"], "--json").json == count
    assert json.loads(deployment.here("artifact", "get", count["_id"]).raw) == {"assets": 1}
    target = tmp_path / "count.json"
    told = deployment.here("artifact", "get", count["_id"], "--output", str(target), "--json").json
    assert told == {
        "artifactId": count["_id"],
        "path": str(target),
        "bytes": target.stat().st_size,
        "sha256": count["storageRef"]["checksum"].removeprefix("sha256:"),
    }


def test_the_dataset_and_its_export(story, deployment, tmp_path):
    dataset = plain(deployment.db["datasets"].find_one({"name": "reach"}))
    version = plain(deployment.db["dataset_versions"].find_one({"datasetId": dataset["_id"]}))

    assert deployment.here("dataset", "show", "reach", "--json").json == dataset
    assert deployment.here("dataset", "list", "--json").json == [dataset]
    assert deployment.here("dataset", "versions", "reach", "--json").json == [version]
    told = deployment.here("dataset", "export", "reach", "--output", str(tmp_path / "out"), "--json").json
    assert (told["versionId"], told["versionTag"]) == (version["_id"], "v1")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert (told["files"], told["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]


def test_a_dataset_made_by_hand(story, deployment):
    told = deployment.here("dataset", "create", "by-hand", "--type", "manipulation", "--json").json

    assert told == plain(deployment.db["datasets"].find_one({"name": "by-hand"}))
    assert deployment.here("dataset", "create", "by-hand", "--type", "x").status == 1
    [row] = deployment.here("audit", "list", "--resource", told["_id"], "--json").json
    assert row == plain(deployment.db["audit_logs"].find_one({"resourceId": told["_id"]}))


def test_a_blob_is_held_withdrawn_explained_and_collected(story, deployment, tmp_path, monkeypatch):
    file = tmp_path / "one.bin"
    file.write_bytes(b"nobody needs this")
    here = deployment.here
    here("blob", "put", str(file), "--id", "going")
    assert here("blob", "retain", "going", "--hold", "--json").json["hold"] is True
    refused = here("blob", "withdraw", "going", "--reason", "no consent")
    assert (refused.status, refused.err.partition("]")[0]) == (1, "error[legal-hold")
    here("blob", "retain", "going", "--no-hold")
    assert here("blob", "withdraw", "going", "--reason", "no consent", "--json").json["versions"] == 1

    why = here("blob", "why-kept", "going", "--json").json
    assert [edge["kind"] for edge in why["edges"]] == ["grace", "young"]
    assert here("gc", "--dry-run", "--json").json["freed"]["payloads"] == 0
    assert here("gc", "--grace", "5m").status == 1
    assert here("gc", "--grace", "soon").status == 2
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")
    assert here("gc", "--grace", "0s", "--json").json["versions"] == ["going.v0"]
    gone = here("blob", "get", "going")
    assert (gone.status, gone.err.partition("]")[0]) == (1, "error[blob-withdrawn")
    assert here("verify", "--all", "--json").json["ok"] is True


def test_blobs_keep_every_version(story, deployment, tmp_path):
    file = tmp_path / "payload.bin"
    for content in (b"\x00one", b"two\xff"):
        file.write_bytes(content)
        told = deployment.here(
            "blob", "put", str(file), "--id", "policy", "--metadata", '{"k": 1}', "--json"
        ).json

    stored = plain(deployment.db["objects"].find_one({"object_id": "policy"}))
    assert told.items() <= stored.items()
    assert deployment.here("blob", "show", "policy", "--json").json == told
    assert deployment.here("blob", "get", "policy").raw == b"two\xff"
    assert deployment.here("blob", "get", "policy", "--version", "0").raw == b"\x00one"
    history = deployment.here("blob", "history", "policy", "--json").json
    assert [b["version"] for b in history] == [1, 0]
    assert history[0] == told
    assert deployment.here("blob", "verify", "policy", "--json").json["ok"] is True


def test_an_upload_is_announced_uploaded_and_read(story, deployment, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b"t,x\n")
    told = deployment.here(
        "blob", "announce", "rows.csv", "--owner", "assets.storageRef", "--size", "4", "--json"
    ).json
    assert told["upload_status"] == "announced"
    early = deployment.here("blob", "get", told["object_id"])
    assert (early.status, ERROR.match(early.err)[1]) == (1, "blob-incomplete")

    done = deployment.here("blob", "upload", told["object_id"], str(file), "--json").json
    assert (done["upload_status"], done["object_size_bytes"]) == ("completed", 4)
    assert deployment.here("blob", "get", told["object_id"]).raw == b"t,x\n"
    again = deployment.here("blob", "upload", told["object_id"], str(file))
    assert (again.status, ERROR.match(again.err)[1]) == (1, "state")
    other = deployment.here("blob", "announce", "more.csv", "--owner", "assets.storageRef").out.strip()
    assert deployment.here("blob", "abandon", other, "--json").json == {"objectId": other, "abandoned": True}
    wrong = deployment.here("blob", "announce", "rows.csv", "--owner", "assets.summary")
    assert (wrong.status, ERROR.match(wrong.err)[1]) == (1, "blob-field")


def test_a_temporary_blob_is_put_and_got(story, deployment, tmp_path):
    file = tmp_path / "preview.txt"
    file.write_text("preview")

    told = deployment.here("blob", "put", str(file), "--temporary", "--ttl", "1h", "--json").json

    assert len(told["id"]) == 43
    assert deployment.here("blob", "get", told["id"], "--temporary").raw == b"preview"
    out = deployment.here("blob", "get", told["id"], "--temporary", "--output", str(tmp_path), "--json").json
    assert Path(out["path"]).read_text() == "preview"
    assert deployment.here("blob", "put", str(file), "--temporary", "--id", "x").status == 2
    gone = deployment.here("blob", "get", told["id"][::-1], "--temporary")
    assert (gone.status, ERROR.match(gone.err)[1]) == (1, "not-found")


def test_blobs_are_listed_and_say_where_they_live(story, deployment, tmp_path):
    file = tmp_path / "payload.bin"
    file.write_bytes(b"small")
    put = ("blob", "put", str(file), "--id", "tiny", "--type", "embedding_index", "--home", "in_object")
    told = deployment.here(*put, "--tag", "a", "--tag", "b", "--json").json

    assert (told["storage_ref"], told["tags"]) == (None, ["a", "b"])
    assert deployment.here("blob", "list", "--type", "embedding_index", "--json").json == [told]
    assert "in_object" in deployment.here("blob", "list", "--type", "embedding_index").out
    assert "in_object" in deployment.here("blob", "show", "tiny").out
    assert deployment.here("blob", "list", "--type", "nothing").err.startswith("no such blob")
    assert deployment.here("blob", "get", "tiny", "--output", str(tmp_path)).status == 0
    assert (tmp_path / "tiny.v0.bin").read_bytes() == b"small"
    for home, code in (("gridfs", "configuration"), ("nowhere", "invalid-input")):
        ended = deployment.here("blob", "put", str(file), "--home", home)
        assert (ended.status, ended.err.startswith(f"error[{code}]")) == (1, True)


def test_a_flowcept_database_comes_over_and_goes_back(deployment):
    foreign = deployment.client[f"{deployment.db.name}_flowcept"]
    uri = deployment.environment["EMBOFLOW_MONGO_URI"]
    try:
        write_good(Writer(foreign))
        call = ("blob", "import-flowcept", "--uri", uri, "--database", foreign.name)
        assert deployment.here(*call, "--dry-run", "--json").json["counts"]["new"] == len(GOOD)
        assert deployment.here("blob", "show", "inside").status == 1
        came = deployment.here(*call, "--json").json
        assert (came["ok"], came["findings"], came["counts"]["new"]) == (True, [], len(GOOD))
        assert deployment.here("blob", "get", "inside", "--version", "1").raw == b"in-object 1"
        write_defects(Writer(foreign))
        ended = deployment.here(*call)
        assert ended.status == 1
        for word in ("gridfs-damaged", "lost-newest", "there already", "not everything is there"):
            assert word in ended.out
        foreign.client.drop_database(foreign.name)
        back = ("blob", "export-flowcept", "inside", "--uri", uri, "--database", foreign.name)
        assert deployment.here(*back, "--json").json["counts"]["new"] == 3
        assert [row["version"] for row in foreign["objects"].find({})] == [2]
        assert "everything is as it should be" in deployment.here(*back, "--dry-run").out
    finally:
        foreign.client.drop_database(foreign.name)


def test_a_damaged_payload_is_found_and_never_handed_out_as_good(story, deployment, tmp_path):
    file = tmp_path / "payload.bin"
    file.write_bytes(os.urandom(64))
    told = deployment.here("blob", "put", str(file), "--id", "damaged", "--json").json
    payload = Path(told["storage_ref"]["uri"].removeprefix("file://"))
    payload.chmod(0o644)
    payload.write_bytes(bytes(64))

    looked = deployment.here("verify", "--no-quarantine", "--json")
    checked = deployment.here("blob", "verify", "damaged")
    fetched = deployment.here("blob", "get", "damaged", "--output", str(tmp_path / "out"))
    every = deployment.here("blob", "verify", "damaged", "--all-versions", "--json")
    scrubbed = deployment.here("scrub", "--max-bytes", "1GiB", "--json")
    wrong = deployment.here("blob", "repair", "damaged", "--version", "0", "--from", str(payload))
    verified = deployment.here("verify", "--json")
    repaired = deployment.here("blob", "repair", "damaged", "--version", "0", "--from", str(file), "--json")

    for ended, code in ((checked, "hash-mismatch"), (fetched, "blob-quarantined"), (wrong, "hash-mismatch")):
        assert ended.status == 1
        found = ERROR.match(ended.err)
        assert found, ended.err
        assert found[1] == code
    assert not (tmp_path / "out").exists()
    for ended in (looked, scrubbed, verified):
        assert ended.status == 1
        report = json.loads(ended.raw)
        assert report["ok"] is False
        assert all(set(p) == {"code", "collection", "id", "field", "message"} for p in report["problems"])
        assert [(p["code"], p["id"]) for p in report["problems"]] == [("hash-mismatch", "damaged")]
    assert every.status == 1
    assert [v["code"] for v in json.loads(every.raw)["versions"]] == ["hash-mismatch"]
    assert repaired.json["sha256"] == told["data_sha256"]
    assert deployment.here("blob", "get", "damaged").raw == file.read_bytes()
    assert deployment.here("verify", "--json").json["ok"] is True


def test_verify_is_clean(story, deployment):
    for arguments in (["verify"], ["verify", "--all"]):
        ended = deployment.here(*arguments, "--json")

        assert ended.json["ok"] is True
        assert ended.json["problems"] == []
        assert ended.json["counts"]["workflow_runs"] >= 1


@pytest.mark.parametrize(
    ("lost", "refers", "field"),
    [
        ("users", "workspaces", "ownerId"),
        ("workspaces", "assets", "workspaceId"),
        ("projects", "assets", "projectId"),
    ],
)
def test_verify_finds_what_is_lost_instead_of_making_it_anew(story, deployment, lost, refers, field):
    document = deployment.db[lost].find_one()
    deployment.db[lost].delete_one({"_id": document["_id"]})
    try:
        ended = deployment.here("verify", "--json")

        assert ended.status == 1
        problems = {(p["code"], p["collection"], p["field"]) for p in json.loads(ended.raw)["problems"]}
        assert ("ref-not-found", refers, field) in problems
        assert deployment.db[lost].count_documents({}) == 0
    finally:
        deployment.db[lost].insert_one(document)
    assert deployment.here("verify", "--json").json["ok"] is True


def test_a_run_that_fails_prints_itself_and_ends_with_1(story, deployment):
    ended = deployment.outside("workflow", "run", "fails", "--asset", "reach", "--wait", "--json")
    run = json.loads(ended.raw)

    assert ended.status == 1
    assert run == plain(deployment.db["workflow_runs"].find_one({"_id": run["_id"]}))
    assert run["status"] == "failed"
    assert f"error[run-failed]: run {run['_id']} is failed: boom: ValueError: no luck" in ended.err
    assert f"hint: `emboflow task logs {run['_id']}:boom` shows its log\n" in ended.err
    assert deployment.here("run", "wait", run["_id"]).status == 1


def test_a_queued_run_is_worked_on_without_dagster(story, deployment):
    asked = deployment.here("workflow", "run", "fails", "--asset", "reach", "--json")
    assert asked.json["status"] == "queued"
    assert "emboflow worker --once" in asked.err
    late = deployment.here("run", "wait", asked.json["_id"], "--timeout", "0.3")
    assert (late.status, late.out) == (1, "")
    assert "error[timeout]: " in late.err

    worked = deployment.here("worker", "--once", "--json")

    assert worked.status == 1
    [run] = [r for r in json.loads(worked.raw)["runs"] if r["_id"] == asked.json["_id"]]
    assert (run["status"], run["dagsterRunIds"]) == ("failed", [])
    assert deployment.here("worker", "--once", "--json").json == {"runs": []}


PEOPLE = [
    ["asset", "list"],
    ["asset", "show", "reach"],
    ["asset", "reports", "reach"],
    ["dataset", "list"],
    ["dataset", "show", "reach"],
    ["dataset", "versions", "reach"],
    ["workflow", "list"],
    ["workflow", "show", "episodes"],
    ["workflow", "versions", "episodes"],
    ["run", "list"],
    ["run", "show", "RUN"],
    ["task", "list", "RUN"],
    ["task", "show", "RUN:normalize"],
    ["task", "show", "RUN:publish"],
    ["artifact", "list"],
    ["audit", "list"],
    ["verify"],
    ["mongo", "status"],
    ["doctor"],
]


@pytest.mark.parametrize("arguments", PEOPLE, ids=" ".join)
def test_pages_for_people_hold_no_json_and_fit_a_narrow_terminal(story, deployment, monkeypatch, arguments):
    words = [word.replace("RUN", story["run"]["_id"]) for word in arguments]
    monkeypatch.delenv("COLUMNS", raising=False)
    page = deployment.here(*words)
    monkeypatch.setenv("COLUMNS", "60")
    narrow = deployment.here(*words)

    assert (page.status, narrow.status) == (0, 0), page.err
    assert len(page.out.splitlines()) >= 2
    assert not page.out.startswith(("{", "["))
    assert [line for line in narrow.out.splitlines() if len(line) > 60] == []


FAILED = [
    (["asset", "show", "reech"], "not-found"),
    (["asset", "probe", "reech"], "not-found"),
    (["asset", "register", "no/such/file", "--type", "rosbag"], "not-found"),
    (["dataset", "show", "nothing"], "not-found"),
    (["dataset", "versions", "nothing"], "not-found"),
    (["dataset", "export", "reach", "--tag", "v99"], "not-found"),
    (["dataset", "create", "Not A Slug", "--type", "x"], "slug"),
    (["workflow", "publish", "no-such.yaml"], "not-found"),
    (["workflow", "show", "nothing"], "not-found"),
    (["workflow", "show", "episodes", "--version", "99"], "not-found"),
    (["workflow", "run", "nothing", "--asset", "reach"], "not-found"),
    (["workflow", "run", "episodes", "--asset", "nothing"], "not-found"),
    (["run", "show", "run_nothing"], "not-found"),
    (["run", "list", "--workflow", "nothing"], "not-found"),
    (["task", "show", "run_nothing:node"], "not-found"),
    (["task", "list", "run_nothing"], "not-found"),
    (["artifact", "show", "art_nothing"], "not-found"),
    (["artifact", "get", "art_nothing"], "not-found"),
    (["blob", "get", "nothing"], "not-found"),
    (["blob", "history", "nothing"], "not-found"),
    (["blob", "show", "../x"], None),
    (["mongo", "stop"], "configuration"),
]


@pytest.mark.parametrize(
    ("arguments", "code"), FAILED, ids=lambda v: " ".join(v) if isinstance(v, list) else v
)
def test_a_failure_is_one_line_with_its_code_and_1(story, deployment, arguments, code):
    ended = deployment.here(*arguments, "--json")

    assert (ended.status, ended.out) == (1, "")
    found = ERROR.match(ended.err)
    assert found, ended.err
    assert code in (None, found[1])


def test_a_near_miss_names_what_was_meant(story, deployment):
    assert "hint: did you mean reach?" in deployment.here("asset", "show", "reech").err


def test_another_project_sees_none_of_it(story, deployment):
    assert deployment.here("--project", "other", "asset", "list", "--json").json == []
    assert deployment.here("asset", "show", "reach", "--project", "other").status == 1
    assert deployment.here("--workspace", "other", "blob", "list", "--json").json == []
    assert deployment.here("--workspace", "other", "run", "list", "--json").json == []
