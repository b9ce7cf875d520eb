"""Dagster runs that ended before any of their steps could write a document.

Whoever presses Materialize makes no document: the first step does. A Dagster run that was cancelled while it
waited, or whose worker died before that, would be in Dagster's history alone. The recorder writes the
document for it, once, also for runs of a time when no recorder ran: how far Dagster's runs were looked
through is a note in the database.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import dagster as dg

# Dagster's own, not public: all of its storages are of this kind.
from dagster._core.storage.runs import SqlRunStorage

from emboflow_dagster.errors import EmboflowError, ErrorKind
from emboflow_dagster.model.workflow import WorkflowDefinitionVersion
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.nodes import NODE_TAG, VERSION_TAG, WORKFLOW_TAG
from emboflow_dagster.orchestration.steps import Launch, Target
from emboflow_dagster.project.handle import EmboFlow

PAGE: Final = 100
#: Of a long history so many are looked at in one go; the next one goes on from there.
MAX_PAGES: Final = 20
#: A run can become visible a little after another with a later time.
OVERLAP: Final = timedelta(seconds=60)
_OVER: Final = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def record_unseen(ef: EmboFlow, instance: dg.DagsterInstance) -> list[str]:
    """Write the documents of Dagster runs that failed or were cancelled before they had one.

    Returns:
        What was written, one line each. The tasks are settled like all others that nobody works at.
    """
    name = f"{ef.scope.project_id}:{_storage_id(instance)}"
    note = marks.read(ef.mongo, Mark.RECORDER, name) or {}
    until = datetime.fromisoformat(note["until"]) if note else None
    told: list[str] = []
    for page in _pages(instance, until - OVERLAP if until else None):
        told += _record(ef, instance, [row.dagster_run for row in page])
        until = page[-1].update_timestamp
    if until is not None and until.isoformat() != note.get("until"):
        # Another recorder may be further: to look at a run twice changes nothing.
        marks.write(ef.mongo, Mark.RECORDER, name, ef.scope.workspace_id, until=until.isoformat())
    return told


def _storage_id(instance: dg.DagsterInstance) -> str:
    """Which history this is: a DAGSTER_HOME that was made anew has another one."""
    storage = instance.run_storage
    return storage.get_run_storage_id() if isinstance(storage, SqlRunStorage) else type(storage).__name__


def _pages(instance: dg.DagsterInstance, after: datetime | None) -> Iterator[Sequence[dg.RunRecord]]:
    for _ in range(MAX_PAGES):
        ended = dg.RunsFilter(statuses=list(_OVER), updated_after=after)
        page = instance.get_run_records(ended, limit=PAGE, order_by="update_timestamp", ascending=True)
        if not page:
            return
        yield page
        after = page[-1].update_timestamp


def _record(ef: EmboFlow, instance: dg.DagsterInstance, ended: Sequence[dg.DagsterRun]) -> Iterator[str]:
    known = {
        (dagster_run_id, run.workflow_definition_id)
        for run in ef.runs.documents.find({"dagsterRunIds": {"$in": [one.run_id for one in ended]}}, limit=0)
        for dagster_run_id in run.dagster_run_ids
    }
    for one in ended:
        launch = Launch.of(one)
        # What the queue asked for has a document; a part that is executed again is one of its parent's.
        if keys.TAG_GENERATION in one.tags or (launch.parent_run_id and one.step_keys_to_execute):
            continue
        for target in targets_of(ef, instance, one):
            if (one.run_id, target.definition_id) in known:
                continue
            try:
                run = ef.runs.adopt(
                    one.run_id,
                    workflow_version_id=target.version_id,
                    node_ids=target.node_ids,
                    triggered_by=launch.triggered_by,
                )
            except EmboflowError as error:
                if error.kind is ErrorKind.UNAVAILABLE:
                    raise
                continue  # nothing to bind, or never successful upstream: no step could have begun
            yield f"{run.id}: recorded for Dagster run {one.run_id}, which ended before its first step"


def targets_of(ef: EmboFlow, instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[Target]:
    """The workflows of this project that a Dagster run was to execute, and which of their nodes."""
    if run.job_snapshot_id is None or run.execution_plan_snapshot_id is None:
        return
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    wanted = set(run.step_keys_to_execute or plan.step_keys_to_execute)
    job = instance.get_historical_job(run.job_snapshot_id).job_snapshot
    ops = [op for op in job.node_defs_snapshot.op_def_snaps if WORKFLOW_TAG in op.tags and op.name in wanted]
    for definition_id in sorted({op.tags[WORKFLOW_TAG] for op in ops}):
        mine = [op for op in ops if op.tags[WORKFLOW_TAG] == definition_id]
        version = _version(ef, mine[0].tags.get(VERSION_TAG))
        if version is None:
            continue  # of another project, or made before the tag was
        chosen = {op.tags[NODE_TAG] for op in mine}
        nodes = [node.id for node in version.logic_graph.nodes if node.id in chosen]
        whole = len(nodes) == len(version.logic_graph.nodes)
        yield Target(definition_id, version.id, None if whole else nodes)


def _version(ef: EmboFlow, version_id: str | None) -> WorkflowDefinitionVersion | None:
    try:
        return ef.workflows.version_by_id(version_id) if version_id else None
    except EmboflowError as error:
        if error.kind is ErrorKind.UNAVAILABLE:
            raise
        return None
