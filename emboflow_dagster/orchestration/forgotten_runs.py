"""What Dagster keeps of forgotten episodes: the pages of runs that read them show pictures and numbers.

A run that a tombstone names is deleted whole, with its events, its compute logs and what the pages of its
assets show of it; Dagster takes nothing out of a single event. The run itself is in MongoDB. The newest event
that is left of an asset is told again, and of a dataset its newest version.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import dagster as dg

# Dagster's own, not public: with SQLite what is deleted stays in the file until it is written anew.
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.orchestration.raw_events import newest_version
from emboflow_dagster.project.handle import EmboFlow

INTERVAL_SECONDS: Final = 60
PAGE: Final = 500
_INDEX: Final = "index"
_OF_ASSETS: Final = frozenset(
    {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    }
)


def clean(
    ef: EmboFlow, instance: dg.DagsterInstance, place: Place, done: frozenset[str] = frozenset()
) -> tuple[list[str], frozenset[str]]:
    """Delete the runs that the tombstones of a project name.

    Args:
        ef: An open handle on the project.
        instance: Dagster's storage.
        place: The project.
        done: Ids of the tombstones of which all is gone.

    Returns:
        The runs that were deleted, and the tombstones of which all is gone now. One whose runs are not over,
        or whose file somebody reads at this moment, is looked at again.
    """
    finished = [note for note in ef.datasets.forgotten() if note["state"] == "destroyed"]
    waiting: set[str] = set()
    named: dict[str, None] = {}
    runs: dict[str, None] = {}
    for note in finished:
        if note["id"] in done:
            continue
        named |= dict.fromkeys(note.get("dagsterRuns") or [])
        for record in _records(instance, note.get("dagsterRuns") or []):
            if record.is_finished:
                runs[record.run_id] = None
            else:
                waiting.add(note["id"])
    if runs:
        _delete(ef, instance, place, list(runs))
    # What was deleted by a tick before stays in a file until nobody reads it.
    if named and not _compact(instance, list(named)):
        return list(runs), done
    return list(runs), frozenset(note["id"] for note in finished) - waiting


def _records(instance: dg.DagsterInstance, ids: Sequence[str]) -> Iterator[dg.DagsterRun]:
    for start in range(0, len(ids), PAGE):
        yield from instance.get_runs(dg.RunsFilter(run_ids=list(ids[start : start + PAGE])))


def _delete(ef: EmboFlow, instance: dg.DagsterInstance, place: Place, runs: Sequence[str]) -> None:
    told: dict[dg.AssetKey, None] = {}
    for run_id in runs:
        told |= dict.fromkeys(_keys(instance, run_id))
        # Its logs first: what is not done when this is interrupted is found by the run.
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        with contextlib.suppress(NotImplementedError):
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
        instance.delete_run(run_id)
    left = {key: _latest(instance, key) for key in told}
    if told:
        instance.wipe_assets(list(told))
    for key, event in left.items():
        again = event or newest_version(ef, place, key)
        if again is not None:
            instance.report_runless_asset_event(again)


def _keys(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.AssetKey]:
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=set(_OF_ASSETS), limit=PAGE)
        for record in page.records:
            event = record.event_log_entry.dagster_event
            if event is None:
                continue
            if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                yield event.asset_check_evaluation_data.asset_key
            elif event.asset_key is not None:
                yield event.asset_key
        if not page.has_more or not page.records:
            return
        cursor = page.cursor


def _latest(instance: dg.DagsterInstance, key: dg.AssetKey) -> dg.AssetMaterialization | None:
    found = instance.fetch_materializations(key, limit=1).records
    return found[0].asset_materialization if found else None


def _compact(instance: dg.DagsterInstance, runs: Sequence[str]) -> bool:
    """Write SQLite's files anew without what was deleted; a server's database does that by itself."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return True
    shards = [run_id for run_id in runs if Path(storage.path_for_shard(run_id)).exists()]
    try:
        for shard in (_INDEX, *shards):
            with storage.run_connection(shard) if shard != _INDEX else storage.index_connection() as conn:
                conn.commit()
                raw: Any = conn.connection.driver_connection
                level, raw.isolation_level = raw.isolation_level, None
                raw.execute("VACUUM")
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                raw.isolation_level = level
    except Exception as error:  # of a driver that only Dagster imports
        if "locked" not in str(error):
            raise
        return False  # somebody reads it: the next tick does it
    return True


def forgotten_runs_sensor(place: Place) -> dg.SensorDefinition:
    """Deletes the runs that showed forgotten episodes; the cursor is the tombstones that are done."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before = frozenset((context.cursor or "").split())
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                gone, done = clean(ef, context.instance, place, before)
        except EmboflowError as error:
            return dg.SensorResult(skip_reason=f"error[{error.kind.value}]: {error.message}")
        said = f"deleted runs that showed forgotten episodes: {', '.join(gone)}" if gone else "nothing to do"
        return dg.SensorResult(skip_reason=said, cursor=" ".join(sorted(done)))

    return dg.SensorDefinition(
        name=keys.place_name(place, "forgotten_runs"),
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=f"Deletes runs that show forgotten episodes of `{place.workspace}/{place.project}`.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )
