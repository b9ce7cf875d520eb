"""What a process that executes one run needs of a catalog: the workflow of that run (decision 36).

A code server shows everything. The worker of a run, and each of its steps, is a process of its own that is
made for one job and builds the definitions anew before its first line: with a thousand workflows that takes
longer than most steps. What it was made for stands in the arguments of the process. Whatever is not clear
(another way to start it, a job of somebody else's, checks, an asset that the catalog lacks) is answered by
``None``, and everything is loaded.
"""

import logging
import multiprocessing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

# Dagster's own, not public: what its code server and its multiprocess executor hand to their processes.
# One place, one test.
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster_shared.serdes import deserialize_value

from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import CatalogProject, Place, Workflow

logger: Final = logging.getLogger("emboflow")


@dataclass(frozen=True, slots=True)
class Needed:
    """What a process executes: a job, and of it these assets (``None``: all of it)."""

    job: str
    assets: frozenset[dg.AssetKey] | None = None


def of_this_process() -> Needed | None:
    """What this process was made to execute, ``None`` where it does not say."""
    try:
        return _of(getattr(multiprocessing.current_process(), "_args", ()))
    except Exception as error:  # noqa: BLE001 - of a Dagster that hands over something else
        logger.debug("everything is loaded, the process does not say what it executes: %s", error)
        return None


def _of(arguments: Iterable[Any]) -> Needed | None:
    given = list(arguments)
    for one in given:
        # A step: its command has the run.
        run = getattr(one, "dagster_run", None)
        if isinstance(run, dg.DagsterRun):
            return _of_run(run)
    jobs = [one for one in given if isinstance(one, ReconstructableJob)]
    if len(jobs) != 1:
        return None
    # The worker of a run: it is given the run's id, and reads the run itself a moment later.
    from dagster._grpc.types import ExecuteExternalJobArgs

    [said] = [one for one in given if isinstance(one, str)]
    asked = deserialize_value(said, ExecuteExternalJobArgs)
    if asked.instance_ref is None:
        return None
    with dg.DagsterInstance.from_ref(asked.instance_ref) as instance:
        run = instance.get_run_by_id(asked.run_id)
    return None if run is None else _of_run(run)


def _of_run(run: dg.DagsterRun) -> Needed | None:
    # Dagster adds to a selection of assets all of their checks, unless it is said that there are none.
    if run.asset_check_selection or (run.asset_selection and run.asset_check_selection is None):
        return None
    return Needed(run.job_name, frozenset(run.asset_selection) if run.asset_selection else None)


def wanted(
    needed: Needed,
    everything: Iterable[tuple[Place, CatalogProject]],
    owners: Mapping[Place, Mapping[str, tuple[str, str]]],
) -> list[tuple[Place, Workflow]] | None:
    """The workflows that a job executes.

    Args:
        needed: The job.
        everything: The projects of the catalog.
        owners: Of each place: dataset name to workflow and node whose key it is.

    Returns:
        None of them for the job of any version, which asks the database; ``None`` where the job is not one of
        a workflow, or of assets that no workflow of the catalog makes.
    """
    if needed.job == keys.ANY_VERSION_JOB:
        return []
    if needed.job == keys.SHARED_JOB:
        if not needed.assets:
            return None
        names = {_workflow_of(key, owners) for key in needed.assets}
        found = [
            (place, workflow)
            for place, project in everything
            for workflow in project["workflows"]
            if (place, workflow["slug"]) in names
        ]
        return found if len(found) == len(names) else None
    return [
        (place, workflow)
        for place, project in everything
        for workflow in project["workflows"]
        if keys.job_name(place, workflow["slug"]) == needed.job
    ] or None


def _workflow_of(
    key: dg.AssetKey, owners: Mapping[Place, Mapping[str, tuple[str, str]]]
) -> tuple[Place, str] | None:
    match list(key.path):
        case [workspace, project, keys.ARTIFACTS, slug, _]:
            return Place(workspace, project), slug
        case [workspace, project, keys.DATASETS, dataset]:
            place = Place(workspace, project)
            owner = owners.get(place, {}).get(dataset)
            return None if owner is None else (place, owner[0])
        case _:
            return None
