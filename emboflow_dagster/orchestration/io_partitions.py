"""Inputs and outputs of several partitions: dicts by partition key."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args, get_origin

import dagster as dg

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.orchestration.io_names import metadata_of

#: Metadata of an input: ``dict`` makes it a dict also when there is one partition.
PARTITIONS: Final = "emboflow/partitions"
#: Metadata of an input or an asset: partitions without anything stored are left out.
ALLOW_MISSING: Final = "emboflow/allow_missing_partitions"
#: What the materialisation of an asset that returned ``None`` says under ``stored``.
NOTHING: Final = "nothing: the value was None"


def partitions_of(context: dg.InputContext | dg.OutputContext) -> Sequence[str] | None:
    """The partition keys of an input or output, or ``None`` when it has no partitions."""
    if not (context.has_asset_key and context.has_asset_partitions):
        return None
    return [str(key) for key in context.asset_partition_keys]


def comes_as_dict(context: dg.InputContext, partitions: Sequence[str]) -> bool:
    """Whether an input is a dict by partition key, whatever the number of its partitions.

    It is when there are several, when all partitions are asked for, and when its metadata says so: a step
    that reads "all" must not get another type on the day that there is only one.
    """
    if len(partitions) != 1 or metadata_of(context).get(PARTITIONS) == "dict":
        return True
    mapping, unpartitioned = _mapping(context)
    return isinstance(mapping, dg.AllPartitionMapping) or (mapping is None and unpartitioned)


def _mapping(context: dg.InputContext) -> tuple[object, bool]:
    """How the reading asset's partitions map to this input's, and whether the reader has none."""
    try:
        layer = context.step_context.job_def.asset_layer
        readers = [layer.get(key) for key in context.step_context.assets_def.keys]  # pyright: ignore[reportOptionalMemberAccess]
    except (AttributeError, KeyError, dg.DagsterInvariantViolationError):
        return None, False
    for reader in readers:
        if context.asset_key in reader.parent_keys:
            return reader.partition_mappings.get(context.asset_key), reader.partitions_def is None
    return None, False


def value_type(annotation: Any) -> Any:
    """Of ``dict[str, X]``, the annotation of an input with several partitions, ``X``."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, Mapping) and len(arguments) == 2:  # noqa: PLR2004 - key and value
        return None if arguments[1] is Any else arguments[1]
    return None


def may_be_missing(context: dg.InputContext | dg.OutputContext) -> bool:
    """Whether partitions without anything stored are left out; Dagster's own word for it counts too."""
    said = metadata_of(context)
    return bool(said.get(ALLOW_MISSING) or said.get("allow_missing_partitions"))


def by_partition(context: dg.OutputContext, obj: object, partitions: Sequence[str]) -> Mapping[str, object]:
    """The values of an output that covers several partitions.

    Raises:
        InvalidInputError: It is no dict by partition key, or not of these partitions.
    """
    name = context.asset_key.to_user_string()
    if not isinstance(obj, Mapping):
        raise InvalidInputError(
            f"{name}: the run covers {len(partitions)} partitions; found a {type(obj).__name__}, "
            "needed is a dict by partition key",
            kind=ErrorKind.CONTRACT,
            hint="return {key: value for key in context.partition_keys}, or backfill one run a partition",
        )
    values = {str(key): value for key, value in obj.items()}
    if unknown := sorted(values.keys() - set(partitions)):
        raise InvalidInputError(
            f"{name}: found {shown(unknown[0])}, which is no partition of this run", kind=ErrorKind.CONTRACT
        )
    values = {key: value for key, value in values.items() if value is not None}
    missing = [key for key in partitions if key not in values]
    if missing and not may_be_missing(context):
        raise InvalidInputError(
            f"{name}: {len(missing)} of the run's {len(partitions)} partitions have no value: {missing[0]}",
            kind=ErrorKind.CONTRACT,
            hint=f'return one for each, or @asset(metadata={{"{ALLOW_MISSING}": True}})',
        )
    return values


def was_none(context: dg.InputContext, partition: str | None) -> bool:
    """Whether the newest materialisation says that there was nothing to store."""
    if not context.has_asset_key:
        return False
    try:
        instance = context.step_context.instance
    except (AttributeError, dg.DagsterInvariantViolationError):
        return False
    chosen = dg.AssetRecordsFilter(
        asset_key=context.asset_key, asset_partitions=None if partition is None else [partition]
    )
    records = instance.fetch_materializations(chosen, limit=1).records
    event = records[0].asset_materialization if records else None
    entry = event.metadata.get("stored") if event else None
    return getattr(entry, "value", None) == NOTHING
