"""The six graphs of the samples as a user plays them: by the command alone, held against what they expect.

Each is published as its file is and run, with people's answers and a retry where it wants them. Who gives the
command, and who executes the runs, is the test's: this process in ``make test``, and processes of their own
under a real ``emboflow dev`` in ``make test-sample-graphs``.

Where an expectation is not what the samples give, :data:`CORRECTED` says what it is and why.
"""

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.sample_files import SAMPLES

FOLDER: Final = SAMPLES / "workflows"
FILES: Final = sorted(path.name for path in FOLDER.glob("*.json")) if FOLDER.is_dir() else []
TYPES: Final = {"mcap": "rosbag", "rosbag1": "rosbag", "rosbag2": "rosbag", "hdf5": "hdf5_dataset"} | {
    "standard_dataset": "standard_dataset",
    "video": "video_collection",
    "archive": "archive",
    "folder": "folder",
}
#: File to what of its ``expectedRun`` cannot hold.
CORRECTED: Final = {
    "06-archive-container-retry.json": (
        "binds archive/urdf_parser_sdist_targz, of which the samples hold no bytes, manifest or truth: "
        "a tar.gz made of folder/so101_urdf stands in for it"
    ),
}
_ABSENT: Final = "archive/urdf_parser_sdist_targz"


def graph(name: str) -> dict[str, Any]:
    """A file of the samples."""
    return json.loads((FOLDER / name).read_text())


@dataclass(frozen=True)
class Player:
    """Somebody at a terminal."""

    emboflow: Callable[..., Any]
    """What a command prints with ``--json``; fails when it does not succeed."""
    register: Callable[[Path, str, str], Any]
    """Registers a file or folder under a name, as a type."""
    carry: Callable[[str], None]
    """Returns when a run is over, or waits for people."""
    folder: Path
    """For what is made and fetched."""

    def registered(self, raw: dict[str, Any]) -> None:
        """Every asset that the file binds, under the name that it has there."""
        for name in dict.fromkeys(name for names in raw["assetBindings"].values() for name in names):
            kind = name.partition("/")[0]
            place = SAMPLES / name
            if name == _ABSENT and not place.exists():
                place = self.folder / "urdf_parser.tar.gz"
                with tarfile.open(place, "w:gz") as archive:
                    archive.add(SAMPLES / "folder" / "so101_urdf", "urdf_parser")
            elif kind in ("archive", "video", "rosbag1") and len(files := list(place.iterdir())) == 1:
                place = files[0]
            self.register(place, name, TYPES[kind])

    def played(self, file: Path, raw: dict[str, Any], *words: str) -> "Played":
        """Registered, published and run; the file binds the assets that ``words`` do not."""
        self.registered(raw)
        published = self.emboflow("workflow", "publish", str(file))
        assert (published["slug"], published["unchanged"]) == (raw["slug"], False)
        return self.run(raw, *words)

    def run(self, raw: dict[str, Any], *words: str) -> "Played":
        """One more run of a published file."""
        run = self.emboflow("workflow", "run", raw["slug"], *words)
        self.carry(run["_id"])
        return self.shown(raw, run["_id"])

    def shown(self, raw: dict[str, Any], run_id: str) -> "Played":
        """A run as it is now."""
        run = self.emboflow("run", "show", run_id)
        return Played(self, raw, run, {task["nodeId"]: task for task in run["tasks"]})


