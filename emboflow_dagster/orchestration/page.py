"""What a step shows on the run's and the asset's page: Dagster metadata out of recorded documents."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.storage import StorageRef

MAX_TEXT: Final = 20_000
#: Of Markdown with pictures in it: a picture that is cut is none, so its whole line goes.
MAX_MARKDOWN: Final = 200_000
MAX_ROWS: Final = 200
MAX_ENTRIES: Final = 60
_COLUMN_TYPES: Final = ((bool, "bool"), (int, "int"), (float, "float"), (str, "string"))


def storage_metadata(ref: StorageRef, *, object_id: str | None = None) -> dict[str, Any]:
    """Which bytes these are: blob, version, place, hash and size in bytes."""
    result: dict[str, Any] = {
        "object_id": ref.object_id or object_id,
        "version": ref.version,
        "uri": dg.MetadataValue.url(ref.uri),
        "checksum": ref.checksum,
        "size": ref.size,
        "content_type": ref.content_type,
    }
    return {name: value for name, value in result.items() if value is not None}


def artifact_metadata(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """The main artifact's bytes, and all of them as a table when there are several."""
    if not artifacts:
        return {}
    result = storage_metadata(artifacts[0].storage_ref)
    result["artifact_id"] = artifacts[0].id
    if len(artifacts) > 1:
        result["artifacts"] = table(
            [
                {
                    "id": artifact.id,
                    "type": artifact.type,
                    "size": artifact.storage_ref.size,
                    "checksum": artifact.storage_ref.checksum,
                }
                for artifact in artifacts
            ]
        )
    return result


def page_metadata(page: Mapping[str, Any]) -> dict[str, Any]:
    """A node's own page: numbers, texts, ``{"markdown"}``, ``{"table"}``, ``{"url"}``, ``{"json"}``.

    ``row_count`` and ``columns`` (name to type) become Dagster's own ``dagster/row_count`` and
    ``dagster/column_schema``, which the asset overview draws.
    """
    result: dict[str, Any] = {}
    for name, value in list(page.items())[:MAX_ENTRIES]:
        match name, value:
            case (("row_count" | "dagster/row_count"), int()):
                result["dagster/row_count"] = value
            case (("columns" | "dagster/column_schema"), {**columns}):
                result["dagster/column_schema"] = column_schema({k: str(v) for k, v in columns.items()})
            case _:
                result[name] = entry(value)
    return result


def entry(value: Any) -> Any:
    """One value of a page as the metadata type that shows it best."""
    match value:
        case {"markdown": str() as text}:
            return dg.MetadataValue.md(_bounded(text))
        case {"table": list() as rows}:
            return table(rows)
        case {"url": str() as url}:
            return dg.MetadataValue.url(url)
        case {"json": data}:
            return dg.MetadataValue.json(data)
        case dict() | list():
            return dg.MetadataValue.json(value)
        case str():
            return value[:MAX_TEXT]
        case bool() | int() | float():
            return value
        case None:
            return dg.MetadataValue.null()
        case _:
            return str(value)[:MAX_TEXT]


def _bounded(text: str) -> str:
    if "](data:image/" not in text:
        return text[:MAX_TEXT]
    return text if len(text) <= MAX_MARKDOWN else text[:MAX_MARKDOWN].rpartition("\n")[0]


def table(rows: Sequence[Any]) -> dg.MetadataValue:
    """Rows as a table; cells that are no scalars become text, rows beyond the limit are counted."""
    shown = [row for row in rows if isinstance(row, Mapping)][:MAX_ROWS]
    names = list(dict.fromkeys(str(name) for row in shown for name in row))
    if not names:
        return dg.MetadataValue.text("no rows")
    records = [dg.TableRecord({name: _cell(row.get(name)) for name in names}) for row in shown]
    if len(rows) > len(shown):
        rest = dict.fromkeys(names, "") | {names[0]: f"... and {len(rows) - len(shown)} more"}
        records.append(dg.TableRecord(rest))
    columns = [dg.TableColumn(name, _column_type([row.data[name] for row in records])) for name in names]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def column_schema(columns: Mapping[str, str]) -> dg.TableSchemaMetadataValue:
    """Column names and their types as Dagster's column schema."""
    return dg.MetadataValue.table_schema(
        dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    )


def _cell(value: Any) -> str | int | float | bool | None:
    if isinstance(value, str):
        return value[:500]
    return value if isinstance(value, bool | int | float) or value is None else str(value)[:500]


def _column_type(values: Sequence[Any]) -> str:
    present = [value for value in values if value is not None]
    for kind, name in _COLUMN_TYPES:
        if present and all(type(value) is kind for value in present):
            return name
    return "string"
