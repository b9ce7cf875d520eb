"""Sampling on a grid, for any stamps; and where a recording is cut into episodes."""

from itertools import pairwise

import numpy as np  # noqa: TID253 - this module is about what these libraries write
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboflow_dagster.errors import InvalidInputError, LimitError
from emboflow_dagster.formats.canonical import bag_streams, from_bags
from emboflow_dagster.formats.canonical.grid import NS, grid_of, held
from emboflow_dagster.formats.canonical.splitting import Split, spans_of, value_of
from tests.unit.formats.json_recordings import MS, START, recording

STAMPS = st.lists(st.integers(0, 1_000 * MS), min_size=2, max_size=30).map(sorted)


def stream(topic, stamps, start=START):
    stamps = np.array(stamps, dtype=np.int64) + start
    values = np.column_stack([np.arange(len(stamps)), stamps - start]).astype(np.float64)
    return bag_streams.Stream(topic, ("number", "since"), stamps, values)


@settings(max_examples=100, deadline=None)
@given(first=STAMPS, second=STAMPS, fps=st.sampled_from([1, 7.5, 20, 29.97, 100]))
def test_each_value_is_the_last_sample_at_or_before_its_time_and_never_a_later_one(first, second, fps):
    streams = [stream("/a", first), stream("/b", second)]
    start, end = max(s.first for s in streams), min(s.last for s in streams)
    if (end - start) * fps < NS:
        return

    episode = from_bags._episode(
        streams, {}, fps=fps, span=(start, end), source={}, rate_policy="hold", task=""
    )

    grid = grid_of(start, end, fps)
    assert episode.length == len(grid)
    assert grid[0] == start
    assert grid[-1] <= end
    assert np.abs(np.diff(grid) - NS / fps).max() <= 1.01
    newest = []
    for name, found in (("observation.a", streams[0]), ("observation.b", streams[1])):
        numbers = episode.features[name][:, 0].astype(int)
        ages = []
        for when, number in zip(grid.tolist(), numbers.tolist(), strict=True):
            stamp = int(found.stamps[number])
            assert stamp <= when
            # The next one is later: of equal stamps the last is held.
            assert number + 1 == len(found.stamps) or int(found.stamps[number + 1]) > when
            ages.append(when - stamp)
        assert episode.sync[name]["maxAgeNs"] == max(ages)
        assert episode.sync[name]["meanAgeNs"] == pytest.approx(sum(ages) / len(ages))
        newest.append(found.stamps[numbers])
    assert np.array_equal(episode.source_timestamp_ns, np.maximum(*newest))


@settings(max_examples=100, deadline=None)
@given(stamps=STAMPS, seconds=st.sampled_from([0.05, 0.2, 1.0]))
def test_gaps_cut_between_samples_and_lose_none(stamps, seconds):
    found = stream("/a", stamps)
    spans = spans_of(Split("gap", seconds=seconds), None, [found.stamps])
    parts = [found.within(span) for span in spans]

    assert sum(len(part.stamps) for part in parts) == len(stamps)
    for part, behind in pairwise(parts):
        assert behind.first - part.last > seconds * NS
    assert all((np.diff(part.stamps) <= seconds * NS).all() for part in parts)


def test_a_grid_that_would_not_fit_is_refused():
    with pytest.raises(LimitError, match="frames, at most"):
        grid_of(0, 10**15, 1_000)
    index, age = held(np.array([5, 5, 7]), np.array([5, 6, 9]))
    assert (index.tolist(), age.tolist()) == ([1, 1, 2], [0, 1, 2])


@pytest.mark.parametrize(
    ("message", "value"),
    [({"data": True}, True), ({"x": {}, "name": "go"}, "go"), ({}, None), ({"data": [1]}, None)],
)
def test_what_a_boundary_message_says(message, value):
    assert value_of(message) == value


def arm(first, last, step=10):
    return [(ms, {"name": ["a"], "position": [ms / 1000]}) for ms in range(first, last + 1, step)]


def spans(found):
    """First and last second of each episode, by the numbers that it holds."""
    return [tuple(round(float(e.features["observation.state"][at, 0]), 3) for at in (0, -1)) for e in found]


