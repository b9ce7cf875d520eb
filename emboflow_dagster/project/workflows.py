"""Workflows: checked whole, then published as immutable numbered versions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    Problem,
)
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.run import WorkflowRun
from emboflow_dagster.model.workflow import WorkflowDefinition, WorkflowDefinitionVersion, WorkflowStatus
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.bindings import Named
from emboflow_dagster.project.lookup import by_id_or_name
from emboflow_dagster.project.nodes import Nodes
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.run_config import run_config
from emboflow_dagster.runtime import digest, validate, workflow_file
from emboflow_dagster.runtime.registry import NodeTypes

Source = Path | str | dict[str, Any]
RequestRun = Callable[..., WorkflowRun]


class Published(NamedTuple):
    """A workflow and its current version; ``unchanged`` when the content was there already."""

    definition: WorkflowDefinition
    version: WorkflowDefinitionVersion
    unchanged: bool


class Workflows:
    """The workflows of one project."""

    def __init__(self, opened: Opened, request: RequestRun | None = None) -> None:
        self._opened = opened
        self._request = request
        self.documents = Documents(opened.mongo, opened.scope, WorkflowDefinition)
        self._versions = Documents(opened.mongo, opened.scope, WorkflowDefinitionVersion)

    def validate(self, source: Source) -> list[Problem]:
        """Everything that is wrong with a workflow file; empty when it can be published."""
        try:
            return validate.validate(workflow_file.load(source), registry=self._types())[1]
        except InvalidInputError as error:
            return list(error.problems)

    def publish(self, source: Source) -> Published:
        """Check a workflow and make it the current version; version and head in one transaction.

        Args:
            source: Path of a YAML or JSON file, or the same as a dict.

        Raises:
            InvalidInputError: With every problem, each naming node or edge.
            NotFoundError: There is no such file.
        """
        types = self._types()
        graphs, problems = validate.validate(workflow_file.load(source), registry=types)
        if graphs is None or problems:
            raise InvalidInputError.of(
                problems, hint="`emboflow workflow validate FILE` shows them one a line"
            )
        opened = self._opened
        summary = {
            "executionDigest": digest.execution_digest(graphs.logic, graphs.runtime, types),
            "contentDigest": digest.content_digest(
                name=graphs.name,
                description=graphs.description,
                logic=graphs.logic,
                runtime=graphs.runtime,
                visual=graphs.visual,
            ),
            "description": graphs.description,
            "nodeCount": len(graphs.logic.nodes),
        }

        def body(session: Session) -> Published:
            now = utc_now()
            head = self.documents.find_one({"slug": graphs.slug}, session=session)
            latest = self._numbered(head, head.latest_version_number, session) if head else None
            if head and latest and (latest.summary or {}).get("contentDigest") == summary["contentDigest"]:
                return Published(head, latest, unchanged=True)
            fresh = head is None
            if head is None:
                head = WorkflowDefinition.checked(
                    id=new_id("wf"),
                    workspace_id=opened.scope.workspace_id,
                    project_id=opened.scope.project_id,
                    name=graphs.name,
                    slug=graphs.slug,
                    created_by=opened.scope.actor,
                    created_at=now,
                    updated_at=now,
                )
                self.documents.insert(head, session=session)
            number = head.latest_version_number + 1
            version = WorkflowDefinitionVersion.checked(
                id=new_id("wfv"),
                workflow_definition_id=head.id,
                workspace_id=opened.scope.workspace_id,
                project_id=opened.scope.project_id,
                version_number=number,
                visual_graph=graphs.visual,
                logic_graph=graphs.logic,
                runtime_graph=graphs.runtime,
                summary=summary,
                created_by=opened.scope.actor,
                created_at=now,
            )
            # The head first: a publisher that lost the race conflicts here and starts over.
            head = self.documents.change(
                head.id,
                {
                    "name": graphs.name,
                    "status": WorkflowStatus.PUBLISHED.value,
                    "latestVersionNumber": number,
                    "publishedVersionNumber": number,
                    "updatedAt": now,
                },
                expected=None if fresh else {"latestVersionNumber": number - 1},
                session=session,
            )
            self._versions.insert(version, session=session)
            after = {
                "slug": graphs.slug,
                "versionNumber": number,
                "executionDigest": summary["executionDigest"],
            }
            audit.record(
                opened.mongo,
                opened.scope,
                session,
                "workflow.publish",
                "workflow_definitions",
                head.id,
                after=after,
            )
            return Published(head, version, unchanged=False)

        for _ in range(20):
            try:
                return opened.mongo.in_transaction(body)
            except AlreadyExistsError:  # the first version, made twice at once: look again
                continue
        return opened.mongo.in_transaction(body)

    def get(self, workflow: str) -> WorkflowDefinition:
        """A workflow by slug or id.

        Raises:
            NotFoundError: There is none in this project.
        """
        return by_id_or_name(self.documents, workflow, "slug", what="workflow")

    def versions(self, workflow: str, *, limit: int = 100) -> list[WorkflowDefinitionVersion]:
        """A workflow's versions, newest first."""
        head = self.get(workflow)
        return self._versions.find(
            {"workflowDefinitionId": head.id}, sort=[("versionNumber", -1)], limit=limit
        )

    def version(self, workflow: str, number: int | None = None) -> WorkflowDefinitionVersion:
        """One version, by default the published one.

        Raises:
            NotFoundError: No such workflow or version.
        """
        head = self.get(workflow)
        wanted = number if number is not None else head.published_version_number
        found = self._numbered(head, wanted, None) if wanted else None
        if found is None:
            raise NotFoundError(
                f"workflow {head.slug}: no version {wanted}; there are 1 to {head.latest_version_number}"
            )
        return found

    def version_by_id(self, version_id: str) -> WorkflowDefinitionVersion:
        """One version by its id."""
        return self._versions.get(version_id)

    def run(
        self,
        workflow: str,
        *,
        assets: Named | None = None,
        version: int | None = None,
        cache_policy: str | None = None,
        label: str | None = None,
    ) -> WorkflowRun:
        """Request a run: it and all of its tasks are written, nothing is executed yet.

        The same as :meth:`Runs.request`, which says what is raised; ``cache_policy`` is ``use``, ``refresh``
        or ``off`` for all nodes, ``label`` a word for people.
        """
        if self._request is None:
            raise ConfigurationError("this part of a handle cannot request runs")
        return self._request(workflow, assets=assets, version=version, config=run_config(cache_policy, label))

    def _types(self) -> NodeTypes:
        return Nodes(self._opened).types()

    def _numbered(
        self, head: WorkflowDefinition, number: int, session: Session | None
    ) -> WorkflowDefinitionVersion | None:
        return self._versions.find_one(
            {"workflowDefinitionId": head.id, "versionNumber": number}, session=session
        )

    def list(self, *, limit: int = 100) -> list[WorkflowDefinition]:
        """Workflows, newest first."""
        return self.documents.find(limit=limit)
