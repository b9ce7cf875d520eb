"""Runs without a daemon: one queued run, executed in this process, recorded like every other.

``emboflow demo`` and ``emboflow workflow run --wait`` use it when nobody else would start the run. The
Dagster run, its events and its materialisations are in ``DAGSTER_HOME``, so the UI shows them later.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from emboflow_dagster.errors import TransitionError
from emboflow_dagster.model.run import RUN_ACTIVE, WorkflowRun
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration import orphans, recorder
from emboflow_dagster.orchestration.catalog import Place, catalog_of
from emboflow_dagster.orchestration.definitions import definitions_from_catalog, launchables
from emboflow_dagster.orchestration.io_manager import BlobIO
from emboflow_dagster.orchestration.narrow import Needed
from emboflow_dagster.orchestration.nodes import IO_MANAGER, RESOURCE
from emboflow_dagster.orchestration.raw_events import tell_before
from emboflow_dagster.orchestration.resources import OpenHandle
from emboflow_dagster.orchestration.sensors import request_of
from emboflow_dagster.orchestration.webserver import LOCATION
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import stopping

CODE_LOCATION: Final = "emboflow_dagster.orchestration.code_location"
# The events are in the run's log; the terminal belongs to the command.
_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@contextmanager
def opened(ef: EmboFlow) -> Iterator[dg.DagsterInstance]:
    """The deployment's Dagster, for several of the calls below: opening it takes a third of a second."""
    with dagster_instance.opened(ef.settings.dagster_home) as instance:
        yield instance


def execute_queued(ef: EmboFlow, run_id: str, *, instance: dg.DagsterInstance | None = None) -> WorkflowRun:
    """Execute a queued run through Dagster in this process.

    Args:
        ef: An open handle on the run's project.
        run_id: A queued run; see :meth:`EmboFlow.runs.request`.
        instance: The deployment's Dagster, where it is open already.

    Returns:
        The run as it ended; ``status`` says how. A failed task is no exception here.

    Raises:
        TransitionError: The run is over, or a Dagster run has claimed it.
    """
    run = ef.runs.get(run_id)
    if run.status not in RUN_ACTIVE or not (run.dagster_run_ids == [] or run.waits_again):
        raise TransitionError(f"run {run_id} is {run.status.value} and cannot be started here")
    with opened(ef) if instance is None else nullcontext(instance) as dagster:
        try:
            _execute(dagster, ef, run)
        finally:
            # A step that could not even claim its task has written nothing, nor has one that was stopped.
            recorder.settle(ef, dagster)
    return ef.runs.get(run_id)


def daemon_is_alive(ef: EmboFlow, *, instance: dg.DagsterInstance | None = None) -> bool:
    """Whether a daemon of this deployment would start a queued run by itself."""
    if instance is not None:
        return dagster_instance.daemon_is_alive(instance)
    if not (ef.settings.dagster_home / "dagster.yaml").exists():
        return False
    with opened(ef) as own:
        return dagster_instance.daemon_is_alive(own)


def _execute(instance: dg.DagsterInstance, ef: EmboFlow, run: WorkflowRun) -> None:
    place = Place(ef.scope.workspace_slug, ef.scope.project_slug)
    catalog = catalog_of(ef)
    resources: dict[str, Any] = {RESOURCE: OpenHandle(ef), IO_MANAGER: BlobIO(OpenHandle(ef))}
    request = request_of(ef.runs.to_execute(run), launchables(catalog), place)
    if request.job_name is None:
        raise TransitionError(f"run {run.id}: no job executes it")
    chosen = frozenset(request.asset_selection) if request.asset_selection else None
    needed = Needed(request.job_name, chosen)
    definitions = definitions_from_catalog(catalog, resources=resources, needed=needed)
    # "Ephemeral" is Dagster's word for a job bound to the executor of this process.
    job = definitions.resolve_job_def(request.job_name).as_ephemeral_job(resource_defs={}, input_values={})
    tell_before(instance, ef, place, run.asset_ids)
    dagster_run = instance.create_run_for_job(
        job_def=job.get_subset(asset_selection=chosen) if chosen else job,
        run_config=_QUIET,
        tags={**job.run_tags, **request.tags, orphans.PROCESS_TAG: orphans.process_mark()},
        asset_selection=chosen,
        # Names the code location that `emboflow dev` serves: the run page links to its job.
        remote_job_origin=RemoteJobOrigin(
            RemoteRepositoryOrigin(
                InProcessCodeLocationOrigin(
                    LoadableTargetOrigin(module_name=CODE_LOCATION), location_name=LOCATION
                ),
                SINGLETON_REPOSITORY_NAME,
            ),
            request.job_name,
        ),
    )
    with stopping.interrupted_when(partial(_is_stopped, instance, ef, run.id, dagster_run.run_id)):
        execute_run(InMemoryJob(job), dagster_run, instance, raise_on_error=False)


def _is_stopped(instance: dg.DagsterInstance, ef: EmboFlow, run_id: str, dagster_run_id: str) -> bool:
    """Whether somebody stopped a run of this process: its document, or its Dagster run in the UI."""
    found = instance.get_run_by_id(dagster_run_id)
    if found is None or found.is_finished:
        return False
    if found.status is dg.DagsterRunStatus.CANCELING:
        return True
    stopped = stopping.is_draining(ef.runs.recorder, run_id)
    if stopped:  # from a machine with another DAGSTER_HOME: an interrupt is a cancellation, not a failure
        instance.report_run_canceling(found)
    return stopped
