"""The `preview` node: small pictures and clips of every asset, or of what nodes before it made."""

import json
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
"""Of the pictures on the Dagster page; they are stored with every materialization."""
MAX_INLINE: Final = 6
KINDS: Final = {
    "message_rate": "timeline",
    "timeline": "timeline",
    "signals": "joints",
    "synced": "synced",
    "trajectory": "trajectory",
    "clip": "clip",
}
Plot = Literal["message_rate", "timeline", "signals", "synced", "trajectory", "clip"]


class PreviewOptions(ChildOptions):
    """How much is shown."""

    images: Annotated[int, Field(ge=1, le=64)] = Field(
        default=8, description="Thumbnails of each camera, picture folder or video."
    )
    plots: list[Plot] = Field(
        default_factory=lambda: ["message_rate", "signals", "synced", "trajectory", "clip"],
        description=(
            "What to draw beside contact sheets: message rates over time (`message_rate` or `timeline`), "
            "states and actions (`signals`), all cameras at the same instants above the state (`synced`), "
            "the way of an end effector or a robot (`trajectory`), a few seconds of video (`clip`)."
        ),
    )
    viewer: Literal["mcap"] | None = Field(
        default=None, description="`mcap` adds 30 s of each as a file for Foxglove."
    )


def run(context: NodeContext) -> NodeResult:
    """Draw every subject in a child process; what cannot be drawn is a note, never a failure."""
    options: PreviewOptions = context.options
    found = subjects(context)
    folder = context.workdir / "preview"
    folder.mkdir()
    names = [f"{number:03d}-{to_slug(subject.name)}" for number, subject in enumerate(found)]
    kinds = [
        "images",
        *(KINDS[plot] for plot in options.plots),
        *([options.viewer] if options.viewer else []),
    ]
    inline = max(1, MAX_INLINE // max(1, len(found)))
    results = each(
        context.child,
        "preview",
        [
            [
                str(s.path),
                str(folder / name),
                options.images,
                s.report,
                kinds,
                inline if n < MAX_INLINE else 0,
            ]
            for n, (s, name) in enumerate(zip(found, names, strict=True))
        ],
        context.workdir,
        seconds=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )
    entries: list[dict[str, Any]] = []
    shown: list[tuple[str, str]] = []
    for subject, name, result in zip(found, names, results, strict=True):
        if isinstance(result, ExecutionError):
            context.log(f"{subject.name}: no preview: {result.message}")
            index = {"kind": "unknown", "files": [], "notes": [result.message]}
        else:
            index = {key: result[key] for key in ("kind", "files", "notes")}
            shown += [(f"{subject.name}: {one['title']}", one["data"]) for one in result["inline"]]
        entries.append({"id": subject.id, "subject": subject.name, "folder": name, **index})
    (folder / "index.json").write_text(
        json.dumps({"schema": "emboflow-preview/1", "subjects": entries}, indent=1) + "\n", encoding="utf-8"
    )
    page = context.child(f"{each.__module__}:preview_page", entries)
    (folder / "index.html").write_text(page, encoding="utf-8")
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
    markdown = _inline(shown)
    return NodeResult(
        outputs=(output,),
        preview={**summary, "rows": rows},
        page={**summary, "bundle": {"table": rows}}
        | ({"picture": {"markdown": markdown}} if markdown else {}),
    )


def _inline(shown: list[tuple[str, str]]) -> str:
    """Pictures as Markdown with data URIs, as many as the page takes."""
    lines: list[str] = []
    left = MAX_INLINE_BYTES
    for title, data in shown[:MAX_INLINE]:
        plain = "".join(c for c in short(title) if c not in "[]()!\\`<>*_|#")
        line = f"{plain}\n\n![{plain}](data:image/jpeg;base64,{data})\n"
        if len(line) <= left:
            lines.append(line)
            left -= len(line)
    return "\n".join(lines)


NODE = NodeType(
    id="preview",
    version="3",
    reads=frozenset({"1", "2"}),
    title="Preview",
    description=(
        "Draws message rates, states and actions, contact sheets of cameras, all cameras in step with the "
        "state, ways in space and short clips: of the upstream package or recordings, or of each asset where "
        "there is none. Small files and a page that shows them."
    ),
    category=CustomNodeCategory.INSPECT,
    options=PreviewOptions,
    run=run,
    produces=PREVIEW_BUNDLE,
    sees=frozenset({Sight.REPORT, Sight.INPUTS, Sight.NAMES}),
    aliases=("preview-bundle",),
    kinds=("image",),
)
