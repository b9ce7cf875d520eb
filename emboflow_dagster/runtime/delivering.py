"""Makes packages out of canonical folders; runs in a child process, JSON in and out."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, ExecutionError, InvalidInputError
from emboflow_dagster.runtime import child_main

LEROBOT: Final = "lerobot-v3.0"
CANONICAL: Final = "canonical"
ANNOTATED: Final = "canonical+annotations"
RLDS: Final = "rlds"
MCAP: Final = "mcap"
RRD: Final = "rrd"
REPORTS: Final = "reports-only"
TRAINING: Final = "lerobot-train"
FORMATS: Final = (LEROBOT, CANONICAL, RLDS, MCAP, RRD)
"""What a version alone can be delivered as."""


def deliver(request: dict[str, Any]) -> dict[str, Any]:
    """Write the package of one version.

    Args:
        request: ``package`` (a canonical folder), ``out`` (absent), ``format``, ``name`` and ``tag`` (or
            null), ``environmentState`` (or null), ``annotations`` (files).

    Returns:
        ``format``, ``episodes``, ``frames``, ``fps``, ``files``, ``bytes``, ``versionSha256``,
        ``treeSha256``, ``features``, ``reencoded`` (videos), ``leftOut`` (features).

    Raises:
        InvalidInputError: The version cannot have this layout.
        IntegrityError: A file of the canonical folder is missing or damaged.
        ExecutionError: What was written does not hold what the layout asks for.
    """
    from emboflow_dagster.formats.canonical.reader import open_canonical
    from emboflow_dagster.formats.exports import package, readmes
    from emboflow_dagster.formats.exports.identity import identified

    folder, out, form = Path(request["package"]), Path(request["out"]), request["format"]
    dataset = open_canonical(folder)
    out.mkdir(parents=True)
    with identified(dataset, folder) as identity:
        facts = package.dataset_facts(
            identity, dataset.manifest.document, name=request.get("name"), tag=request.get("tag")
        )
        package.write_lineage(out, identity)
    made: dict[str, Any] = {"features": dataset.manifest.features, "reencoded": [], "leftOut": []}
    options: dict[str, Any] = {}
    libraries: tuple[str, ...] = ()
    if form == LEROBOT:
        from emboflow_dagster.formats.exports import lerobot_v3
        from emboflow_dagster.formats.exports.lerobot_check import check_lerobot

        libraries, options = lerobot_v3.LIBRARIES, {"environmentState": request.get("environmentState")}
        made = lerobot_v3.write_lerobot(
            dataset, out, environment_state=options["environmentState"], tick=_tick
        )
        if problems := check_lerobot(out):
            first = problems[0]
            raise ExecutionError(
                f"the package does not hold what LeRobot asks for: {first['path']}: {first['message']}",
                kind=ErrorKind.CONTRACT,
            )
        readme = readmes.lerobot(facts, made)
    elif form == RLDS:
        from emboflow_dagster.formats.exports import rlds

        libraries = rlds.LIBRARIES
        made |= rlds.write_rlds(dataset, out, name=request.get("name") or "dataset", tick=_tick)
        readme = readmes.rlds(facts, made)
    elif form == MCAP:
        from emboflow_dagster.formats.exports import mcap_episodes

        libraries = mcap_episodes.LIBRARIES
        made |= mcap_episodes.write_mcap(dataset, out, facts, tick=_tick)
        readme = readmes.mcap(facts, made)
    elif form == RRD:
        from emboflow_dagster.formats.exports import rrd_episodes

        libraries = rrd_episodes.LIBRARIES
        made |= rrd_episodes.write_rrd(dataset, out, facts, tick=_tick)
        readme = readmes.rrd(facts, made)
    elif form in (CANONICAL, ANNOTATED):
        _copy(folder, out)
        count = _annotations(request["annotations"], out) if form == ANNOTATED else None
        readme = readmes.canonical(facts, count)
    else:
        raise InvalidInputError(f"format {form} is none of {', '.join(FORMATS)}")
    kept = {key: made[key] for key in ("reencoded", "leftOut") if made[key]}
    document = package.close_package(
        out,
        format=form,
        facts={"dataset": facts, **kept},
        readme=readme,
        options=options,
        libraries=libraries,
    )
    return _summary(out, document) | {
        "features": made["features"],
        "reencoded": len(made["reencoded"]),
        "leftOut": [row["feature"] for row in made["leftOut"]],
    }


def collect(request: dict[str, Any]) -> dict[str, Any]:
    """Write a package of reports and previews.

    Args:
        request: ``out`` (absent), ``artifacts`` [{node, type, path}].

    Returns:
        ``format``, ``files``, ``bytes``, ``reports`` [{node, type, folder}].
    """
    from emboflow_dagster.formats.exports import package, readmes

    out = Path(request["out"])
    out.mkdir(parents=True)
    rows: list[dict[str, str]] = []
    for given in request["artifacts"]:
        place, number = f"{given['node']}/{given['type']}", 1
        while any(row["folder"] == place for row in rows):
            number += 1
            place = f"{given['node']}/{given['type']}-{number}"
        source = Path(given["path"])
        if source.is_dir():
            _copy(source, out / place)
        else:
            (out / place).mkdir(parents=True)
            shutil.copyfile(source, out / place / source.name)
        rows.append({"node": given["node"], "type": given["type"], "folder": place})
    document = package.close_package(
        out, format=REPORTS, facts={"reports": rows}, readme=readmes.reports(rows), options={}
    )
    return _summary(out, document) | {"reports": rows}


def training(request: dict[str, Any]) -> dict[str, Any]:
    """Write a training config package for a LeRobot delivery.

    Args:
        request: ``delivery`` (a LeRobot v3.0 package), ``out`` (absent), ``policy``, ``requires``,
            ``episodes`` (text or null), ``settings`` as :func:`training_config.config_of` has them.

    Returns:
        ``format``, ``policy``, ``episodes``, ``frames``, ``files``, ``bytes``, ``versionSha256``,
        ``features``, ``command``.

    Raises:
        InvalidInputError: Kind ``input-missing``: a feature that is required is not there.
        IntegrityError: The delivery is damaged.
    """
    from emboflow_dagster.formats.exports import package, readmes
    from emboflow_dagster.formats.exports import training_config as config_module
    from emboflow_dagster.formats.exports.lerobot_v3 import read_info

    folder, out, policy = Path(request["delivery"]), Path(request["out"]), request["policy"]
    delivery = package.check_package(folder)
    if delivery["format"] != LEROBOT:
        raise InvalidInputError(
            f"{config_module.TRAINER} trains on {LEROBOT} packages; this one is {delivery['format']}",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
        )
    features = read_info(folder)["features"]
    config_module.check_features(features, policy, request["requires"])
    dataset = delivery["dataset"]
    episodes = config_module.places(request.get("episodes"), dataset["episodes"])
    config = config_module.config_of(
        name=dataset["name"] or "dataset",
        version_sha256=dataset["versionSha256"],
        policy=policy,
        settings=request["settings"],
        features=features,
        episodes=episodes,
    )
    out.mkdir(parents=True)
    (out / config_module.CONFIG_FILE).write_text(package.json_text(config), encoding="utf-8")
    seen = _lineage(folder, out, episodes)
    facts = {
        "dataset": {**dataset, "deliverySha256": _sums_sha256(folder)},
        "trainer": {"name": config_module.TRAINER, "version": config_module.TRAINER_VERSION},
        "policy": policy,
        "requires": request["requires"],
        "trainedOn": seen,
    }
    document = package.close_package(
        out, format=TRAINING, facts=facts, readme=readmes.training(dataset, config), options={}
    )
    return (
        _summary(out, document)
        | seen
        | {
            "policy": policy,
            "features": features,
            "command": f"lerobot-train --config_path={config_module.CONFIG_FILE}",
        }
    )


def _lineage(folder: Path, out: Path, episodes: list[int] | None) -> dict[str, int]:
    """The lines of the episodes that are trained on; how many, and their frames."""
    from emboflow_dagster.formats.exports.package import EPISODES

    chosen = None if episodes is None else set(episodes)
    count = frames = 0
    (out / EPISODES).parent.mkdir(parents=True)
    with (folder / EPISODES).open("rb") as source, (out / EPISODES).open("wb") as target:
        for line in source:
            row = json.loads(line)
            if chosen is None or row["episode"] in chosen:
                target.write(line)
                count, frames = count + 1, frames + row["length"]
    return {"episodes": count, "frames": frames}


def _sums_sha256(folder: Path) -> str:
    from emboflow_dagster.formats.canonical.writer import file_sha256
    from emboflow_dagster.formats.exports.package import SUMS

    return file_sha256(folder / SUMS)


def _summary(out: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    from emboflow_dagster.formats.exports.package import files_of

    sizes = [path.stat().st_size for _, path in files_of(out)]
    dataset = document.get("dataset") or {}
    told = ("name", "versionTag", "versionSha256", "treeSha256", "episodes", "frames", "fps")
    return {
        "format": document["format"],
        "files": len(sizes),
        "bytes": sum(sizes),
        **{key: dataset[key] for key in told if key in dataset},
    }


def _annotations(paths: list[str], out: Path) -> int:
    """`annotations.jsonl`: every annotation once, in the order of ids, with its task and kind of label.

    A file is what an annotation node leaves (``emboflow-annotations/1``: the task, and its annotations), or
    JSON lines. Who approved what stands in `annotation_tasks.jsonl`.
    """
    from emboflow_dagster.formats.exports.package import json_line

    rows: dict[str, Any] = {}
    tasks: dict[str, Any] = {}
    for path in paths:
        payload = Path(path).read_bytes()
        try:
            document = json.loads(payload)
        except ValueError:
            document = None  # more than one line
        if isinstance(document, dict) and isinstance(document.get("annotations"), list):
            task = {key: value for key, value in document.items() if key != "annotations"}
            tasks[str(task.get("annotationTaskId"))] = task
            kept = {key: task[key] for key in ("annotationTaskId", "labelType") if key in task}
            found = [{**kept, **row} for row in document["annotations"]]
        else:
            found = [json.loads(line) for line in payload.splitlines() if line.strip()]
        for row in found:
            rows[str(row.get("_id") or row.get("id") or len(rows))] = row
    for name, told in (("annotations", rows), ("annotation_tasks", tasks)):
        if told or name == "annotations":
            with (out / f"{name}.jsonl").open("wb") as stream:
                stream.writelines(json_line(told[key]) for key in sorted(told))
    return len(rows)


def _copy(source: Path, target: Path) -> None:
    """A folder's files; of links nothing is followed out of it."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _tick(done: int, of: int) -> None:
    if done == of or done % max(1, of // 10) == 0:
        child_main.log(f"{done} of {of} episodes are written")
