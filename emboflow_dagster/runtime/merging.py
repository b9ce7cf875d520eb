"""Merges canonical packages; runs in a child process, JSON in and out."""

import os
import shutil
from pathlib import Path
from typing import Any

from emboflow_dagster.runtime import child_main


def merge(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Bring packages together by their feature schema.

    Args:
        request: ``packages`` (folders), ``out`` (gets ``000`` and on), ``work``.

    Returns:
        For each package that was made ``folder``, ``of`` (places in ``packages``), ``episodes``, ``frames``,
        ``fps``, ``robotType``, ``features``, ``assetIds``, ``bytes``; in the order of their first parts.

    Raises:
        InvalidInputError: A folder is no package.
        IntegrityError: A file is missing or damaged.
    """
    from emboflow_dagster.formats.canonical import merge as merging
    from emboflow_dagster.formats.canonical.reader import open_canonical
    from emboflow_dagster.formats.canonical.schema import MANIFEST_FILE

    packages = [Path(folder) for folder in request["packages"]]
    groups: dict[str, list[int]] = {}
    for place, package in enumerate(packages):
        document = open_canonical(package).manifest.document
        groups.setdefault(merging.schema_key(document), []).append(place)
    made: list[dict[str, Any]] = []
    for number, places in enumerate(groups.values()):
        out = Path(request["out"], f"{number:03d}")
        if len(places) > 1:
            chosen = [packages[place] for place in places]
            document = merging.merge(chosen, out, Path(request["work"], f"{number:03d}"))
        else:
            # The bytes of a package that stays alone are those that are stored already.
            shutil.copytree(packages[places[0]], out, copy_function=_link)
            document = open_canonical(out).manifest.document
        child_main.log(
            f"{len(places)} packages: {document['episodes']} episodes, {document['frames']} frames"
        )
        size = sum(file["size"] for file in document["files"]) + (out / MANIFEST_FILE).stat().st_size
        made.append(
            {
                "folder": str(out),
                "of": places,
                "bytes": size,
                "assetIds": [source["assetId"] for source in document["sourceAssets"]],
                **{key: document[key] for key in ("episodes", "frames", "fps", "robotType", "features")},
            }
        )
    return made


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    return target
