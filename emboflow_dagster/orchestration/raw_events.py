"""Raw inputs and dataset versions that no step produced, as runless events on their asset pages."""

from collections.abc import Iterable, Iterator
from typing import Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.dataset import Dataset, DatasetVersion, DatasetVersionStatus
from emboflow_dagster.orchestration import keys, page
from emboflow_dagster.orchestration.annotation_events import annotation_rows
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.orchestration.policy_events import policy_rows
from emboflow_dagster.orchestration.telling import Cursor, Row
from emboflow_dagster.project import sources
from emboflow_dagster.project.catalog import asset_key_names
from emboflow_dagster.project.handle import EmboFlow

INTERVAL_SECONDS: Final = 15


def raw_events_sensor(place: Place) -> dg.SensorDefinition:
    """Tells Dagster about newly registered or probed assets and new dataset versions of a project."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                rows = [*raw_rows(ef, place), *dataset_rows(ef, place)]
                rows += [*annotation_rows(ef, place), *policy_rows(ef, place)]
                news, cursor = Cursor.read(context.cursor).news(rows)
                events = [event for row in news if (event := row.told()) is not None]
        except EmboflowError as error:
            return dg.SensorResult(skip_reason=f"error[{error.kind.value}]: {error.message}")
        if not news:
            return dg.SensorResult(skip_reason="nothing new")
        return dg.SensorResult(asset_events=events, cursor=cursor.write())

    return dg.SensorDefinition(
        name=keys.place_name(place, "raw_events"),
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=f"Raw inputs and dataset versions of `{place.workspace}/{place.project}` as events.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )


def tell_before(instance: dg.DagsterInstance, ef: EmboFlow, place: Place, asset_ids: Iterable[str]) -> None:
    """Tell Dagster now about assets that a run is about to read, where its last word on them is another.

    A step writes down the data version of what it reads as Dagster knows it. What the sensor tells only
    afterwards would look like a change: the run's first node was out of date from the beginning.
    """
    wanted = frozenset(asset_ids)
    if not wanted:
        return
    for row in raw_rows(ef, place):
        if row.id not in wanted:
            continue
        event = row.told()
        if event is None:
            continue
        known = instance.get_latest_materialization_event(event.asset_key)
        told = known.asset_materialization if known else None
        version = (event.tags or {})[keys.TAG_DATA_VERSION]
        if told is None or (told.tags or {}).get(keys.TAG_DATA_VERSION) != version:
            instance.report_runless_asset_event(event)


def raw_rows(ef: EmboFlow, place: Place) -> Iterator[Row]:
    """One row a registered asset; its mark changes when it is probed."""
    assets = sources.candidates(ef.assets)
    names = asset_key_names(assets)
    for asset in assets:
        yield raw_row(place, asset, names[asset.id])


def raw_row(place: Place, asset: Asset, name: str) -> Row:
    """The event of one asset; its data version is the sha256 of its bytes."""
    ref = asset.storage_ref
    formats = ", ".join(asset.detected_formats)
    return Row(
        id=asset.id,
        mark=f"{ref.checksum} {asset.status.value} {formats}",
        changed_at=asset.updated_at,
        event=dg.AssetMaterialization(
            keys.raw_key(place, name),
            description=asset.display_name,
            metadata={
                "asset_id": asset.id,
                "name": asset.display_name,
                "type": asset.type.value,
                "formats": formats or "not probed",
                "status": asset.status.value,
                "files": asset.file_count,
                **page.storage_metadata(ref),
                "size": asset.size_bytes,
            },
            tags={keys.TAG_DATA_VERSION: ref.sha256},
        ),
    )


def dataset_rows(ef: EmboFlow, place: Place) -> Iterator[Row]:
    """One row a dataset version that no step of a run made: those have their step's event."""
    for dataset in ef.datasets.list():
        for version in ef.datasets.versions(dataset.name):
            if (version.summary or {}).get("workflowRunId"):
                continue
            yield Row(
                id=version.id,
                mark=version.manifest_ref.checksum,
                changed_at=version.created_at,
                event=_materialized(place, dataset, version),
            )


def newest_version(ef: EmboFlow, place: Place, key: dg.AssetKey) -> dg.AssetMaterialization | None:
    """The event of the newest version of the dataset with a key, if it can be read."""
    for dataset in ef.datasets.list():
        if keys.dataset_key(place, dataset.name) == key:
            version = next(iter(ef.datasets.versions(dataset.name)), None)
            if version is not None and version.status is not DatasetVersionStatus.WITHDRAWN:
                return _materialized(place, dataset, version)
    return None


def _materialized(place: Place, dataset: Dataset, version: DatasetVersion) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        keys.dataset_key(place, dataset.name),
        description=f"{dataset.name} {version.version_tag}",
        metadata={
            "dataset_version_id": version.id,
            "dataset_version": version.version_tag,
            **page.storage_metadata(version.manifest_ref),
            **dict(version.stats),
        },
        tags={keys.TAG_DATA_VERSION: version.manifest_ref.sha256},
    )
