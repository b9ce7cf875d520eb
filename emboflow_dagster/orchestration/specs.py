"""What the asset pages say: one ``AssetSpec`` for every raw input, node and dataset.

:class:`EmboFlowTranslator` is the one place to override when a deployment wants other groups,
owners or descriptions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg

from emboflow_dagster.model.artifact import (
    DELIVERY_PACKAGE,
    NORMALIZED_DATASET_PACKAGE,
    PREVIEW_BUNDLE,
    QUALITY_REPORT,
)
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import CatalogDataset, Node, Place, RawAsset, Workflow

_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_FORMAT_KINDS: Final = {
    "rosbag1": "rosbag",
    "rosbag2": "rosbag",
    "mcap": "mcap",
    "hdf5": "hdf5",
    "csv": "csv",
    "video": "video",
    "lerobot": "lerobot",
    "urdf": "xml",
    "json": "json",
}
_TYPE_KINDS: Final = {
    "rosbag": "rosbag",
    "hdf5_dataset": "hdf5",
    "video_collection": "video",
    "standard_dataset": "dataset",
    "object_storage_prefix": "s3",
}
_PRODUCT_KINDS: Final = {
    QUALITY_REPORT: ("report", "json"),
    PREVIEW_BUNDLE: ("report",),
    NORMALIZED_DATASET_PACKAGE: ("parquet",),
    DELIVERY_PACKAGE: ("dataset",),
}


@dataclass(frozen=True, slots=True)
class RawAssetProps:
    """A raw input and where it is."""

    place: Place
    asset: RawAsset


@dataclass(frozen=True, slots=True)
class DatasetProps:
    """A dataset that no workflow of this code location publishes."""

    place: Place
    dataset: CatalogDataset


@dataclass(frozen=True, slots=True)
class NodeProps:
    """A node, its workflow, and the dataset it publishes when the dataset's key is its own."""

    place: Place
    workflow: Workflow
    node: Node
    publishes: CatalogDataset | None = None
    owns_dataset_key: bool = False

    @property
    def key(self) -> dg.AssetKey:
        """The one asset this node produces."""
        dataset = self.node["dataset"]
        if self.owns_dataset_key and dataset:
            return keys.dataset_key(self.place, dataset)
        return keys.artifact_key(self.place, self.workflow["slug"], self.node["id"])

    @property
    def logged_dataset_key(self) -> dg.AssetKey | None:
        """A dataset's key that another workflow owns and this node also publishes to."""
        dataset = self.node["dataset"]
        return keys.dataset_key(self.place, dataset) if dataset and not self.owns_dataset_key else None

    @property
    def op_name(self) -> str:
        """The op and step of this node."""
        return keys.op_name(self.place, self.workflow["slug"], self.node["id"])


