"""What earlier versions of the checks did not find, and what they took for a fault."""

from fractions import Fraction

import av  # noqa: TID253 - this module is about files that these libraries write
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.formats.quality.lag import lag_of
from emboflow_dagster.formats.quality.report import ALL_CHECKS
from emboflow_dagster.formats.quality.streams import measure_streams
from emboflow_dagster.formats.quality.video import watch
from emboflow_dagster.formats.quality.view import EpisodeView
from tests.unit.formats.test_quality import recording

FPS, FRAMES = 20, 100
T = np.arange(FRAMES) / FPS


def arm(seed=0, late=2):
    """Two joints that follow their targets by `late` frames, with the noise of encoders."""
    rng = np.random.default_rng(seed)
    target = np.stack([np.sin(2 * T + seed), 0.5 * np.cos(3 * T)], axis=1)
    state = np.roll(target, late, axis=0)
    state[:late] = target[0]
    return target, state + rng.normal(0, 0.003, state.shape)


def episode(action, state, ref="episode 0", **more):
    return EpisodeView(
        ref, len(state), {"action": action, "state": state}, ("action",), ("state",), fps=FPS, **more
    )


def found(name, *episodes):
    check = ALL_CHECKS[name]()
    for one in episodes:
        check.take(one)
    if check.resolved:
        check.finish()
    return check.result()


@pytest.mark.parametrize("places", [[50], [20, 50, 80], [98]])
def test_a_jump_that_comes_back_is_found_in_a_short_episode_however_many_there_are(places):
    action, state = arm()
    assert found("jumps", episode(action, state))["severity"] == "pass"
    for place in places:
        state[place, 1] += 3.0
    result = found("jumps", episode(action, state))
    assert result["severity"] == "warn"
    assert result["places"][0].startswith("episode 0: state[1] steps by ")
    assert f" at frame {places[0]} (" in result["places"][0]


def test_neither_what_is_no_number_nor_a_pulsed_command_is_a_jump():
    action, state = arm()
    state[40] = np.nan
    state[41, 0] = np.inf
    action[:, 1] = 0
    action[::7, 1] = 1.0
    action[3, 1] = 0.5
    assert found("jumps", episode(action, state))["severity"] == "pass"


def test_a_state_before_its_action_and_an_episode_unlike_the_others_are_found():
    good = [episode(*arm(seed), ref=f"episode {seed}") for seed in range(3)]
    assert found("action_lag", *good)["severity"] == "pass"
    action, state = arm(3)
    late = episode(np.concatenate([action[:1].repeat(6, axis=0), action[:-6]]), state, ref="episode 3")
    result = found("action_lag", *good, late)
    assert result["severity"] == "warn"
    assert any("episode 3: the action comes 4 frames after" in place for place in result["places"])
    assert any("in the others after 2" in place for place in result["places"])
    assert lag_of(*arm(late=13), 20)[0] == 13
    slow = found("action_lag", episode(*arm(late=13)))
    assert "0.65 s after the action" in slow["places"][0]


def test_of_commands_that_are_no_places_nothing_is_said():
    rng = np.random.default_rng(1)
    forces = episode(rng.normal(size=(FRAMES, 2)), arm()[1])
    assert found("action_lag", forces)["coverage"] == {"declared": 0, "resolved": 0, "unresolved": 0}


def film(path, pictures, seconds=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = pictures[0].shape[0]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "24", "g": "10", "preset": "ultrafast"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for place, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (place / FPS if seconds is None else seconds[place]))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def scene(count=60, side=128, speed=0.4):
    """A small thing that creeps over a wide picture."""
    rows, columns = np.mgrid[:side, :side]
    ground = (60 + (rows + columns) // 4).astype(np.uint8)
    pictures = []
    for place in range(count):
        picture = np.stack([ground] * 3, axis=2)
        x = 20 + speed * place
        edge = np.clip(8 - np.hypot(rows - 64, columns - x), 0, 1)[..., None]
        pictures.append((picture * (1 - edge) + 230 * edge).astype(np.uint8))
    return pictures


def seen(path, rows):
    action, state = arm()
    view = watch(path, path.name, rows=rows, fps=FPS)
    return episode(action[:rows], state[:rows], videos={"top": view})


def test_a_small_thing_that_creeps_is_no_freeze_and_a_frozen_camera_is_one(tmp_path):
    pictures = scene()
    view = seen(film(tmp_path / "good.mp4", pictures), 60)
    for check in ("video_freeze", "duplicate_frames", "blank_frames", "duration_drift"):
        assert found(check, view)["severity"] == "pass", check
    pictures[20:40] = [pictures[20]] * 20
    result = found("video_freeze", seen(film(tmp_path / "frozen.mp4", pictures), 60))
    assert result["severity"] == "warn"
    assert "19 of 60 frames" in result["places"][0]


@pytest.mark.parametrize(("count", "severity"), [(6, "warn"), (40, "fail")])
def test_pictures_that_show_nothing_are_found_and_placed(tmp_path, count, severity):
    pictures = scene()
    rng = np.random.default_rng(5)
    dark = [rng.integers(0, 4, pictures[0].shape, dtype=np.uint8) for _ in range(count)]
    pictures[10 : 10 + count] = dark
    result = found("blank_frames", seen(film(tmp_path / "dark.mp4", pictures), 60))
    assert result["severity"] == severity
    assert f"from frame 10 to {9 + count}" in result["places"][0]


def test_pictures_beside_the_time_of_their_rows_are_found_where_both_end_together(tmp_path):
    late = np.arange(60) / FPS + 0.2 * np.sin(np.pi * np.arange(60) / 59) ** 2
    result = found("duration_drift", seen(film(tmp_path / "late.mp4", scene(), late), 60))
    assert result["severity"] == "fail"
    assert result["values"]["driftS"] < 0.05
    assert "200 ms from its row's time" in result["places"][0]


def test_a_log_has_no_rate_to_keep(tmp_path):
    stamps = np.cumsum(np.tile([100, 1, 1, 1], 10))
    path = recording(tmp_path / "log.mcap", stamps)
    for kind, declared in (("rosgraph_msgs/Log", 0), ("sensor_msgs/JointState", 2)):
        check = ALL_CHECKS["rate_jitter"]()
        topics = {name: {"type": kind} for name in ("/joints", "/silent")}
        measure_streams(path, topics, {"rate_jitter": check})
        assert check.declared == declared
