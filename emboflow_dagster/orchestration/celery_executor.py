"""Dagster's Celery executor with steps that are watched: one whose worker died ends.

``dagster_celery`` has the loop that sends steps in the order of the graph and takes their events, and waits
for ever for those of a worker that was killed. What is put in is how a step is sent (:mod:`.celery_app`)
and what is asked about it (:mod:`.celery_watch`).
"""

from collections.abc import Iterator
from typing import Any, Final

import dagster as dg
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.base import Executor
from dagster._core.executor.init import InitExecutorContext
from dagster._grpc.types import ExecuteStepArgs
from dagster_celery.config import DEFAULT_CONFIG, dict_wrapper
from dagster_celery.core_execution_loop import core_celery_execution_loop

from emboflow_dagster.orchestration import celery_app
from emboflow_dagster.orchestration.celery_sent import Sent
from emboflow_dagster.orchestration.celery_watch import Answers, Watched

CONFIG: Final = {
    "broker": dg.Field(
        dg.Noneable(dg.StringSource),
        is_required=False,
        description=f"URL of the broker. Empty: {celery_app.BROKER}.",
    ),
    "backend": dg.Field(
        dg.Noneable(dg.StringSource),
        is_required=False,
        description=f"URL of the result backend. Empty: {celery_app.BACKEND}, else the broker's.",
    ),
    "retries": get_retries_config(),
}


class WatchedCeleryExecutor(Executor):
    """Sends steps to the Celery workers of the deployment."""

    def __init__(self, retries: RetryMode, broker: str | None, backend: str | None) -> None:
        self._retries = retries
        self._app = celery_app.make_app(broker, backend)
        self._answers = Answers(self._app)

    @property
    def retries(self) -> RetryMode:
        return self._retries

    def app_args(self) -> dict[str, Any]:
        """What the loop makes an app of its own from; it reads the names of queues from that one."""
        config = {**DEFAULT_CONFIG, "task_default_queue": celery_app.QUEUE}
        return {
            "broker": self._app.conf.broker_url,
            "backend": self._app.conf.result_backend,
            "config_source": dict_wrapper(config),
        }

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        pinned = execution_plan.repository_load_data

        def send(
            _app: Any,
            context: PlanOrchestrationContext,
            step: ExecutionStep,
            queue: str,
            _priority: int,
            known: Any,
        ) -> Watched:
            job = context.reconstructable_job
            args = ExecuteStepArgs(
                job_origin=job.get_python_origin(),
                run_id=context.run_id,
                step_keys_to_execute=[step.key],
                instance_ref=context.instance.get_ref(),
                retry_mode=self._retries.for_inner_plan(),
                known_state=known,
            )
            sent = Sent(self._app, queue, celery_app.message(args, job, pinned))
            return Watched(sent, self._answers, context, step, known)

        return core_celery_execution_loop(plan_context, execution_plan, step_execution_fn=send)


@dg.executor(
    name="emboflow_celery",
    config_schema=CONFIG,
    requirements=dg.multiple_process_executor_requirements(),
)
def emboflow_celery(init: InitExecutorContext) -> WatchedCeleryExecutor:
    """Steps go to Celery workers; see ``docs/scale-out.md``.

    A step goes to the queue ``emboflow``, or to the one that its tag ``dagster-celery/queue`` names.
    """
    config = init.executor_config
    return WatchedCeleryExecutor(
        RetryMode.from_config(config["retries"]),  # pyright: ignore[reportArgumentType] - of the schema above
        config.get("broker"),  # pyright: ignore[reportArgumentType]
        config.get("backend"),  # pyright: ignore[reportArgumentType]
    )
