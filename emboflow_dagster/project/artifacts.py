"""Artifacts: looked up by producer, fetched as files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emboflow_dagster.blobs.listing import is_listing, restore
from emboflow_dagster.model.artifact import Artifact, ProducerType
from emboflow_dagster.model.run import RunTask, TaskStatus
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.evidence import MAX_ROWS, Evidence
from emboflow_dagster.project.opened import Opened

_SUFFIXES = {
    "application/json": ".json",
    "application/vnd.apache.parquet": ".parquet",
    "text/html": ".html",
    "text/markdown": ".md",
    "image/png": ".png",
}


class Artifacts:
    """The artifacts of one project."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.documents: Documents[Artifact] = Documents(opened.mongo, opened.scope, Artifact)

    def get(self, artifact: str) -> Artifact:
        """An artifact by its id.

        Raises:
            NotFoundError: There is none in this project.
        """
        return self.documents.get(artifact)

    def of_task(self, task: RunTask) -> list[Artifact]:
        """What a task's current attempt produced, or took from the cache, in order.

        Of a failed task: what it made before it refused its input.
        """
        made = {"producerType": ProducerType.RUN_TASK.value, "producerId": task.id}
        if task.status == TaskStatus.FAILED:
            left = {**made, "lineage.attempt": task.attempt, "createdAt": {"$gte": task.started_at}}
            return self.documents.find(left, sort=[("_id", 1)], limit=0)
        rows = self.documents.find(
            {**({} if task.cache_hit else made), "_id": {"$in": task.output_artifact_ids}}, limit=0
        )
        place = {artifact_id: i for i, artifact_id in enumerate(task.output_artifact_ids)}
        return sorted(rows, key=lambda a: place[a.id])

    def evidence(
        self,
        artifact: str,
        *,
        check: str | None = None,
        episode: str | None = None,
        verdict: str | None = None,
        consumers: Mapping[str, Any] | None = None,
        limit: int = MAX_ROWS,
    ) -> list[dict[str, Any]]:
        """The measurements of a quality report, one dict each, as :meth:`~...Datasets.evidence` gives them.

        Raises:
            NotFoundError: No such artifact in this project, or one without measurements.
        """
        return Evidence(self._opened).of(
            self.get(artifact),
            check=check, episode=episode, verdict=verdict, consumers=consumers, limit=limit,
        )  # fmt: skip

    def fetch(self, artifact: Artifact, out: Path) -> Path:
        """An artifact's verified bytes at ``out``: a file, or a folder for a bundle.

        Raises:
            IntegrityError: A byte is missing or differs; nothing is left at ``out`` for a file.
        """
        if is_listing(artifact.storage_ref):
            return restore(self._opened.blobs, artifact.storage_ref, out)
        return self._opened.blobs.fetch_ref(artifact.storage_ref, out)

    def fetch_into(self, folder: Path, artifact: Artifact) -> Path:
        """As :meth:`fetch`, under a name of its own in ``folder``; once."""
        target = folder / (artifact.id + _SUFFIXES.get(artifact.storage_ref.content_type, ""))
        return target if target.exists() else self.fetch(artifact, target)

    def list(
        self, *, producer_type: str | None = None, producer_id: str | None = None, limit: int = 100
    ) -> list[Artifact]:
        """Artifacts, newest first; of one producer when it is named."""
        filter_: dict[str, Any] = {}
        if producer_type is not None:
            filter_["producerType"] = producer_type
        if producer_id is not None:
            filter_["producerId"] = producer_id
        return self.documents.find(filter_, limit=limit)
