"""``DAGSTER_HOME``: made ready once, before anything else opens it."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import dagster as dg

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.orchestration import compute_logs, keys, migrations, pools

CONFIG: Final = """\
# Written once by EmboFlow; yours to change. Reference: Dagster's documentation, "dagster.yaml".

# Without these two a dialog covers the first page, and usage is reported to Dagster.
nux:
  enabled: false
telemetry:
  enabled: false

run_coordinator:
  module: dagster
  class: QueuedRunCoordinator
  config:
    # Dagster looks every 5 s; people wait for what they launched.
    dequeue_interval_seconds: 1
    # A run that is dequeued while a code location reloads is tried again instead of failing for good.
    max_user_code_failure_retries: 3
    user_code_failure_retry_delay: 10

concurrency:
  runs:
    max_concurrent_runs: 4
  pools:
    # Limits are counted in steps: emboflow_python is the pool of nodes with the executor python.
    granularity: op

# Slots of a pool that a killed run worker held are free again soon after Dagster knows that its run is over.
run_monitoring:
  enabled: true
  start_timeout_seconds: 600
  poll_interval_seconds: 30
  free_slots_after_run_end_seconds: 30

# Each project has a sensor for its queue: they do not wait for each other.
sensors:
  use_threads: true
  num_workers: 4
"""
_EACH: Final = "{applyLimitPerUniqueValue: true}"
_RUNS: Final = "    max_concurrent_runs: 4\n"
# A daemon writes a heartbeat every 30 s.
HEARTBEAT_SECONDS: Final = 75
_DAEMONS: Final = frozenset({"SENSOR", "QUEUED_RUN_COORDINATOR"})


def prepare(home: Path) -> bool:
    """Write ``dagster.yaml`` if there is none, and create Dagster's own tables; safe to repeat.

    Two processes that open a fresh home at once race in its migrations: here they come one by one.

    Returns:
        Whether this call made the home.

    Raises:
        ConfigurationError: The folder cannot be written, or ``EMBOFLOW_COMPUTE_LOGS`` is not understood.
    """
    config = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(home):
            made = not config.exists()
            if made:
                _write(config, config_text() + compute_logs.block(home))
            if made or not (home / "schedules").exists():
                with dg.DagsterInstance.from_config(str(home)) as instance:
                    _create_tables(instance)
    except OSError as error:
        raise ConfigurationError(
            f"{home} cannot be made ready for Dagster: {error.strerror}", hint="set DAGSTER_HOME"
        ) from error
    return made


def config_text() -> str:
    """``dagster.yaml`` of a new home, with what the environment says of limits.

    Raises:
        InvalidInputError: It says something that is no limit.
    """
    runs = pools.workspace_runs()
    if not runs:
        return CONFIG
    limits = "".join(
        f"      - key: {keys.TAG_WORKSPACE}\n"
        f"        value: {json.dumps(slug) if slug else _EACH}\n"
        f"        limit: {number}\n"
        for slug, number in runs.items()
    )
    limit = f"    tag_concurrency_limits:\n{limits}"
    return CONFIG.replace(_RUNS, _RUNS + limit)


def _create_tables(instance: dg.DagsterInstance) -> None:
    # Each of the three storages makes its tables when it is first asked.
    instance.get_runs_count()
    instance.all_asset_keys()
    instance.all_instigator_state()


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


@contextmanager
def opened(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a home, made ready first."""
    migrations.remember()
    prepare(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        pools.configure(instance)
        yield instance


def daemon_is_alive(instance: dg.DagsterInstance) -> bool:
    """Whether somebody turns queued runs into Dagster runs: sensors and run queue both tick."""
    now = time.time()
    beats = instance.get_daemon_heartbeats()
    alive = {name for name, beat in beats.items() if now - beat.timestamp < HEARTBEAT_SECONDS}
    return alive >= _DAEMONS


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    with (home / ".emboflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
