"""A project's own node types: registered, published with, refused where they must be, executed."""

import json
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import EmboflowError, InvalidInputError, NotFoundError, TransitionError
from emboflow_dagster.project.handle import EmboFlow
from tests import docker_engine
from tests.integration.project.conftest import Opener

COUNT = """
import json
config, index = json.load(open("/in/config.json")), json.load(open("/in/index.json"))
rows = sum(open("/in/" + a["path"]).read().count(chr(10)) for a in index["assets"])
json.dump({"rows": rows - config["header"], "unit": config["unit"]}, open("/out/count.json", "w"))
print("counted")
"""
CONTRACT = {
    "outputs": {
        "count": {"path": "count.json", "artifactType": "row_count", "properties": {"rows": "integer"}}
    },
    "configSchema": {
        "properties": {
            "header": {"type": "integer", "default": 1, "description": "Lines that are no rows."},
            "unit": {"type": "string"},
        },
        "required": ["unit"],
    },
}
DOCKERFILE = f'FROM {docker_engine.BASE}\nRUN mkdir /made\nENTRYPOINT ["sh", "-c"]\n'


def node(slug: str = "count-rows", **more: Any) -> dict[str, Any]:
    return {"node": slug, "category": "inspect", "contract": CONTRACT, "image": "team/count:1"} | more


def workflow(type_: str = "count-rows", **config: Any) -> dict[str, Any]:
    return {
        "workflow": "counted",
        "nodes": [
            {"id": "src", "type": "source"},
            {"id": "count", "type": type_, "after": ["src"], "config": {"unit": "rows"} | config},
        ],
    }


def said(call: Any, *arguments: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        call(*arguments)
    return f"{caught.value.kind.value}: {caught.value.message}"


def test_both_variants_are_kept_with_their_contract(ef: EmboFlow) -> None:
    image = ef.nodes.register(node())
    made = ef.nodes.register(
        node("check-rows", image=None, dockerfile="FROM a\nCOPY --from=b /x /y\n", imageTag="team/check:1")
    )

    assert not image.unchanged
    assert image.node.definition_id == "custom:count-rows"
    assert image.node.to_json()["source"] == {"kind": "docker_image", "image": "team/count:1"}
    assert made.node.source.kind == "dockerfile"
    assert ef.nodes.get("count-rows").contract.outputs == CONTRACT["outputs"]
    assert [n.slug for n in ef.nodes.list()] == ["check-rows", "count-rows"]
    assert ef.nodes.register(node()).unchanged
    assert not ef.nodes.register(node(image="team/count:2")).unchanged
    actions = [(row.action, row.resource_id) for row in ef.audit.list() if row.action.startswith("node.")]
    assert actions == [
        ("node.update", image.node.id),
        ("node.register", made.node.id),
        ("node.register", image.node.id),
    ]
    assert ef.verify().problems == []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"dockerfile": "FROM a", "imageTag": "b"}, "source: found image and dockerfile; exactly one"),
        ({"image": None}, "source: found none; exactly one of image and dockerfile"),
        (
            {"image": None, "source": {"kind": "docker_image", "image": "a", "dockerfile": "FROM a"}},
            "dockerfile",
        ),
        ({"image": None, "dockerfile": "FROM a"}, "imageTag"),
        ({"image": None, "imageTag": "a", "dockerfile": "FROM a\nCOPY x /y"}, "line 2: COPY without --from"),
        ({"image": None, "imageTag": "a", "dockerfile": "FROM a\nRUN b \\\n c\nadd x /y"}, "line 4: ADD"),
        ({"image": None, "imageTag": "a", "dockerfile": "FROM a\nONBUILD COPY x /y"}, "line 2: COPY"),
        ({"image": None, "imageTag": "a", "dockerfile": "FROM a\nCO\\\nPY x /y"}, "line 2"),
        ({"image": None, "imageTag": "a", "dockerfile": "# syntax=x\nFROM a"}, "line 1: directives"),
        ({"image": None, "imageTag": "a", "dockerfile": "RUN x"}, "begins with FROM"),
        ({"image": None, "imageTag": "A b", "dockerfile": "FROM a"}, "imageTag"),
        ({"node": "container"}, "duplicate: node: 'container' is what every project calls container"),
        ({"node": "a_b"}, "slug: "),
        ({"category": "magic"}, "category"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"contract": {"outputs": {"a": {"path": "../x"}}}}, "contract: contract.outputs.a.path"),
        ({"contract": {"outputs": {"a": {"type": "png"}}}}, "contract.outputs.a.type: found 'png'"),
        ({"contract": {"outputs": {"a": {"properties": {"x": "int"}}}}}, "contract.outputs.a.properties"),
        ({"contract": {"configSchema": {"properties": {"env": {"type": "string"}}}}}, "an option of every"),
        ({"contract": {"configSchema": {"required": ["x"]}}}, "names 'x', which is not in properties"),
    ],
)
def test_what_is_refused(ef: EmboFlow, more: dict[str, Any], expected: str) -> None:
    assert expected in said(ef.nodes.register, node(**more))
    assert ef.nodes.list() == []


