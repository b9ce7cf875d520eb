"""Each check fires on what it is for, stays quiet on good data, never passes what it could not measure."""

import json

import h5py  # noqa: TID253 - this module is about files that these libraries write
import numpy as np  # noqa: TID253
import pytest
from mcap.writer import Writer  # noqa: TID253

from emboflow_dagster.errors import IntegrityError, InvalidInputError
from emboflow_dagster.formats.canonical.schema import Episode, FeatureSpec
from emboflow_dagster.formats.canonical.writer import write_canonical
from emboflow_dagster.formats.quality.render import render_markdown, render_page
from emboflow_dagster.formats.quality.report import CHECKS, STANDARD_RULES, quality_report
from tests.sample_files import SAMPLES, needed

VIDEOS = {
    "video_exists",
    "decode_all_frames",
    "declared_vs_decoded",
    "video_fps",
    "video_freeze",
    "duplicate_frames",
    "duration_drift",
    "blank_frames",
}
N = 200
T = np.arange(N) / 20


def good(seed=0, n=N):
    rng = np.random.default_rng(seed)
    time = np.arange(n) / 20
    action = np.stack([np.sin(time + seed), np.cos(time), rng.normal(size=n)], axis=1).astype(np.float32)
    state = np.cumsum(action, axis=0).astype(np.float32)
    return state, action


def dataset(folder, episodes, stamps=None):
    def made():
        for number, (state, action) in enumerate(episodes):
            yield Episode(
                source={"path": "x", "ref": f"demo_{number}"},
                features={"observation.state": state, "action": action},
                specs={
                    "observation.state": FeatureSpec(tuple("abc"), "state"),
                    "action": FeatureSpec(tuple("xyz"), "action"),
                },
                source_timestamp_ns=np.arange(len(state)) * 50_000_000 if stamps is None else stamps,
                sync={"action": {"maxAgeNs": 10_000_000, "meanAgeNs": 1.0}},
            )

    write_canonical(made(), folder, fps=20)
    return folder


def verdicts(report):
    return {check["check"]: check["severity"] for check in report["checks"]}


def test_good_data_is_clean(tmp_path):
    report = quality_report(dataset(tmp_path / "d", [good(1), good(2)]))

    assert report["verdict"] == "pass", verdicts(report)
    assert report["clean"] is True
    assert report["coverage"]["unresolved"] == 0
    assert set(verdicts(report)) == set(CHECKS) - {"zero_width", "empty_topics", "action_lag"} - VIDEOS
    json.dumps(report, allow_nan=False)


def _with(change, where="action", seed=1):
    state, action = good(seed)
    change(action if where == "action" else state)
    return state, action


def _saturate(share):
    def change(action):
        action[: int(share * N), 0] = 5.0

    return change


@pytest.mark.parametrize(
    ("check", "severity", "change", "where"),
    [
        ("nan_inf", "fail", lambda a: a.__setitem__((3, 1), np.nan), "action"),
        ("nan_inf", "fail", lambda s: s.__setitem__((3, 1), np.inf), "state"),
        ("action_range", "warn", _saturate(0.6), "action"),
        (
            "action_range",
            "fail",
            lambda a: a.__setitem__((slice(1, None), 0), 5.0) or a.__setitem__((1, 0), 4.0),
            "action",
        ),
        ("frozen_action", "warn", lambda a: a.__setitem__(slice(20, 140), a[20]), "action"),
        ("frozen_action", "fail", lambda a: a.__setitem__(slice(None), a[0]), "action"),
        ("jumps", "warn", lambda a: a.__setitem__((100, 0), 50.0), "action"),
        ("jumps", "warn", lambda s: s.__setitem__((100, 0), 500.0), "state"),
        ("frozen_state", "warn", lambda s: s.__setitem__(slice(20, 140), s[20]), "state"),
        ("frozen_state", "fail", lambda s: s.__setitem__(slice(None), s[0]), "state"),
        ("state_range", "warn", lambda s: s.__setitem__((slice(0, 120), 0), 5e3), "state"),
        ("zero_variance", "warn", lambda s: s.__setitem__((slice(None), 2), 7.0), "state"),
    ],
)
def test_a_fault_is_found_and_placed(tmp_path, check, severity, change, where):
    report = quality_report(dataset(tmp_path / "d", [_with(change, where)]), checks=[check])

    (found,) = report["checks"]
    assert found["severity"] == severity, found
    assert found["places"]
    assert found["threshold"]
    assert report["verdict"] == severity
    assert report["clean"] is False


