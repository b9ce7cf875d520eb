"""How things are called in Dagster: asset keys, groups, jobs, ops and tags.

The names are a contract (DESIGN): dashboards and run filters are built on them. Slugs are words of
``a-z0-9`` joined by single ``-``, so writing ``-`` as ``_`` and joining with ``__`` never makes two
places share a name.
"""

from typing import Final

import dagster as dg

from emboflow_dagster.orchestration.catalog import Place

TAG_RUN_ID: Final = "emboflow/run_id"
# What the run queue limits runs by.
TAG_WORKSPACE: Final = "emboflow/workspace"
TAG_WORKFLOW_VERSION: Final = "emboflow/workflow_version"
TAG_TRIGGERED_BY: Final = "emboflow/triggered_by"
# How many Dagster runs the document had when the queue asked for this one.
TAG_GENERATION: Final = "emboflow/generation"
TAG_DATA_VERSION: Final = "dagster/data_version"
METADATA_VERSION: Final = "emboflow/version"

RAW: Final = "raw"
ARTIFACTS: Final = "artifacts"
DATASETS: Final = "datasets"

# Executes any published version of any workflow, known to this code location or not.
ANY_VERSION_JOB: Final = "emboflow__any_version"
# One job for everything, where a job per workflow would be too many.
SHARED_JOB: Final = "emboflow__workflows"
# Reads stored bytes and hashes them.
SCRUB_JOB: Final = "emboflow_scrub"


def raw_key(place: Place, asset: str) -> dg.AssetKey:
    """The key of a raw input: ``acme/pick-place/raw/arm-demo-hdf5``."""
    return dg.AssetKey([place.workspace, place.project, RAW, asset])


def artifact_key(place: Place, workflow: str, node: str) -> dg.AssetKey:
    """The key of what a workflow node leaves: ``acme/pick-place/artifacts/triage/report``."""
    return dg.AssetKey([place.workspace, place.project, ARTIFACTS, workflow, node])


def dataset_key(place: Place, dataset: str) -> dg.AssetKey:
    """The key of a dataset: ``acme/pick-place/datasets/grasps``; its versions are its data versions."""
    return dg.AssetKey([place.workspace, place.project, DATASETS, dataset])


def place_of(key: dg.AssetKey) -> Place | None:
    """The place that a key of ours names, or ``None`` for a key of somebody else's."""
    match list(key.path):
        case [workspace, project, kind, _, *_] if kind in (RAW, ARTIFACTS, DATASETS):
            return Place(workspace, project)
        case _:
            return None


def plain(slug: str) -> str:
    """A slug as Dagster's names allow it."""
    return slug.replace("-", "_")


def group_name(place: Place, *parts: str) -> str:
    """A group: ``acme/pick_place/raw``."""
    return "/".join(plain(part) for part in (place.workspace, place.project, *parts))


def job_name(place: Place, workflow: str) -> str:
    """The job of a workflow: ``acme__pick_place__triage``."""
    return "__".join(plain(part) for part in (place.workspace, place.project, workflow))


def op_name(place: Place, workflow: str, node: str) -> str:
    """The op, and so the step, of a node: ``acme__pick_place__triage__report``."""
    return "__".join(plain(part) for part in (place.workspace, place.project, workflow, node))


def place_name(place: Place, suffix: str) -> str:
    """A name for something there is one of in each project: ``acme__pick_place__queue``."""
    return "__".join((plain(place.workspace), plain(place.project), suffix))
