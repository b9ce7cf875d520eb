"""Every node type of the registry, out of a workflow file: published by the command and run on recordings.

A new type fails here until :data:`PLACED` says what stands before it and what it cannot do without.
"""

import json
import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.node import NodeType
from emboflow_dagster.runtime.registry import node_types
from tests import docker_engine, mutant_files
from tests.integration.containers.conftest import docker_client, docker_host
from tests.integration.test_cli import Ended, in_this_process
from tests.unit.formats.lerobot_trees import tree_v21

__all__ = ["docker_client", "docker_host"]
IMAGE = "emboflow-tests/says:1"
HOOK = "def run(ctx, inputs):\n    return {'assets': len(ctx.assets)}\n"
SOURCES = {"demos": "hdf5_dataset", "trees": "standard_dataset", "bags": "rosbag", "archives": "archive"}
BOUND = tuple(word for kind in SOURCES.values() for word in ("--asset", f"type={kind}"))
#: Node type to the nodes before it, and to the settings that have no default.
PLACED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "source": ([], {}),
    "probe": (["source"], {}),
    "filter": (["probe"], {}),
    "set-union": (["demos", "bags"], {}),
    "set-intersection": (["source", "demos"], {}),
    "set-difference": (["source", "archives"], {}),
    "recover": (["bags"], {}),
    "extract-archive": (["archives"], {}),
    "transform": (["trees"], {}),
    "python": (["set-difference"], {"codeHook": {"entrypoint": "run", "source": HOOK}}),
    "container": (["set-union"], {"image": IMAGE}),
    "normalize": (["set-intersection"], {}),
    "merge": (["normalize"], {}),
    "quality-report": (["merge"], {}),
    "preview": (["merge"], {}),
    "publish-dataset": (["merge"], {"config": {"dataset": "every"}}),
    "annotation": (["merge"], {"config": {"labelType": "segment"}}),
    "export-delivery": (["quality-report"], {"config": {"format": "lerobot-v3.0"}}),
    "export-training-config": (["export-delivery"], {}),
}


