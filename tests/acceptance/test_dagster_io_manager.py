"""What assets return becomes versioned, hashed blobs, and comes back as what it was."""

import fractions
import io
import threading
from pathlib import Path
from typing import IO, BinaryIO

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from pydantic import BaseModel

from emboflow_dagster import BlobIOManager
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.orchestration import handles
from tests.acceptance import io_steps


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


@pytest.mark.parametrize(
    "annotation", [BinaryIO, IO, io.BufferedIOBase, io.RawIOBase, io.BufferedReader, io.IOBase]
)
def test_an_open_file_passes_the_type_check_of_the_step_that_asks_for_one(key, annotation):
    loaded = []

    def reader(weekly):
        with weekly as file:
            loaded.append(file.read())

    reader.__annotations__ = {"weekly": annotation}
    stored(io.BytesIO(b"rows"), key, dg.asset(ins={"weekly": dg.AssetIn(key=key)})(reader))

    assert loaded == [b"rows"]


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
    with pytest.raises(dg.Failure, match=r"error\[serialised-unknown\]: an output of type object cannot"):
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


def test_outputs_of_ops_keep_apart_whatever_made_them(ef):
    """Mapped outputs, several outputs, `None`: each has a blob of its own."""

    @dg.op(out={"a": dg.Out(), "b": dg.Out()})
    def two():
        return 1, 2

    @dg.op(out=dg.DynamicOut())
    def many(a, b):
        for name in ("a", "b", "a_b"):
            yield dg.DynamicOutput((name, a, b), mapping_key=name)

    @dg.op
    def echo(value):
        return value

    @dg.op
    def nothing(values):
        assert sorted(name for name, *_ in values) == ["a", "a_b", "b"]

    @dg.op
    def last(found):
        return found is None

    @dg.job(resource_defs={"io_manager": BlobIOManager()})
    def mapped():
        last(nothing(many(*two()).map(echo).collect()))

    result = mapped.execute_in_process()

    assert result.output_for_node("last") is True


@pytest.fixture
def pose():
    class Pose(BaseModel):
        joint: str

    return Pose