@pytest.mark.parametrize(
    ("check", "severity", "change"),
    [
        ("time_monotonic", "fail", lambda s: s.__setitem__(50, s[48])),
        ("time_monotonic", "warn", lambda s: s.__setitem__(50, s[49])),
        ("gaps", "warn", lambda s: s.__setitem__(slice(100, None), s[100:] + 200_000_000)),
        ("rate_jitter", "warn", lambda s: s.__setitem__(slice(None), s * 2)),
    ],
)
def test_a_fault_in_time_is_found(tmp_path, check, severity, change):
    stamps = np.arange(N) * 50_000_000
    change(stamps)

    (found,) = quality_report(dataset(tmp_path / "d", [good()], stamps), checks=[check])["checks"]

    assert found["severity"] == severity
    assert found["coverage"] == {"declared": 1, "resolved": 1, "unresolved": 0}


@pytest.mark.parametrize(
    ("check", "change"),
    [("zero_variance", lambda a: a.__setitem__((slice(None), 2), 7.0)), ("action_range", _saturate(0.6))],
)
def test_dimensions_are_judged_over_all_episodes(tmp_path, check, change):
    report = quality_report(dataset(tmp_path / "d", [_with(change), good(2)]), checks=[check])

    assert report["verdict"] == "pass"


def test_a_gripper_that_is_open_or_closed_is_not_saturated(tmp_path):
    state, action = good()
    action[:, 2] = np.where(T % 2 < 1, -1.0, 1.0)

    (found,) = quality_report(dataset(tmp_path / "d", [(state, action)]), checks=["action_range"])["checks"]

    assert found["severity"] == "pass"
    assert found["values"]["switches"] == 1


def test_short_and_repeated_episodes_are_found(tmp_path):
    folder = dataset(tmp_path / "d", [good(1), good(1), good(2, 4)])

    found = {check["check"]: check for check in quality_report(folder)["checks"]}

    assert found["duplicates"]["places"] == ["episode 1 equals episode 0"]
    assert found["length_outlier"]["values"]["short"] == 1
    assert found["length_outlier"]["places"] == ["episode 2: 4 frames, 0.20 s"]


def test_an_episode_far_from_the_mean_length_is_found(tmp_path):
    folder = dataset(tmp_path / "d", [*(good(i, 100) for i in range(20)), good(99, 900)])

    (found,) = quality_report(folder, checks=["length_outlier"])["checks"]

    assert found["places"] == ["episode 20: 900 frames, the mean is 138.1"]


