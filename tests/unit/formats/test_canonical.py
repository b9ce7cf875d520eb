"""The canonical dataset: same bytes for the same input, verified on the way back, time and numbers kept."""

import json
import tracemalloc

import numpy as np  # noqa: TID253 - this module is about numbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import Camera, Episode, FeatureSpec, RawStream
from emboflow_dagster.formats.canonical.stats import feature_stats, merge_stats
from emboflow_dagster.formats.canonical.video_track import write_video
from emboflow_dagster.formats.canonical.writer import write_canonical


def episode(length, seed=0, *, task="lift", dim=3, **more):
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(length, dim)).astype(np.float32)
    action = rng.normal(size=(length, 2)).astype(np.float32)
    return Episode(
        source={"assetId": "asset_1", "path": "demo.hdf5", "ref": f"data/demo_{seed}"},
        features={"observation.state": state, "action": action},
        specs={
            "observation.state": FeatureSpec(tuple(f"s{i}" for i in range(dim)), "state", "rad", "/joints"),
            "action": FeatureSpec(("x", "y"), "action"),
        },
        task=task,
        **more,
    )


def write(folder, episodes, **more):
    return write_canonical(iter(episodes), folder, fps=more.pop("fps", 20), **more)


def test_what_is_written_is_read_back(tmp_path):
    stamps = np.array([10, 20, 20, 40], dtype=np.int64) + 2**60
    valid = np.array([True, True, False, True])
    first = episode(
        4, 1, source_timestamp_ns=stamps, t0_ns=2**60, valid=valid, success=True, flags=("sim_time",)
    )
    second = episode(6, 2, task="place")

    manifest = write(
        tmp_path / "d", [first, second], robot_type="Panda", dataset_id="dataset_1", version_tag="v1"
    )
    dataset = open_canonical(tmp_path / "d")

    assert (manifest.episodes, manifest.frames) == (2, 10)
    assert dataset.manifest.sha256 == manifest.sha256
    assert dataset.features == ["observation.state", "action"]
    assert dataset.tasks() == ["lift", "place"]
    for index, given_episode in enumerate((first, second)):
        for name, values in given_episode.features.items():
            assert np.array_equal(dataset.vector(name, index), values)
    table = dataset.frames(0)
    assert table.column("source_timestamp_ns").to_pylist() == stamps.tolist()
    assert table.column("valid").to_pylist() == valid.tolist()
    assert table.column("timestamp").to_pylist() == [index / 20 for index in range(4)]
    everything = dataset.frames()
    assert everything.column("index").to_pylist() == list(range(10))
    assert everything.column("frame_index").to_pylist() == [*range(4), *range(6)]
    assert everything.column("task_index").to_pylist() == [0] * 4 + [1] * 6
    assert dataset.frames(1).column("source_timestamp_ns").null_count == 6
    rows = list(dataset.episodes())
    assert [row["length"] for row in rows] == [4, 6]
    assert rows[0]["t0_ns"] == 2**60
    assert (rows[0]["success"], rows[1]["success"]) == (True, None)
    assert rows[0]["flags"] == ["sim_time"]
    assert rows[1]["source_ref"] == "data/demo_2"
    assert (rows[1]["dataset_from_index"], rows[1]["dataset_to_index"]) == (4, 10)
    assert rows[0]["stats/action/count"] == [4, 4]
    document = json.loads((tmp_path / "d/manifest.json").read_text())
    assert document["schemaVersion"] == "emboflow-canonical/1"
    assert document["features"]["observation.state"] == {
        "dtype": "float32",
        "shape": [3],
        "names": ["s0", "s1", "s2"],
        "kind": "state",
        "unit": "rad",
        "sourceTopic": "/joints",
    }
    assert {file["path"]: file["rows"] for file in document["files"]} == {
        "frames.parquet": 10,
        "episodes.parquet": 2,
        "tasks.parquet": 2,
    }


def _pictures(length):
    for index in range(length):
        picture = np.zeros((24, 32, 3), np.uint8)
        picture[:, : 2 + index, 0] = 200
        yield picture


