"""What the asset page shows of a stored version: stable keys, and few numbers, because each is plotted."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.orchestration import page
from emboflow_dagster.orchestration.io_lineage import Loaded
from emboflow_dagster.orchestration.payloads.handler import Column, Facts

COLUMN_SCHEMA: Final = "dagster/column_schema"
ROW_COUNT: Final = "dagster/row_count"
#: Which bytes these are: nobody else's metadata replaces these.
IDENTITY: Final = frozenset({"object_id", "version", "checksum", "size", "uri", "home", "unchanged"})


def blob_metadata(blob: BlobObject) -> dict[str, Any]:
    """Which blob and version, where its bytes are, their hash and size."""
    result: dict[str, Any] = {
        "version": blob.version,
        "size": blob.size,
        "object_id": blob.object_id,
        "checksum": f"sha256:{blob.sha256}",
        "content_type": blob.content_type,
        "home": blob.storage_type.value,
    }
    if blob.serializer:
        result["serializer"] = blob.serializer
    if blob.storage_ref is not None:
        result["uri"] = dg.MetadataValue.url(blob.storage_ref.uri)
    return result


def output_metadata(
    blob: BlobObject,
    facts: Facts,
    upstream: Sequence[Loaded],
    *,
    unchanged: bool,
    declared: Mapping[str, Any],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """All entries of a stored output.

    Args:
        blob: The version.
        facts: What the handler knows of the value.
        upstream: What the step loaded.
        unchanged: Whether the bytes were those of the version before.
        declared: The asset's own metadata; its column schema gives descriptions.
        given: What the step itself attached: it is not overwritten.
    """
    result: dict[str, Any] = {}  # in the order of the page: what it is first, where it is last
    if facts.row_count is not None:
        result[ROW_COUNT] = facts.row_count
    if facts.columns is not None:
        result[COLUMN_SCHEMA] = column_schema(facts.columns, declared.get(COLUMN_SCHEMA))
    if facts.preview:
        result["preview"] = dg.MetadataValue.md(facts.preview[: page.MAX_TEXT])
    result |= {name: page.entry(value) for name, value in facts.extra.items()}
    if upstream:
        result["upstream"] = page.table(
            [
                {
                    "input": one.input,
                    "asset": one.asset,
                    "partition": one.partition,
                    "version": one.version,
                    "pinned": one.pinned,
                    "sha256": one.sha256,
                }
                for one in upstream
            ]
        )
    result |= {"unchanged": unchanged} | blob_metadata(blob)
    return {name: value for name, value in result.items() if name in IDENTITY or name not in given}


def column_schema(columns: Sequence[Column], declared: object) -> dg.TableSchema:
    """Columns with types and whether they may be empty, described also by the asset's own schema."""
    told = {}
    if isinstance(declared, dg.TableSchema):
        told = {column.name: column.description for column in declared.columns}
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                column.type,
                description=column.description or told.get(column.name),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in columns
        ]
    )


def partitions_table(blobs: Mapping[str, BlobObject], unchanged: Mapping[str, bool]) -> dg.MetadataValue:
    """The versions of an output that covers several partitions."""
    return page.table(
        [
            {
                "partition": key,
                "version": blob.version,
                "unchanged": unchanged[key],
                "size": blob.size,
                "checksum": f"sha256:{blob.sha256}",
            }
            for key, blob in blobs.items()
        ]
    )
