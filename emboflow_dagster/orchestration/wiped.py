"""Assets and partitions that were wiped in Dagster: what they had stored is let go, and collected by `gc`.

Dagster forgets the events of a wiped asset and records only that it was wiped. Versions made up to then are
let go, unless somebody needs them or the asset was materialized with them again.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

# Dagster's own, not public: what a wipe is recorded as, and the run that such events belong to.
from dagster._core.events import AssetWipedData
from dagster._core.instance.utils import RUNLESS_RUN_ID

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.storage import object_id_for
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.project.handle import EmboFlow

INTERVAL_SECONDS: Final = 300
# A step that was storing when the wipe came has told Dagster about it by then.
SETTLED_S: Final = 60.0
PAGE: Final = 500
LINEAGE: Final = "lineage"


@dataclass(frozen=True, slots=True)
class Wipe:
    """An asset, or one partition of it, and when it was wiped (seconds since 1970)."""

    key: dg.AssetKey
    partition: str | None
    at: float


def described(context: dg.OutputContext) -> dict[str, Any]:
    """What a blob's ``custom_metadata`` says about the asset it belongs to, so that a wipe finds it."""
    if not context.has_asset_key:
        return {}
    partition = context.asset_partition_key if context.has_asset_partitions else None
    return {LINEAGE: {"asset": context.asset_key.to_user_string(), "partition": partition}}


def wipes(instance: dg.DagsterInstance, after: float, before: float) -> list[Wipe]:
    """The newest wipe of everything that was wiped in a span of time, oldest first."""
    newest: dict[tuple[dg.AssetKey, str | None], float] = {}
    for data, at in _records(instance):
        if after < at <= before:
            for partition in data.partition_keys or [None]:
                place = (data.asset_key, partition)
                newest[place] = max(at, newest.get(place, at))
    return sorted((Wipe(key, partition, at) for (key, partition), at in newest.items()), key=lambda w: w.at)


def _records(instance: dg.DagsterInstance) -> Iterator[tuple[AssetWipedData, float]]:
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(
            RUNLESS_RUN_ID, cursor=cursor, of_type=dg.DagsterEventType.ASSET_WIPED, limit=PAGE
        )
        for record in page.records:
            event = record.event_log_entry.dagster_event
            if event is not None and isinstance(event.event_specific_data, AssetWipedData):
                yield event.event_specific_data, record.event_log_entry.timestamp
        if not page.has_more:
            return
        cursor = page.cursor


def let_go(
    ef: EmboFlow, instance: dg.DagsterInstance, *, after: float = 0.0, settled_s: float = SETTLED_S
) -> tuple[dict[str, int], float]:
    """Let go of what wiped assets of this workspace had stored.

    Args:
        ef: An open project.
        instance: Where the wipes are recorded.
        after: Wipes up to this time were looked at before.
        settled_s: How old a wipe must be.

    Returns:
        Blobs to the number of versions that were let go, and the time up to which wipes are done.
    """
    found = wipes(instance, after, time.time() - settled_s)
    mine = [wipe for wipe in found if _is_mine(ef, wipe.key)]
    known = _blobs(ef, mine)
    done: dict[str, int] = {}
    for wipe in mine:
        for object_id in sorted(_objects(ef, wipe, known)):
            count = ef.blobs.let_go_unless_needed(
                object_id,
                until=datetime.fromtimestamp(wipe.at, UTC),
                reason=_reason(wipe),
                rule="wiped",
                but=frozenset(_again(instance, wipe, object_id)),
            )
            if count:
                done[object_id] = done.get(object_id, 0) + count
    return done, max([after, *(wipe.at for wipe in found)])


def _is_mine(ef: EmboFlow, key: dg.AssetKey) -> bool:
    place = keys.place_of(key)
    return place in (None, Place(ef.scope.workspace_slug, ef.scope.project_slug))


def _reason(wipe: Wipe) -> str:
    partition = f", partition {wipe.partition}," if wipe.partition else ""
    return f"the asset {wipe.key.to_user_string()}{partition} was wiped in Dagster"[:500]


def _blobs(ef: EmboFlow, found: Iterable[Wipe]) -> Mapping[tuple[str, str | None], set[str]]:
    """Asset key and partition to the blobs that say they are theirs."""
    names = sorted({wipe.key.to_user_string() for wipe in found})
    blobs: dict[tuple[str, str | None], set[str]] = {}
    if names:
        filter_ = {
            "workspace_id": ef.scope.workspace_id,
            "type": "dagster_asset",
            f"custom_metadata.{LINEAGE}.asset": {"$in": names},
        }
        with translated():
            for raw in ef.mongo["objects"].find(filter_, {"custom_metadata": 1}):
                said = raw["custom_metadata"][LINEAGE]
                blobs.setdefault((said["asset"], said.get("partition")), set()).add(str(raw["_id"]))
    return blobs


def _objects(ef: EmboFlow, wipe: Wipe, known: Mapping[tuple[str, str | None], set[str]]) -> set[str]:
    name = wipe.key.to_user_string()
    parts = [wipe.partition] if wipe.partition else []
    found = {object_id_for(*wipe.key.path, *parts)}
    if keys.place_of(wipe.key) is None:  # one of a project, although its key does not say so
        found.add(object_id_for(ef.scope.workspace_slug, ef.scope.project_slug, *wipe.key.path, *parts))
    for (key, partition), objects in known.items():
        if key == name and wipe.partition in (None, partition):
            found |= objects
    return found


def _again(instance: dg.DagsterInstance, wipe: Wipe, object_id: str) -> Iterator[int]:
    """The versions of a blob that the asset was materialized with after the wipe."""
    records = dg.AssetRecordsFilter(
        asset_key=wipe.key,
        asset_partitions=[wipe.partition] if wipe.partition else None,
        after_timestamp=wipe.at,
    )
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(records, limit=PAGE, cursor=cursor)
        for record in page.records:
            metadata = record.asset_materialization.metadata if record.asset_materialization else {}
            values = {name: getattr(metadata.get(name), "value", None) for name in ("object_id", "version")}
            if values["object_id"] == object_id and isinstance(values["version"], int):
                yield values["version"]
        if not page.has_more:
            return
        cursor = page.cursor


def wiped_sensor(place: Place) -> dg.SensorDefinition:
    """Lets go of what wiped assets of a project had stored; the cursor is the time of the last wipe."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                done, until = let_go(ef, context.instance, after=float(context.cursor or 0))
        except EmboflowError as error:
            return dg.SensorResult(skip_reason=f"error[{error.kind.value}]: {error.message}")
        said = ", ".join(f"{object_id}: {count} versions" for object_id, count in done.items())
        return dg.SensorResult(skip_reason=said or "nothing was wiped", cursor=str(until))

    return dg.SensorDefinition(
        name=keys.place_name(place, "wiped"),
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=f"Lets go of the blobs of wiped assets of `{place.workspace}/{place.project}`.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )
