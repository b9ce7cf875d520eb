"""The catalog: all that definitions are built from, as one JSON document (the state of the code location).

:meth:`emboflow_dagster.project.EmboFlow.catalog` writes it, everything else in this room reads it.
Plain dicts on purpose: a run worker of a location with a thousand nodes parses it at every start.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, cast

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.project.handle import EmboFlow

SCHEMA: Final = 1


class RawAsset(TypedDict):
    """A registered raw input; ``key`` is the last part of its asset key, unique in the project."""

    id: str
    name: str
    key: str
    type: str
    format: str | None
    sizeBytes: int
    fileCount: int
    status: str
    checksum: str
    createdBy: str
    updatedAt: str


class CatalogDataset(TypedDict):
    """A dataset and its newest version, if there is one."""

    id: str
    name: str
    type: str
    latestVersionId: str | None
    versionTag: str | None
    stats: dict[str, int | float] | None


class Node(TypedDict):
    """One node of a published workflow version."""

    id: str
    type: str
    title: str | None
    description: str | None
    codeVersion: str
    config: dict[str, Any]
    after: list[str]
    produces: str | None
    dataset: str | None
    executor: str
    retries: int
    kinds: NotRequired[list[str]]
    waits: NotRequired[bool]
    assetKeys: list[str]


class CatalogSchedule(TypedDict):
    """When a workflow runs by itself."""

    cron: str
    timezone: str
    assets: list[str]


class NamedSchedule(TypedDict):
    """A cron schedule that was added to a workflow."""

    id: str
    name: str
    definitionId: str
    workflow: str
    cron: str
    timezone: str
    createdBy: str


class Workflow(TypedDict):
    """A workflow at its published version."""

    definitionId: str
    slug: str
    name: str
    description: str | None
    versionId: str
    versionNumber: int
    executionDigest: str
    createdBy: str
    schedule: CatalogSchedule | None
    steps: NotRequired[str]
    nodes: list[Node]


class CatalogProject(TypedDict):
    """A project with what it shows in the asset graph."""

    id: str
    slug: str
    assets: list[RawAsset]
    datasets: list[CatalogDataset]
    workflows: list[Workflow]
    schedules: NotRequired[list[NamedSchedule]]


class CatalogWorkspace(TypedDict):
    """A workspace and its projects."""

    id: str
    slug: str
    projects: list[CatalogProject]


class Catalog(TypedDict):
    """Everything of one database that a code location shows."""

    schema: int
    generatedAt: str
    workspaces: list[CatalogWorkspace]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is: slugs of workspace and project."""

    workspace: str
    project: str


def empty_catalog() -> Catalog:
    """The catalog of a database that nobody has written to."""
    return {"schema": SCHEMA, "generatedAt": "", "workspaces": []}


def projects(catalog: Catalog) -> Iterator[tuple[Place, CatalogProject]]:
    """Every project with its place, in the order of the catalog."""
    for workspace in catalog["workspaces"]:
        for project in workspace["projects"]:
            yield Place(workspace["slug"], project["slug"]), project


def catalog_of(ef: EmboFlow, *, all_projects: bool = False) -> Catalog:
    """The catalog as the database has it now: of the handle's project, or of every project.

    Raises:
        UnavailableError: The database cannot be reached.
    """
    return cast("Catalog", ef.catalog(all_projects=all_projects))


def digest(catalog: Mapping[str, Any]) -> str:
    """The version of a catalog: equal content, equal digest, whenever it was generated."""
    content = {key: value for key, value in catalog.items() if key != "generatedAt"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_catalog(catalog: Catalog, path: Path) -> None:
    """Write the catalog as canonical JSON."""
    path.write_text(json.dumps(catalog, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def read_catalog(path: Path) -> Catalog:
    """Read a catalog written by :func:`write_catalog`.

    Raises:
        InvalidInputError: The file is no catalog, or one of a release that this one does not know.
    """
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidInputError(f"the state of the code location is not JSON: {error}") from None
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise InvalidInputError(
            f"the state of the code location has schema {shown(schema)}; this release reads {SCHEMA}",
            kind=ErrorKind.SCHEMA_VERSION,
            hint="start MongoDB and reload the code location: the state is then written anew",
        )
    return cast("Catalog", found)
