"""A cancelled run reaches Dagster: what executes it is terminated, what was only asked for never starts.

The document comes first: whatever happens here, nothing new is taken up. What cannot be reached now is
terminated by the recorder, which looks again.
"""

from typing import Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.webserver import Webserver
from emboflow_dagster.project.handle import EmboFlow

_TERMINATE: Final = """
mutation Terminate($id: String!) {
  terminateRun(runId: $id) {
    __typename
    ... on TerminateRunFailure { message }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}
"""
_STOPPING: Final = frozenset({dg.DagsterRunStatus.CANCELING})
MAX_RUNS: Final = 100


def terminate(ef: EmboFlow, run: WorkflowRun) -> list[str]:
    """Terminate the Dagster runs of a cancelled run, through the webserver where one runs.

    Returns:
        The Dagster runs that were told to end. Empty where there is no Dagster yet.
    """
    if not (ef.settings.dagster_home / "dagster.yaml").exists():
        return []
    server = Webserver.known(ef.settings.dagster_home)
    with dagster_instance.opened(ef.settings.dagster_home) as instance:
        return [
            dagster_run.run_id
            for dagster_run in open_dagster_runs(instance, run)
            if _by_server(server, dagster_run.run_id) or end(instance, dagster_run)
        ]


def open_dagster_runs(instance: dg.DagsterInstance, run: WorkflowRun) -> list[dg.DagsterRun]:
    """The Dagster runs of a document that are not over, those that wait to be dequeued among them."""
    asked = instance.get_runs(dg.RunsFilter(tags={keys.TAG_RUN_ID: run.id}), limit=MAX_RUNS)
    named = (instance.get_run_by_id(known) for known in run.dagster_run_ids if known)
    found = {one.run_id: one for one in [*asked, *named] if one is not None}
    return [one for one in found.values() if not one.is_finished and one.status not in _STOPPING]


def end(instance: dg.DagsterInstance, dagster_run: dg.DagsterRun) -> bool:
    """End one Dagster run from here; whether it could be told."""
    coordinator = instance.run_coordinator
    return coordinator is not None and bool(coordinator.cancel_run(dagster_run.run_id))


def _by_server(server: Webserver | None, dagster_run_id: str) -> bool:
    if server is None:
        return False
    try:
        answer = server.ask(_TERMINATE, {"id": dagster_run_id}, timeout_s=10)["terminateRun"]
    except EmboflowError:
        return False
    return bool(answer["__typename"] == "TerminateRunSuccess")