def test_a_gap_ends_an_episode(tmp_path):
    path = recording(tmp_path / "x.mcap", {"/joint_states": arm(0, 1_000) + arm(3_000, 3_500)})

    whole = list(from_bags.episodes(path, fps=10))
    found = list(from_bags.episodes(path, fps=10, split=Split("gap", seconds=1)))

    assert spans(whole) == [(0.0, 3.5)]
    assert spans(found) == [(0.0, 1.0), (3.0, 3.5)]
    assert [e.t0_ns - START for e in found] == [0, 3_000 * MS]
    assert [e.source["ref"] for e in found] == ["part 0: /joint_states", "part 1: /joint_states"]
    assert all(e.valid.all() for e in found)


EVENTS = [(500, {"data": "start"}), (1_200, {"data": "start"}), (2_000, {"data": "stop"})]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [(0.0, 0.4), (0.5, 1.1), (1.2, 1.9), (2.0, 3.0)]),
        ("change", [(0.0, 1.9), (2.0, 3.0)]),
        ("start", [(0.5, 1.9)]),
        ("stop", [(2.0, 3.0)]),
    ],
)
def test_a_topic_ends_an_episode_by_its_messages_its_changes_or_its_value(tmp_path, value, expected):
    path = recording(tmp_path / "x.mcap", {"/joint_states": arm(0, 3_000), "/event": EVENTS})

    found = list(from_bags.episodes(path, fps=10, split=Split("topic", topic="/event", value=value)))

    assert spans(found) == expected


def test_the_boundary_topic_is_no_feature_unless_it_is_chosen(tmp_path):
    flags = [(ms, {"data": ms >= 1_000}) for ms in range(0, 2_001, 20)]
    path = recording(tmp_path / "x.mcap", {"/joint_states": arm(0, 2_000), "/recording": flags})
    split = Split("topic", topic="/recording", value=True)

    (found,) = from_bags.episodes(path, fps=10, split=split)
    assert (set(found.features), spans([found])) == ({"observation.state"}, [(1.0, 2.0)])
    (found,) = from_bags.episodes(path, fps=10, split=split, topics=["/joint_states", "/recording"])
    assert set(found.features) == {"observation.state", "observation.recording"}
    with pytest.raises(InvalidInputError, match="never has the value"):
        list(from_bags.episodes(path, fps=10, split=Split("topic", topic="/recording", value="on")))
    with pytest.raises(InvalidInputError, match="no message of '/nope'"):
        list(from_bags.episodes(path, fps=10, split=Split("topic", topic="/nope")))


def test_each_file_of_a_recording_is_an_episode(tmp_path):
    folder = tmp_path / "bag"
    folder.mkdir()
    recording(folder / "bag_0.mcap", {"/joint_states": arm(0, 990)})
    recording(folder / "bag_1.mcap", {"/joint_states": arm(1_000, 1_500)})
    recording(folder / "bag_2.mcap", {"/joint_states": arm(2_000, 2_000)})
    skipped = []

    (whole,) = from_bags.episodes(folder, fps=10)
    found = list(from_bags.episodes(folder, fps=10, split=Split("file"), skipped=skipped))

    assert spans([whole]) == [(0.0, 2.0)]
    assert spans(found) == [(0.0, 0.9), (1.0, 1.5)]
    assert [e.source["path"] for e in found] == ["bag_0.mcap", "bag_1.mcap"]
    assert [item["reason"] for item in skipped] == ["a single sample"]


def test_a_part_in_which_a_chosen_topic_is_silent_is_left_out_with_the_reason(tmp_path):
    path = recording(
        tmp_path / "x.mcap",
        {
            "/joint_states": arm(0, 1_000) + arm(3_000, 4_000),
            "/grip": [(ms, {"v": 1}) for ms in range(0, 901, 50)],
        },
    )
    skipped = []

    found = from_bags.episodes(
        path, fps=10, topics=["/joint_states", "/grip"], split=Split("gap", seconds=1), skipped=skipped
    )

    assert spans(list(found)) == [(0.0, 0.9)]
    assert skipped == [
        {"source": {"assetId": None, "path": "x.mcap", "ref": "part 1"}, "reason": "no numbers in '/grip'"}
    ]
