"""Flowcept's questions about many blobs: queries, lists, histories, a report (P-08, P-17, P-19)."""

from collections.abc import Iterator
from typing import Any, Final

from emboflow_dagster.blobs.flowcept_object import to_dict
from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.errors import ErrorKind, shown
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.text import refuse
from emboflow_dagster.mongo import object_queries
from emboflow_dagster.mongo.filters import check_filter

MAX_LIMIT: Final = 1_000
ML_MODEL: Final = "ml_model"
DATASET: Final = "dataset_snapshot"
#: Flowcept's own alias writes the second (C-05).
DATASETS: Final = (DATASET, "dataset")


class FlowceptQueries(Blobs):
    """:class:`Blobs` with Flowcept's queries."""

    def blob_object_query(
        self,
        filter: dict[str, Any] | None = None,
        *,
        limit: int = MAX_LIMIT,
    ) -> list[dict[str, Any]]:
        """Newest versions that match, the latest written first.

        Args:
            filter: Field names to values or ``{operator: value}``, with ``$and``, ``$or``, ``$nor``. Only
                operators that compare; ``object_type`` means ``type``.
            limit: How many at most, 1 to 1000.

        Raises:
            InvalidInputError: The filter has an operator that runs code or names the scope, or ``limit`` is
                out of bounds.
        """
        return [to_dict(blob) for blob in self._query(filter, limit)]

    def ml_model_query(
        self,
        filter: dict[str, Any] | None = None,
        *,
        limit: int = MAX_LIMIT,
    ) -> list[dict[str, Any]]:
        """As :meth:`blob_object_query`, of blobs of the type ``ml_model``."""
        return [to_dict(blob) for blob in self._query(filter, limit, types=(ML_MODEL,))]

    def dataset_query(
        self,
        filter: dict[str, Any] | None = None,
        *,
        limit: int = MAX_LIMIT,
    ) -> list[dict[str, Any]]:
        """As :meth:`blob_object_query`, of blobs of the type ``dataset_snapshot`` or ``dataset`` (C-05)."""
        return [to_dict(blob) for blob in self._query(filter, limit, types=DATASETS)]

    def list_objects(
        self,
        *,
        object_id: str | None = None,
        workflow_id: str | None = None,
        task_id: str | None = None,
        type: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 100,
    ) -> list[BlobObject]:
        """The newest version of each blob of the workspace, the latest written first; at most 1000.

        Raises:
            InvalidInputError: As :meth:`blob_object_query`.
        """
        given = {"object_id": object_id, "workflow_id": workflow_id, "task_id": task_id, "type": type}
        plain = {name: value for name, value in given.items() if value is not None}
        return self._query({"$and": [plain, filter]} if filter else plain, limit)

    def get_object_history(
        self, object_id: str, *, below: int | None = None, limit: int = MAX_LIMIT
    ) -> list[dict[str, Any]]:
        """Metadata of a blob's versions, newest first, no payload or pointer; ``[]`` for an unknown id.

        Args:
            object_id: Which blob.
            below: Only versions older than this number: the next page.
            limit: How many at most, 1 to 1000.
        """
        return [to_dict(blob) for blob in self.history(object_id, below=below, limit=_bounded(limit))]

    list_object_versions = get_object_history

    def iter_object_history(self, object_id: str) -> Iterator[dict[str, Any]]:
        """The whole history, newest first, a page in memory at a time."""
        below = None
        while page := self.get_object_history(object_id, below=below):
            yield from page
            below = page[-1]["version"]

    def object_report(self, filter: dict[str, Any] | None = None) -> dict[str, Any]:
        """Counts by type and home, linkage, version and size summaries over newest versions (P-19).

        Returns:
            ``total_objects``, ``by_type``, ``by_storage``, ``task_linked``, ``workflow_linked``,
            ``max_version``, ``total_size_bytes``, ``avg_size_bytes``, ``max_size_bytes``.
        """
        return object_queries.summary(self._mongo, self._scope.workspace_id, _checked(filter))

    def _query(
        self, filter_: dict[str, Any] | None, limit: int, types: tuple[str, ...] = ()
    ) -> list[BlobObject]:
        checked = _checked(filter_)
        if types:
            checked = {"$and": [checked, {"type": {"$in": list(types)}}]}
        rows = object_queries.query(self._mongo, self._scope.workspace_id, checked, limit=_bounded(limit))
        return [BlobObject.from_mongo(row) for row in rows]


def _checked(filter_: dict[str, Any] | None) -> dict[str, Any]:
    return _our_spelling(check_filter({} if filter_ is None else filter_))


def _our_spelling(filter_: dict[str, Any]) -> dict[str, Any]:
    """``object_type`` is what newer Flowcepts call ``type`` (C-02)."""
    spelled: dict[str, Any] = {}
    typed: list[dict[str, Any]] = []  # beside `type` itself, should both be there
    for key, value in filter_.items():
        if key == "object_type":
            typed.append({"type": value})
        else:
            spelled[key] = [_our_spelling(row) for row in value] if key.startswith("$") else value
    return {"$and": [spelled, *typed]} if typed else spelled


def _bounded(limit: object) -> int:
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise refuse(ErrorKind.INVALID_INPUT, "limit", f"found {shown(limit)}; allowed is 1 to {MAX_LIMIT}")
    return limit