@dataclass(frozen=True)
class Played:
    """A run of a file, and its tasks by node."""

    player: Player
    raw: dict[str, Any]
    run: dict[str, Any]
    tasks: dict[str, dict[str, Any]]

    @property
    def expected(self) -> dict[str, Any]:
        """What the file says of its run."""
        return self.raw["expectedRun"]

    def preview(self, node: str) -> dict[str, Any]:
        """What a task shows."""
        return self.tasks[node].get("lastResultPreview") or {}

    def left(self, node: str) -> Path:
        """The one artifact of a task, fetched."""
        (artifact,) = self.tasks[node]["outputArtifactIds"]
        place = self.player.folder / "fetched" / artifact
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            self.player.emboflow("artifact", "get", artifact, "--output", str(place))
        return place

    def agrees(self) -> None:
        """Status, effective assets and counts, as ``expectedRun`` has them; ids here are names there."""
        names = {
            asset["_id"]: asset["displayName"]
            for asset in self.player.emboflow("asset", "list", "--limit", "1000")
        }
        bound = {node: set(listed) for node, listed in self.raw["assetBindings"].items()}
        assert {names[a] for a in self.run["assetIds"]} == set().union(*bound.values())
        for node, listed in bound.items():
            assert {names[a] for a in self.tasks[node]["assetIds"]} == listed, node
        for node, listed in self.expected.get("effectiveAssetIds", {}).items():
            if node in self.tasks:
                # Expectations are sets: two sources may say other orders, and a node has that of its run.
                assert sorted(names[a] for a in self.tasks[node]["assetIds"]) == sorted(listed), node
        if self.expected["status"] == "success":
            self.succeeded()
            # Counted are nodes that say what they leave; others leave artifacts for the next node.
            said = [node["nodeId"] for node in self.raw["runtimeGraph"]["nodes"] if "artifactType" in node]
            left = sum(len(self.tasks[node]["outputArtifactIds"]) for node in said if node in self.tasks)
            assert left == self.expected.get("artifacts", left)

    def succeeded(self) -> None:
        """It did, and all of its tasks did."""
        failed = {
            n: task.get("errorMessage") for n, task in self.tasks.items() if task["status"] != "success"
        }
        assert (self.run["status"], failed) == ("success", {})


def triage(player: Player, file: Path) -> None:
    """01: every bag is probed, those with a blocking warning are left out, the others looked at."""
    played = player.played(file, json.loads(file.read_text()))
    played.agrees()
    rejected = {
        row["name"]: row["reasons"][0].removeprefix("warnings: has ").split(", ")
        for row in played.preview("gate")["rejected"]
    }
    assert rejected == played.expected["rejected"]
    assert played.run["summary"]["artifactCount"] == played.expected["artifacts"]


def delivery(player: Player, file: Path) -> None:
    """02: demonstrations become a version's package, a delivery, and a training config that points at it."""
    played = player.played(file, json.loads(file.read_text()))
    played.agrees()
    _delivered_whole(played)
    package, config = (
        json.loads((played.left(node) / name).read_text())
        for node, name in (("delivery", "delivery.json"), ("train", "train_config.json"))
    )
    assert config["dataset"]["revision"] == package["dataset"]["versionSha256"]
    assert config["policy"]["type"] == "act"


def _delivered_whole(played: Played) -> list[dict[str, Any]]:
    made = played.preview("normalize")
    expected = played.expected.get("dataset", {})
    assert {key: made[key] for key in expected} == expected
    delivered = played.preview("delivery")["packages"]
    assert sum(package["frames"] for package in delivered) == made["frames"]
    return delivered


def repair(player: Player, file: Path) -> None:
    """03: a broken dataset is repaired, normalised without encoding, delivered and read in a container."""
    played = player.played(file, json.loads(file.read_text()))
    played.agrees()
    expected = played.expected["dataset"]
    package = played.preview("normalize")
    assert [package[key] for key in ("episodes", "frames", "fps")] == [
        expected[key] for key in ("episodes", "frames", "fps")
    ]
    assert played.preview("repair")["videos"] == expected["videos"]
    assert played.preview("qc")["qualityWarnings"] == played.expected["qualityWarnings"]
    # The container read what was delivered, not what was registered.
    told = {"episodes": expected["episodes"], "frames": expected["frames"], "problems": []}
    assert played.preview("verify")["value"] == {"datasets": [told]}


def sets(player: Player, file: Path) -> None:
    """04: sets of datasets narrow each other; what is left becomes a delivery for each kind."""
    played = player.played(file, json.loads(file.read_text()))
    played.agrees()
    delivered = _delivered_whole(played)
    # One package for each set of features and rate; of G1's 100 episodes two have their video.
    kept = played.expected["g1EpisodesKept"]
    assert [package["episodes"] for package in delivered] == [kept, 5, 2, 1]


