"""Which blob an input or output is: an asset's, a partition's or an op's output, and its pinned version."""

from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from emboflow_dagster.errors import InvalidInputError, NotFoundError, shown
from emboflow_dagster.model.storage import StorageRef, object_id_for
from emboflow_dagster.model.text import check_version
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.project.handle import EmboFlow

#: Asset or input metadata that the IO manager reads.
FORMAT: Final = "emboflow/format"
HOME: Final = "emboflow/home"
PREVIEW_ROWS: Final = "emboflow/preview_rows"


def metadata_of(context: dg.InputContext | dg.OutputContext) -> dict[str, Any]:
    """What the definition of an input or output says, as plain values."""
    return {
        name: getattr(value, "value", value) for name, value in (context.definition_metadata or {}).items()
    }


def object_id_of(
    context: dg.InputContext | dg.OutputContext, place: Place, partition: str | None = None
) -> str:
    """The blob of an asset (and partition) of a project, or of an op's output."""
    if not context.has_asset_key:
        source = context.upstream_output if isinstance(context, dg.InputContext) else context
        if source is None:
            raise InvalidInputError("an input without an upstream output cannot be loaded from a blob")
        return object_id_for("outputs", *source.get_identifier())
    return asset_object_id(context.asset_key, place, partition)


def asset_object_id(key: dg.AssetKey, place: Place, partition: str | None = None) -> str:
    """The blob of an asset, or of one partition of it: the same in every run.

    A key that names no project is that of an asset of ``place``: projects share a database, never a blob.
    """
    own = [] if keys.place_of(key) else [place.workspace, place.project]
    return object_id_for(*own, *key.path, *([partition] if partition is not None else []))


def expected_type(context: dg.InputContext) -> Any:
    """The annotation of an input, or ``None`` when there is none that says anything."""
    try:
        kind = context.dagster_type.typing_type
    except dg.DagsterInvariantViolationError:
        return None
    return None if kind in (None, Any, type(None)) else kind


def pin_of(context: dg.InputContext, pins: Mapping[str, int], partition: str | None) -> int | None:
    """The version that an input is pinned to: by its metadata, else by the configuration.

    Metadata ``emboflow/version`` is a number, or a dict by partition key. In the configuration the name of a
    partition is ``asset/key@partition``.

    Raises:
        InvalidInputError: It is no version.
    """
    pin: Any = metadata_of(context).get(keys.METADATA_VERSION)
    if isinstance(pin, Mapping):
        pin = pin.get(partition)
    if pin is None and context.has_asset_key:
        name = context.asset_key.to_user_string()
        pin = pins.get(f"{name}@{partition}") if partition is not None else None
        pin = pins.get(name) if pin is None else pin
    if pin is None:
        return None
    if not isinstance(pin, int) or isinstance(pin, bool):
        raise InvalidInputError(f"{keys.METADATA_VERSION}: found {shown(pin)}; a version is an int")
    return check_version(pin, keys.METADATA_VERSION)


def recorded_ref(ef: EmboFlow, key: dg.AssetKey, pin: int | None) -> StorageRef | None:
    """Where the bytes of a key are that a workflow produces; ``None`` for a key of somebody else's.

    A dataset's bytes are the manifest of its newest version (pinned: of version ``v<pin>``), a node's
    those of the first artifact of its newest success.

    Raises:
        NotFoundError: The dataset has no such version.
        InvalidInputError: A node's artifact is pinned: only blobs and datasets have numbered versions.
    """
    match list(key.path):
        case [_, _, keys.DATASETS, name]:
            return ef.datasets.version(name, None if pin is None else f"v{pin}").manifest_ref
        case [_, _, keys.ARTIFACTS, workflow, node]:
            try:
                task = ef.runs.last_success(ef.workflows.get(workflow).id, node)
            except NotFoundError:
                return None
            artifacts = ef.artifacts.of_task(task) if task else []
            if artifacts and pin is not None:
                raise InvalidInputError(
                    f"{key.to_user_string()} cannot be pinned to version {pin}: artifacts have no numbers",
                    hint="pin the dataset that the workflow publishes",
                )
            return artifacts[0].storage_ref if artifacts else None
    return None