@pytest.mark.parametrize("annotated", [True, False])
def test_what_an_asset_returns_is_what_the_next_one_gets(ef, tmp_path, pose, annotated):
    """One run over every kind of value, with and without annotations."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    folder = tmp_path / "episode"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")
    values = {
        "frame": (pd.DataFrame({"a": [1, 2]}), pd.DataFrame),
        "table": (pa.table({"a": [1, 2]}), pa.Table),
        "array": (np.arange(3), np.ndarray),
        "arrays": ({"x": np.arange(3)}, dict[str, np.ndarray]),
        "model": (pose(joint="elbow"), pose),
        "models": ([pose(joint="elbow")], list[pose]),
        "perhaps": (pose(joint="wrist"), pose | None),
        "nothing": (None, pose | None),
        "number": (1.5, float),
        "file": (folder / "a.txt", Path),
        "folder": (folder, Path),
    }
    found = {}

    def pair(name, value, kind):
        @dg.asset(name=name)
        def made():
            return value

        def take(made):
            found[name] = made

        take.__annotations__ = {"made": kind} if annotated else {}
        reader = dg.asset(name=f"{name}_read", ins={"made": dg.AssetIn(name)})(take)
        return [made, reader]

    assets = [asset for name, (value, kind) in values.items() for asset in pair(name, value, kind)]
    dg.materialize(assets, instance=dg.DagsterInstance.ephemeral(), resources={"io_manager": BlobIOManager()})

    pd.testing.assert_frame_equal(found["frame"], values["frame"][0])
    assert found["table"].equals(values["table"][0])
    assert list(found["array"]) == list(found["arrays"]["x"]) == [0, 1, 2]
    assert found["file"].read_text() == "a"
    assert found["file"].name == "a.txt"
    assert (found["folder"] / "deep" / "b.txt").read_text() == "b"
    assert found["nothing"] is None
    assert found["number"] == 1.5
    if annotated:
        assert [found[name] for name in ("model", "models", "perhaps")] == [
            values[name][0] for name in ("model", "models", "perhaps")
        ]
    else:
        assert found["models"] == [found["model"]] == [{"joint": "elbow"}]


def test_none_of_an_asset_stores_nothing_and_comes_back_as_none(ef, key, object_id):
    loaded = []

    @dg.asset(ins={"weekly": dg.AssetIn(key=key)})
    def reader(weekly):
        loaded.append(weekly)

    event = stored(None, key, reader)

    assert loaded == [None]
    assert event.metadata["stored"].value == "nothing: the value was None"
    with pytest.raises(NotFoundError):
        ef.blobs.get(object_id)


def test_what_was_never_stored_is_an_error_not_none(ef, key):
    @dg.asset(ins={"weekly": dg.AssetIn(key=key)})
    def reader(weekly):
        raise AssertionError(weekly)

    with pytest.raises(dg.Failure, match=r"error\[not-found\]"):
        dg.materialize(
            [reader, dg.AssetSpec(key)],
            instance=dg.DagsterInstance.ephemeral(),
            resources={"io_manager": BlobIOManager()},
        )


@pytest.mark.parametrize("by", ["manager", "asset"])
def test_home_format_and_preview_are_chosen_for_all_or_for_one_asset(ef, key, object_id, by):
    import pandas as pd

    chosen = {"format": "arrow", "home": "in_object", "preview_rows": 0}
    metadata = {f"emboflow/{name}": value for name, value in chosen.items()} if by == "asset" else {}
    found = []

    @dg.asset(key=key, metadata=metadata)
    def weekly():
        return pd.DataFrame({"a": [1]})

    @dg.asset(ins={"weekly": dg.AssetIn(key=key)})
    def reader(weekly):
        found.append(weekly)

    manager = BlobIOManager(**(chosen if by == "manager" else {}))
    result = dg.materialize(
        [weekly, reader], instance=dg.DagsterInstance.ephemeral(), resources={"io_manager": manager}
    )
    [event, *_] = result.get_asset_materialization_events()
    blob = ef.blobs.get(object_id)

    assert blob.storage_type == "in_object"
    assert blob.content_type == "application/vnd.apache.arrow.file"
    assert "preview" not in event.materialization.metadata
    assert list(found[0]["a"]) == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"home": "nowhere"}, "allowed are object_store, in_object, gridfs"),
        ({"home": "gridfs"}, "GridFS is not allowed"),
        ({"preview_rows": -1}, "a number of rows"),
    ],
)
def test_options_that_are_none_are_refused(ef, key, options, message):
    with pytest.raises(dg.Failure, match=message):
        stored({"n": 1}, key, **options)


def test_a_table_too_large_for_its_home_is_refused_and_leaves_nothing(ef, key, object_id):
    import pandas as pd

    with pytest.raises(dg.Failure, match=r"error\[size\]: the payload is larger than 256 KiB"):
        stored(pd.DataFrame({"a": range(1_000_000)}), key, home="in_object")

    assert ef.blobs.history(object_id) == []
    assert [thread for thread in threading.enumerate() if thread.name == "payload"] == []


def test_a_pickle_is_loaded_only_where_it_is_named(ef, key, object_id):
    value = fractions.Fraction(1, 3)
    named = ["fractions.Fraction"]
    loaded = []

    @dg.asset(ins={"weekly": dg.AssetIn(key=key)})
    def reader(weekly):
        loaded.append(weekly)

    with pytest.raises(dg.Failure, match=r"error\[serialised-unknown\]"):
        stored(value, key)
    stored(value, key, reader, allow_pickle=named)
    with pytest.raises(dg.Failure, match=r"error\[serialised-unsafe\]"):
        dg.materialize(
            [reader, dg.AssetSpec(key)],
            instance=dg.DagsterInstance.ephemeral(),
            resources={"io_manager": BlobIOManager()},
        )

    assert loaded == [value]
    assert ef.blobs.get(object_id).serializer == "pickle:fractions.Fraction"


def test_what_an_output_was_made_from_is_recorded_with_the_versions_that_were_read(ef, key):
    """Also where an older version was pinned, for which Dagster's own tags name the newest."""

    @dg.asset(key=key)
    def weekly():
        return {"n": 2}

    @dg.asset(code_version="7", ins={"weekly": dg.AssetIn(key=key, metadata={"emboflow/version": 0})})
    def summary(weekly):
        return weekly["n"]

    first = stored({"n": 1}, key)
    result = dg.materialize(
        [weekly, summary],
        instance=dg.DagsterInstance.ephemeral(),
        resources={"io_manager": BlobIOManager()},
    )
    [event] = result.asset_materializations_for_node("summary")
    summary_id = event.metadata["object_id"].value
    lineage = ef.blobs.get(summary_id).custom_metadata["lineage"]
    [upstream] = lineage["upstream"]

    assert ef.blobs.read(summary_id) == b"1"
    assert upstream == {
        "input": "weekly",
        "asset": key.to_user_string(),
        "partition": None,
        "object_id": ".".join(key.path),
        "version": 0,
        "sha256": first.metadata["checksum"].value.removeprefix("sha256:"),
        "pinned": True,
    }
    assert lineage["run_id"] == result.run_id
    assert (lineage["step"], lineage["code_version"]) == ("summary", "7")
    [row] = event.metadata["upstream"].value.records
    assert (row.data["version"], row.data["pinned"]) == (0, True)
    assert event.metadata["code_version"].value == "7"


def test_the_same_in_steps_that_are_processes_of_their_own(ef, settings, instance):
    result = dg.execute_job(dg.reconstructable(io_steps.two_processes), instance, raise_on_error=True)
    prefix = f"{settings.workspace}.pick-place"
    lineage = ef.blobs.get(f"{prefix}.joint").custom_metadata["lineage"]

    assert ef.blobs.read(f"{prefix}.joint") == b"elbow"
    assert ef.blobs.get(f"{prefix}.poses").serializer == "pose-line"
    assert [(one["asset"], one["version"]) for one in lineage["upstream"]] == [("poses", 0)]
    assert lineage["run_id"] == result.run_id


def test_equal_bytes_keep_downstream_fresh_and_other_bytes_make_it_stale(ef):
    instance = dg.DagsterInstance.ephemeral()
    made = {"n": 1}

    @dg.asset
    def upstream():
        return dict(made)

    @dg.asset
    def downstream(upstream):
        return upstream["n"]

    def materialize(*keys):
        dg.materialize(
            [upstream, downstream],
            selection=list(keys),
            instance=instance,
            resources={"io_manager": BlobIOManager()},
        )

    def status():
        definitions = dg.Definitions([upstream, downstream])
        graph = definitions.resolve_asset_graph()
        return CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance)).get_status(
            dg.AssetKey("downstream")
        )

    materialize("upstream", "downstream")
    assert status() == StaleStatus.FRESH
    materialize("upstream")
    assert status() == StaleStatus.FRESH
    made["n"] = 2
    materialize("upstream")
    assert status() == StaleStatus.STALE
    materialize("downstream")
    assert status() == StaleStatus.FRESH


def test_an_unchanged_version_is_told_from_a_new_one(ef, key):
    events = [stored({"n": n}, key) for n in (1, 1, 2)]

    assert [event.metadata["unchanged"].value for event in events] == [False, True, False]


def test_what_the_step_says_itself_is_not_overwritten(ef, key):
    @dg.asset(key=key)
    def weekly():
        return dg.Output([{"a": 1}], metadata={"preview": "mine", "dagster/row_count": 99, "size": -1})

    result = dg.materialize(
        [weekly], instance=dg.DagsterInstance.ephemeral(), resources={"io_manager": BlobIOManager()}
    )
    metadata = result.get_asset_materialization_events()[0].materialization.metadata

    assert (metadata["preview"].value, metadata["dagster/row_count"].value) == ("mine", 99)
    assert metadata["size"].value == len('[{"a": 1}]')


def test_another_asset_never_goes_on_with_the_versions_of_the_first(ef):
    partitions = dg.StaticPartitionsDefinition(["b"])

    @dg.asset(name="a", partitions_def=partitions)
    def parted():
        return 1

    @dg.asset(key=["a", "b"])
    def nested():
        return 2

    resources = {"io_manager": BlobIOManager()}
    ephemeral = dg.DagsterInstance.ephemeral()
    dg.materialize([parted], partition_key="b", instance=ephemeral, resources=resources)
    with pytest.raises(dg.Failure, match=r"error\[conflict\]: blob .*a\.b belongs to asset a, partition b"):
        dg.materialize([nested], instance=ephemeral, resources=resources)


def test_projects_share_a_database_never_a_blob(ef, settings):
    """A key that names no project is one of the project that is configured."""
    made = iter([1, 2])

    @dg.asset
    def report():
        return next(made)

    for project in ("pick-place", "sorting"):
        dg.materialize(
            [report],
            instance=dg.DagsterInstance.ephemeral(),
            resources={"io_manager": BlobIOManager(project=project)},
        )

    assert ef.blobs.read(f"{settings.workspace}.pick-place.report") == b"1"
    assert ef.blobs.read(f"{settings.workspace}.sorting.report") == b"2"


def test_a_step_that_computes_for_long_finds_a_server_that_has_moved(ef, key, monkeypatch):
    """A handle that nobody used for a while is not trusted to lead anywhere."""
    stored({"n": 1}, key)
    [first] = handles._open.values()
    stored({"n": 2}, key)
    assert list(handles._open.values()) == [first]
    monkeypatch.setattr("emboflow_dagster.orchestration.handles.MAX_IDLE_S", 0.0)
    stored({"n": 3}, key)

    assert first not in handles._open.values()
    assert ef.blobs.get(".".join(key.path)).version == 2