def people(player: Player, file: Path) -> None:
    """05: user code resamples, then the run waits for people and delivers what they said."""
    played = player.played(file, json.loads(file.read_text()))
    played.agrees()
    first, second = played.expected["status"].split(", then ")
    label = played.tasks["label"]
    assert (first, played.run["status"], label["status"]) == ("waiting-for-annotation", "running", "queued")
    (asked,) = (task["_id"] for task in player.emboflow("annotation", "list"))
    segment = {"from": 0, "to": 200, "label": "turn left"}
    labels = player.folder / "labels.json"
    labels.write_text(json.dumps(segment))
    player.emboflow("annotation", "add", asked, str(labels))
    player.emboflow("annotation", "submit", asked)
    player.emboflow("annotation", "approve", asked, "--comment", "seen")

    player.carry(played.run["_id"])

    ended = player.shown(played.raw, played.run["_id"])
    ended.succeeded()
    assert ended.run["status"] == second
    folder = ended.left("delivery")
    (row,) = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
    assert (row["payload"], row["annotationTaskId"], row["labelType"]) == (segment, asked, "segment")
    (told,) = (folder / "annotation_tasks.jsonl").read_text().splitlines()
    assert json.loads(told)["comment"] == "seen"
    assert json.loads((folder / "delivery.json").read_text())["dataset"]["frames"] == ended.expected["frames"]


def retried(player: Player, file: Path) -> None:
    """06: as it is, a corrupted video fails its branch, and a retry that alone; a sound one succeeds."""
    played = player.played(file, json.loads(file.read_text()))
    played.agrees()
    words = {"cancelled-or-blocked": {"cancelled", "pending"}}
    for node, status in played.expected["tasks"].items():
        task = played.tasks[node]
        assert task["status"] in words.get(status, {status}), (node, task.get("errorMessage"))
    assert played.run["status"] == played.expected["status"]
    again = played.expected["retryTask"]
    before = played.tasks["decode"]["errorMessage"]
    player.emboflow("task", "retry", f"{played.run['_id']}:{again['nodeId']}")
    player.carry(played.run["_id"])
    tried = player.shown(played.raw, played.run["_id"])
    # What never ran has its first attempt before it yet.
    expected = {node: again["attempt"] if node == again["nodeId"] else 1 for node in tried.tasks}
    assert {node: task["attempt"] for node, task in tried.tasks.items()} == expected
    assert (tried.run["status"], tried.tasks["decode"]["errorMessage"]) == ("failed", before)

    sound = [f"zips={name}" for name in played.raw["assetBindings"]["zips"]]
    chosen = [word for name in [*sound, "vids=video/flipping_a_pancake"] for word in ("--asset", name)]
    whole = player.run(played.raw, *chosen)

    whole.succeeded()
    archives = len(played.raw["assetBindings"]["zips"])
    assert len(whole.tasks["extract"]["assetIds"]) == archives
    checked = whole.preview("urdf")["value"]
    assert (len(checked["urdfs"]) >= archives, checked["problems"]) == (True, [])
    package = whole.left("report")
    told = json.loads((package / "delivery.json").read_text())
    assert {row["node"] for row in told["reports"]} == {"decode", "contact"}
    assert (package / "decode" / "quality_report" / "report.json").is_file()


GRAPHS: Final[dict[str, Callable[[Player, Path], None]]] = {
    "01-bag-intake-triage.json": triage,
    "02-hdf5-demos-to-delivery.json": delivery,
    "03-lerobot-repair.json": repair,
    "04-set-narrowing-merge.json": sets,
    "05-resample-annotate.json": people,
    "06-archive-container-retry.json": retried,
}
#: Those that execute containers.
DOCKER: Final = frozenset({"03-lerobot-repair.json", "06-archive-container-retry.json"})
