"""Damaged bytes turn the asset check ``bytes_verified`` red, repaired ones turn it green again."""

from pathlib import Path

import dagster as dg
import pytest

from emboflow_dagster import BlobIOManager, build_definitions
from emboflow_dagster.errors import IntegrityError
from emboflow_dagster.orchestration import checks, keys
from emboflow_dagster.orchestration.catalog import Place, catalog_of
from emboflow_dagster.orchestration.resources import EmboFlowResource
from emboflow_dagster.orchestration.scrub import Budget, quarantine_sensor, scrub_job


@pytest.fixture
def place(settings):
    return Place(settings.workspace, settings.project)


@pytest.fixture
def raw(ef, table, place):
    """A registered table, and the key it is shown under."""
    asset = ef.assets.register(table, type="raw_file", name="joints")
    return asset, keys.raw_key(place, "joints")


def damage(ef, ref):
    """One bit of a stored payload; returns what puts it right."""
    path: Path = ef.store.path_of(ref.key)
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    return good


def check_of(instance, key):
    """The last result of an asset's check, ``None`` when it has none."""
    check = dg.AssetCheckKey(key, checks.CHECK)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).get(check)
    return record.event.dagster_event.event_specific_data if record else None


def scrub(definitions, instance):
    return definitions.resolve_job_def(keys.SCRUB_JOB).execute_in_process(
        instance=instance, raise_on_error=False
    )


def test_a_flipped_byte_is_found_by_the_scrubber_and_its_asset_turns_red_then_green(ef, instance, raw):
    asset, key = raw
    definitions = build_definitions(catalog_of(ef))
    assert scrub(definitions, instance).success
    assert check_of(instance, key).passed

    good = damage(ef, asset.storage_ref)
    assert not scrub(definitions, instance).success

    red = check_of(instance, key)
    assert not red.passed
    assert red.severity is dg.AssetCheckSeverity.ERROR
    metadata = {name: value.value for name, value in red.metadata.items()}
    assert metadata["object_id"] == asset.storage_ref.object_id
    assert metadata["version"] == 0
    assert metadata["recorded"] == asset.storage_ref.checksum
    assert metadata["found"] != metadata["recorded"]
    assert metadata["damage"] == "hash-mismatch"
    assert f"emboflow blob repair {asset.storage_ref.object_id} --version 0" in metadata["repair"]
    ef.blobs.repair(asset.storage_ref.object_id, 0, good)
    assert scrub(definitions, instance).success
    assert check_of(instance, key).passed


def test_the_check_can_be_executed_from_the_page_of_its_asset(ef, instance, raw):
    asset, key = raw
    definitions = build_definitions(catalog_of(ef))

    def executed():
        job = definitions.resolve_implicit_global_asset_job_def()
        check = dg.AssetCheckKey(key, checks.CHECK)
        subset = job.get_subset(asset_selection=set(), asset_check_selection={check})
        [evaluation] = subset.execute_in_process(instance=instance).get_asset_check_evaluations()
        return evaluation.passed

    assert executed()
    damage(ef, asset.storage_ref)
    assert not executed()


def test_a_failed_read_anywhere_is_told_by_the_sensor_and_so_is_the_repair(ef, instance, raw, place):
    asset, key = raw
    sensor = quarantine_sensor(place, [key])
    cursor = None

    def tick():
        nonlocal cursor
        with dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"emboflow": EmboFlowResource()}
        ) as context:
            told = sensor.evaluate_tick(context)
        cursor = told.cursor or cursor
        return [(event.asset_key, event.passed) for event in told.asset_events]

    assert tick() == []
    good = damage(ef, asset.storage_ref)
    with pytest.raises(IntegrityError):
        ef.blobs.read(asset.storage_ref.object_id)
    assert tick() == [(key, False)]
    assert tick() == []
    ef.blobs.repair(asset.storage_ref.object_id, 0, good)
    assert tick() == [(key, True)]
    assert tick() == []


def test_an_input_that_cannot_be_read_turns_its_asset_red_at_once(ef, instance, place):
    key = dg.AssetKey([place.workspace, place.project, "artifacts", "weekly", "numbers"])

    @dg.asset(key=key)
    def numbers():
        return [1, 2]

    @dg.asset(ins={"numbers": dg.AssetIn(key=key)})
    def reader(numbers):
        return numbers

    def materialized(*assets):
        return dg.materialize(
            [numbers, reader],
            selection=list(assets),
            instance=instance,
            resources={"io_manager": BlobIOManager()},
            raise_on_error=False,
        ).success

    assert materialized(numbers, reader)
    damage(ef, ef.blobs.ref(ef.blobs.get(".".join(key.path))))

    assert not materialized(reader)
    assert not check_of(instance, key).passed
    assert materialized(numbers, reader)  # the same content, stored again


def test_a_workflows_job_has_no_step_more(ef, instance, raw):
    job = scrub_job(EmboFlowResource(), [], Budget())

    assert [node.name for node in job.nodes] == ["scrub"]
    schedule = next(
        s for s in build_definitions(catalog_of(ef)).schedules if s.name == f"{keys.SCRUB_JOB}__schedule"
    )
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
