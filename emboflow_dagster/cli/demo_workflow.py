"""The demo's workflow file: as it is in the package, or fitted to the recordings of some folder.

What is fitted is the text, so that the file people read keeps its comments and its code.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from emboflow_dagster.formats.demo_recordings.together import Group

FILE: Final = Path(__file__).with_name("arm_recordings.yaml")
#: Nodes that need episodes.
_DATASET_NODES: Final = {"episodes", "quality", "publish"}
_NODE: Final = re.compile(r"^  - id: ([a-z-]+)", re.MULTILINE)


def text() -> str:
    """The workflow file in the package."""
    return FILE.read_text(encoding="utf-8")


def blocking_warnings() -> frozenset[str]:
    """The warnings with which the workflow sets a recording aside."""
    from emboflow_dagster.runtime.workflow_file import load

    [sound] = [node for node in load(text())["nodes"] if node["id"] == "sound"]
    return frozenset(sound["config"]["where"]["warnings"]["noneOf"])


def dataset_name(workflow: dict[str, Any]) -> str | None:
    """The dataset that a workflow publishes, ``None`` where it publishes none."""
    names = [node["config"]["dataset"] for node in workflow["nodes"] if node["id"] == "publish"]
    return names[0] if names else None


def fitted(folder: Path, group: "Group | None") -> str:
    """The workflow file for the recordings of a folder: its own name and dataset, the group's rate.

    Without a group nothing can become a dataset: the workflow ends with what was set aside and the pictures.
    """
    from emboflow_dagster.model.text import to_slug

    slug = to_slug(folder.name, "recordings")
    made = text() if group is not None else _without_dataset(text())
    fields = {
        "workflow": to_slug(f"demo-{slug}"),
        "name": json.dumps(f"Recordings of {folder.name}"),
        "fps": "" if group is None else f"{group.fps:g}",
        "dataset": slug,
        "      description": json.dumps(f"The recordings of {folder.name} that share one schema."),
    }
    for name, value in fields.items():
        made = re.sub(
            rf"^( *{name}): .*$", lambda m, v=value: f"{m[1]}: {v}", made, count=1, flags=re.MULTILINE
        )
    # What was asked of the robot is the recordings' own word.
    return re.sub(r"^ *task: .*\n", "", made, count=1, flags=re.MULTILINE)


def write(path: Path, content: str) -> None:
    """Write the file that is published, for people to read and change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(content, encoding="utf-8")
    part.replace(path)


def _without_dataset(content: str) -> str:
    starts = [match.start() for match in _NODE.finditer(content)]
    parts = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    kept = [part for part in parts if (found := _NODE.match(part)) and found[1] not in _DATASET_NODES]
    return content[: starts[0]] + "".join(kept).rstrip("\n") + "\n"
