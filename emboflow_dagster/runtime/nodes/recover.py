"""The `recover` node: recordings that were cut or never closed, written anew as far as they can be read."""

import os
import shutil
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ErrorKind, ExecutionError
from emboflow_dagster.model.artifact import INTERMEDIATE_TASK_OUTPUT
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.text import to_slug
from emboflow_dagster.runtime import derived
from emboflow_dagster.runtime.in_child import each
from emboflow_dagster.runtime.node import BoundAsset, NodeContext, NodeResult, NodeType
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short

# Nothing is wrong with the node where an asset cannot be recovered: it is not what it was taken for.
_PASSED_OVER = frozenset({ErrorKind.FORMAT_UNSUPPORTED, ErrorKind.FILE_CORRUPT})


class RecoverOptions(ChildOptions):
    """How long it may take."""


def run(context: NodeContext) -> NodeResult:
    """Rewrite each damaged recording in a child process, which reads its own output again."""
    options: RecoverOptions = context.options
    bundle = context.workdir / "recovered"
    places = [bundle / f"{number:03d}-{to_slug(b.name)}" for number, b in enumerate(context.assets)]
    for place in places:
        place.mkdir(parents=True)
    bundle.mkdir(exist_ok=True)
    results = each(
        context.child,
        "recover",
        [[str(bound.path), str(place)] for bound, place in zip(context.assets, places, strict=True)],
        context.workdir,
        seconds=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    recordings: list[derived.Derived] = []
    rows: list[dict[str, Any]] = []
    lost: set[str] = set()
    for bound, place, result in zip(context.assets, places, results, strict=True):
        if isinstance(result, ExecutionError):
            if result.kind not in _PASSED_OVER:
                raise result
            shutil.rmtree(place)
            said = "no recording" if result.kind is ErrorKind.FORMAT_UNSUPPORTED else "nothing can be read"
            lost |= {bound.id} if result.kind is ErrorKind.FILE_CORRUPT else set()
            rows.append(_row(bound, said, {}))
        else:
            recordings.append(_placed(bound, place, result, bundle))
            rows.append(_row(bound, "whole" if result["whole"] else "recovered", result))
        context.log(f"{bound.name}: {rows[-1]['outcome']}, {_held(rows[-1])}")
    summary = {
        "assets": len(rows),
        "recovered": sum(row["outcome"] == "recovered" for row in rows),
        "whole": sum(row["outcome"] == "whole" for row in rows),
        "unreadable": len(lost),
        "messages": sum(row["messages"] or 0 for row in rows),
    }
    return NodeResult(
        outputs=(derived.output(bundle, recordings, title=context.task.artifact_title),),
        asset_ids=tuple(bound.id for bound in context.assets if bound.id not in lost),
        preview={**summary, "rows": rows[:MAX_ROWS]},
        page={**summary, "recordings": {"table": rows[:MAX_ROWS]}},
    )


def _placed(bound: BoundAsset, place: Path, result: dict[str, Any], bundle: Path) -> derived.Derived:
    """The recording's entry; one that was whole goes along unchanged, so that the next node sees all."""
    target = place / (result["path"] or bound.path.name)
    if result["whole"]:
        shutil.rmtree(place)
        place.mkdir()
        if bound.path.is_dir():
            shutil.copytree(bound.path, target, copy_function=_link)
        else:
            _link(str(bound.path), str(target))
    return derived.Derived(
        asset_id=bound.id,
        sha256=bound.asset.storage_ref.sha256,
        name=bound.name,
        path=target.relative_to(bundle).as_posix(),
        format=result["format"],
    )


def _link(source: str, target: str) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _held(row: dict[str, Any]) -> str:
    return f"{row['messages']} messages" if row["rows"] is None else f"{row['rows']} rows"


def _row(bound: BoundAsset, outcome: str, result: dict[str, Any]) -> dict[str, Any]:
    wrong = dict.fromkeys(warning["code"] for warning in result.get("warnings", ()))
    return {
        "name": short(bound.name),
        "outcome": outcome,
        "messages": result.get("messages"),
        "rows": result.get("rows"),
        "seconds": result.get("seconds"),
        "bytes": result.get("bytes"),
        "leftOut": result.get("tooLarge"),
        "was": short(", ".join(wrong)),
    }


NODE = NodeType(
    id="recover",
    version="1",
    title="Recover",
    description=(
        "Writes what can be read of recordings that were cut or never closed to whole files of the same "
        "container (bags, MCAP, HDF5), reads those again and compares every message or row. Whole recordings "
        "go along unchanged; an asset of which nothing can be read goes no further."
    ),
    category=CustomNodeCategory.TRANSFORM,
    options=RecoverOptions,
    run=run,
    produces=INTERMEDIATE_TASK_OUTPUT,
    aliases=("salvage",),
    kinds=("recover",),
)
