"""A catalog becomes definitions. No database is touched here."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.any_version import any_version_job
from emboflow_dagster.orchestration.catalog import (
    Catalog,
    CatalogDataset,
    CatalogProject,
    Place,
    Workflow,
    projects,
)
from emboflow_dagster.orchestration.checks import bytes_checks
from emboflow_dagster.orchestration.forgotten_runs import forgotten_runs_sensor
from emboflow_dagster.orchestration.jobs import (
    MAX_WORKFLOW_JOBS,
    Launchable,
    launchable,
    shared_job,
    workflow_job,
)
from emboflow_dagster.orchestration.narrow import Needed, wanted
from emboflow_dagster.orchestration.nodes import RESOURCE, node_assets
from emboflow_dagster.orchestration.quality import quality_checks
from emboflow_dagster.orchestration.raw_events import raw_events_sensor
from emboflow_dagster.orchestration.recorder import recorder_sensor
from emboflow_dagster.orchestration.run_options import OPTIONS, RUN_OPTIONS
from emboflow_dagster.orchestration.schedules import project_schedules, schedules_sensor
from emboflow_dagster.orchestration.scrub import Budget, quarantine_sensor, scrub_job, scrub_schedule
from emboflow_dagster.orchestration.sensors import queue_sensor
from emboflow_dagster.orchestration.specs import (
    DatasetProps,
    EmboFlowTranslator,
    NodeProps,
    RawAssetProps,
)
from emboflow_dagster.orchestration.wiped import wiped_sensor


def definitions_from_catalog(
    catalog: Catalog,
    *,
    resources: Mapping[str, Any],
    translator: EmboFlowTranslator | None = None,
    scrub: Budget | None = None,
    needed: Needed | None = None,
) -> dg.Definitions:
    """Everything a code location shows of one database.

    Names no executor but those of its own jobs: the location's default is its owner's to choose.

    Args:
        catalog: What :meth:`EmboFlow.catalog` wrote.
        resources: ``emboflow`` and ``emboflow_io_manager``.
        translator: Decides groups, kinds, owners and descriptions.
        scrub: How much the scrubber reads, and when; by default what ``EMBOFLOW_SCRUB_*`` says.
        needed: Only what this job executes, where the catalog has it; else everything.
    """
    everything = list(projects(catalog))
    if needed is not None and (part := _part(needed, everything, translator, resources)) is not None:
        return part
    parts = _Parts(translator or EmboFlowTranslator())
    shared = _is_shared(everything)
    any_version = any_version_job(resources[RESOURCE])
    parts.jobs.append(any_version)
    if shared:
        node_keys = [
            props.key
            for place, project in everything
            for nodes in nodes_by_workflow(place, project).values()
            for props in nodes.values()
        ]
        parts.jobs.append(shared_job(node_keys))
    for place, project in everything:
        parts.add_project(place, project, shared=shared)
    budget = scrub or Budget.from_env()
    parts.jobs.append(scrub_job(resources[RESOURCE], parts.shown, budget))
    parts.schedules.append(scrub_schedule(budget))
    return dg.Definitions(
        assets=parts.assets,
        jobs=parts.jobs,
        sensors=parts.sensors,
        schedules=parts.schedules,
        resources={RUN_OPTIONS: OPTIONS, **resources},
    )


def _part(
    needed: Needed,
    everything: Sequence[tuple[Place, CatalogProject]],
    translator: EmboFlowTranslator | None,
    resources: Mapping[str, Any],
) -> dg.Definitions | None:
    """The job, with the nodes of its workflows and the raw inputs before them; ``None``: it takes more."""
    owners = {place: dataset_owners(project["workflows"]) for place, project in everything}
    found = wanted(needed, everything, owners)
    if found is None:
        return None
    translator = translator or EmboFlowTranslator()
    by_place = dict(everything)
    assets: list[Any] = []
    made: set[dg.AssetKey] = set()
    jobs: list[Any] = [] if found else [any_version_job(resources[RESOURCE])]
    shared = needed.job == keys.SHARED_JOB
    for place, workflow in found:
        project = by_place[place]
        nodes = workflow_nodes(place, project, workflow, owners[place])
        if not nodes:
            return None
        assets += node_assets(workflow, nodes, translator)
        before = {raw for node in workflow["nodes"] for raw in node["assetKeys"]}
        raws = [RawAssetProps(place, asset) for asset in project["assets"] if asset["key"] in before]
        assets += [spec for spec in map(translator.raw_asset_spec, raws) if spec.key not in made]
        made |= {keys.raw_key(place, props.asset["key"]) for props in raws}
        made |= {props.key for props in nodes.values()}
        if not shared:
            jobs.append(workflow_job(workflow, nodes))
    if needed.assets is not None and not needed.assets <= made:
        return None
    if shared:
        jobs.append(shared_job([asset.key for asset in assets if isinstance(asset, dg.AssetsDefinition)]))
    return dg.Definitions(assets=assets, jobs=jobs, resources={RUN_OPTIONS: OPTIONS, **resources})


class _Parts:
    def __init__(self, translator: EmboFlowTranslator) -> None:
        self.translator = translator
        self.assets: list[Any] = []
        self.jobs: list[Any] = []
        self.sensors: list[dg.SensorDefinition] = []
        self.schedules: list[dg.ScheduleDefinition] = []
        self.shown: list[tuple[Place, list[dg.AssetKey]]] = []

    def add_project(self, place: Place, project: CatalogProject, *, shared: bool) -> None:
        """One project: its assets, jobs, schedules and sensors. ``jobs[0]`` runs any version."""
        by_workflow = nodes_by_workflow(place, project)
        raw = [self.translator.raw_asset_spec(RawAssetProps(place, asset)) for asset in project["assets"]]
        self.assets += raw
        jobs = list(self.jobs[: 2 if shared else 1])
        held: dict[str, Launchable] = {}
        for workflow in project["workflows"]:
            nodes = by_workflow[workflow["slug"]]
            if not nodes:
                continue
            self.assets += node_assets(workflow, nodes, self.translator)
            held[workflow["definitionId"]] = launchable(workflow, nodes, shared=shared)
            if not shared:
                job = workflow_job(workflow, nodes)
                jobs.append(job)
                self.jobs.append(job)
        self.schedules += project_schedules(place, project, held)
        imported = self._imported_datasets(place, project, by_workflow)
        self.assets += imported
        shown = [spec.key for spec in (*raw, *imported)]
        shown += [props.key for nodes in by_workflow.values() for props in nodes.values()]
        self.assets += bytes_checks(place, shown)
        self.assets += quality_checks(props for nodes in by_workflow.values() for props in nodes.values())
        self.shown.append((place, shown))
        self.sensors += [
            queue_sensor(place, held, jobs),
            raw_events_sensor(place),
            recorder_sensor(place),
            schedules_sensor(place),
            wiped_sensor(place),
            forgotten_runs_sensor(place),
            quarantine_sensor(place, shown),
        ]

    def _imported_datasets(
        self, place: Place, project: CatalogProject, by_workflow: Mapping[str, Mapping[str, NodeProps]]
    ) -> list[dg.AssetSpec]:
        published = {
            props.node["dataset"]
            for nodes in by_workflow.values()
            for props in nodes.values()
            if props.owns_dataset_key
        }
        return [
            self.translator.dataset_spec(DatasetProps(place, dataset))
            for dataset in project["datasets"]
            if dataset["name"] not in published
        ]


def nodes_by_workflow(place: Place, project: CatalogProject) -> dict[str, dict[str, NodeProps]]:
    """The nodes of every workflow, knowing which of them owns a dataset's key.

    Dagster allows one producer an asset. Of several nodes that publish to one dataset the first of the
    oldest workflow owns its key (ids sort by time); the others materialise an artifact of their own and
    log the dataset's materialisation beside it.
    """
    owners = dataset_owners(project["workflows"])
    datasets = {dataset["name"]: dataset for dataset in project["datasets"]}
    return {
        workflow["slug"]: workflow_nodes(place, project, workflow, owners, datasets)
        for workflow in project["workflows"]
    }


def workflow_nodes(
    place: Place,
    project: CatalogProject,
    workflow: Workflow,
    owners: Mapping[str, tuple[str, str]],
    datasets: Mapping[str, CatalogDataset] | None = None,
) -> dict[str, NodeProps]:
    """The nodes of one workflow; ``owners`` is what :func:`dataset_owners` says of all of the project."""
    if datasets is None:
        datasets = {dataset["name"]: dataset for dataset in project["datasets"]}
    return {
        node["id"]: NodeProps(
            place=place,
            workflow=workflow,
            node=node,
            publishes=datasets.get(node["dataset"] or ""),
            owns_dataset_key=owners.get(node["dataset"] or "") == (workflow["slug"], node["id"]),
        )
        for node in workflow["nodes"]
    }


def dataset_owners(workflows: Sequence[Workflow]) -> dict[str, tuple[str, str]]:
    """Dataset name to the workflow and node whose key it is."""
    owners: dict[str, tuple[str, str]] = {}
    for workflow in sorted(workflows, key=lambda workflow: workflow["definitionId"]):
        for node in workflow["nodes"]:
            if node["dataset"]:
                owners.setdefault(node["dataset"], (workflow["slug"], node["id"]))
    return owners


def launchables(catalog: Catalog) -> dict[str, Launchable]:
    """What a location built from this catalog can start, by workflow definition id."""
    everything = list(projects(catalog))
    shared = _is_shared(everything)
    return {
        workflow["definitionId"]: launchable(workflow, nodes, shared=shared)
        for place, project in everything
        for workflow in project["workflows"]
        if (nodes := nodes_by_workflow(place, project)[workflow["slug"]])
    }


def _is_shared(everything: Sequence[tuple[Place, CatalogProject]]) -> bool:
    return sum(len(project["workflows"]) for _, project in everything) > MAX_WORKFLOW_JOBS
