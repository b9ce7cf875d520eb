"""The `preview` node: a few small pictures of every asset, or of the canonical package."""

import base64
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from emboflow_dagster.errors import ExecutionError
from emboflow_dagster.model.artifact import PREVIEW_BUNDLE
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.model.text import to_slug
from emboflow_dagster.runtime.in_child import each
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult, NodeType, Sight
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._shown import MAX_ROWS, short
from emboflow_dagster.runtime.nodes._subjects import subjects

MAX_INLINE_BYTES: Final = 150 << 10
"""Of the data URI on the Dagster page; it is stored with every materialization."""
KINDS: Final = {"message_rate": "timeline", "signals": "joints"}


class PreviewOptions(ChildOptions):
    """How much is shown."""

    images: Annotated[int, Field(ge=1, le=64)] = Field(
        default=8, description="Thumbnails of each camera, picture folder or video."
    )
    plots: list[Literal["message_rate", "signals"]] = Field(
        default_factory=lambda: ["message_rate", "signals"],
        description="Plots to draw: message rates of recordings, states and actions of demonstrations.",
    )


def run(context: NodeContext) -> NodeResult:
    """Draw every subject in a child process; what cannot be drawn is a note, never a failure."""
    options: PreviewOptions = context.options
    found = subjects(context)
    folder = context.workdir / "preview"
    folder.mkdir()
    names = [f"{number:03d}-{to_slug(subject.name)}" for number, subject in enumerate(found)]
    kinds = ["images", *(KINDS[plot] for plot in options.plots)]
    results = each(
        context.child,
        "preview",
        [
            [str(s.path), str(folder / name), options.images, s.report, kinds]
            for s, name in zip(found, names, strict=True)
        ],
        context.workdir,
        seconds=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    entries: list[dict[str, Any]] = []
    for subject, name, result in zip(found, names, results, strict=True):
        if isinstance(result, ExecutionError):
            context.log(f"{subject.name}: no preview: {result.message}")
            index = {"kind": "unknown", "files": [], "notes": [result.message]}
        else:
            index = {key: result[key] for key in ("kind", "files", "notes")}
        entries.append({"id": subject.id, "subject": subject.name, "folder": name, **index})
    (folder / "index.json").write_text(
        json.dumps({"schema": "emboflow-preview/1", "subjects": entries}, indent=1) + "\n", encoding="utf-8"
    )
    pictures = sum(len(entry["files"]) for entry in entries)
    rows = [
        {
            "subject": short(entry["subject"]),
            "kind": entry["kind"],
            "pictures": len(entry["files"]),
            "notes": short("; ".join(entry["notes"])),
        }
        for entry in entries[:MAX_ROWS]
    ]
    summary = {"subjects": len(entries), "pictures": pictures}
    output = NodeOutput(
        type=PREVIEW_BUNDLE,
        payload=folder,
        content_type=LISTING_TYPE,
        title=context.task.artifact_title,
        previewable=True,
        summary=summary,
    )
    shown = _inline(folder, entries)
    return NodeResult(
        outputs=(output,),
        preview={**summary, "rows": rows},
        page={**summary, "bundle": {"table": rows}} | ({"picture": {"markdown": shown}} if shown else {}),
    )


def _inline(folder: Path, entries: list[dict[str, Any]]) -> str | None:
    """The first picture that is small enough, as Markdown with a data URI."""
    for entry in entries:
        for file in entry["files"]:
            if file["bytes"] * 4 // 3 + 300 <= MAX_INLINE_BYTES:
                data = base64.b64encode((folder / entry["folder"] / file["path"]).read_bytes()).decode()
                title = "".join(c for c in short(file["title"]) if c not in "[]()!\\`<>")
                return f"![{title}](data:image/png;base64,{data})"
    return None


NODE = NodeType(
    id="preview",
    version="1",
    title="Preview",
    description=(
        "Draws message rates, states and actions, and contact sheets of cameras: of the upstream package, or "
        "of each asset where there is none. PNG files under 300 KiB and an index."
    ),
    category=CustomNodeCategory.INSPECT,
    options=PreviewOptions,
    run=run,
    produces=PREVIEW_BUNDLE,
    sees=frozenset({Sight.REPORT, Sight.INPUTS, Sight.NAMES}),
    aliases=("preview-bundle",),
    kinds=("image",),
)
