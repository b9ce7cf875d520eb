"""The Celery workers of a deployment: ``celery -A emboflow_dagster.orchestration.celery_app worker``.

One message is one step. It is acknowledged when a worker takes it up: a message that came back would
execute the step a second time beside the first. What a dead worker leaves behind is found by the lease of
its task (:mod:`.celery_watch`), never by the broker.
"""

import ctypes
import os
import sys
from functools import partial
from typing import Any, Final

import dagster as dg
from celery import Celery
from celery.exceptions import Ignore
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.definitions.repository_definition import RepositoryLoadData
from dagster._core.execution.api import create_execution_plan, execute_plan_iterator
from dagster._core.instance.ref import InstanceRef
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import pack_value, serialize_value, unpack_value

# Imported before a worker forks: a step begins with its work.
import emboflow_dagster.orchestration.component
import emboflow_dagster.orchestration.nodes  # noqa: F401  likewise
from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.runtime.stopping import interrupted_when

BROKER: Final = "EMBOFLOW_CELERY_BROKER"
BACKEND: Final = "EMBOFLOW_CELERY_BACKEND"
#: A queue of our own: a worker of Dagster's own app would not know the message, and drop it.
QUEUE: Final = "emboflow"
TASK: Final = "emboflow.execute_step"
_PR_SET_PDEATHSIG: Final = 1
_STARTS: Final = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}


def broker_url() -> str:
    """Where messages are: ``EMBOFLOW_CELERY_BROKER``.

    Raises:
        ConfigurationError: It is not said.
    """
    found = os.environ.get(BROKER, "").strip()
    if not found:
        raise ConfigurationError(
            f"{BROKER} is not set: where the Celery workers get their steps",
            hint="redis://host:6379/0, or any other broker of Celery",
        )
    return found


def make_app(broker: str | None = None, backend: str | None = None) -> Celery:
    """The app, for workers and for what sends them steps.

    Args:
        broker: Its URL; ``EMBOFLOW_CELERY_BROKER`` when omitted.
        backend: Where results are; ``EMBOFLOW_CELERY_BACKEND``, else the broker.
    """
    at = broker or broker_url()
    made = Celery("emboflow", broker=at, backend=backend or os.environ.get(BACKEND, "").strip() or at)
    made.conf.update(
        task_default_queue=QUEUE,
        # Says which worker took a step up, before the step can say anything itself.
        task_track_started=True,
        task_acks_late=False,
        # One step a slot and none in the hand: what a worker holds back, another one could begin.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # A step is a process of its own, as with every other executor: what it leaks ends with it.
        worker_max_tasks_per_child=1,
        # A broker that restarts is waited for, by those who send and those who receive.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_publish_retry_policy={
            "max_retries": 60,
            "interval_start": 0,
            "interval_step": 1,
            "interval_max": 2,
        },
        # Only of messages in the hand, see above; a step may take days.
        broker_transport_options={"visibility_timeout": 120},
        result_expires=7 * 24 * 3600,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    made.task(bind=True, name=TASK)(execute_step)
    return made


def message(
    args: ExecuteStepArgs, job: ReconstructableJob, pinned: RepositoryLoadData | None
) -> dict[str, Any]:
    """What a worker needs to execute one step: JSON values."""
    return {
        "step": pack_value(args),
        "job": job.to_dict(),
        # The definitions that the run was planned with: a later publish changes nothing (decision 6).
        "pinned": pack_value(pinned) if pinned is not None else None,
    }


def execute_step(
    task: Any, *, step: dict[str, Any], job: dict[str, Any], pinned: dict[str, Any] | None
) -> list[str]:
    """Execute one step here; returns its events, serialized. They are in the run's log already."""
    args = unpack_value(step, as_type=ExecuteStepArgs)
    reference = args.instance_ref
    assert isinstance(reference, InstanceRef)  # noqa: S101 - whoever sent the message put it there
    # Entered, unlike in Dagster's own task: the state of the code location is found through the instance.
    with dg.DagsterInstance.from_ref(reference) as instance:
        recon = ReconstructableJob.from_dict(job)
        load = unpack_value(pinned, as_type=RepositoryLoadData) if pinned is not None else None
        if load is not None:
            recon = recon.with_repository_load_data(load)
        run = instance.get_run_by_id(args.run_id)
        if run is None or run.is_finished:
            return []
        key = (args.step_keys_to_execute or [""])[0]
        if _was_begun(instance, args, key):
            # Delivered twice: the other one says how it ends.
            raise Ignore
        instance.report_engine_event(
            f"Celery worker {task.request.hostname} executes {key}", run, step_key=key
        )
        plan = create_execution_plan(
            recon,
            run.run_config,
            step_keys_to_execute=args.step_keys_to_execute,
            known_state=args.known_state,
            repository_load_data=load,
        )
        _outlives_its_worker()
        with interrupted_when(partial(_is_stopped_orphan, instance, run.run_id, os.getppid())):
            return [
                serialize_value(event)
                for event in execute_plan_iterator(
                    plan, recon, run, instance, retry_mode=args.retry_mode, run_config=run.run_config
                )
            ]
        return []  # it was stopped; its events are in the log


def _outlives_its_worker() -> None:
    """Let the step go on when the process that speaks to the broker is killed; it is at work for hours.

    Celery has the kernel kill a process of the pool with that one, but only where ``cffi`` was not imported
    before: here it is the same everywhere. One that has no step ends by itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def _is_stopped_orphan(instance: dg.DagsterInstance, run_id: str, parent: int) -> bool:
    """Whether the run was cancelled and nobody can tell this process: its worker is gone."""
    if os.getppid() == parent:
        return False
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status is dg.DagsterRunStatus.CANCELING


def _was_begun(instance: dg.DagsterInstance, args: ExecuteStepArgs, key: str) -> bool:
    """Whether this attempt of the step has begun already, here or elsewhere."""
    retries = args.known_state.get_retry_state() if args.known_state is not None else None
    before = retries.get_attempt_count(key) if retries is not None else 0
    starts = instance.get_records_for_run(args.run_id, of_type=_STARTS).records
    return sum(one.event_log_entry.step_key == key for one in starts) > before


def __getattr__(name: str) -> Any:
    # `celery -A` looks for `app`; whoever imports the module for its names needs no broker.
    if name in ("app", "celery"):
        return make_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
