"""Which episodes and cameras the names of files say, and what is not guessed."""

import pytest

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.media_places import divide

TWO_BY_TWO = {"0": ("front", "wrist"), "1": ("front", "wrist")}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (
            ["episode_0/front.mp4", "episode_0/wrist.mp4", "episode_1/front.mp4"],
            {"episode_0": ["front", "wrist"], "episode_1": ["front"]},
        ),
        (
            ["front/episode_000000.mp4", "front/episode_000001.mp4", "wrist/episode_000000.mp4"],
            {"episode_000000": ["front", "wrist"], "episode_000001": ["front"]},
        ),
        (
            [
                f"videos/chunk-000/observation.images.{c}/episode_00000{n}.mp4"
                for c in ("laptop", "phone")
                for n in (0, 1)
            ],
            {f"episode_00000{n}": ["observation.images.laptop", "observation.images.phone"] for n in (0, 1)},
        ),
        (
            ["episode_000000_front.mp4", "episode_000000_wrist.mp4", "front_episode_000001.mp4"],
            {"episode_000000": ["front", "wrist"], "episode_000001": ["front"]},
        ),
        (["front_000.mp4", "front_001.mp4", "wrist_000.mp4"], {"000": ["front", "wrist"], "001": ["front"]}),
        (["2_a.mp4", "2_b.mp4", "10_a.mp4", "10_b.mp4"], {"2": ["a", "b"], "10": ["a", "b"]}),
        (["003/front.mp4", "003/wrist.mp4", "12/front.mp4"], {"003": ["front", "wrist"], "12": ["front"]}),
        (["front/3.mp4", "wrist/3.mp4", "front/12.mp4"], {"3": ["front", "wrist"], "12": ["front"]}),
        (["front.mp4", "left_wrist_rgb.mp4"], {".": ["front", "left_wrist_rgb"]}),
        (["cam_0.mp4", "cam_1.mp4"], {".": ["cam_0", "cam_1"]}),
        (["cam_000.mp4", "cam_001.mp4"], {"000": ["cam"], "001": ["cam"]}),
        (["ep1/cam_0.mp4", "ep1/cam_1.mp4"], {"ep1": ["cam_0", "cam_1"]}),
        (["cam1_007.mp4", "cam2_007.mp4"], {"007": ["cam1", "cam2"]}),
        (["a/front.mp4", "a/wrist.mp4", "b/front.mp4"], {"a": ["front", "wrist"], "b": ["front"]}),
        (
            ["front/pick.mp4", "wrist/pick.mp4", "front/place.mp4"],
            {"pick": ["front", "wrist"], "place": ["front"]},
        ),
        (
            ["monday/episode_0/top.mp4", "tuesday/episode_0/top.mp4"],
            {"monday/episode_0": ["top"], "tuesday/episode_0": ["top"]},
        ),
        (["run_1/front/take_2.mp4"] * 1 + ["run_1/wrist/take_2.mp4"], {"run_1/take_2": ["front", "wrist"]}),
        (["episode_0/front/video.mp4", "episode_0/wrist/video.mp4"], {"episode_0": ["front", "wrist"]}),
        # Numbers that are not of cameras; kitchens are no cameras; nothing said is nothing guessed.
        (["video_90.mov", "video_180.mov"], {"90": [""], "180": [""]}),
        (["GX010001.MP4", "GX010002.MP4"], {"010001": [""], "010002": [""]}),
        (
            ["kitchen/episode_0.mp4", "bath/episode_0.mp4"],
            {"bath/episode_0": [""], "kitchen/episode_0": [""]},
        ),
        (["left_turn.mp4", "right_turn.mp4"], {"left_turn.mp4": [""], "right_turn.mp4": [""]}),
        (["cup_1.mp4", "mug_1.mp4"], {"cup_1.mp4": [""], "mug_1.mp4": [""]}),
        (["a.mp4"], {"a.mp4": [""]}),
        (["a.mp4", "a.mkv"], {"a.mkv": [""], "a.mp4": [""]}),
        # Chunks belong to the name only where it would not be one without them.
        (
            ["chunk-000/file-000.mp4", "chunk-001/file-000.mp4"],
            {"chunk-000/000": [""], "chunk-001/000": [""]},
        ),
    ],
)
def test_names_say_episodes_and_cameras(paths, expected):
    found = divide(paths[::-1])

    assert {episode: list(cameras) for episode, cameras in found.episodes.items()} == expected
    assert list(found.episodes) == list(expected)
    assert sorted(path for cameras in found.episodes.values() for path in cameras.values()) == sorted(paths)


def test_a_pattern_says_it_otherwise():
    paths = ["x/cup_1.mp4", "x/mug_1.mp4", "x/cup_2.mp4", "readme.mp4"]

    found = divide(paths, pattern="*/{camera}_{episode}.mp4")

    assert {e: list(c) for e, c in found.episodes.items()} == {"1": ["cup", "mug"], "2": ["cup"]}
    assert (found.left_out, found.incomplete()) == (["readme.mp4"], {"2": ["mug"]})
    assert list(divide(paths[:2], "one").episodes["."]) == ["x/cup_1", "x/mug_1"]
    assert len(divide(["episode_0/a.mp4", "episode_0/b.mp4"], "file").episodes) == 2
    for pattern, told in (
        ("{episode}.avi", "no file fits"),
        ("x/*_{episode}.mp4", "one place"),
        ("{camera}.mp4", "expected one {episode}"),
        ("*{episode}*/*/*", "at most"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            divide(paths, pattern=pattern)


def test_of_many_names_a_report_lists_some():
    found = divide([f"episode_{n // 4}/cam_{n % 4}.mp4" for n in range(10_000)])

    assert (len(found.episodes), len(found.cameras)) == (2_500, 4)
    assert len(found.to_json()["files"]) == 200
