"""Each partition is a blob of its own, whatever its key; several come as a dict by key."""

import dagster as dg
import pytest

from emboflow_dagster import BlobIOManager

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-06")
ROBOTS = dg.StaticPartitionsDefinition(["arm", "a|b", "a-b", "a.b"])
GRID = dg.MultiPartitionsDefinition({"day": DAYS, "robot": dg.StaticPartitionsDefinition(["arm", "leg"])})
SCENES = dg.DynamicPartitionsDefinition(name="scenes")


pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")


@pytest.fixture
def instance():
    """One in memory: what the IO manager does does not depend on how Dagster keeps its events."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def run(ef, instance):
    """Materialises assets of one or all partitions with the IO manager."""

    def materialize(*assets, partition=None, tags=None, select=None, **options):
        return dg.materialize(
            list(assets),
            selection=select,
            partition_key=partition,
            tags=tags,
            instance=instance,
            resources={"io_manager": BlobIOManager(**options)},
        )

    return materialize


@dg.asset(partitions_def=ROBOTS)
def by_robot(context):
    return {"robot": context.partition_key}


def days(first, last):
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def metadata_of(result, node):
    return [event.metadata for event in result.asset_materializations_for_node(node)]


def test_keys_that_look_alike_keep_apart_and_come_as_a_dict(ef, settings, run):
    seen = {}

    @dg.asset
    def everything(by_robot: dict[str, dict[str, str]]):
        seen.update(by_robot)

    ids = set()
    for key in ROBOTS.get_partition_keys():
        [metadata] = metadata_of(run(by_robot, partition=key), "by_robot")
        ids.add(metadata["object_id"].value)
    run(everything, by_robot, select=["everything"])

    assert len(ids) == 4
    prefix = f"{settings.workspace}.pick-place.by_robot"
    assert ids >= {f"{prefix}.arm", f"{prefix}.a-b"}
    assert seen == {key: {"robot": key} for key in ROBOTS.get_partition_keys()}


def test_a_missing_partition_is_named_or_left_out_where_that_is_allowed(run):
    seen = []

    def reader(name, metadata):
        @dg.asset(name=name, ins={"by_robot": dg.AssetIn(metadata=metadata)})
        def read(by_robot):
            seen.append(by_robot)

        return read

    run(by_robot, partition="arm")
    with pytest.raises(dg.Failure, match=r"3 of 4 partitions have nothing stored: a\|b, a-b, a\.b"):
        run(by_robot, reader("strict", {}), select=["strict"])
    run(by_robot, reader("lenient", {"emboflow/allow_missing_partitions": True}), select=["lenient"])

    assert seen == [{"arm": {"robot": "arm"}}]


def test_one_partition_of_many_is_one_value_and_its_version_can_be_pinned(run):
    seen = []
    made = iter([1, 2])

    @dg.asset(partitions_def=DAYS)
    def daily():
        return next(made)

    def reader(name, metadata):
        @dg.asset(name=name, partitions_def=DAYS, ins={"daily": dg.AssetIn(metadata=metadata)})
        def read(daily):
            seen.append(daily)

        return read

    day = "2026-01-02"
    run(daily, partition=day)
    run(daily, partition=day)
    for metadata, pins in (
        ({}, {}),
        ({"emboflow/version": {day: 0}}, {}),
        ({"emboflow/version": {"2026-01-03": 0}}, {}),
        ({}, {f"daily@{day}": 0, "daily": 7}),
    ):
        run(daily, reader("read", metadata), partition=day, select=["read"], pins=pins)

    assert seen == [2, 1, 2, 1]


def test_windows_over_time_come_as_a_dict_also_when_they_hold_one(run):
    seen = []
    window = dg.TimeWindowPartitionMapping(start_offset=-2, allow_nonexistent_upstream_partitions=True)

    @dg.asset(partitions_def=DAYS)
    def daily(context):
        return context.partition_key

    @dg.asset(
        partitions_def=DAYS,
        ins={"daily": dg.AssetIn(partition_mapping=window, metadata={"emboflow/partitions": "dict"})},
    )
    def smooth(daily: dict[str, str]):
        seen.append(daily)

    for day in (1, 2, 3):
        run(daily, smooth, partition=f"2026-01-0{day}")

    assert [sorted(found) for found in seen] == [
        ["2026-01-01"],
        ["2026-01-01", "2026-01-02"],
        ["2026-01-01", "2026-01-02", "2026-01-03"],
    ]


def test_dynamic_and_multi_dimensional_partitions(ef, instance, run):
    import pandas as pd

    seen = []

    @dg.asset(partitions_def=SCENES)
    def scene(context):
        return pd.DataFrame({"name": [context.partition_key]})

    @dg.asset(partitions_def=GRID)
    def cell(context):
        return str(context.partition_key)

    @dg.asset(ins={"scene": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())})
    def scenes(scene: dict[str, pd.DataFrame]):
        seen.append({key: list(frame["name"]) for key, frame in scene.items()})

    @dg.asset(partitions_def=GRID)
    def same_cell(cell):
        seen.append(cell)

    instance.add_dynamic_partitions("scenes", ["kitchen table"])
    run(scene, partition="kitchen table")
    run(scene, scenes, select=["scenes"])
    run(cell, same_cell, partition=dg.MultiPartitionKey({"day": "2026-01-02", "robot": "leg"}))

    assert seen == [{"kitchen table": ["kitchen table"]}, "2026-01-02|leg"]


def test_one_run_over_a_range_stores_each_partition(ef, run):
    """The single-run backfill policy: a dict by partition key in, a blob a partition out."""
    seen = []

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def daily(context):
        return {key: {"day": key} for key in context.partition_keys}

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def after(context, daily: dict[str, dict[str, str]]):
        seen.append(daily)
        return {key: daily[key]["day"] for key in context.partition_keys}

    result = run(daily, after, tags=days("2026-01-02", "2026-01-04"))
    found = metadata_of(result, "daily")

    assert list(seen[0]) == ["2026-01-02", "2026-01-03", "2026-01-04"]
    assert len({metadata["object_id"].value for metadata in found}) == 3
    assert all(ef.blobs.get(metadata["object_id"].value).version == 0 for metadata in found)
    assert [row.data["partition"] for row in found[0]["partitions"].value.records] == list(seen[0])
    one = metadata_of(result, "after")[1]
    assert ef.blobs.read(one["object_id"].value) == b"2026-01-03"
    lineage = ef.blobs.get(one["object_id"].value).custom_metadata["lineage"]
    assert len(lineage["upstream"]) == 3


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1, 2], "needed is a dict by partition key"),
        ({"2026-01-02": 1}, "1 of the run's 2 partitions have no value"),
        ({"2026-01-02": 1, "2026-01-03": 2, "2026-01-05": 3}, "is no partition of this run"),
    ],
    ids=["no dict", "too few", "too many"],
)
def test_one_run_over_a_range_that_returns_something_else_is_refused(ef, settings, run, returned, message):
    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def daily():
        return returned

    with pytest.raises(dg.Failure, match=message):
        run(daily, tags=days("2026-01-02", "2026-01-03"))
    assert ef.blobs.history(f"{settings.workspace}.pick-place.daily.2026-01-02") == []


def test_values_are_loaded_outside_of_runs(run, instance):
    """What a notebook does."""

    @dg.asset
    def plain(by_robot: dict[str, dict[str, str]]):
        return len(by_robot)

    resources = {"io_manager": BlobIOManager()}
    definitions = dg.Definitions([by_robot, plain], resources=resources)
    for key in ROBOTS.get_partition_keys():
        run(by_robot, partition=key)
    run(by_robot, plain, select=["plain"])

    assert definitions.load_asset_value("plain", instance=instance) == 4
    found = definitions.load_asset_value("by_robot", partition_key="a|b", instance=instance)
    assert found == {"robot": "a|b"}
