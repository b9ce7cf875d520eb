"""The scrubber: reads payloads slice by slice, for ever, and turns the check of what it read green or red."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from emboflow_dagster.errors import ConfigurationError, EmboflowError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.mongo.marks import name_of
from emboflow_dagster.orchestration import checks, steps
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.handles import kept_open
from emboflow_dagster.orchestration.keys import SCRUB_JOB, place_name
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.project.handle import EmboFlow

INTERVAL_SECONDS: Final = 30
CRON: Final = "0 3 * * *"
MAX_BYTES: Final = 100 << 30
MAX_SECONDS: Final = 3600.0
MAX_REPAIRS: Final = 1_000
_OP: Final = "scrub"
Shown = Sequence[tuple[Place, Sequence[dg.AssetKey]]]
"""The projects of a code location, each with the assets that have a check."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run of the scrubber reads of each workspace at most, and when it runs by itself."""

    max_bytes: int = MAX_BYTES
    max_seconds: float = MAX_SECONDS
    cron: str = CRON

    @classmethod
    def from_env(cls) -> "Budget":
        """``EMBOFLOW_SCRUB_MAX_BYTES``, ``EMBOFLOW_SCRUB_MAX_SECONDS`` and ``EMBOFLOW_SCRUB_CRON``.

        Raises:
            ConfigurationError: A number is none.
        """
        try:
            return cls(
                int(os.environ.get("EMBOFLOW_SCRUB_MAX_BYTES") or MAX_BYTES),
                float(os.environ.get("EMBOFLOW_SCRUB_MAX_SECONDS") or MAX_SECONDS),
                os.environ.get("EMBOFLOW_SCRUB_CRON") or CRON,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"EMBOFLOW_SCRUB_MAX_BYTES, EMBOFLOW_SCRUB_MAX_SECONDS: {error}", hint="both are numbers"
            ) from None


def scrub_job(resource: object, shown: Shown, budget: Budget) -> dg.JobDefinition:
    """The job ``emboflow_scrub``: one slice of each workspace; it fails when that holds damage.

    Args:
        resource: What opens the handle, bound here as for the job of any version.
        shown: What the code location shows.
        budget: How much to read.
    """

    def compute(context: dg.OpExecutionContext, _inputs: Any) -> Iterator[Any]:
        found = 0
        for places in _by_workspace(shown):
            try:
                found += _scrub(context, places, budget)
            except EmboflowError as error:
                raise steps.failure(error) from error
        if found:
            raise dg.Failure(
                f"error[blob-quarantined]: {found} problems; the log names them",
                metadata={"hint": "emboflow verify; emboflow blob repair ID --version N --from FILE"},
                allow_retries=False,
            )
        yield dg.Output(None, "done")

    op = dg.OpDefinition(
        compute_fn=compute,
        name=_OP,
        outs={"done": dg.Out(dg.Nothing)},
        required_resource_keys={RESOURCE},
        description="Reads the next slice of every workspace's payloads and hashes it.",
    )
    return dg.GraphDefinition(name=SCRUB_JOB, node_defs=[op]).to_job(
        description=(
            "Reads stored bytes and holds them against their recorded sha256; each run goes on where the "
            "last one stopped. What is damaged is set aside; its assets' check `bytes_verified` turns red."
        ),
        executor_def=dg.in_process_executor,
        resource_defs={RESOURCE: resource, "io_manager": dg.mem_io_manager},
    )


def scrub_schedule(budget: Budget) -> dg.ScheduleDefinition:
    """The scrubber once a day; stopped until somebody turns it on: reading everything has its price."""
    return dg.ScheduleDefinition(
        name=f"{SCRUB_JOB}__schedule",
        cron_schedule=budget.cron,
        job_name=SCRUB_JOB,
        execution_timezone="UTC",
        description="Reads a slice of the stored bytes and hashes it.",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )


def _by_workspace(shown: Shown) -> Iterator[list[tuple[Place, Sequence[dg.AssetKey]]]]:
    spaces: dict[str, list[tuple[Place, Sequence[dg.AssetKey]]]] = {}
    for place, assets in shown:
        spaces.setdefault(place.workspace, []).append((place, assets))
    yield from spaces.values()


