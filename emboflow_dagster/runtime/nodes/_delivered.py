"""What the exporting nodes share: which versions they export, and how a package is shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem
from emboflow_dagster.model.artifact import NORMALIZED_DATASET_PACKAGE
from emboflow_dagster.model.base import Slug
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.model.text import TAG_PATTERN
from emboflow_dagster.runtime.node import NodeContext, NodeOutput, NodeResult
from emboflow_dagster.runtime.nodes._limits import ChildOptions
from emboflow_dagster.runtime.nodes._shown import short


class VersionOptions(ChildOptions):
    """Which version is exported, and as what it is known to who gets it."""

    dataset: Slug | None = Field(
        default=None,
        description="A dataset of the project, of which a published version is taken; null for the package "
        "of a node before this one.",
    )
    version: Annotated[str, Field(pattern=TAG_PATTERN)] | None = Field(
        default=None, description="Tag of that version; null for the latest one, which is never cached."
    )
    name: Slug | None = Field(
        default=None, description="What the package calls the data; null for the dataset's own name, if any."
    )
    environment_state: str | None = Field(
        default=None,
        description="LeRobot: a feature to deliver as `observation.environment_state` too, which ACT needs "
        "of data without pictures.",
    )


@dataclass(frozen=True, slots=True)
class Version:
    """A canonical folder, and what it is called where that is known."""

    folder: Path
    name: str | None
    tag: str | None


def versions(context: NodeContext, options: VersionOptions) -> Iterator[Version]:
    """The published version that the options name, else the packages of the nearest nodes that made one.

    Raises:
        InvalidInputError: Kind ``input-missing``: neither is there.
        NotFoundError: There is no such dataset or version.
    """
    if options.dataset is not None:
        if context.version is None:
            raise missing(context, "published versions can only be read where the database is at hand")
        out = context.workdir / "published"
        told = context.version(options.dataset, options.version, out)
        yield Version(out, options.name or told["name"], told["tag"])
        return
    count = 0
    for given in context.inputs.values():
        for artifact in given.artifacts:
            if artifact.type == NORMALIZED_DATASET_PACKAGE:
                count += 1
                yield Version(given.fetch(artifact), options.name, None)
    if not count:
        nodes = ", ".join(context.inputs) or "none"
        raise missing(
            context, f"no node before this one made a {NORMALIZED_DATASET_PACKAGE} (looked at: {nodes})"
        )


def missing(context: NodeContext, text: str) -> InvalidInputError:
    """The error of a node that was given nothing to export."""
    return InvalidInputError.of([Problem(ErrorKind.INPUT_MISSING, context.task.node_id, text)])


def uncached(options: VersionOptions) -> str | None:
    """Why a node with these options is executed every time."""
    if options.dataset is not None and options.version is None:
        return "it takes the latest version of a dataset, which nothing before it says"
    return None


def deliver(
    context: NodeContext, options: VersionOptions, version: Version, form: str, out: Path, **more: Any
) -> dict[str, Any]:
    """Write a package in a child process; returns what :func:`runtime.delivering.deliver` does."""
    return context.child(
        "emboflow_dagster.runtime.delivering:deliver",
        {
            "package": str(version.folder),
            "out": str(out),
            "format": form,
            "name": version.name,
            "tag": version.tag,
            "environmentState": options.environment_state,
            "annotations": [],
            **more,
        },
        timeout_s=options.timeout_seconds,
        memory_mb=options.memory_mb,
    )


def feature_rows(features: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Features as rows of a table."""
    return [
        {"feature": short(name), "type": spec["dtype"], "shape": "x".join(map(str, spec["shape"]))}
        for name, spec in list(features.items())[:50]
    ]


def package(context: NodeContext, kind: str, folder: Path, summary: dict[str, Any]) -> NodeOutput:
    """A folder that was written as the artifact of type ``kind``."""
    return NodeOutput(
        type=kind,
        payload=folder,
        content_type=LISTING_TYPE,
        title=context.task.artifact_title,
        summary=summary,
    )


def exported(
    what: str,
    outputs: Sequence[NodeOutput],
    rows: Sequence[dict[str, Any]],
    features: Mapping[str, Any],
    use: str,
) -> NodeResult:
    """What an exporting node leaves, and its page.

    Args:
        what: Name of the table of packages.
        outputs: The packages.
        rows: One a package: ``episodes``, ``files``, ``bytes`` and what else is shown of it.
        features: Those of the last package.
        use: How it is used, as Markdown.
    """
    return NodeResult(
        outputs=tuple(outputs),
        preview={what: list(rows)},
        page={
            what: {"table": list(rows)},
            "episodes": sum(row["episodes"] for row in rows),
            "files": sum(row["files"] for row in rows),
            "bytes": sum(row["bytes"] for row in rows),
            "features": {"table": feature_rows(features)},
            "use": {"markdown": use},
        },
    )
