"""Catalogs as `EmboFlow.catalog()` writes them."""


def node(node_id, node_type, after=(), **more):
    return {
        "id": node_id,
        "type": node_type,
        "title": None,
        "description": "What this node type does.",
        "codeVersion": f"code-{node_id}",
        "config": {},
        "after": list(after),
        "produces": None,
        "dataset": None,
        "executor": "python",
        "retries": 0,
        "kinds": [],
        "assetKeys": [],
        **more,
    }


def workflow(slug, nodes, number=1, definition_id=None, **more):
    return {
        "definitionId": definition_id or f"wf_{slug}",
        "slug": slug,
        "name": slug.title(),
        "description": "",
        "versionId": f"wfv_{slug}_{number}",
        "versionNumber": number,
        "executionDigest": f"digest-{slug}-{number}",
        "createdBy": "ada",
        "schedule": None,
        "nodes": nodes,
        **more,
    }


def raw_asset(key, **more):
    return {
        "id": f"ast_{key}",
        "name": f"{key} (1).mcap",
        "key": key,
        "type": "rosbag",
        "format": "mcap",
        "sizeBytes": 1024,
        "fileCount": 1,
        "status": "ready",
        "checksum": "sha256:" + "a" * 64,
        "createdBy": "ada",
        "updatedAt": "2025-01-01T00:00:00+00:00",
        **more,
    }


def project(slug, assets=(), datasets=(), workflows=()):
    return {
        "id": f"prj_{slug}",
        "slug": slug,
        "assets": list(assets),
        "datasets": list(datasets),
        "workflows": list(workflows),
    }


def dataset(name):
    return {
        "id": f"ds_{name}",
        "name": name,
        "type": "manipulation",
        "latestVersionId": f"dsv_{name}",
        "versionTag": "v1",
        "stats": {"episodes": 2},
    }


def catalog(*projects, workspace="acme"):
    return {
        "schema": 1,
        "generatedAt": "2025-01-01T00:00:00+00:00",
        "workspaces": [{"id": f"ws_{workspace}", "slug": workspace, "projects": list(projects)}],
    }


def triage(number=1):
    """source -> probe -> normalize -> publish-dataset."""
    return workflow(
        "triage",
        [
            node("take", "source", assetKeys=["left-arm", "right-arm"]),
            node("look", "probe", ["take"]),
            node("to-canonical", "normalize", ["look"], produces="normalized_dataset_package"),
            node("publish", "publish-dataset", ["to-canonical"], dataset="grasps"),
        ],
        number,
    )