def test_equal_input_gives_equal_bytes_and_other_input_does_not(tmp_path):
    def made(seed):
        camera = Camera((24, 32, 3), lambda: _pictures(12), "/camera")
        raw = RawStream(np.arange(5), np.ones((5, 2)), "/joints")
        return [
            episode(12, seed, cameras={"top": camera}, raw_streams=(raw,)),
            episode(12, seed + 1, cameras={"top": camera}),
        ]

    one = write(tmp_path / "one", made(1), config={"a": 1})
    two = write(tmp_path / "two", made(1), config={"a": 1})
    other = write(tmp_path / "other", made(2), config={"a": 1})

    assert one.files == two.files
    assert one.sha256 == two.sha256
    assert other.sha256 != one.sha256
    names = {file["path"] for file in one.files}
    assert names >= {"raw_index.parquet", "videos/top/episode_000000.mp4", "videos/top/episode_000001.mp4"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_video_has_one_frame_a_row_at_the_datasets_rate(tmp_path):
    import av

    camera = Camera((24, 32, 3), lambda: _pictures(12))
    write(tmp_path / "d", [episode(12, cameras={"top": camera})], fps=29.97)

    with av.open(str(tmp_path / "d/videos/top/episode_000000.mp4")) as container:
        stamps = [float(frame.time) for frame in container.decode(video=0)]

    assert stamps == pytest.approx([index / 29.97 for index in range(12)], abs=1e-4)


def test_the_encoder_repeats_itself(tmp_path):
    found = set()
    for number in range(60):
        path = tmp_path / f"{number}.mp4"
        assert write_video(path, _pictures(12), fps=20) == 12
        found.add(path.read_bytes())

    assert len(found) == 1


def test_a_camera_with_too_few_pictures_is_refused(tmp_path):
    camera = Camera((24, 32, 3), lambda: _pictures(11))

    with pytest.raises(InvalidInputError, match="11 pictures for 12 frames"):
        write(tmp_path / "d", [episode(12, cameras={"top": camera})])


def test_an_episode_that_does_not_fit_is_refused_or_left_out_with_its_reason(tmp_path):
    with pytest.raises(InvalidInputError, match="differ from the dataset's"):
        write(tmp_path / "a", [episode(4, 1), episode(4, 2, dim=5)])

    skipped = [{"source": {"ref": "before"}, "reason": "no actions"}]
    manifest = write(
        tmp_path / "b",
        [episode(4, 1), episode(4, 2, dim=5), episode(3, 3)],
        on_mismatch="skip",
        skipped=skipped,
    )

    assert (manifest.episodes, manifest.frames) == (2, 7)
    assert [item["source"]["ref"] for item in manifest.document["skipped"]] == ["before", "data/demo_2"]


def test_nothing_to_write_is_an_error_with_the_reasons(tmp_path):
    with pytest.raises(InvalidInputError, match="no actions") as caught:
        write(tmp_path / "d", [], skipped=[{"source": {}, "reason": "no actions"}])

    assert caught.value.kind is ErrorKind.INPUT_MISSING


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(tmp_path, fps):
    with pytest.raises(InvalidInputError, match="fps"):
        write(tmp_path / "d", [episode(3)], fps=fps)


def test_a_folder_with_content_is_never_written_over(tmp_path):
    (tmp_path / "mine").write_text("x")

    with pytest.raises(InvalidInputError, match="not empty"):
        write(tmp_path, [episode(3)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_feature_may_not_take_the_name_of_an_index(tmp_path):
    bad = episode(3)
    bad.features["index"] = bad.features["action"]
    bad.specs["index"] = bad.specs["action"]

    with pytest.raises(InvalidInputError, match="reserved"):
        write(tmp_path / "d", [bad])


def _damage(folder, what):
    frames = folder / "frames.parquet"
    if what == "byte":
        data = bytearray(frames.read_bytes())
        data[len(data) // 2] ^= 1
        frames.write_bytes(data)
    elif what == "short":
        frames.write_bytes(frames.read_bytes()[:-1])
    else:
        frames.unlink()


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("byte", ErrorKind.HASH_MISMATCH),
        ("short", ErrorKind.SIZE_MISMATCH),
        ("gone", ErrorKind.PAYLOAD_MISSING),
    ],
)
def test_a_damaged_dataset_is_never_opened(tmp_path, what, kind):
    write(tmp_path / "d", [episode(5)])
    _damage(tmp_path / "d", what)

    with pytest.raises(IntegrityError) as caught:
        open_canonical(tmp_path / "d")
    assert caught.value.kind is kind


def test_files_may_lie_anywhere(tmp_path):
    manifest = write(tmp_path / "d", [episode(5)])
    files = {}
    for number, name in enumerate(["manifest.json", *(file["path"] for file in manifest.files)]):
        files[name] = (tmp_path / "d" / name).rename(tmp_path / f"blob-{number}")

    assert open_canonical(files).vector("action", 0).shape == (5, 2)


def test_a_manifest_that_leads_outside_or_is_another_schema_is_refused(tmp_path):
    write(tmp_path / "d", [episode(5)])
    path = tmp_path / "d/manifest.json"
    document = json.loads(path.read_text())

    path.write_text(json.dumps({**document, "schemaVersion": "other/1"}))
    with pytest.raises(InvalidInputError, match="other/1"):
        open_canonical(tmp_path / "d")
    document["files"][0]["path"] = "../outside"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidInputError) as caught:
        open_canonical(tmp_path / "d")
    assert caught.value.kind is ErrorKind.PATH_TRAVERSAL
    path.unlink()
    with pytest.raises(NotFoundError):
        open_canonical(tmp_path / "d")


def test_memory_does_not_grow_with_the_number_of_episodes(tmp_path):
    def peak(count):
        tracemalloc.start()
        write(tmp_path / str(count), (episode(4_000, seed, dim=40) for seed in range(count)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)

    assert peak(60) < 2 * peak(15)


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 30), st.integers(1, 3)),
        elements=st.floats(-1e6, 1e6) | st.just(float("nan")),
    )
)
def test_statistics_are_those_of_numpy_over_the_finite_numbers(values):
    found = feature_stats(values)

    for dim, column in enumerate(values.T):
        finite = column[np.isfinite(column)]
        assert found["count"][dim] == finite.size
        if not finite.size:
            assert found["mean"][dim] is None
            continue
        for name, expected in (("min", finite.min()), ("max", finite.max()), ("mean", finite.mean())):
            assert found[name][dim] == pytest.approx(expected)
        assert found["std"][dim] == pytest.approx(finite.std(), abs=1e-6)
        assert found["q99"][dim] == pytest.approx(np.quantile(finite, 0.99), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        arrays(np.float64, st.tuples(st.integers(1, 20), st.just(2)), elements=st.floats(-1e3, 1e3)),
        min_size=1,
    )
)
def test_merged_statistics_are_those_of_the_whole(parts):
    merged = merge_stats(feature_stats(part) for part in parts)
    whole = feature_stats(np.concatenate(parts))

    for name in ("min", "max", "count"):
        assert merged[name] == whole[name]
    for name in ("mean", "std"):
        assert merged[name] == pytest.approx(whole[name], abs=1e-6)