def test_a_workflow_is_checked_against_the_node_and_belongs_to_its_project(
    ef: EmboFlow, opener: Opener
) -> None:
    ef.nodes.register(node())

    published = ef.workflows.publish(workflow())
    assert published.version.logic_graph.nodes[1].type == "custom:count-rows"
    assert published.version.node("count")[1].executor.value == "docker"
    assert ef.workflows.publish(workflow("custom:count-rows")).unchanged
    assert "config.unit: is needed and absent" in said(
        ef.workflows.publish,
        workflow(unit=None)
        | {
            "nodes": [
                {"id": "src", "type": "source"},
                {"id": "count", "type": "count-rows", "after": ["src"]},
            ]
        },
    )
    assert "config.colour: unknown option" in said(ef.workflows.publish, workflow(colour=1))
    other = workflow()
    other["nodes"][1]["image"] = "another:1"
    assert "has an image of its own" in said(ef.workflows.publish, other)

    elsewhere = opener(project="other")
    assert said(elsewhere.workflows.publish, workflow()).startswith("node-type: ")
    with pytest.raises(NotFoundError):
        elsewhere.nodes.get(ef.nodes.get("count-rows").id)


def test_a_disabled_node_is_refused_when_a_run_is_requested(ef: EmboFlow, asset_file: Path) -> None:
    ef.nodes.register(node())
    ef.workflows.publish(workflow())
    asset = ef.assets.register(asset_file, type="raw_file")
    ef.nodes.disable("count-rows")

    with pytest.raises(TransitionError, match="custom node count-rows is disabled"):
        ef.runs.request("counted", assets=[asset.id])
    assert ef.runs.list() == []
    ef.nodes.disable("count-rows")
    ef.nodes.enable("count-rows")
    actions = [row.action for row in ef.audit.list() if row.action.startswith("node.")]
    assert actions == ["node.enable", "node.disable", "node.register"]


def test_it_is_executed_as_it_was_when_the_run_was_requested(
    docker_client: Any, ef: EmboFlow, asset_file: Path, tmp_path: Path
) -> None:
    docker_engine.image(
        docker_client, "team/count:1", 'ENTRYPOINT ["python3", "/count.py"]', {"count.py": COUNT}
    )
    ef.nodes.register(node())
    ef.workflows.publish(workflow())
    asset = ef.assets.register(asset_file, type="raw_file")
    run = ef.runs.request("counted", assets=[asset.id])
    broken = CONTRACT | {"outputs": {"count": {"path": "count.json", "properties": {"rows": "string"}}}}
    ef.nodes.register(node(contract=broken))
    later = ef.runs.request("counted", assets=[asset.id])
    ef.nodes.disable("count-rows")

    ef.runs.work(run.id)
    ef.runs.work(later.id)

    task = ef.tasks.get(run.id, "count")
    assert (task.status.value, task.error_message) == ("success", None)
    [artifact] = ef.artifacts.of_task(task)
    assert artifact.type == "row_count"
    assert json.loads(ef.artifacts.fetch(artifact, tmp_path / "c.json").read_text()) == {
        "rows": 2,
        "unit": "rows",
    }
    failed = ef.tasks.get(later.id, "count")
    assert failed.error_message == (
        "contract.outputs.count: /out/count.json has 'rows' as integer; the contract says string"
    )
    assert ef.artifacts.list(producer_id=failed.id) == []
    assert ef.verify().problems == []