def node(node_id: str, after: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    return {"id": node_id, "type": node_id, "after": after, **settings}


def graph() -> dict[str, Any]:
    sources = [{"id": n, "type": "source", "config": {"types": [kind]}} for n, kind in SOURCES.items()]
    return {"workflow": "every", "nodes": [*sources, *(node(n, *row) for n, row in PLACED.items())]}


@pytest.fixture
def command(ef: EmboFlow) -> Callable[..., Ended]:
    return partial(in_this_process, ef.settings.environment(), "--json")


def recordings(folder: Path) -> dict[str, tuple[Path, str]]:
    """A recording of each type that the nodes want: whole, in pictures too, and cut."""
    places = {name: folder / name for name in ("demo", "bag", "tree", "zip")}
    for place in places.values():
        place.mkdir(parents=True)
    mutant_files.hdf5_aloha(places["demo"])
    mutant_files.rosbag1(places["bag"])
    bag = places["bag"] / "a.bag"
    bag.write_bytes(bag.read_bytes()[:-600])
    tree_v21(places["tree"], features=())
    with zipfile.ZipFile(places["zip"] / "notes.zip", "w") as archive:
        archive.writestr("notes/a.csv", "time,joint\n0,1\n1,2\n")
    return {
        "demo": (places["demo"] / "episode_0.hdf5", "hdf5_dataset"),
        "cut": (bag, "rosbag"),
        "tree": (places["tree"], "standard_dataset"),
        "notes": (places["zip"] / "notes.zip", "archive"),
    }


def required(node_type: NodeType) -> set[str]:
    fields = node_type.options.model_fields.items()
    return {field.alias or name for name, field in fields if field.is_required()}


def test_every_node_type_is_published_from_a_file_with_its_defaults(command, tmp_path):
    types = {node_type.id: node_type for node_type in node_types()}

    assert set(PLACED) == set(types)
    for name, (_, settings) in PLACED.items():
        # What is left out has the default that `node show` prints.
        assert set(settings.get("config", {})) == required(types[name]), name
    for name, text in {"every.yaml": yaml.safe_dump(graph()), "every.json": json.dumps(graph())}.items():
        (tmp_path / name).write_text(text)
        published = command("workflow", "publish", str(tmp_path / name)).json
        assert published["unchanged"] is (name == "every.json")


@pytest.mark.skipif(
    os.environ.get("EMBOFLOW_FAULTS") != "all",
    reason="19 nodes, each with processes: make test-sample-graphs",
)
@pytest.mark.timeout(1200)
def test_every_node_type_runs_from_a_file_with_its_defaults(ef, command, docker_client, tmp_path):
    docker_engine.image(docker_client, IMAGE, "ENTRYPOINT echo '{\"said\": true}' > /out/report.json")
    for name, (path, kind) in recordings(tmp_path / "made").items():
        ef.assets.register(path, name=name, type=kind)
    file = tmp_path / "every.yaml"
    file.write_text(yaml.safe_dump(graph()))
    assert command("workflow", "publish", str(file)).status == 0

    run = command("workflow", "run", "every", *BOUND).json["_id"]
    waiting = command("worker", "--once").json
    (asked,) = (task["_id"] for task in command("annotation", "list").json)
    labels = tmp_path / "labels.json"
    labels.write_text('{"label": "grasp"}')
    for words in (("add", asked, str(labels)), ("submit", asked), ("approve", asked)):
        assert command("annotation", *words).status == 0
    assert command("worker", "--once").status == 0

    shown = command("run", "show", run).json
    assert [one["status"] for one in waiting["runs"]] == ["running"]
    tasks = {task["nodeId"]: task for task in shown["tasks"]}
    failed = {n: task.get("errorMessage") for n, task in tasks.items() if task["status"] != "success"}
    assert (shown["status"], failed) == ("success", {})
    for node_type in node_types():
        left = {ef.artifacts.get(artifact).type for artifact in tasks[node_type.id]["outputArtifactIds"]}
        assert node_type.produces is None or left == {node_type.produces}, node_type.id
    (said,) = tasks["python"]["outputArtifactIds"]
    place = tmp_path / "said.json"
    assert command("artifact", "get", said, "--output", str(place)).status == 0
    assert json.loads(place.read_text()) == {"assets": 3}
    assert tasks["container"]["lastResultPreview"]["value"] == {"said": True}
    assert ef.datasets.version("every").stats["frames"] == 12
    assert ef.verify().problems == []


def test_a_type_shows_the_options_that_a_file_may_have_and_a_slip_is_told_the_nearest(command, tmp_path):
    listed = {row["id"]: row for row in command("node", "list").json}
    slips: dict[str, str] = {}
    for node_type in node_types():
        shown = command("node", "show", node_type.id).json
        assert shown == listed[node_type.id]
        options = shown["options"]["properties"]
        assert all(option["description"] for option in options.values()), node_type.id
        assert set(shown["options"].get("required", [])) == required(node_type)
        if options:
            slips[node_type.id] = max(options, key=len)
    nodes = [
        node(name, row[0], {**row[1], "config": {**row[1].get("config", {}), f"{slips[name]}s": 1}})
        for name, row in PLACED.items()
        if name in slips
    ]
    known = {one["id"] for one in nodes}
    for one in nodes:
        one["after"] = [name for name in one["after"] if name in known] or ["source"][: one["id"] != "source"]
    nodes.append({"id": "x", "type": "quality-reprot", "after": ["source"]})
    deep = {"split": {"by": "gap", "second": 3}, "videos": "kopy"}
    nodes.append({"id": "deep", "type": "normalize", "after": ["source"], "config": deep})
    nodes.append(
        {"id": "check", "type": "quality-report", "after": ["source"], "config": {"checks": ["gapz"]}}
    )
    file = tmp_path / "slips.yaml"
    file.write_text(yaml.safe_dump({"workflow": "slips", "nodes": nodes}))

    ended = command("workflow", "validate", str(file))

    told = {problem["path"]: problem["message"] for problem in json.loads(ended.raw)["problems"]}
    assert ended.status == 1
    for place, one in enumerate(nodes[: len(slips)]):
        where = f"nodes[{place}] ({one['id']}).config.{slips[one['id']]}s"
        # `python` hands everything it does not know to the code.
        assert one["id"] == "python" or f"did you mean {slips[one['id']]!r}?" in told[where], told
    for name in ("'quality-report'", "'seconds'", "'copy'", "'gaps'"):
        assert any(f"did you mean {name}?" in message for message in told.values()), told
