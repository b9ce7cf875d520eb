"""Raw inputs and dataset versions that no step produced, as runless events on their asset pages."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.orchestration import keys, page
from emboflow_dagster.orchestration.annotation_events import annotations_told
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.project import sources
from emboflow_dagster.project.catalog import asset_key_names
from emboflow_dagster.project.handle import EmboFlow

INTERVAL_SECONDS: Final = 15
MAX_EVENTS: Final = 200
# A document can become visible a little after another with a later time: look back this far.
OVERLAP: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Row:
    """Something to tell: which key, in which state (``mark``), changed when."""

    id: str
    mark: str
    changed_at: datetime
    event: dg.AssetMaterialization | Callable[[], dg.AssetObservation]
    """What is told; a function where it costs something to know."""

    def told(self) -> dg.AssetMaterialization | dg.AssetObservation:
        """The event itself."""
        return self.event() if callable(self.event) else self.event


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the sensor has told: everything before ``until``, and ``seen`` of the time around it.

    ``seen`` maps an id to its mark and the time of its change.
    """

    until: datetime | None = None
    seen: Mapping[str, tuple[str, datetime]] | None = None

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        """The stored cursor; one that cannot be read starts over, and events are told again."""
        try:
            raw = json.loads(text or "{}")
            until = datetime.fromisoformat(raw["until"])
            seen = {key: (mark, datetime.fromisoformat(at)) for key, (mark, at) in raw["seen"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()
        return cls(until, seen)

    def write(self) -> str:
        """The cursor as Dagster stores it."""
        seen = {key: [mark, at.isoformat()] for key, (mark, at) in (self.seen or {}).items()}
        return json.dumps({"until": self.until.isoformat() if self.until else "", "seen": seen})

    def news(self, rows: Sequence[Row], limit: int = MAX_EVENTS) -> tuple[list[Row], "Cursor"]:
        """What is not told yet, oldest first, and the cursor after telling it."""
        known = dict(self.seen or {})
        horizon = self.until - OVERLAP if self.until else None
        fresh = [
            row
            for row in sorted(rows, key=lambda row: (row.changed_at, row.id))
            if (horizon is None or row.changed_at >= horizon)
            and (row.id not in known or known[row.id][0] != row.mark)
        ][:limit]
        if not fresh:
            return [], self
        until = max([row.changed_at for row in fresh] + ([self.until] if self.until else []))
        known |= {row.id: (row.mark, row.changed_at) for row in fresh}
        kept = {key: value for key, value in known.items() if value[1] >= until - OVERLAP}
        return fresh, Cursor(until, kept)


def raw_events_sensor(place: Place) -> dg.SensorDefinition:
    """Tells Dagster about newly registered or probed assets and new dataset versions of a project."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                rows = [*raw_rows(ef, place), *dataset_rows(ef, place), *_annotation_rows(ef, place)]
                news, cursor = Cursor.read(context.cursor).news(rows)
                events = [row.told() for row in news]
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


def _annotation_rows(ef: EmboFlow, place: Place) -> Iterator[Row]:
    return (Row(*told) for told in annotations_told(ef, place))


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
                event=dg.AssetMaterialization(
                    keys.dataset_key(place, dataset.name),
                    description=f"{dataset.name} {version.version_tag}",
                    metadata={
                        "dataset_version_id": version.id,
                        "dataset_version": version.version_tag,
                        **page.storage_metadata(version.manifest_ref),
                        **dict(version.stats),
                    },
                    tags={keys.TAG_DATA_VERSION: version.manifest_ref.sha256},
                ),
            )
