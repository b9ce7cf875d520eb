"""Every document has its shape, every collection its validator and indexes, every reference an end."""

from collections.abc import Iterable
from typing import Any

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.collections import COLLECTIONS, Reference
from emboflow_dagster.model.records import PRODUCERS, TARGETS
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.mongo.setup import missing
from emboflow_dagster.project.verify.report import VerifyReport, View

BATCH = 500
# References that are not a plain id at the top of a document.
_NESTED = {
    "artifacts": (
        Reference("lineage.inputArtifactIds", "artifacts"),
        Reference("lineage.assetIds", "assets"),
        Reference("lineage.workflowRunId", "workflow_runs", optional=True),
        Reference("storageRef.objectId", "objects", optional=True),
    ),
    "annotations": (Reference("payload.ref.objectId", "objects", optional=True),),
    "asset_probe_reports": (Reference("rawReport.ref.objectId", "objects", optional=True),),
    "assets": (Reference("storageRef.objectId", "objects", optional=True),),
    "dataset_versions": (Reference("manifestRef.objectId", "objects", optional=True),),
    "object_history": (Reference("object_id", "objects"),),
    "run_tasks": (Reference("logRef.objectId", "objects", optional=True),),
    "workflow_definition_versions": (Reference("pluginRefs.pluginId", "plugins"),),
}


def check_database(view: View, report: VerifyReport) -> None:
    """Collections, validators and indexes are there (I20)."""
    for name in missing(view.mongo):
        collection, _, index = name.partition(".")
        report.add(
            "index" if index else "collection",
            collection.split()[0],
            "-",
            index or None,
            f"{name} is missing or drifted; `emboflow init` repairs it",
        )


def check_documents(view: View, report: VerifyReport) -> None:
    """Every document passes its model and the server's validator (I19)."""
    for name, row in COLLECTIONS.items():
        document: Any = row.document
        for raw in view.find(name):
            report.counts[name] += 1
            try:
                document.from_mongo(raw)
            except EmboflowError as error:
                view.invalid.add((name, repr(raw["_id"])))
                where = error.problems[0].path if error.problems else None
                report.add("document-invalid", name, raw["_id"], where, error.message)


def check_references(view: View, report: VerifyReport) -> None:
    """Every reference ends at a document of the same workspace (I15, R-319)."""
    for name, row in COLLECTIONS.items():
        references = [*row.references, *_NESTED.get(name, ())]
        projection = {"_id": 1, "producerType": 1, "producerId": 1, "targetType": 1, "targetRef": 1}
        projection |= {"workspaceId": 1, "workspace_id": 1}
        projection |= {reference.field: 1 for reference in references}
        batch: list[dict[str, Any]] = []
        for raw in view.sound(name, projection):
            batch.append(raw)
            if len(batch) == BATCH:
                _batch(view, report, name, references, batch)
                batch = []
        _batch(view, report, name, references, batch)


def _batch(
    view: View, report: VerifyReport, name: str, references: Iterable[Reference], batch: list[dict[str, Any]]
) -> None:
    if not batch:
        return
    rows = [(r, raw["_id"], value) for r in references for raw in batch for value in _values(raw, r.field)]
    for raw in batch:
        if name == "artifacts" and raw.get("producerType") in PRODUCERS:
            rows.append(
                (Reference("producerId", PRODUCERS[raw["producerType"]]), raw["_id"], raw.get("producerId"))
            )
        if name == "annotation_tasks" and raw.get("targetType") in TARGETS:
            target = TARGETS[raw["targetType"]]
            rows.append((Reference("targetRef.id", target), raw["_id"], raw.get("targetRef", {}).get("id")))
    spaces = {raw["_id"]: raw.get("workspaceId") or raw.get("workspace_id") for raw in batch}
    for target, space in {(r.target, spaces[id_]) for r, id_, _ in rows}:
        here = [(r, i, v) for r, i, v in rows if r.target == target and spaces[i] == space]
        there = view.exists(target, {v for _, _, v in here if isinstance(v, str)}, space)
        for reference, id_, value in here:
            if value in there or (value is None and reference.optional):
                continue
            report.add(
                "ref-not-found",
                name,
                id_,
                reference.field,
                f"{reference.field} is {value!r}; {target} has no such document here",
            )


def _values(raw: dict[str, Any], path: str) -> list[Any]:
    value: Any = raw
    for part in path.split("."):
        if isinstance(value, list):
            value = [item.get(part) for item in value if isinstance(item, dict)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, list) else [value]


def check_numbers(view: View, report: VerifyReport) -> None:
    """Version numbers have no gaps, and heads name their newest version (I14, C-30)."""
    with translated():
        for head in view.sound("workflow_definitions"):
            _workflow_numbers(view, report, head)
        for head in view.sound("datasets", {"latestVersionId": 1}):
            _dataset_chain(view, report, head)


def _workflow_numbers(view: View, report: VerifyReport, head: dict[str, Any]) -> None:
    rows = view.mongo["workflow_definition_versions"].find(
        {"workflowDefinitionId": head["_id"]}, {"versionNumber": 1}
    )
    numbers = sorted(n for n in (row.get("versionNumber") for row in rows) if isinstance(n, int))
    if numbers != list(range(1, len(numbers) + 1)) or head["latestVersionNumber"] != len(numbers):
        report.add(
            "version-gap",
            "workflow_definitions",
            head["_id"],
            "latestVersionNumber",
            f"is {head['latestVersionNumber']}; the versions are {numbers[:20]}",
        )


def _dataset_chain(view: View, report: VerifyReport, head: dict[str, Any]) -> None:
    """Parents lead from the newest version to the first one over all of them."""
    latest = head.get("latestVersionId")
    rows = view.mongo["dataset_versions"].find({"datasetId": head["_id"]}, {"_id": 1, "parentVersionId": 1})
    parents = {row["_id"]: row.get("parentVersionId") for row in rows}
    foreign = [version for version, parent in parents.items() if parent is not None and parent not in parents]
    for version in foreign:
        report.add(
            "ref-mismatch",
            "dataset_versions",
            version,
            "parentVersionId",
            f"{parents[version]!r} is no version of the same dataset",
        )
    chain: list[Any] = []
    at = latest
    while at in parents and at not in chain:
        chain.append(at)
        at = parents[at]
    astray = at in chain or (latest is not None and latest not in parents)
    if astray or (len(chain) < len(parents) and not foreign):
        report.add(
            "ref-mismatch",
            "datasets",
            head["_id"],
            "latestVersionId",
            f"is {latest!r}; parents lead from there to {len(chain)} of {len(parents)} versions",
        )
