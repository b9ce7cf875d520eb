"""Who works: what the lease of a task says about its worker."""

from emboflow_dagster.model.run import TaskStatus
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.lease import LEASE_S


def holds_a_task(ef: EmboFlow, worker: str, *, lease_s: int = LEASE_S) -> bool:
    """Whether a task of the project runs under this worker's name with a live lease, on the server's clock.

    Raises:
        UnavailableError: The database cannot be reached.
    """
    since = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": lease_s}}
    alive = {"$expr": {"$gte": [{"$ifNull": ["$heartbeatAt", "$startedAt"]}, since]}}
    filter_ = {"status": TaskStatus.RUNNING.value, "leaseOwner": worker, **alive}
    return ef.tasks.documents.find_one(filter_) is not None
