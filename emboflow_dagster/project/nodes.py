"""A project's own node types: registered, listed, put out of use, frozen into the runs that use them."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    Problem,
    TransitionError,
    shown,
)
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.plugin import CustomNode, CustomNodeStatus, DockerfileSource
from emboflow_dagster.model.text import check_slug
from emboflow_dagster.model.workflow import ExecutorType, WorkflowDefinitionVersion
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.lookup import by_id_or_name
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime import custom_node, workflow_file
from emboflow_dagster.runtime.containers import engine
from emboflow_dagster.runtime.containers.job import PINNED
from emboflow_dagster.runtime.registry import NodeTypes, nearest, node_types

FIELDS: Final = (
    "node",
    "name",
    "description",
    "category",
    "contract",
    "source",
    "image",
    "dockerfile",
    "imageTag",
)
MAX_NODES: Final = 1_000


class Registered(NamedTuple):
    """A custom node; ``unchanged`` when it was registered like this already."""

    node: CustomNode
    unchanged: bool


class Nodes:
    """The custom nodes of one project."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.documents: Documents[CustomNode] = Documents(opened.mongo, opened.scope, CustomNode)

    def register(self, source: Path | str | dict[str, Any]) -> Registered:
        """Register a custom node, or give one that is there another image or contract.

        Runs that were requested before keep what they were requested with.

        Args:
            source: Path of a YAML or JSON file, or the same as a dict: ``node`` (the slug), ``name``,
                ``description``, ``category``, ``contract``, and either ``image`` or ``dockerfile`` with
                ``imageTag``.

        Raises:
            InvalidInputError: What is wrong with it; kind ``contract`` for its contract.
            NotFoundError: There is no such file.
        """
        fields = _fields(workflow_file.load(source))
        slug, scope, now = fields["slug"], self._opened.scope, utc_now()
        made = CustomNode.checked(
            **fields,
            id=new_id("cn"),
            definition_id=f"{custom_node.PREFIX}{slug}",
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            created_by=scope.actor,
            created_at=now,
            updated_at=now,
        )
        custom_node.node_type(custom_node.frozen(made))

        def body(session: Session) -> Registered:
            found = self.documents.find_one({"slug": slug}, session=session)
            if found is None:
                self.documents.insert(made, session=session)
                self._audit(session, "node.register", made, after=_summary(made))
                return Registered(made, unchanged=False)
            if _content(found) == _content(made):
                return Registered(found, unchanged=True)
            changed = self.documents.change(
                found.id,
                {**_content(made), "updatedAt": now},
                expected={"updatedAt": found.updated_at},
                session=session,
            )
            self._audit(session, "node.update", changed, before=_summary(found), after=_summary(changed))
            return Registered(changed, unchanged=False)

        try:
            return self._opened.mongo.in_transaction(body)
        except AlreadyExistsError:  # registered twice at once: look again
            return self._opened.mongo.in_transaction(body)

    def get(self, node: str) -> CustomNode:
        """A custom node by slug, ``custom:<slug>`` or id.

        Raises:
            NotFoundError: There is none in this project.
        """
        return by_id_or_name(
            self.documents, node.removeprefix(custom_node.PREFIX), "slug", what="custom node"
        )

    def find(self, node: str) -> CustomNode | None:
        """The same, or ``None``."""
        try:
            return self.get(node)
        except NotFoundError:
            return None

    def disable(self, node: str) -> CustomNode:
        """Refuse it to new runs; runs that were requested go on. Again is no error."""
        return self._turn(node, CustomNodeStatus.DISABLED, "node.disable")

    def enable(self, node: str) -> CustomNode:
        """Let new runs use it again. Again is no error."""
        return self._turn(node, CustomNodeStatus.ACTIVE, "node.enable")

    def types(self) -> NodeTypes:
        """The node types that workflows of this project can be made of: everybody's, and its own."""
        own = [custom_node.node_type(custom_node.frozen(node)) for node in self.list()]
        return NodeTypes([*node_types(), *own]) if own else node_types()

    def frozen(
        self, version: WorkflowDefinitionVersion, node_ids: Collection[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Node to what its task keeps of this moment: the digest of its image, a custom node's definition.

        Args:
            version: What is to be run.
            node_ids: Only of these nodes.

        Raises:
            NotFoundError: A custom node is not one of this project.
            TransitionError: A custom node is disabled.
            ConfigurationError: No Docker daemon answers, or an image is not here.
            ExecutionError: A custom node's image cannot be built (kind ``image-build``).
        """
        kept: dict[str, dict[str, Any]] = {}
        own: dict[str, CustomNode] = {}
        for node in version.logic_graph.nodes:
            config = version.node(node.id)[1]
            if node_ids is not None and node.id not in node_ids:
                continue
            if node.type.startswith(custom_node.PREFIX):
                own[node.id] = self._usable(node.type)
                definition = custom_node.frozen(own[node.id])
                kept[node.id] = {"image": definition["image"], custom_node.FROZEN: definition}
            elif config.executor is ExecutorType.DOCKER:
                kept[node.id] = {"image": config.image or config.config.get("image")}
        if kept:
            with engine.connected() as client:
                for node_id, row in kept.items():
                    row[PINNED] = _image(client, str(row["image"]), own.get(node_id))
        return kept

    def _usable(self, definition_id: str) -> CustomNode:
        found = self.get(definition_id)
        if found.status is not CustomNodeStatus.ACTIVE:
            raise TransitionError(
                f"custom node {found.slug} is {found.status.value}; no new run can use it",
                hint=f"`emboflow node enable {found.slug}`",
            )
        return found

    def _turn(self, node: str, status: CustomNodeStatus, action: str) -> CustomNode:
        found = self.get(node)
        if found.status is status:
            return found

        def body(session: Session) -> CustomNode:
            changed = self.documents.change(
                found.id,
                {"status": status.value, "updatedAt": utc_now()},
                expected={"status": found.status.value},
                session=session,
            )
            before, after = {"status": found.status.value}, {"status": status.value}
            self._audit(session, action, changed, before=before, after=after)
            return changed

        return self._opened.mongo.in_transaction(body)

    def _audit(self, session: Session, action: str, node: CustomNode, **summaries: Any) -> None:
        audit.record(
            self._opened.mongo, self._opened.scope, session, action, "custom_nodes", node.id, **summaries
        )

    def list(self) -> list[CustomNode]:
        """The project's own nodes, by slug; archived ones are left out."""
        filter_ = {"status": {"$ne": CustomNodeStatus.ARCHIVED.value}}
        return self.documents.find(filter_, sort=[("slug", 1)], limit=MAX_NODES)


def _image(client: Any, reference: str, node: CustomNode | None) -> str:
    if node is not None and isinstance(node.source, DockerfileSource):
        return engine.built(client, node.source.dockerfile, reference)
    return engine.image_id(client, reference)


def _fields(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of a document from a file; both spellings of its source are one."""
    problems: list[Problem] = []
    for key in raw:
        if key not in FIELDS:
            near = nearest(key, FIELDS)
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(FIELDS)}"
            problems.append(Problem(ErrorKind.INVALID_INPUT, "", f"unknown field {shown(key)}; {hint}"))
    named = [key for key in ("image", "dockerfile", "source") if raw.get(key) is not None]
    if len(named) != 1:
        found = " and ".join(named) or "none"
        text = f"found {found}; exactly one of image and dockerfile (with imageTag) is needed"
        problems.append(Problem(ErrorKind.INVALID_INPUT, "source", text))
    if "category" not in raw:
        problems.append(Problem(ErrorKind.INVALID_INPUT, "category", "is needed and absent"))
    if problems:
        raise InvalidInputError.of(problems)
    slug = check_slug(raw.get("node"), "node")
    if (taken := node_types().get(slug)) is not None:
        raise InvalidInputError.of(
            [Problem(ErrorKind.DUPLICATE, "node", f"{slug!r} is what every project calls {taken.id}")]
        )
    source = raw.get("source")
    if named == ["image"]:
        source = {"kind": "docker_image", "image": raw["image"]}
    elif named == ["dockerfile"]:
        source = {"kind": "dockerfile", "dockerfile": raw["dockerfile"], "imageTag": raw.get("imageTag")}
    return {
        "slug": slug,
        "name": raw.get("name") or slug,
        "description": raw.get("description") or "",
        "category": raw["category"],
        "contract": raw.get("contract") or {},
        "source": source,
    }


def _content(node: CustomNode) -> dict[str, Any]:
    kept = ("name", "description", "category", "contract", "source")
    return {name: value for name, value in node.to_mongo().items() if name in kept}


def _summary(node: CustomNode) -> dict[str, Any]:
    return {
        "slug": node.slug,
        "kind": node.source.kind,
        "image": custom_node.image_of(node),
        "version": custom_node.frozen(node)["version"],
    }
