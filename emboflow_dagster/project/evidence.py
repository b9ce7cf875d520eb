"""Evidence of quality: the measurements that reports keep, asked for by dataset, check and episode.

Thresholds that are given judge the stored measurements anew; no recording is read for that.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs.listing import is_listing, payload_ref, read_listing
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.model.artifact import QUALITY_REPORT, Artifact
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.child import run_child

FILE: Final = "evidence.parquet"
MAX_ROWS: Final = 10_000
"""Rows of one answer."""
_SECONDS: Final = 600.0


class Evidence:
    """The measurements of one project's quality reports."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._artifacts: Documents[Artifact] = Documents(opened.mongo, opened.scope, Artifact)
        self._tasks: Documents[RunTask] = Documents(opened.mongo, opened.scope, RunTask)

    def of(
        self,
        artifact: Artifact,
        *,
        check: str | None = None,
        episode: str | None = None,
        verdict: str | None = None,
        consumers: Mapping[str, Any] | None = None,
        limit: int = MAX_ROWS,
    ) -> list[dict[str, Any]]:
        """Rows of one report; see :meth:`EmboFlow.datasets.evidence <...Datasets.evidence>`.

        Raises:
            NotFoundError: The artifact is no quality report with evidence.
            IntegrityError: Its bytes are gone or changed.
            InvalidInputError: A threshold names a metric that its check does not measure.
        """
        asked = {
            "check": check,
            "episode": episode,
            "verdict": verdict,
            "consumers": consumers,
            "limit": min(limit, MAX_ROWS) or MAX_ROWS,
        }
        with tempfile.TemporaryDirectory(prefix="emboflow-evidence-") as folder:
            table = self._fetch(artifact, Path(folder))
            found = run_child(
                "emboflow_dagster.runtime.in_child:evidence", str(table), asked, timeout_s=_SECONDS
            )
        return [{"artifactId": artifact.id, **row} for row in found]

    def reports(self, version: DatasetVersion) -> list[Artifact]:
        """The quality reports of what a dataset version was published from, newest first.

        Those of failed tasks are among them: a report is kept also when it refused its input.
        """
        made = version.summary or {}
        publisher = self._tasks.find_one(
            {"workflowRunId": made.get("workflowRunId"), "nodeId": made.get("nodeId")}
        )
        if publisher is None:
            return []
        packages = [
            artifact_id
            for task in self._tasks.find(
                {
                    "workflowRunId": publisher.workflow_run_id,
                    "nodeId": {"$in": publisher.upstream_node_ids},
                },
                limit=0,
            )
            for artifact_id in task.output_artifact_ids
        ]
        asked = {"type": QUALITY_REPORT, "lineage.inputArtifactIds": {"$in": packages}}
        return self._artifacts.find(asked, limit=20)

    def _fetch(self, artifact: Artifact, folder: Path) -> Path:
        blobs, ref = self._opened.blobs, artifact.storage_ref
        if is_listing(ref):
            with blobs.open_ref(ref) as stream:
                entry = next((entry for entry in read_listing(stream) if entry.path == FILE), None)
            if entry is not None:
                return blobs.fetch_ref(payload_ref(ref, entry.sha256, entry.size), folder / FILE)
        raise NotFoundError(
            f"artifact {artifact.id} has no {FILE}",
            hint="quality reports since version 2 keep their measurements: run the node again",
        )
