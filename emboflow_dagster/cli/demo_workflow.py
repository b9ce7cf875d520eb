"""The demo's workflow file: as it is in the package, or fitted to the recordings of some folder."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from emboflow_dagster.formats.demo_recordings.together import Group

FILE: Final = Path(__file__).with_name("arm_recordings.yaml")
#: Nodes that need episodes.
_DATASET_NODES: Final = {"episodes", "quality", "publish"}


def document() -> dict[str, Any]:
    """The workflow in the package."""
    from emboflow_dagster.runtime.workflow_file import load

    return load(FILE)


def blocking_warnings() -> frozenset[str]:
    """The warnings with which the workflow sets a recording aside."""
    where = _config(document(), "sound")["where"]
    return frozenset(where["warnings"]["noneOf"])


def dataset_name(workflow: dict[str, Any]) -> str | None:
    """The dataset that a workflow publishes, ``None`` where it publishes none."""
    if not any(node["id"] == "publish" for node in workflow["nodes"]):
        return None
    return _config(workflow, "publish")["dataset"]


def fitted(folder: Path, group: "Group | None") -> dict[str, Any]:
    """The workflow for the recordings of a folder: its own name and dataset, the group's rate.

    Without a group nothing can become a dataset: the workflow ends with what was set aside and the pictures.
    """
    from emboflow_dagster.model.text import to_slug

    made = deepcopy(document())
    slug = to_slug(folder.name, "recordings")
    made |= {
        "workflow": to_slug(f"demo-{slug}"),
        "name": f"Recordings of {folder.name}",
        "nodes": [node for node in made["nodes"] if group is not None or node["id"] not in _DATASET_NODES],
    }
    if group is None:
        return made
    episodes = _config(made, "episodes")
    episodes["fps"] = int(group.fps) if group.fps.is_integer() else group.fps
    # What was asked of the robot is the recordings' own word.
    del episodes["task"]
    _config(made, "publish").update(
        dataset=slug, description=f"The recordings of {folder.name} that share one schema."
    )
    return made


def write(path: Path, workflow: dict[str, Any]) -> str:
    """Write the file that is published, for people to read and change; returns its text."""
    import yaml

    if workflow == document():
        text = FILE.read_text(encoding="utf-8")
    else:
        text = yaml.safe_dump(workflow, sort_keys=False, allow_unicode=True, width=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return text


def _config(workflow: dict[str, Any], node_id: str) -> dict[str, Any]:
    [node] = [node for node in workflow["nodes"] if node["id"] == node_id]
    return node["config"]
