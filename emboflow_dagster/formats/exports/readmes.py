"""The README of each kind of package: what it is, how it is used, how it is checked. No times, no places."""

from collections.abc import Mapping, Sequence
from typing import Any

from emboflow_dagster.formats.exports.lerobot_v3 import INDEX_FEATURES
from emboflow_dagster.formats.exports.training_config import CONFIG_FILE, TRAINER_VERSION

_CHECK = "sha256sum --check --quiet SHA256SUMS"


def lerobot(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Of a LeRobot v3.0 tree."""
    notes = [f"- `{row['feature']}` is left out: it {row['reason']}." for row in made["leftOut"]]
    if made["reencoded"]:
        first = made["reencoded"][0]
        notes.append(
            f"- {len(made['reencoded'])} of {made['videos']} videos were encoded anew (the first one: "
            f"{first['camera']}, episode {first['episode']}: {first['reason']}); the others are copies."
        )
    elif made["videos"]:
        notes.append(f"- All {made['videos']} videos are the version's own files, bit for bit.")
    use = (
        "from lerobot.datasets.lerobot_dataset import LeRobotDataset\n\n"
        f'dataset = LeRobotDataset("emboflow/{_name(facts)}", root=".", video_backend="pyav")\n'
        "print(dataset.num_episodes, dataset.num_frames, dataset[0].keys())"
    )
    return _page(
        f"{_title(facts)}: LeRobot v3.0",
        _version(facts),
        "## Features\n\n" + _features(made["features"]),
        f"## Use\n\nIn this folder, with lerobot {TRAINER_VERSION}:\n\n```python\n{use}\n```",
        "\n".join(notes),
        "Stamps are `frame_index / fps` from 0 in each episode. The recordings' own clocks are in the "
        "canonical "
        "package of the same version; `lineage/episodes.jsonl` has the first stamp of each episode.",
        _checked(),
    )


def canonical(facts: Mapping[str, Any], annotations: int | None) -> str:
    """Of the canonical layout, with or without annotations."""
    parts = ["`manifest.json` names every file; `frames.parquet` has a row a frame."]
    if annotations is not None:
        parts.append(f"`annotations.jsonl` has {annotations} annotations, one a line, in the order of ids.")
    return _page(
        f"{_title(facts)}: emboflow-canonical/1",
        _version(facts),
        *parts,
        '## Use\n\n```python\nimport pandas as pd\n\nframes = pd.read_parquet("frames.parquet")\n```',
        _checked(),
    )


def rlds(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Of RLDS shards."""
    return _page(
        f"{_title(facts)}: RLDS",
        _version(facts),
        "## Features of a step\n\n" + _features(made["features"]),
        f"{made['shards']} TFRecord shards, one record an episode, `features.json` and `dataset_info.json` "
        "as TensorFlow Datasets has them. Pictures are PNG, decoded from the version's videos without loss.",
        f"## Use\n\n```python\nimport tensorflow_datasets as tfds\n\ndataset = tfds.builder_from_directory("
        f'"{made["folder"]}").as_dataset(split="train")\n```',
        _checked(),
    )


def mcap(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Of recordings for viewers."""
    topics = ["| topic | feature | type | shape |", "|---|---|---|---|"]
    for name, spec in made["features"].items():
        shape = "x".join(map(str, spec["shape"]))
        topics.append(f"| `{made['topics'][name]}` | `{name}` | {spec['dtype']} | {shape} |")
    grid = made["clocks"]["grid"]
    time = "Messages have the recordings' own stamps."
    if grid:
        time = f"{grid} of {facts['episodes']} episodes hold no recorded time: there stamps count from 0."
    return _page(
        f"{_title(facts)}: MCAP",
        _version(facts),
        "One file an episode, `episodes/episode_000000.mcap` and on, as ROS 2 records.",
        "\n".join(topics),
        "Vectors are `sensor_msgs/JointState`: `position` holds the numbers, whatever they are, `name` what "
        "each is called. Pictures are JPEG of quality 95, so nearly the version's own; the canonical package "
        "has its videos. `/task` says what the robot was asked, `/valid` (where there is one) which frames "
        f"count, `/raw/...` are streams that kept their own rate. {time}",
        "## Use\n\nOpen a file in Foxglove or PlotJuggler, with `rerun FILE`, or with `ros2 bag play`.",
        _checked(),
    )


def rrd(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Of recordings for Rerun."""
    entities = ["| entity | feature | type | shape |", "|---|---|---|---|"]
    for name, entity in made["entities"].items():
        spec = made["features"][name]
        entities.append(f"| `{entity}` | `{name}` | {spec['dtype']} | {'x'.join(map(str, spec['shape']))} |")
    return _page(
        f"{_title(facts)}: Rerun",
        _version(facts),
        "One file an episode, `episodes/episode_000000.rrd` and on.",
        "\n".join(entities),
        "Videos are the version's own files, numbers its own. Timelines are `frame`, `time` (seconds of the "
        "grid) and, where the recording held time, `recorded`. `trajectory/...` is the way of what has a "
        "position, `raw/...` are streams that kept their own rate, `about` says which episode it is.",
        "## Use\n\n```sh\nrerun episodes/episode_000000.rrd\n```",
        f"## Check\n\n```sh\n{_CHECK}\nrerun rrd verify episodes/*.rrd\n```\n\nRerun numbers what it writes "
        "by time and chance: another export of the version has the same data (`rerun rrd compare`), not "
        "the same bytes.",
    )


def reports(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of reports and previews."""
    lines = ["| from | what | folder |", "|---|---|---|"]
    lines += [f"| {row['node']} | {row['type'].replace('_', ' ')} | `{row['folder']}` |" for row in rows]
    return _page("Reports", "\n".join(lines), _checked())


def training(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Of a training config."""
    dataset, policy = config["dataset"], config["policy"]["type"]
    root = dataset["root"]
    command = f"lerobot-train --config_path={CONFIG_FILE} --dataset.root={root}"
    written = "."
    if facts.get("name") and facts.get("versionTag"):
        asked = f"{facts['name']} --version {facts['versionTag']} --format lerobot-v3.0 --output {root}"
        written = f"; `emboflow dataset export {asked}` writes it."
    return _page(
        f"{_title(facts)}: training of {policy} with lerobot",
        _version(facts),
        f"## Use\n\nPut the LeRobot v3.0 delivery package of this version at `{root}` and run here, "
        f"with lerobot {TRAINER_VERSION}:\n\n```sh\n{command}\n```",
        "The package is the one whose `delivery.json` has the `versionSha256` above" + written,
        f"Seed {config['seed']}, {config['steps']} steps, batches of {config['batch_size']}. "
        "`lineage/episodes.jsonl` has the id and the hash of every episode that the policy will have seen.",
        _checked(),
    )


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"


def _title(facts: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (_name(facts), facts.get("versionTag"))))


def _name(facts: Mapping[str, Any]) -> str:
    return facts.get("name") or "dataset"


def _version(facts: Mapping[str, Any]) -> str:
    rows = [
        ("episodes", facts["episodes"]),
        ("frames", facts["frames"]),
        ("frames per second", f"{facts['fps']:g}"),
        ("robot", facts.get("robotType") or "not said"),
        ("version, sha256", f"`{facts['versionSha256']}`"),
        ("episodes, Merkle root", f"`{facts['treeSha256']}`"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _features(features: Mapping[str, Any]) -> str:
    lines = ["| name | type | shape |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {spec['dtype']} | {'x'.join(map(str, spec['shape']))} |"
        for name, spec in features.items()
        if name not in INDEX_FEATURES
    ]
    return "\n".join(lines)


def _checked() -> str:
    return (
        f"## Check\n\n```sh\n{_CHECK}\n```\n\n`delivery.json` says which version this is, which libraries "
        "wrote it and with which options: the same version, options and libraries give the same bytes."
    )