def kind_of(text: str) -> str:
    """A name as a kind: Dagster allows letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:50] or "unknown"


def raw_kinds(asset: RawAsset) -> set[str]:
    """At most two kinds: what the probe found, else what was registered, and its container."""
    found = asset["format"] or ""
    for name, kind in _FORMAT_KINDS.items():
        if found.startswith(name):
            return {kind}
    return {kind_of(found)} if found else {_TYPE_KINDS.get(asset["type"], kind_of(asset["type"]))}


def node_kinds(node: Node) -> set[str]:
    """At most three kinds: what comes out, where it runs, where it is remembered."""
    if node["dataset"]:
        return {"dataset", "parquet", "mongodb"}
    if declared := node.get("kinds"):
        return {kind_of(kind) for kind in declared[:3]}
    result = {*_PRODUCT_KINDS.get(node["produces"] or "", ("mongodb",))}
    return result | {"docker" if node["executor"] == "docker" else "python"}


class EmboFlowTranslator:
    """Turns what the catalog says into ``AssetSpec``s. Override a method to change what is shown.

    Keep the keys: the sensors, the IO manager and the recorded lineage are built on them.
    """

    def raw_asset_spec(self, props: RawAssetProps) -> dg.AssetSpec:
        """An external asset: registered, never materialised."""
        asset = props.asset
        return dg.AssetSpec(
            key=keys.raw_key(props.place, asset["key"]),
            description=(
                # Lists show the first line as it is written: no marks in it.
                f"Raw input {_escaped(asset['name'])}, registered as {asset['type']}"
                + (f", probed as {asset['format']}." if asset["format"] else ".")
                + f"\n\n`emboflow asset show {asset['id']}`"
            ),
            group_name=keys.group_name(props.place, keys.RAW),
            kinds=raw_kinds(asset),
            owners=self.owners(props.place, asset["createdBy"]),
            metadata={
                "emboflow/asset_id": asset["id"],
                "checksum": asset["checksum"],
                "size": asset["sizeBytes"],
                "files": asset["fileCount"],
                "status": asset["status"],
            },
        )

    def node_spec(self, props: NodeProps, deps: Sequence[dg.AssetKey]) -> dg.AssetSpec:
        """What a node leaves: an artifact, or a dataset's next version."""
        workflow, node = props.workflow, props.node
        metadata: dict[str, object] = {
            "emboflow/workflow": workflow["slug"],
            "emboflow/workflow_version": workflow["versionNumber"],
            "emboflow/node": node["id"],
            "emboflow/node_type": node["type"],
        }
        if node["config"]:
            metadata["emboflow/config"] = node["config"]
        if props.publishes and props.publishes["versionTag"]:
            metadata["emboflow/dataset_id"] = props.publishes["id"]
        group = (keys.DATASETS,) if props.owns_dataset_key else ("workflows", workflow["slug"])
        return dg.AssetSpec(
            key=props.key,
            deps=list(deps),
            description=self.node_description(props),
            group_name=keys.group_name(props.place, *group),
            kinds=node_kinds(node),
            owners=self.owners(props.place, workflow["createdBy"]),
            code_version=node["codeVersion"],
            skippable=node.get("waits", False),
            metadata=metadata,
        )

    def node_description(self, props: NodeProps) -> str:
        """Markdown for the top of the page."""
        workflow, node = props.workflow, props.node
        named = node["title"] if node["title"] != node["id"] else None
        word = f"{_escaped(named)}: node" if named else "Node"
        # Lists show the first line as it is written: no marks in it.
        head = f"{word} {node['id']} ({node['type']}) of workflow {workflow['slug']}"
        lines = [f"{head} v{workflow['versionNumber']}."]
        if node["description"]:
            lines.append(_escaped(node["description"]))
        if node["dataset"]:
            lines.append(
                f"Publishes dataset `{node['dataset']}`: `emboflow dataset versions {node['dataset']}`"
            )
        return "\n\n".join(lines)

    def dataset_spec(self, props: DatasetProps) -> dg.AssetSpec:
        """A dataset that nothing here publishes: external, its versions come as events."""
        dataset = props.dataset
        return dg.AssetSpec(
            key=keys.dataset_key(props.place, dataset["name"]),
            description=(
                f"Dataset {dataset['name']} of type {dataset['type']}; "
                "no published workflow of this code location writes to it.\n\n"
                f"`emboflow dataset versions {dataset['name']}`"
            ),
            # Not beside the datasets that workflows publish: a bulk selection with an external
            # asset in it cannot be materialised.
            group_name=keys.group_name(props.place, "imported"),
            kinds={"dataset", "mongodb"},
            owners=self.owners(props.place, ""),
            metadata={"emboflow/dataset_id": dataset["id"]},
        )

    def owners(self, place: Place, created_by: str) -> list[str]:
        """Dagster takes e-mail addresses and ``team:`` names: the workspace is the team."""
        named = [created_by] if _EMAIL.fullmatch(created_by) else []
        return [*named, f"team:{place.workspace}"]


def _escaped(text: str) -> str:
    """Text that may hold markdown, as text."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
