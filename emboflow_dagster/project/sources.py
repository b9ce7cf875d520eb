"""Which assets a workflow's sources take when nobody names any."""

import fnmatch
from collections.abc import Mapping
from typing import Any

from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.workflow import NodeConfig, WorkflowDefinitionVersion
from emboflow_dagster.mongo.documents import OLDEST
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.runtime.registry import node_types

MAX_CANDIDATES = 2_000
MAX_TAKEN = 200


def candidates(assets: Assets) -> list[Asset]:
    """The assets of a project that are not archived, oldest first."""
    return assets.documents.find({"status": {"$ne": "archived"}}, sort=OLDEST, limit=MAX_CANDIDATES)


def taken(assets: Assets, version: WorkflowDefinitionVersion) -> list[Asset]:
    """The assets that any source of ``version`` takes, oldest first, at most 200."""
    sources = {t.id for t in node_types() if t.source}
    configs = [
        version.runtime_graph.node_configs.get(node.id, NodeConfig()).config
        for node in version.logic_graph.nodes
        if node.type in sources
    ]
    return [a for a in candidates(assets) if any(takes(config, a) for config in configs)][:MAX_TAKEN]


def takes(config: Mapping[str, Any], asset: Asset) -> bool:
    """Whether a source with these options takes an asset: by type and by name or pattern."""
    types, names = config.get("types") or [], config.get("names") or []
    return (not types or asset.type.value in types) and (
        not names or any(fnmatch.fnmatchcase(asset.display_name, name) for name in names)
    )