def _scrub(context: dg.OpExecutionContext, places: Shown, budget: Budget) -> int:
    """One workspace: payloads belong to it, not to a project."""
    first = places[0][0]
    with context.resources.emboflow.open(first.workspace, first.project) as ef:
        report = ef.scrub(max_bytes=budget.max_bytes, max_seconds=budget.max_seconds)
        context.log.info("%s: %s", first.workspace, dict(report.counts))
        for problem in report.problems:
            context.log.error("error[%s]: %s", problem.code, problem.message)
        in_place = {p.id: p.message for p in report.problems if p.collection == "assets"}
        for place, assets in places:
            handle = ef if place == first else ef.at(place.workspace, place.project)
            for event in results(handle, assets, report.sound or set(), in_place):
                context.instance.report_runless_asset_event(event)
    return len(report.problems)


def results(
    ef: EmboFlow, assets: Sequence[dg.AssetKey], sound: set[str], in_place: dict[str, str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What a slice says about the assets of a project.

    Red with a version in quarantine, green when all of its versions were read; others are left out.
    """
    red = checks.reds(ef, assets)
    payloads = checks.Payloads(ef)
    for key in assets:
        refs = payloads.of(key)
        raw = payloads.raw(key.path[-1]) if key.path[2:3] == ["raw"] else None
        if key in red:
            yield checks.failed(key, red[key])
        elif raw is not None and raw.id in in_place:
            yield checks.changed(key, in_place[raw.id])
        elif refs and all(
            r.object_id and r.version is not None and name_of(r.object_id, r.version) in sound for r in refs
        ):
            yield checks.passed(key, refs)


def quarantine_sensor(place: Place, assets: Sequence[dg.AssetKey]) -> dg.SensorDefinition:
    """Follows the quarantine of a project's workspace: a new note turns its assets red, a lifted one green.

    Whoever read the damaged bytes (a step, a command, a notebook) wrote the note; who repairs them lifts it.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before = read_cursor(context.cursor)
        try:
            with kept_open(context.resources.emboflow, place) as ef:
                notes = sorted(row["name"] for row in ef.blobs.quarantine.notes())
                repaired, seen = repairs(ef, before.seen)
                if notes == before.notes and not repaired:
                    return dg.SensorResult(skip_reason="nothing changed")
                red = checks.reds(ef, assets)
                payloads = checks.Payloads(ef)
                events = [
                    checks.failed(key, note)
                    for key, note in red.items()
                    if before.red.get(key.to_user_string()) != note["name"]
                ]
                events += [
                    checks.passed(key, payloads.of(key))
                    for key in assets
                    if key not in red
                    and (
                        key.to_user_string() in before.red
                        # Damaged and repaired between two looks: somebody else may have turned it red.
                        or any((ref.object_id, ref.version) in repaired for ref in payloads.of(key))
                    )
                ]
        except EmboflowError as error:
            return dg.SensorResult(skip_reason=f"error[{error.kind.value}]: {error.message}")
        after = {key.to_user_string(): note["name"] for key, note in red.items()}
        cursor = json.dumps({"notes": notes, "red": after, "seen": seen})
        if not events:
            return dg.SensorResult(skip_reason="no asset is concerned", cursor=cursor)
        return dg.SensorResult(asset_events=events, cursor=cursor)

    return dg.SensorDefinition(
        name=place_name(place, "quarantine"),
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=f"Damaged and repaired bytes of `{place.workspace}/{place.project}` as check results.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What the sensor has told: the notes there were, and the assets that are red, each by its note."""

    notes: list[str]
    red: dict[str, str]
    seen: str | None = None
    """The last repair it looked at, as a row of the audit log."""


def read_cursor(text: str | None) -> Told:
    """The stored cursor; one that cannot be read starts over, and results are told again."""
    try:
        raw = json.loads(text or "{}")
        red = {str(k): str(v) for k, v in raw["red"].items()}
        seen = raw.get("seen")
        return Told([str(name) for name in raw["notes"]], red, None if seen is None else str(seen))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Told([], {})


def repairs(ef: EmboFlow, seen: str | None) -> tuple[set[tuple[str, Any]], str | None]:
    """The versions that were repaired after the row ``seen`` of the audit log, or lately; the last row."""
    filter_: dict[str, Any] = {"action": "blob.repair"}
    if seen is None:
        filter_["createdAt"] = {"$gte": utc_now() - timedelta(days=1)}
    else:
        filter_["_id"] = {"$gt": seen}  # ids sort by time
    rows = ef.audit.documents.find(filter_, limit=MAX_REPAIRS)
    found = {(row.resource_id, (row.after_summary or {}).get("version")) for row in rows}
    return found, max((row.id for row in rows), default=seen)
