"""Assets whose bytes are in a bucket or in GridFS: made, read, checked, let go and collected."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from emboflow_dagster import BlobIOManager, EmboFlow
from emboflow_dagster.blobs import quarantine
from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.mongo import gridfs
from emboflow_dagster.mongo.client import connect
from emboflow_dagster.orchestration import handles
from tests.integration.s3.server import ENVIRONMENT, Server

EMBOFLOW = Path(sys.executable).with_name("emboflow")


@pytest.fixture
def settings(settings, monkeypatch):
    """A database that knows of no other test's store: gc and verify look at all that it names."""
    database = f"{settings.workspace}-homes"
    monkeypatch.setenv("EMBOFLOW_DATABASE", database)
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")
    yield replace(settings, database=database)
    handles.close_all()
    mongo = connect(settings.mongo_uri, database)
    mongo.client.drop_database(database)
    mongo.close()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def bucket(s3_server: Server) -> Iterator[str]:
    with s3_server.bucket() as name:
        yield name


def assets(folder: Path, day: int) -> list[dg.AssetsDefinition]:
    """A table, a payload of several parts, a folder; and what is made of them."""
    import pandas as pd

    @dg.asset
    def episodes() -> pd.DataFrame:
        return pd.DataFrame({"episode": ["reach", "lift"], "frames": [181, 240 + day]})

    @dg.asset
    def video() -> bytes:
        return bytes(range(256)) * 50_000 + bytes([day])

    @dg.asset(metadata={"emboflow/home": "object_store"})
    def frames() -> Path:
        (folder / "left").mkdir(parents=True, exist_ok=True)
        (folder / "left" / "a.csv").write_text(f"t,x\n{day},1\n")
        (folder / "b.csv").write_text("t,x\n0,1\n")
        return folder

    @dg.asset
    def summary(episodes: pd.DataFrame, video: bytes) -> dict:
        return {"frames": int(episodes["frames"].sum()), "last": video[-1]}

    @dg.asset(ins={"video": dg.AssetIn(metadata={"emboflow/version": 0})})
    def opening(video: bytes) -> int:
        return video[-1]

    return [episodes, video, frames, summary, opening]


def materialized(
    folder: Path, day: int, select: str = "*", *, home: str = "object_store"
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        assets(folder, day),
        selection=select,
        instance=dg.DagsterInstance.ephemeral(),
        resources={"io_manager": BlobIOManager(home=home)},
        raise_on_error=False,
    )


def emboflow(*words: str, status: int = 0):
    done = subprocess.run([EMBOFLOW, "--json", *words], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr or done.stdout
    return json.loads(done.stdout)


def newest(ef: EmboFlow) -> dict[str, int]:
    return {blob.object_id.rpartition(".")[2]: blob.version for blob in ef.blobs.list_objects()}


def test_assets_in_a_bucket_are_verified_collected_scrubbed_and_healed(
    settings, s3_server, bucket, monkeypatch, tmp_path
):
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": s3_server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EMBOFLOW_OBJECT_STORE", f"s3://{bucket}/team")
    # What other processes set aside is else known here seconds later.
    monkeypatch.setattr(quarantine, "FRESH_S", 0.0)
    place = f"{settings.workspace}.{settings.project}"
    for day in (0, 1):
        assert materialized(tmp_path / "made", day).success

    report = emboflow("verify")
    held = s3_server.objects(bucket)
    assert report["problems"] == []
    # Two versions of four assets and one of the pinned one; two files beside the listings of the folder.
    assert (len(held), report["counts"]["payloads"]) == (11, 11)
    assert not (settings.home / "objects").exists()

    with EmboFlow.from_env() as ef:
        assert newest(ef) == {"episodes": 1, "video": 1, "frames": 1, "summary": 1, "opening": 0}
        assert json.loads(ef.blobs.read(f"{place}.summary")) == {"frames": 422, "last": 1}
        ef.blobs.withdraw(f"{place}.video", 0, reason="no consent")
        collected = emboflow("gc", "--grace", "0s")
        assert (collected["versions"], len(s3_server.objects(bucket))) == ([f"{place}.video.v0"], 10)
        with pytest.raises(IntegrityError) as caught:
            ef.blobs.read(f"{place}.video", 0)
        assert caught.value.kind is ErrorKind.BLOB_WITHDRAWN
        assert len(ef.blobs.read(f"{place}.video")) == 12_800_001

        name = f"team/{ef.blobs.ref(ef.blobs.get(f'{place}.episodes')).key}"
    good = s3_server.client.get_object(Bucket=bucket, Key=name)["Body"].read()
    s3_server.client.put_object(Bucket=bucket, Key=name, Body=bytes([good[0] ^ 1]) + good[1:])

    assert [row["code"] for row in emboflow("scrub", status=1)["problems"]] == ["hash-mismatch"]
    failed = materialized(tmp_path / "made", 1, "summary")
    [step] = [event for event in failed.all_events if event.is_step_failure]
    assert "blob-quarantined" in str(step.step_failure_data.error)
    assert materialized(tmp_path / "made", 1, "episodes").success
    assert emboflow("verify")["problems"] == []


def test_assets_in_gridfs_are_verified_pinned_and_collected(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("EMBOFLOW_ALLOW_GRIDFS", "1")
    place = f"{settings.workspace}.{settings.project}"
    for day in (0, 1):
        assert materialized(tmp_path / "made", day, home="gridfs").success

    with EmboFlow.from_env() as ef:
        homes = {b.object_id.rpartition(".")[2]: b.storage_type.value for b in ef.blobs.list_objects()}
        assert homes == {
            "episodes": "gridfs",
            "video": "gridfs",
            "summary": "gridfs",
            "opening": "gridfs",
            "frames": "object_store",
        }
        assert json.loads(ef.blobs.read(f"{place}.summary")) == {"frames": 422, "last": 1}
        assert emboflow("verify")["problems"] == []
        assert ef.mongo[gridfs.FILES].count_documents({}) == 7

        ef.blobs.withdraw(f"{place}.video", 0, reason="no consent")
        ef.mongo[gridfs.FILES].update_many(
            {}, [{"$set": {"uploadDate": {"$subtract": ["$uploadDate", 7_200_000]}}}]
        )
        assert emboflow("gc", "--grace", "0s")["versions"] == [f"{place}.video.v0"]
        assert ef.mongo[gridfs.FILES].count_documents({}) == 6
        assert len(ef.blobs.read(f"{place}.video")) == 12_800_001
        failed = materialized(tmp_path / "made", 1, "opening", home="gridfs")
        [step] = [event for event in failed.all_events if event.is_step_failure]
        assert "blob-withdrawn" in str(step.step_failure_data.error)
    assert emboflow("verify")["problems"] == []
