"""What a node type is, what it is given and what it gives back.

A node type is one module of :mod:`emboflow_dagster.runtime.nodes` with a ``NODE`` in it; the registry
finds it by itself. A node never writes to the database: it returns a :class:`NodeResult`, and the
settle step records all of it in one transaction.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from emboflow_dagster.blobs.forgotten_place import Place
from emboflow_dagster.errors import ErrorKind, ExecutionError, Problem
from emboflow_dagster.model.artifact import Artifact, Lineage
from emboflow_dagster.model.asset import Asset, AssetProbeReport, AssetSourceType
from emboflow_dagster.model.plugin import CustomNodeCategory
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.model.workflow import ExecutorType


class Narrowing(StrEnum):
    """How a set operation makes the effective assets out of those of its upstream nodes."""

    UNION = "union"
    INTERSECTION = "intersection"
    DIFFERENCE = "difference"  #: the first upstream less all the others


class Sight(StrEnum):
    """What a node can see beyond the ids, names, types and bytes of its assets: it counts for the cache."""

    STATUS = "status"  #: the status of an asset
    REPORT = "report"  #: the newest probe report of an asset
    INPUTS = "inputs"  #: previews and artifacts of the nodes before it
    RECORDINGS = "recordings"  #: recordings that the nodes before it made, and nothing else of theirs
    NAMES = "names"  #: what the nodes before it are called
    ITSELF = "itself"  #: what it and its workflow are called


class Reach(StrEnum):
    """Which ancestors an artifact type is taken from beside the nodes directly before."""

    NEAREST = "nearest"  #: on each path back the first that has one
    ALL = "all"  #: every one


class NodeOptions(BaseModel):
    """Base of a node type's configuration: camelCase in files, unknown keys refused.

    MongoDB may not hold a key with a dot, and people name features and fields so: an option that is a mapping
    is kept as rows ``{name, value}`` where one of its keys has a dot, and read from either.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    @classmethod
    def storable(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """``config`` without dotted keys, as far as the options know how; it means the same to them."""
        maps = _maps(cls)
        return {key: _rows(value) if key in maps else value for key, value in config.items()}

    @model_validator(mode="before")
    @classmethod
    def _from_rows(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        maps = _maps(cls)
        return {key: _from_rows(value) if key in maps else value for key, value in given.items()}


@functools.cache
def _maps(options: type[NodeOptions]) -> frozenset[str]:
    """The options, as files spell them, that may be mappings."""
    found = (
        (name, info.alias or name)
        for name, info in options.model_fields.items()
        if any(get_origin(part) is dict for part in (info.annotation, *get_args(info.annotation)))
    )
    return frozenset(spelt for names in found for spelt in names)


_ROW: Final = {"name", "value"}


def _rows(value: Any) -> Any:
    if not isinstance(value, Mapping) or not any("." in str(key) for key in value):
        return value
    return [{"name": key, "value": item} for key, item in value.items()]


def _from_rows(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(r, Mapping) and set(r) == _ROW for r in value):
        return {row["name"]: row["value"] for row in value}
    return value


@dataclass(frozen=True, slots=True)
class BoundAsset:
    """An asset as a node sees it: its document, its newest probe report, its bytes as a path.

    ``path`` is a file, or a folder whose files have their registered names. It is read-only and
    checked against the recorded sha256 (of a prefix: tag and size of each object) before the node gets it.
    """

    asset: Asset
    report: AssetProbeReport | None
    path: Path

    @property
    def id(self) -> str:
        """The asset's id."""
        return self.asset.id

    @property
    def name(self) -> str:
        """The asset's display name."""
        return self.asset.display_name

    @property
    def is_prefix(self) -> bool:
        """Whether it is a prefix of an object store."""
        return self.asset.source_type == AssetSourceType.OBJECT_STORAGE

    @property
    def of_path(self) -> AssetProbeReport | None:
        """The report where it is about what ``path`` is: that of a prefix is about single objects."""
        return None if self.is_prefix else self.report


@dataclass(frozen=True, slots=True)
class NodeInput:
    """What one upstream node left: its artifacts, its effective assets, and its preview."""

    node_id: str
    node_type: str
    asset_ids: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    preview: Mapping[str, Any] | None
    fetch: Callable[[Artifact], Path]
    """Brings an artifact's verified bytes to disk: a file, or a folder for a bundle."""

    def artifact(self, artifact_type: str) -> Artifact | None:
        """The first artifact of a type, or ``None``."""
        return next((a for a in self.artifacts if a.type == artifact_type), None)


class ChildCall(Protocol):
    """Runs ``module:function(*args)`` in a child process with limits and returns its JSON result."""

    def __call__(
        self, target: str, *args: Any, timeout_s: float | None = None, memory_mb: int | None = None
    ) -> Any:
        """Call it; the limits are of this call alone."""
        ...


class FetchVersion(Protocol):
    """Writes a version of the project's datasets as the documented folder, verified."""

    def __call__(self, dataset: str, tag: str | None, out: Path) -> Mapping[str, str]:
        """Write it; its ``name`` and ``tag``. ``tag`` is the latest one where it is ``None``."""
        ...


class ProbeThere(Protocol):
    """Looks into a prefix of an object store where it is; the JSON of a probe."""

    def __call__(
        self, asset: Asset, child: ChildCall, *, timeout_s: float, memory_mb: int | None = None
    ) -> dict[str, Any]:
        """Do it, the parsers in a child process of ``child``."""
        ...


@dataclass(frozen=True, slots=True)
class Review:
    """What people approved of the annotations that a task waited for."""

    annotation_task_id: str
    label_type: str
    reviewers: tuple[str, ...]
    comment: str
    target: Mapping[str, Any]
    """What was labelled: type, id and selector."""
    annotations: Callable[[], Iterator[Mapping[str, Any]]]
    """Reads them, oldest first: ``id``, ``target``, ``payload``, ``createdBy``, ``createdAt``."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Everything a node may use while it runs."""

    task: RunTask
    workflow_slug: str
    workflow_version: int
    assets: Sequence[BoundAsset]
    options: Any
    """The validated instance of the node type's ``options`` model."""
    inputs: Mapping[str, NodeInput]
    workdir: Path
    """An empty folder of its own; removed after the task is settled."""
    log: Callable[[str], None]
    child: ChildCall
    out: Callable[[str], None] = lambda _line: None
    """Takes one line of the node's standard output (hooks)."""
    err: Callable[[str], None] = lambda _line: None
    version: "FetchVersion | None" = None
    """Brings a published version to disk, where the node type is executed with a database at hand."""
    forgotten: Mapping[str, Sequence[Place]] = field(default_factory=dict)
    """Asset id to the places in it of episodes that were forgotten."""
    traces: Sequence[Any] = ()
    """Numbers of episodes that were forgotten (:mod:`emboflow_dagster.blobs.forgotten_trace`), as JSON."""
    held: frozenset[str] = frozenset()
    """Assets that are not in ``assets``, because an episode in them was forgotten; what nodes before made of
    them is without it."""
    there: "ProbeThere | None" = None
    """Looks into a prefix of an object store by ranged reads, where an object store is at hand."""
    review: Review | None = None
    """Of a node that waits for people: what they approved."""


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """One artifact to be: bytes, a file, or a folder (stored as a listing of its files)."""

    type: str
    payload: bytes | Path
    content_type: str
    title: str | None = None
    previewable: bool = False
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetDraft:
    """A dataset version to be: a folder that :func:`emboflow_dagster.runtime.publishing.version` made."""

    name: str
    type: str
    package: Path
    canonical_schema_version: str
    stats: dict[str, int | float]
    summary: dict[str, Any]
    tag: str | None = None
    source_asset_id: str | None = None


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What a node produced.

    ``asset_ids`` are the effective assets it passes on: ``None`` for all it was given, else a subset.
    ``preview`` is shown to people (at most 64 KiB of JSON); ``page`` is metadata for the Dagster page:
    names to numbers, texts, ``{"markdown": ...}``, ``{"table": [rows]}`` or ``{"url": ...}``.
    """

    outputs: tuple[NodeOutput, ...] = ()
    asset_ids: tuple[str, ...] | None = None
    preview: dict[str, Any] | None = None
    page: dict[str, Any] = field(default_factory=dict)
    probes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Asset id to a fresh probe (``formats.report.Probe.to_json()``) to be recorded."""
    dataset: DatasetDraft | None = None
    outcome: str = "done"


class RefusedError(ExecutionError):
    """A node judged its input and refuses it: the task fails, and what it made is recorded all the same.

    Args:
        message: Why.
        result: Its artifacts, preview and page; ``None`` when there are none to keep.
    """

    def __init__(
        self,
        message: str,
        *,
        result: NodeResult | None = None,
        hint: str | None = None,
        kind: ErrorKind | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message, hint=hint, kind=kind, problems=problems)
        self.result = result
        self.lineage = Lineage()
        """Where `result` comes from; set by whoever executed the node."""
        self.tombstones = frozenset[str]()
        """Which it heeded; likewise."""
        self.artifacts: tuple[Artifact, ...] = ()
        """Those of `result`, once they are recorded."""


def refusal(error: BaseException) -> RefusedError | None:
    """What a node refused its input with, where ``error`` was raised because of that."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, RefusedError):
        cause = cause.__cause__
    return cause


@dataclass(frozen=True, slots=True)
class NodeType:
    """One kind of work.

    ``accepts`` names the artifact types the node can take from its upstream nodes: an edge from a node
    that ``produces`` another type is refused when the workflow is published. ``None`` takes anything.
    """

    id: str
    version: str
    title: str
    description: str
    category: CustomNodeCategory
    options: type[NodeOptions]
    run: Callable[[NodeContext], NodeResult]
    narrowing: Narrowing | None = None
    accepts: frozenset[str] | None = None
    requires_artifact: frozenset[str] = frozenset()
    """At least one direct upstream node must produce one of these."""
    produces: str | None = None
    source: bool = False
    """A root: binds the run's assets and takes no upstream."""
    sink: bool = False
    """Nothing may follow it."""
    code_hook: bool = False
    """Needs ``codeHook``."""
    reaches: Mapping[str, Reach] = field(default_factory=dict)
    """Artifact types that it takes from further back too: the ancestors that have one stand behind the nodes
    directly before it in ``inputs``, the nearer ones first."""
    needs_bytes: bool = True
    """Whether the node reads its assets' bytes; one that does not gets ``Path()`` and starts faster."""
    looks_there: bool = False
    """Whether it looks into a prefix of an object store by itself: such assets get ``Path()``."""
    makes_episodes: bool = False
    """Whether it makes episodes of its assets: it is told which were forgotten, and leaves them out. Nodes
    that do not are handed a copy without those, or nothing (:mod:`emboflow_dagster.runtime.cutting`)."""
    runs_on_empty: bool = False
    """Is executed even when no asset is left."""
    sees: frozenset[Sight] = frozenset(Sight)
    """What its result can depend on; the less, the more often an earlier result can be used again."""
    uncached: Callable[[Any], str | None] = lambda _options: None
    """Why a node with these options must be executed every time; ``None`` when it need not."""
    reports: bool = False
    """Leaves probe reports: an earlier result stands only while those are the newest of their assets."""
    aliases: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    """Earlier versions of the type whose configuration means the same here."""
    kinds: tuple[str, ...] = ()
    """Kinds shown by Dagster, at most three."""
    executor: ExecutorType = ExecutorType.PYTHON
    """What executes it; the only one that a workflow may name for it."""
    image: str | None = None
    """The image that it is always executed with; ``None`` where each node names its own, or needs none."""
    waits: bool = False
    """Is executed only when people have approved: until then its task is queued and nobody takes it."""
