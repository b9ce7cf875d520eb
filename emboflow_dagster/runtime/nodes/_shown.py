"""What nodes show about assets: rows of tables and bounded lists for previews and pages."""

from collections.abc import Mapping
from typing import Any, Final

from emboflow_dagster.runtime.node import BoundAsset

MAX_ROWS: Final = 100
"""Rows of a preview; with :data:`MAX_TEXT` they stay under 64 KiB."""
MAX_TEXT: Final = 200


def asset_row(bound: BoundAsset) -> dict[str, Any]:
    """One asset as a flat row."""
    asset = bound.asset
    return {
        "id": asset.id,
        "name": short(asset.display_name),
        "type": asset.type.value,
        "format": bound.report.format if bound.report else "",
        "sizeBytes": asset.size_bytes,
        "fileCount": asset.file_count,
        "status": asset.status.value,
    }


def counted(counts: Mapping[str, int], name: str) -> list[dict[str, Any]]:
    """Counts as rows, most first. A list: names such as ``lerobot_v2.1`` may not be keys in MongoDB."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{name: key, "count": count} for key, count in ranked]


def short(text: str) -> str:
    """At most 200 characters."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table, header from the first row."""
    if not rows:
        return "_nothing_"
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = (str(row.get(name, "")).replace("|", "\\|").replace("\n", " ") for name in names)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
