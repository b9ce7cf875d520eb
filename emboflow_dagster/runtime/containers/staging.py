"""The inputs of a container as one folder: every byte was checked, and nobody in there can change it.

::

    index.json                      what is where, for programs
    config.json                     the node's own options, where it has some
    assets/000/arm.mcap             the effective assets, in order: a file, or a folder of that name
    artifacts/normalize/000         what each node before it left, in order; a file has its suffix
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.model.text import to_slug
from emboflow_dagster.runtime.node import BoundAsset, NodeContext

INDEX: Final = "index.json"
CONFIG: Final = "config.json"
SCHEMA: Final = "emboflow-container-inputs/1"
_FOLDER: Final = 0o755
_FILE: Final = 0o444
_OTHERS_READ: Final = 0o004


def stage(context: NodeContext, folder: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Put what a task is given below ``folder``; files are linked where they can be, not copied.

    Returns:
        What :data:`INDEX` says.
    """
    folder.mkdir(mode=_FOLDER)
    assets = [_asset(bound, folder, number) for number, bound in enumerate(context.assets)]
    artifacts: list[dict[str, Any]] = []
    for given in context.inputs.values():
        for number, artifact in enumerate(given.artifacts):
            source = given.fetch(artifact)
            place = f"artifacts/{given.node_id}/{number:03d}{source.suffix if source.is_file() else ''}"
            _place(source, folder / place)
            artifacts.append(
                {
                    "nodeId": given.node_id,
                    "nodeType": given.node_type,
                    "type": artifact.type,
                    "path": place,
                    "contentType": artifact.storage_ref.content_type,
                    "sha256": artifact.storage_ref.sha256,
                    "summary": artifact.summary,
                }
            )
    index = {"schema": SCHEMA, "assets": assets, "artifacts": artifacts}
    for name, value in ((INDEX, index), (CONFIG, config)):
        if value is not None:
            text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(_FILE)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(_FOLDER)
    return index


def _asset(bound: BoundAsset, folder: Path, number: int) -> dict[str, Any]:
    name = bound.path.name
    if name in ("", ".", ".."):
        name = to_slug(bound.name, "asset")
    place = f"assets/{number:03d}/{name}"
    _place(bound.path, folder / place)
    return {
        "id": bound.id,
        "name": bound.name,
        "type": bound.asset.type.value,
        "path": place,
        "sha256": bound.asset.storage_ref.sha256,
    }


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        _file(source, target)
        return
    for place, _, files in os.walk(source):
        inner = target / Path(place).relative_to(source)
        inner.mkdir(parents=True, exist_ok=True)
        for name in files:
            _file(Path(place, name), inner / name)


def _file(source: Path, target: Path) -> None:
    """A link to the file itself; a copy where it is on another disk, or only for its owner to read."""
    real = source.resolve()
    if real.stat().st_mode & _OTHERS_READ:
        try:
            os.link(real, target)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(real, target)
    target.chmod(_FILE)