def test_a_dockerfile_is_built_once(docker_client: Any, ef: EmboFlow, asset_file: Path) -> None:
    contract = {"outputs": {"said": {"path": "said.txt", "required": False}}}
    for slug in ("one", "two"):
        ef.nodes.register(
            node(slug, image=None, dockerfile=DOCKERFILE, imageTag=f"team/{slug}:1", contract=contract)
        )
        ef.workflows.publish(
            {
                "workflow": f"run-{slug}",
                "nodes": [{"id": "src", "type": "source"}, {"id": "own", "type": slug, "after": ["src"]}],
            }
        )
    asset = ef.assets.register(asset_file, type="raw_file")
    before = {image.id for image in docker_client.images.list(all=True)}
    first = ef.runs.request("run-one", assets=[asset.id])
    made = {image.id for image in docker_client.images.list(all=True)} - before
    second = ef.runs.request("run-two", assets=[asset.id])

    assert made
    assert {image.id for image in docker_client.images.list(all=True)} - before == made
    digests = {(ef.tasks.get(r.id, "own").executor_config or {})["imageDigest"] for r in (first, second)}
    assert len(digests) == 1


def test_a_dockerfile_that_cannot_be_built(docker_client: Any, ef: EmboFlow, asset_file: Path) -> None:
    ef.nodes.register(
        node(image=None, dockerfile=f"FROM {docker_engine.BASE}\nRUN exit 3\n", imageTag="team/none:1")
    )
    ef.workflows.publish(workflow())
    asset = ef.assets.register(asset_file, type="raw_file")

    with pytest.raises(EmboflowError, match="returned a non-zero code: 3") as caught:
        ef.runs.request("counted", assets=[asset.id])
    assert caught.value.kind.value == "image-build"


def test_the_samples_images_check_what_they_are_given(
    docker_client: Any, ef: EmboFlow, tmp_path: Path
) -> None:
    """`emboflow/urdf-check:1` and `emboflow/lerobot-verify:0.4.4`, as graphs 06 and 03 name them."""
    from tests.integration.containers.test_container_node import workflow as boxed

    robot = tmp_path / "robot"
    (robot / "meshes").mkdir(parents=True)
    (robot / "meshes/base.stl").write_bytes(b"solid\n")
    text = (
        "<robot name='r'><link name='base'><visual><geometry><mesh filename='package://r/meshes/base.stl'/>"
        "</geometry></visual></link><link name='arm'/><joint name='j' type='fixed'><parent link='base'/>"
        "<child link='arm'/></joint></robot>"
    )
    (robot / "r.urdf").write_text(text)
    whole = ef.assets.register(robot, type="standard_dataset", name="whole")
    (robot / "r.urdf").write_text(text.replace("child link='arm'", "child link='leg'"))
    broken = ef.assets.register(robot, type="standard_dataset", name="broken")
    ef.workflows.publish(boxed(["check", "/in"], "emboflow/urdf-check:1"))
    runs = [ef.runs.request("boxed", assets=[asset.id]) for asset in (whole, broken)]
    for run in runs:
        ef.runs.work(run.id)

    task = ef.tasks.get(runs[0].id, "box")
    assert (task.last_result_preview or {})["value"] == {
        "urdfs": [{"name": "r.urdf", "links": 2, "joints": 1}],
        "problems": [],
    }
    assert ef.tasks.get(runs[1].id, "box").error_message == (
        "the container ended with exit code 1: 1 URDF files, 1 problems; r.urdf: joint j: child is no link"
    )
    ef.workflows.publish(boxed(["verify", "/in"], "emboflow/lerobot-verify:0.4.4"))
    run = ef.runs.request("boxed", assets=[whole.id])
    ef.runs.work(run.id)
    assert ef.tasks.get(run.id, "box").error_message == "the container ended with exit code 1: []"
