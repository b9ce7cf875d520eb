"""A team's own `S3Resource` is what every part of Dagster reaches the bucket with, in whichever process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from emboflow_dagster import BlobIOManager, MongoResource, ObjectStoreResource
from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.orchestration import EmboFlowResource
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from tests.integration.s3.server import CREDENTIALS, REGION, Server

BIN = Path(sys.executable).parent
SECRET = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
#: A code location of somebody else's: credentials and endpoint are in its resource, and nowhere else.
LOCATION = """
import dagster as dg
from dagster_aws.s3 import S3Resource
from emboflow_dagster import BlobIOManager, ObjectStoreResource
from emboflow_dagster.orchestration import EmboFlowResource

s3 = S3Resource(
    endpoint_url=dg.EnvVar("TEAM_S3_ENDPOINT"),
    region_name=dg.EnvVar("TEAM_S3_REGION"),
    aws_access_key_id=dg.EnvVar("TEAM_S3_KEY"),
    aws_secret_access_key=dg.EnvVar("TEAM_S3_SECRET"),
)
store = ObjectStoreResource(url=dg.EnvVar("TEAM_S3_URL"), s3=s3)


@dg.asset
def numbers():
    return list(range(1000))


@dg.asset
def total(numbers: list, emboflow: EmboFlowResource):
    with emboflow.open() as ef:
        ef.blobs.put(b"by the handle", object_id="by-the-handle")
    return sum(numbers)


defs = dg.Definitions(
    assets=[numbers, total],
    resources={
        "s3": s3,
        "emboflow": EmboFlowResource(object_store=store),
        "io_manager": BlobIOManager(object_store=store),
    },
)
"""


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: Server):
    from dagster_aws.s3 import S3Resource

    return S3Resource(
        endpoint_url=s3_server.url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SECRET,
    )


@pytest.fixture
def url(settings, s3_server, monkeypatch) -> Iterator[str]:
    monkeypatch.delenv("EMBOFLOW_OBJECT_STORE")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with s3_server.bucket() as name:
        yield f"s3://{name}/{settings.workspace}"


def under(server: Server, url: str) -> list[str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return [name for name in server.objects(bucket) if name.startswith(f"{prefix}/")]


def test_steps_in_processes_of_their_own_use_the_resource(s3_server, settings, url, tmp_path):
    location = tmp_path / "team.py"
    location.write_text(LOCATION)
    environment = {
        **os.environ,
        "TEAM_S3_ENDPOINT": s3_server.url,
        "TEAM_S3_KEY": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "TEAM_S3_SECRET": SECRET,
        "TEAM_S3_REGION": REGION,
        "TEAM_S3_URL": url,
    }
    (tmp_path / "dagster").mkdir(exist_ok=True)

    done = subprocess.run(
        [BIN / "dagster", "asset", "materialize", "--select", "*", "-f", location],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert "STEP_WORKER_STARTED" in done.stderr + done.stdout
    assert len(under(s3_server, url)) == 3
    assert SECRET not in done.stdout + done.stderr
    assert not (settings.home / "objects").exists()


def test_a_location_loads_without_credentials_and_without_a_server(url, tmp_path):
    location = tmp_path / "team.py"
    location.write_text(LOCATION)
    (tmp_path / "dagster").mkdir()
    nowhere = {
        "TEAM_S3_ENDPOINT": "http://127.0.0.1:1",
        "TEAM_S3_KEY": "",
        "TEAM_S3_SECRET": "",
        "TEAM_S3_REGION": "us-east-1",
    }

    done = subprocess.run(
        [BIN / "dagster", "definitions", "validate", "-f", location],
        env={**os.environ, **nowhere, "TEAM_S3_URL": url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]


def test_sensors_use_the_resource_and_are_opened_anew_when_it_changes(settings, ef, s3_server, s3, url):
    place = Place(settings.workspace, settings.project)
    resource = EmboFlowResource(object_store=ObjectStoreResource(url=url, s3=s3))
    same = EmboFlowResource(object_store=ObjectStoreResource(url=url, s3=s3.model_copy()))
    other = EmboFlowResource(object_store=ObjectStoreResource(url=url))

    with (
        kept_open(resource, place) as first,
        kept_open(same, place) as again,
        kept_open(other, place) as third,
    ):
        first.blobs.put(b"by a sensor", object_id=f"{settings.workspace}.sensor")
        assert again is first
        assert third is not first
        with pytest.raises(ConfigurationError, match="credentials"):
            third.blobs.read(f"{settings.workspace}.sensor")

    assert len(under(s3_server, url)) == 1


def test_the_resource_shows_no_secret_and_the_launchpad_has_its_fields(s3, url):
    store = ObjectStoreResource(url=url, s3=s3)
    whole = EmboFlowResource(object_store=store)

    for shown in (store, whole, BlobIOManager(object_store=store)):
        assert SECRET not in repr(shown) + str(shown)
    assert SECRET not in json.dumps(store.fingerprint()) + repr(whole.settings())


def test_the_store_can_be_said_in_the_launchpad(settings, ef, s3_server, s3, url):
    store = ObjectStoreResource.configure_at_launch(s3=s3)

    @dg.asset
    def said_at_launch():
        return [1, 2, 3]

    result = dg.materialize(
        [said_at_launch],
        instance=dg.DagsterInstance.ephemeral(),
        resources={
            "store": store,
            "io_manager": BlobIOManager(mongo=MongoResource(), object_store=store),
        },
        run_config={"resources": {"store": {"config": {"url": url}}}},
    )

    assert result.success
    assert len(under(s3_server, url)) == 1


def test_another_resource_than_s3_is_refused_by_name(settings, url):
    store = ObjectStoreResource(url=url, s3=MongoResource())

    with pytest.raises(ConfigurationError, match=r"found a MongoResource; needed is dagster_aws"):
        store.client_maker()()
