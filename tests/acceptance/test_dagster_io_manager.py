"""What assets return becomes versioned, hashed blobs, and comes back as what it was."""

from pathlib import Path

import dagster as dg
import pytest

from emboflow_dagster import BlobIOManager


@pytest.fixture
def key(settings):
    return dg.AssetKey([settings.workspace, "pick-place", "artifacts", "weekly", "report"])


@pytest.fixture
def object_id(key):
    return ".".join(key.path)


def stored(value, key, downstream=None, **resource):
    """Materialise an asset that returns ``value`` (and one that takes it); the events of the first."""

    @dg.asset(key=key)
    def weekly():
        return value

    assets = [weekly, downstream] if downstream else [weekly]
    result = dg.materialize(
        assets,
        instance=dg.DagsterInstance.ephemeral(),
        resources={"io_manager": BlobIOManager(**resource)},
    )
    events = result.get_asset_materialization_events()
    return next(event.materialization for event in events if event.asset_key == key)


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None]}, [1, 2], "grüße", b"\x00\xff", 7, True], ids=lambda v: type(v).__name__
)
def test_a_value_comes_back_as_it_was(ef, key, object_id, value):
    loaded = []

    @dg.asset(deps=[], ins={"weekly": dg.AssetIn(key=key)})
    def reader(weekly):
        loaded.append(weekly)

    stored(value, key, reader)

    assert loaded == [value]
    assert type(loaded[0]) is type(value)


def test_a_frame_comes_back_with_its_types_and_shows_rows_and_columns(ef, key, object_id):
    import pandas as pd

    frame = pd.DataFrame({"name": ["a", "b"], "frames": [1, 2]})
    loaded = []

    @dg.asset(ins={"weekly": dg.AssetIn(key=key)})
    def reader(weekly: pd.DataFrame):
        loaded.append(weekly)

    event = stored(frame, key, reader)

    pd.testing.assert_frame_equal(loaded[0], frame)
    assert event.metadata["dagster/row_count"].value == 2
    assert [c.name for c in event.metadata["dagster/column_schema"].value.columns] == ["name", "frames"]


def test_a_file_is_streamed_both_ways(ef, key, object_id, tmp_path):
    source = tmp_path / "big.bin"
    source.write_bytes(b"robot" * 1_000_000)
    loaded = []

    @dg.asset(ins={"weekly": dg.AssetIn(key=key)})
    def reader(weekly: Path):
        loaded.append(weekly.read_bytes() == source.read_bytes())

    stored(source, key, reader)

    assert loaded == [True]


def test_equal_bytes_make_no_version_and_other_bytes_the_next(ef, key, object_id):
    first, same, other = stored({"n": 1}, key), stored({"n": 1}, key), stored({"n": 2}, key)

    assert [event.metadata["version"].value for event in (first, same, other)] == [0, 0, 1]
    assert [blob.version for blob in ef.blobs.history(object_id)] == [1, 0]


def test_the_data_version_is_the_sha256_of_the_blob(ef, key, object_id):
    event = stored({"n": 1}, key)
    blob = ef.blobs.get(object_id)

    assert event.tags["dagster/data_version"] == blob.data_sha256
    assert event.metadata["checksum"].value == f"sha256:{blob.data_sha256}"
    assert event.metadata["size"].value == blob.object_size_bytes
    assert event.metadata["object_id"].value == blob.object_id


@pytest.mark.parametrize("way", ["in code", "in the launchpad"])
def test_a_pinned_input_reads_that_version(ef, key, object_id, way):
    stored({"n": 1}, key)
    loaded = []
    metadata = {"emboflow/version": 0} if way == "in code" else {}
    pins = {} if way == "in code" else {key.to_user_string(): 0}

    @dg.asset(ins={"weekly": dg.AssetIn(key=key, metadata=metadata)})
    def reader(weekly):
        loaded.append(weekly)

    stored({"n": 2}, key, reader, pins=pins)

    assert loaded == [{"n": 1}]


def test_a_type_that_nobody_stores_is_refused_by_name(ef, key, object_id):
    with pytest.raises(dg.Failure, match=r"error\[invalid-input\]: an output of type object cannot"):
        stored(object(), key)


def test_damaged_bytes_are_an_error_never_a_value(ef, key, object_id):
    stored({"n": 1}, key)
    ref = ef.blobs.get(object_id).storage_ref
    path = Path(ref.uri.removeprefix("file://"))
    path.chmod(0o644)
    path.write_bytes(b'{"n":9}')

    @dg.asset(ins={"weekly": dg.AssetIn(key=key)})
    def reader(weekly):
        raise AssertionError(weekly)

    with pytest.raises(dg.Failure, match=r"error\[(hash|size)-mismatch\]"):
        dg.materialize(
            [reader, dg.AssetSpec(key)],
            instance=dg.DagsterInstance.ephemeral(),
            resources={"io_manager": BlobIOManager()},
        )


def test_the_output_of_an_op_is_named_after_its_run_and_step(ef, key, object_id):
    @dg.op
    def make():
        return {"n": 1}

    @dg.op
    def take(made):
        return made["n"] + 1

    @dg.job(resource_defs={"io_manager": BlobIOManager()})
    def chain():
        take(make())

    result = chain.execute_in_process()

    assert result.output_for_node("take") == 2
