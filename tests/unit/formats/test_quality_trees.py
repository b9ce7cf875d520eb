"""LeRobot trees with videos: every check that needs a tree has one that trips it, and one that does not."""

import json

import numpy as np  # noqa: TID253 - this module is about files that these libraries write
import pyarrow as pa  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253
import pytest

from emboflow_dagster.formats.canonical.stats import feature_stats
from emboflow_dagster.formats.canonical.video_track import write_video
from emboflow_dagster.formats.quality.report import ALL_CHECKS, CHECKS, quality_report
from emboflow_dagster.formats.quality.view import EpisodeView, VideoView

FPS, FRAMES, EPISODES = 10, 40, 3
CAMERA = "observation.images.top"


def pictures(count, still=range(0)):
    """A bright square that moves by two pixels a frame, except in `still`."""
    place = 0
    for number in range(count):
        place += 2 * (number not in still)
        picture = np.full((64, 96, 3), 40, np.uint8)
        picture[20:44, place % 72 : place % 72 + 24] = 220
        yield picture


class Tree:
    """A LeRobot 2.1 tree that a test may spoil before it is written."""

    def __init__(self, folder):
        self.folder = folder
        rng = np.random.default_rng(3)
        self.tables = []
        for number in range(EPISODES):
            action = np.cumsum(rng.normal(size=(FRAMES, 2)), axis=0).astype(np.float32)
            self.tables.append(
                {
                    "observation.state": np.cumsum(rng.normal(size=(FRAMES, 3)), axis=0).astype(np.float32),
                    "action": action,
                    "timestamp": (np.arange(FRAMES) / FPS).astype(np.float32),
                    "frame_index": np.arange(FRAMES),
                    "episode_index": np.full(FRAMES, number),
                    "index": np.arange(FRAMES) + number * FRAMES,
                    "task_index": np.zeros(FRAMES, np.int64),
                }
            )
        self.videos = {number: (FRAMES, FPS, range(0)) for number in range(EPISODES)}
        self.info = {
            "codebase_version": "v2.1", "robot_type": "arm", "fps": FPS, "chunks_size": 1000,
            "total_episodes": EPISODES, "total_frames": EPISODES * FRAMES, "total_tasks": 1,
            "total_videos": EPISODES,
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
            "features": {
                "observation.state": {"dtype": "float32", "shape": [3]},
                "action": {"dtype": "float32", "shape": [2]},
                CAMERA: {"dtype": "video", "shape": [64, 96, 3]},
            },
        }  # fmt: skip
        self.lengths = dict.fromkeys(range(EPISODES), FRAMES)
        self.stats = None
        self.damage = None

    def write(self):
        meta = self.folder / "meta"
        data = self.folder / "data/chunk-000"
        meta.mkdir(parents=True)
        data.mkdir(parents=True)
        (meta / "info.json").write_text(json.dumps(self.info))
        lines = [{"episode_index": n, "tasks": ["t"], "length": long} for n, long in self.lengths.items()]
        (meta / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
        for place, table in enumerate(self.tables):
            columns = {
                name: pa.array(list(values)) if values.ndim > 1 else pa.array(values)
                for name, values in table.items()
            }
            pq.write_table(pa.table(columns), data / f"episode_{place:06d}.parquet")
        stats = self.stats or {
            place: {name: feature_stats(table[name]) for name in ("observation.state", "action")}
            for place, table in enumerate(self.tables)
        }
        lines = [{"episode_index": place, "stats": found} for place, found in stats.items()]
        (meta / "episodes_stats.jsonl").write_text("\n".join(map(json.dumps, lines)))
        for number, (count, fps, still) in self.videos.items():
            path = self.folder / f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4"
            write_video(path, pictures(count, still), fps=fps)
            if self.damage == number:
                whole = path.read_bytes()
                path.write_bytes(
                    whole[: len(whole) * 6 // 10] + b"\x00" * 200 + whole[len(whole) * 6 // 10 + 200 :]
                )
        return self.folder


def shift(name, amount, part=slice(None)):
    def spoil(tree):
        tree.tables[1][name] = tree.tables[1][name].copy()
        tree.tables[1][name][part] += np.asarray(amount, tree.tables[1][name].dtype)

    return spoil


def video(count=FRAMES, fps=FPS, still=range(0)):
    return lambda tree: tree.videos.__setitem__(1, (count, fps, still))


def twin(noise):
    def spoil(tree):
        rng = np.random.default_rng(9)
        for name in ("observation.state", "action"):
            there = tree.tables[0][name]
            tree.tables[1][name] = (there + noise * rng.normal(size=there.shape)).astype(np.float32)

    return spoil


def stored(feature, name, change):
    def spoil(tree):
        tree.stats = {
            place: {n: feature_stats(table[n]) for n in ("observation.state", "action")}
            for place, table in enumerate(tree.tables)
        }
        tree.stats[1][feature][name] = change(tree.stats[1][feature][name])

    return spoil


def rest(tree):
    for name in ("observation.state", "action"):
        tree.tables[1][name][5:] = tree.tables[1][name][5]


SPOILT = {
    "timestamp_grid": ("fail", shift("timestamp", 0.05)),
    "time_monotonic": ("fail", shift("timestamp", -3.0, 20)),
    "gaps": ("warn", shift("timestamp", 0.5, slice(20, None))),
    "rate_jitter": ("warn", lambda tree: tree.info.update(fps=20)),
    "idle_ratio": ("warn", rest),
    "index_integrity": ("fail", shift("frame_index", 1, slice(10, None))),
    "declared_counts": ("fail", lambda tree: tree.info.update(total_frames=1)),
    "near_duplicates": ("warn", twin(0.01)),
    "duplicates": ("warn", twin(0.0)),
    "stats_recompute": ("fail", stored("action", "std", lambda values: [2 * value for value in values])),
    "video_exists": ("fail", lambda tree: tree.videos.pop(1)),
    "decode_all_frames": ("fail", lambda tree: setattr(tree, "damage", 1)),
    "video_fps": ("fail", video(fps=20)),
    "frame_count": ("fail", video(count=FRAMES - 3)),
    "video_freeze": ("warn", video(still=range(10, 30))),
    "duplicate_frames": ("warn", video(still=range(0, 40, 2))),
    "duration_drift": ("warn", video(count=FRAMES - 3)),
}
TOLERATED = {
    "timestamp_grid": shift("timestamp", 5e-5),
    "near_duplicates": twin(1.0),
    "stats_recompute": stored("action", "mean", lambda values: [value * (1 + 1e-6) for value in values]),
    "frame_count": video(count=FRAMES - 2),
    "video_fps": video(fps=FPS + 1),
    "video_freeze": lambda tree: (rest(tree), video(still=range(10, 30))(tree)),
    "duration_drift": video(count=FRAMES - 1),
    "length_outlier": lambda tree: None,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return Tree(tmp_path_factory.mktemp("good") / "tree").write()


def severities(report):
    return {check["check"]: check["severity"] for check in report["checks"]}


def test_a_good_tree_is_clean_and_every_check_could_look(good):
    report = quality_report(good)

    assert report["verdict"] == "pass", [(c["check"], c["places"]) for c in report["checks"] if c["places"]]
    assert report["coverage"]["unresolved"] == 0
    assert set(severities(report)) == set(CHECKS) - {"sync_age", "zero_width", "empty_topics", "action_lag"}


@pytest.mark.parametrize("check", sorted(SPOILT))
def test_a_fault_of_a_tree_is_found_placed_and_kept(tmp_path, check):
    severity, spoil = SPOILT[check]
    tree = Tree(tmp_path / "tree")
    spoil(tree)

    report = quality_report(tree.write(), checks=[check], evidence=tmp_path / "evidence.jsonl")

    (found,) = report["checks"]
    assert found["severity"] == severity, found
    assert found["places"]
    assert any("1" in place for place in found["places"])
    rows = [json.loads(line) for line in (tmp_path / "evidence.jsonl").read_text().splitlines()]
    assert {row["check"] for row in rows} == {check}
    assert len(rows) == found["measurements"]


@pytest.mark.parametrize("check", sorted(TOLERATED))
def test_what_is_within_the_limits_passes(tmp_path, check):
    tree = Tree(tmp_path / "tree")
    TOLERATED[check](tree)

    (found,) = quality_report(tree.write(), checks=[check])["checks"]

    assert found["severity"] == "pass", found


@pytest.mark.parametrize(("decoded", "severity"), [(40, "pass"), (39, "warn"), (37, "fail")])
def test_a_header_is_held_against_what_decodes(decoded, severity):
    check = ALL_CHECKS["declared_vs_decoded"]()
    video = VideoView("a.mp4", frames=decoded, declared_frames=40)

    check.take(EpisodeView(ref="episode 1", length=40, vectors={}, videos={"top": video}))

    found = check.result()
    assert found["severity"] == severity
    assert found["coverage"]["resolved"] == 1
    check.take(
        EpisodeView(ref="episode 2", length=40, vectors={}, videos={"top": VideoView("b", missing=True)})
    )
    assert check.result()["coverage"]["unresolved"] == 1


def test_missing_quantiles_matter_to_those_who_ask_for_them(tmp_path):
    tree = Tree(tmp_path / "tree")
    stored("action", "q01", lambda values: values)(tree)
    for stats in tree.stats.values():
        for found in stats.values():
            for name in ("q01", "q10", "q50", "q90", "q99"):
                del found[name]
    consumers = {"quantiles": {"stats_recompute": {"missingQuantiles": {"fail": 0}}}, "plain": {}}

    report = quality_report(tree.write(), checks=["stats_recompute"], consumers=consumers)

    assert report["verdict"] == "pass"
    assert report["verdicts"] == {"quantiles": "fail", "plain": "pass"}
