"""An asset that is wiped in Dagster, or ages under its retention rule: its bytes go, others stay."""

import json
import os
from dataclasses import replace

import dagster as dg
import pytest

from emboflow_dagster import BlobIOManager
from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.orchestration.wiped import let_go, wiped_sensor
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.gc.tombstones import collected_names


@pytest.fixture
def settings(settings, monkeypatch):
    """A database that knows of no other test's store: gc looks at all that its database names."""
    monkeypatch.setenv("EMBOFLOW_DATABASE", "acceptance-wiped")
    return replace(settings, database="acceptance-wiped")


@pytest.fixture
def key(settings):
    return dg.AssetKey([settings.workspace, "pick-place", "artifacts", "weekly", "report"])


@pytest.fixture
def object_id(key):
    return ".".join(key.path)


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")


def materialized(instance, key, value, *, partition=None, metadata=None):
    partitions = dg.StaticPartitionsDefinition(["left", "right"]) if partition else None

    @dg.asset(key=key, partitions_def=partitions, metadata=metadata)
    def weekly():
        return {**value, "of": key.path[0]}  # bytes that no other test's workspace keeps

    result = dg.materialize(
        [weekly], instance=instance, partition_key=partition, resources={"io_manager": BlobIOManager()}
    )
    [event] = result.get_asset_materialization_events()
    return event.materialization.metadata


def collected(ef):
    for key in ef.store.iter_keys():
        os.utime(ef.store.path_of(key), (1e9, 1e9))
    return ef.gc(grace_s=0).versions


def is_withdrawn(ef, object_id, version=None):
    with pytest.raises(IntegrityError) as caught:
        ef.blobs.read(object_id, version)
    return caught.value.kind is ErrorKind.BLOB_WITHDRAWN


def test_the_bytes_of_a_wiped_asset_are_collected(ef, instance, key, object_id):
    for n in (1, 2):
        materialized(instance, key, {"n": n})
    other = dg.AssetKey([*key.path[:-1], "other"])
    materialized(instance, other, {"n": 3})
    assert let_go(ef, instance, settled_s=0) == ({}, 0.0)

    instance.wipe_assets([key])
    assert let_go(ef, instance)[0] == {}  # a step may be about to tell of what it stored
    done, until = let_go(ef, instance, settled_s=0)

    assert done == {object_id: 2}
    assert let_go(ef, instance, settled_s=0)[0] == {}
    assert let_go(ef, instance, after=until, settled_s=0) == ({}, until)
    assert sorted(collected(ef)) == [f"{object_id}.v0", f"{object_id}.v1"]
    assert is_withdrawn(ef, object_id, 0)
    assert is_withdrawn(ef, object_id, 1)
    assert json.loads(ef.blobs.read(".".join(other.path)))["n"] == 3
    [row] = ef.audit.list(action="blob.withdraw")
    assert "was wiped in Dagster" in row.after_summary["reason"]


def test_an_asset_that_is_materialized_again_is_live_again(ef, instance, key, object_id):
    materialized(instance, key, {"n": 1})
    materialized(instance, key, {"n": 2})
    instance.wipe_assets([key])
    again = materialized(instance, key, {"n": 2})  # the same bytes: no new version
    assert again["version"].value == 1

    assert let_go(ef, instance, settled_s=0)[0] == {object_id: 1}
    assert collected(ef) == [f"{object_id}.v0"]
    assert json.loads(ef.blobs.read(object_id))["n"] == 2


def test_an_asset_that_comes_back_after_it_was_collected_is_a_new_version(ef, instance, key, object_id):
    materialized(instance, key, {"n": 1})
    instance.wipe_assets([key])
    let_go(ef, instance, settled_s=0)
    collected(ef)

    assert materialized(instance, key, {"n": 1})["version"].value == 1
    assert collected(ef) == []
    assert json.loads(ef.blobs.read(object_id))["n"] == 1
    assert collected_names(ef.mongo, ef.scope.workspace_id) == {f"{object_id}.v0"}


def test_a_wiped_partition_goes_and_the_others_stay(ef, instance, key, object_id):
    for partition in ("left", "right"):
        materialized(instance, key, {"side": partition}, partition=partition)
    # The storage of a local instance cannot wipe one partition: what one that can would record.
    from dagster._core.events import AssetWipedData
    from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

    instance.report_dagster_event(
        dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_WIPED.value,
            event_specific_data=AssetWipedData(asset_key=key, partition_keys=["left"]),
            job_name=RUNLESS_JOB_NAME,
        ),
        run_id=RUNLESS_RUN_ID,
    )

    assert let_go(ef, instance, settled_s=0)[0] == {f"{object_id}.left": 1}
    assert collected(ef) == [f"{object_id}.left.v0"]
    instance.wipe_assets([key])
    assert let_go(ef, instance, settled_s=0)[0] == {f"{object_id}.right": 1}


def test_the_sensor_lets_go_once(ef, instance, key, object_id, settings, monkeypatch):
    from emboflow_dagster.orchestration import wiped
    from emboflow_dagster.orchestration.catalog import Place
    from emboflow_dagster.orchestration.resources import EmboFlowResource

    monkeypatch.setattr(wiped, "SETTLED_S", 0)
    monkeypatch.setattr(wiped.let_go, "__kwdefaults__", {"after": 0.0, "settled_s": 0})
    materialized(instance, key, {"n": 1})
    instance.wipe_assets([key])
    sensor = wiped_sensor(Place(settings.workspace, "pick-place"))

    def tick(cursor):
        resources = {"emboflow": EmboFlowResource()}
        with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
            return sensor.evaluate_tick(context)

    first = tick(None)
    second = tick(first.cursor)

    assert first.skip_message == f"{object_id}: 1 versions"
    assert (second.skip_message, second.cursor) == ("nothing was wiped", first.cursor)


def test_a_retention_rule_in_the_metadata_is_applied_and_follows_changes(ef, instance, key, object_id):
    for n in range(4):
        materialized(instance, key, {"n": n}, metadata={"emboflow/retention": {"keep_last": 3}})
    assert ef.blobs.retention(object_id).keep_last == 3
    assert len(ef.audit.list(action="blob.retain")) == 1
    ef.blobs.retain(object_id, hold=True)
    materialized(instance, key, {"n": 4}, metadata={"emboflow/retention": {"keep_last": 2, "keep_days": 1}})

    now = ef.blobs.retention(object_id)
    assert (now.keep_last, now.keep_days, now.hold) == (2, 1, True)
    assert collected(ef) == []
    ef.blobs.retain(object_id, keep_last=2, hold=False)
    assert sorted(collected(ef)) == [f"{object_id}.v{n}" for n in range(3)]
    assert EdgeKind.RETENTION in {edge.kind for edge in ef.blobs.why_kept(object_id, 3)}


@pytest.mark.parametrize("rule", [{"keep": 1}, {}, 3, {"keep_last": 0}])
def test_a_rule_that_is_none_fails_the_step(ef, instance, key, rule):
    with pytest.raises(dg.Failure, match="invalid-input"):
        materialized(instance, key, {"n": 1}, metadata={"emboflow/retention": rule})
