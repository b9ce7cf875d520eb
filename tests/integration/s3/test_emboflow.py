"""The whole of EmboFlow on a bucket: taken in, run, published, verified; by Python and by the command."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.object_storage.s3_source import PART_BYTES
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from tests.integration.project.versions_made import episode, made
from tests.integration.project.whole_project import write_demos
from tests.integration.s3.conftest import a_project
from tests.integration.s3.server import CREDENTIALS

COMMAND = Path(sys.executable).parent / "emboflow"
FLOW = {
    "workflow": "publishing",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "look", "type": "probe", "after": ["src"]},
        {"id": "episodes", "type": "normalize", "after": ["look"], "config": {"fps": 20}},
        {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": "lift"}},
    ],
}


@pytest.fixture
def settings(mongo_uri: str, bucket: str, tmp_path: Path) -> Iterator[Settings]:
    with a_project(mongo_uri, tmp_path / "home", f"s3://{bucket}/team") as made:
        yield made


def test_a_recording_becomes_a_dataset_version_and_every_byte_is_in_the_bucket(
    s3_server, bucket, ef, tmp_path
):
    demos = write_demos(tmp_path / "demos.hdf5", [4, 6])
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.bin").write_bytes(b"a" * 100)
    (pictures / "b.bin").write_bytes(os.urandom(PART_BYTES + 10))

    asset = ef.assets.register(demos, type="hdf5_dataset", name="demos")
    folder = ef.assets.register(pictures, type="folder", name="pictures")
    ef.workflows.publish(FLOW)
    run = ef.runs.work(ef.runs.request("publishing", assets=["demos"]).id)
    version = ef.datasets.version("lift")
    exported = ef.datasets.export("lift", tmp_path / "exported")

    assert run.status == "success", [t.error_message for t in ef.tasks.list(run.id)]
    assert (version.stats["episodes"], version.stats["frames"]) == (2, 10)
    assert asset.storage_ref.uri.startswith(f"s3://{bucket}/team/sha256/")
    assert folder.storage_ref.content_type == LISTING_TYPE
    assert exported
    assert any((tmp_path / "exported").rglob("*.parquet"))
    report = ef.verify()
    assert report.ok, report.problems
    assert report.counts["payloads"] > 5
    assert not (tmp_path / "home" / "objects").exists()
    assert all(name.startswith("team/sha256/") for name in s3_server.held(bucket))
    assert list((tmp_path / "home").glob("tmp/*")) == []


def test_versions_are_read_back_and_damage_is_found(s3_server, bucket, ef, tmp_path):
    payloads = [b"one", b"two" * 1000, os.urandom(PART_BYTES + 5)]
    for payload in payloads:
        ef.blobs.put(iter([payload]), object_id="model")

    assert [ef.blobs.read("model", number) for number in range(3)] == payloads
    assert ef.blobs.fetch("model", tmp_path / "copy").read_bytes() == payloads[2]
    assert ef.blobs.put(payloads[2], object_id="model").version == 2
    assert ef.blobs.local_path(ef.blobs.ref(ef.blobs.get("model"))) is None
    assert ef.verify().ok

    key = ef.blobs.ref(ef.blobs.get("model", 1)).key
    name = f"team/{key}"
    s3_server.client.put_object(Bucket=bucket, Key=name, Body=b"TWO" * 1000)
    s3_server.client.delete_object(Bucket=bucket, Key=f"team/{ef.blobs.ref(ef.blobs.get('model', 0)).key}")

    with pytest.raises(IntegrityError, match="model version 1") as caught:
        ef.blobs.read("model", 1)
    assert caught.value.kind == ErrorKind.HASH_MISMATCH
    assert ef.blobs.read("model") == payloads[2]
    assert sorted(p.code for p in ef.verify().problems) == ["hash-mismatch", "payload-missing"]


def test_a_folder_that_was_copied_to_a_bucket_is_read_from_there(s3_server, bucket, settings, tmp_path):
    before = replace(settings, object_store=(tmp_path / "objects").as_uri())
    with EmboFlow.open(before) as ef:
        ef.blobs.put(b"one", object_id="model")
        for key in ef.store.iter_keys():
            content = (tmp_path / "objects" / key).read_bytes()
            s3_server.client.put_object(Bucket=bucket, Key=f"team/{key}", Body=content)

    with EmboFlow.open(settings) as ef:
        assert ef.blobs.read("model") == b"one"
        assert ef.verify().ok
        assert ef.blobs.put(b"one", object_id="model").version == 0


@pytest.fixture
def command(settings: Settings):
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env={**os.environ, **settings.environment(), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_command_stores_and_gives_back(command, tmp_path):
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(PART_BYTES + 1))

    put = command("blob", "put", str(source), "--id", "model", "--json")
    got = command("blob", "get", "model", "--output", str(tmp_path / "back.bin"))

    assert put.returncode == 0, put.stderr
    assert json.loads(put.stdout)["storage_ref"]["uri"].startswith("s3://")
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "back.bin").read_bytes() == source.read_bytes()


def store_check(done) -> dict[str, str]:
    [row] = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "object store"]
    return row


def test_the_doctor_says_which_bucket_answers_and_why_one_does_not(command, s3_server, bucket):
    well = store_check(command("doctor", "--json"))
    missing = command("doctor", "--json", EMBOFLOW_OBJECT_STORE="s3://not-there/x")
    plain = command("doctor", "--json", AWS_ENDPOINT_URL_S3="http://s3.example.org")

    assert well["status"] == "pass"
    assert well["found"] == f"s3://{bucket}/team: {s3_server.url.removeprefix('http://')} answers"
    assert (missing.returncode, store_check(missing)["status"]) == (1, "fail")
    assert "store-refused: bucket not-there" in store_check(missing)["found"]
    assert "make the bucket" in str(store_check(missing)["hint"])
    assert "plain http to s3.example.org" in store_check(plain)["found"]
    for done in (missing, plain):
        assert not any(secret in done.stdout + done.stderr for secret in CREDENTIALS.values())


def test_an_episode_is_forgotten_in_a_bucket(s3_server, bucket, ef, tmp_path):
    made(ef, tmp_path / "made", "reach", [episode(seed) for seed in (1, 2)])
    [gone] = [e for e in ef.datasets.episodes("reach") if e["episode"] == 0]
    time.sleep(1.1)  # a bucket tells whole seconds; what looks younger than now is being written

    told = ef.datasets.forget("reach", [gone["id"]], reason="no consent")

    sha256 = gone["files"]["frames"]["sha256"]
    assert [row["sha256"] for row in told["payloads"]] == [sha256]
    assert [key for key in s3_server.objects(bucket) if sha256[2:] in key] == []
    assert ef.verify(all=True).problems == []
    with pytest.raises(IntegrityError) as said:
        ef.datasets.export("reach", tmp_path / "old", tag="v1")
    assert said.value.kind is ErrorKind.EPISODE_FORGOTTEN
