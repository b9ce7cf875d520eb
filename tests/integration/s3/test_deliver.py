"""A version is delivered below a prefix of a bucket: complete or recognisably not, gone on with, checked."""

import shutil
from uuid import uuid4

import pytest

from emboflow_dagster.errors import ErrorKind, InvalidInputError, UnavailableError
from emboflow_dagster.formats.exports.package import check_package
from emboflow_dagster.object_storage import s3_deliver
from emboflow_dagster.object_storage.s3_bucket import Bucket
from emboflow_dagster.object_storage.s3_source import PART_BYTES
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from tests.integration.project.versions_made import episode, files_below, made


@pytest.fixture(scope="module")
def ef(mongo_uri, tmp_path_factory):
    """A project whose own payloads are in a folder, with one version."""
    folder = tmp_path_factory.mktemp("deliver")
    settings = Settings.from_env(
        home=folder / "home",
        mongo_uri=mongo_uri,
        database=f"deliver_{uuid4().hex[:12]}",
        workspace="acme",
        project="pick-place",
        actor="user:ada",
    )
    with EmboFlow.open(settings) as handle:
        made(handle, folder / "made", "reach", [episode(seed, 10, rich=True) for seed in range(2)])
        yield handle
        handle.mongo.client.drop_database(settings.database)


def fetched(s3_server, bucket, prefix, out):
    shutil.rmtree(out, ignore_errors=True)
    for key in s3_server.objects(bucket):
        if key.startswith(prefix):
            path = out / key.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3_server.client.get_object(Bucket=bucket, Key=key)["Body"].read())
    return out


def test_a_bucket_gets_the_same_files_as_a_folder(s3_server, bucket, ef, tmp_path):
    said = []
    ef.datasets.deliver("reach", str(tmp_path / "out"), format="lerobot-v3.0")

    told = ef.datasets.deliver("reach", f"s3://{bucket}/to/them", format="lerobot-v3.0", say=said.append)
    ef.datasets.deliver("reach", f"s3://{bucket}/to/one.tar", format="lerobot-v3.0")

    there = fetched(s3_server, bucket, "to/them/", tmp_path / "there")
    assert files_below(there) == files_below(tmp_path / "out")
    assert check_package(there)["dataset"]["versionSha256"] == told["versionSha256"]
    assert any("100 %" in text for text in said)
    ef.datasets.deliver("reach", str(tmp_path / "one.tar"), format="lerobot-v3.0")
    one = s3_server.client.get_object(Bucket=bucket, Key="to/one.tar")["Body"].read()
    assert one == (tmp_path / "one.tar").read_bytes()


def test_an_interrupted_delivery_has_no_sums_and_is_gone_on_with(
    s3_server, bucket, ef, tmp_path, monkeypatch
):
    url = f"s3://{bucket}/to/them"
    made(ef, tmp_path / "made", "moving", [episode(seed, 10, rich=True) for seed in range(2)])
    ef.datasets.deliver("moving", url, format="lerobot-v3.0")
    made(ef, tmp_path / "again", "moving", [episode(seed, 10, rich=True) for seed in (0, 5)])
    right, sent = s3_deliver._put, []

    def breaks(bucket_, key, path, sha256):
        if len(sent) == 2:
            raise UnavailableError("the line is down")
        sent.append(key)
        right(bucket_, key, path, sha256)

    monkeypatch.setattr(s3_deliver, "_put", breaks)
    with pytest.raises(UnavailableError):
        ef.datasets.deliver("moving", url, format="lerobot-v3.0")
    assert "to/them/SHA256SUMS" not in s3_server.objects(bucket)

    monkeypatch.setattr(s3_deliver, "_put", lambda *given: (sent.append(given[1]), right(*given)))
    ef.datasets.deliver("moving", url, format="lerobot-v3.0")

    assert len(sent) == len(set(sent)) > 4  # nothing twice
    there = fetched(s3_server, bucket, "to/them/", tmp_path / "there")
    assert check_package(there)["dataset"]["versionTag"] == "v2"


def test_what_is_somebody_elses_stays(s3_server, bucket, ef):
    s3_server.client.put_object(Bucket=bucket, Key="to/them/thesis.tex", Body=b"x")
    with pytest.raises(InvalidInputError, match="thesis") as caught:
        ef.datasets.deliver("reach", f"s3://{bucket}/to/them")
    assert caught.value.kind == ErrorKind.DUPLICATE
    with pytest.raises(InvalidInputError, match="whole bucket"):
        ef.datasets.deliver("reach", f"s3://{bucket}")
    assert s3_server.objects(bucket) == ["to/them/thesis.tex"]


def test_a_long_file_goes_in_parts(s3_server, bucket, tmp_path):
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(range(256)) * (PART_BYTES // 128))

    assert s3_deliver.deliver_file(f"s3://{bucket}/to/big.bin", big)
    assert not s3_deliver.deliver_file(f"s3://{bucket}/to/big.bin", big)

    got = s3_server.client.get_object(Bucket=bucket, Key="to/big.bin")
    assert got["Body"].read() == big.read_bytes()
    assert s3_server.uploads(bucket) == []


def test_a_long_file_that_is_given_up_leaves_no_part(s3_server, bucket, tmp_path, monkeypatch):
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(range(256)) * (PART_BYTES // 64))
    right, sent = Bucket.ask, []

    def interrupted(self, operation, **arguments):
        if operation == "upload_part":
            sent.append(arguments["PartNumber"])
            if len(sent) == 2:
                raise KeyboardInterrupt
        return right(self, operation, **arguments)

    monkeypatch.setattr(Bucket, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        s3_deliver.deliver_file(f"s3://{bucket}/to/big.bin", big)

    assert len(sent) >= 2
    assert s3_server.uploads(bucket) == []
    assert s3_server.objects(bucket) == []
    monkeypatch.setattr(s3_deliver, "give_up", lambda *_: None)  # without it there are parts
    sent.clear()
    with pytest.raises(KeyboardInterrupt):
        s3_deliver.deliver_file(f"s3://{bucket}/to/big.bin", big)
    assert len(s3_server.uploads(bucket)) == 1