def test_a_damaged_dataset_is_never_measured(tmp_path):
    folder = dataset(tmp_path / "d", [good()])
    data = bytearray((folder / "frames.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "frames.parquet").write_bytes(data)

    with pytest.raises(IntegrityError):
        quality_report(folder)


def test_what_resolved_nothing_is_never_clean(tmp_path):
    (tmp_path / "t.bin").write_bytes(b"\x00" * 50)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["data/demo_1/states"] = np.zeros((30, 2))

    nothing = quality_report(tmp_path / "t.bin")
    no_actions = quality_report(
        tmp_path / "x.hdf5", checks=["action_range", "frozen_action", "time_monotonic"]
    )

    for report in (nothing, no_actions):
        assert report["verdict"] == "unresolved"
        assert report["clean"] is False
        assert report["coverage"]["resolved"] == 0
    assert {check["message"] for check in no_actions["checks"]} == {
        f"nothing could be measured: there are no {what}"
        for what in ("actions", "actions over two frames or more", "stamps of the recorder's own")
    }


def test_an_unknown_check_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(InvalidInputError, match="'action_rnge'") as caught:
        quality_report(tmp_path, checks=["action_rnge"])
    assert "action_range" in (caught.value.hint or "")
    with pytest.raises(InvalidInputError):
        quality_report()


def test_zero_width_datasets_and_a_total_that_lies_are_found(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        state, action = good()
        file["data/demo_1/states"], file["data/demo_1/actions"] = state, action
        file["data/demo_1/left_dpos"] = np.zeros((N, 0))
        file["data"].attrs["total"] = N + 1

    found = verdicts(quality_report(tmp_path / "x.hdf5"))

    assert found["zero_width"] == "warn"
    assert found["declared_counts"] == "fail"
    assert found["action_range"] == "pass"


def recording(path, stamps_ms, value=float):
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("fields", "jsonschema", b'{"type": "object"}')
        channel = writer.register_channel("/joints", "json", schema)
        writer.register_channel("/silent", "json", schema)
        for number, ms in enumerate(stamps_ms):
            stamp = 10**18 + round(ms * 1e6)
            writer.add_message(channel, stamp, json.dumps({"position": value(number)}).encode(), stamp)
        writer.finish()
    return path


def test_a_recording_is_measured_topic_by_topic(tmp_path):
    stamps = [i * 10.0 for i in range(300)]
    report = quality_report(recording(tmp_path / "good.mcap", stamps))

    assert verdicts(report) == {
        "declared_counts": "pass",
        "time_monotonic": "pass",
        "gaps": "pass",
        "rate_jitter": "pass",
        "nan_inf": "pass",
        "empty_topics": "warn",
    }
    found = {check["check"]: check for check in report["checks"]}
    assert found["empty_topics"]["places"] == ["/silent"]
    assert found["rate_jitter"]["values"]["hz"] == pytest.approx(100.0)
    assert found["time_monotonic"]["coverage"] == {"declared": 2, "resolved": 1, "unresolved": 1}


@pytest.mark.parametrize(
    ("check", "severity", "change"),
    [
        ("gaps", "warn", lambda s: [ms + (500 if i > 150 else 0) for i, ms in enumerate(s)]),
        ("rate_jitter", "warn", lambda s: [ms + (9 if i % 2 else 0) for i, ms in enumerate(s)]),
        ("time_monotonic", "fail", lambda s: [*s[:100], s[100] - 500, *s[101:]]),
        ("time_monotonic", "warn", lambda s: [*s[:100], s[99], *s[101:]]),
    ],
)
def test_a_fault_in_a_recording_is_found(tmp_path, check, severity, change):
    path = recording(tmp_path / "x.mcap", change([i * 10.0 for i in range(300)]))

    (found,) = quality_report(path, checks=[check])["checks"]

    assert found["severity"] == severity
    assert found["places"][0].startswith("/joints")


def test_a_value_that_is_no_number_fails_a_recording(tmp_path):
    path = recording(tmp_path / "x.mcap", range(50), lambda i: float("nan") if i == 7 else 1.0)

    (found,) = quality_report(path, checks=["nan_inf"])["checks"]

    assert (found["severity"], found["places"]) == ("fail", ["/joints has 1"])


@pytest.mark.samples
@pytest.mark.parametrize(
    ("name", "verdict", "check", "severity"),
    [
        ("hdf5/robosuite_030_SawyerLift", "warn", "zero_width", "warn"),
        ("hdf5/aloha_sim_insertion", "warn", "nan_inf", "pass"),
        ("hdf5/robosuite_141_lift", "warn", "gaps", "pass"),
        ("rosbag1/unsorted_chunks", "fail", "time_monotonic", "fail"),
        ("rosbag1/turtlesim_example", "warn", "declared_counts", "pass"),
        ("raw_file/gait_cycle_csv", "unresolved", None, None),
    ],
)
def test_real_recordings(name, verdict, check, severity):
    needed((SAMPLES / name).exists())

    report = quality_report(SAMPLES / name)

    assert report["verdict"] == verdict
    assert verdicts(report).get(check) == severity


def test_a_report_is_rendered_without_letting_names_become_markup(tmp_path):
    name = "<script>alert(1)</script> | `x` [a](b)"
    report = quality_report(
        dataset(tmp_path / "d", [_with(lambda a: a.__setitem__((3, 1), np.nan))]), name=name
    )

    page, text = render_page([report], {}, STANDARD_RULES), render_markdown(report)

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert "✗ fail" in page
    assert text.startswith("## Quality: \\<script\\>")
    assert "| nan_inf | ✗ fail | 1/1 | 1 numbers are NaN or infinite |" in text
