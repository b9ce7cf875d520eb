"""Which policies saw a dataset's episodes, and which episodes a policy saw: observations on their pages."""

from collections.abc import Iterator
from functools import partial

import dagster as dg

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.orchestration import keys, page
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.telling import Row
from emboflow_dagster.project.handle import EmboFlow


def policy_rows(ef: EmboFlow, place: Place) -> Iterator[Row]:
    """One for each training config, and one a dataset that is looked at when either of the two is new."""
    trained = ef.datasets.trained()
    if not trained:
        return
    for artifact in trained:
        yield Row(
            id=f"seen:{artifact.id}",
            mark=artifact.id,
            changed_at=artifact.created_at,
            event=partial(_seen, ef, place, artifact),
        )
    newest = trained[0]
    for dataset in ef.datasets.list():
        latest = next(iter(ef.datasets.versions(dataset.name)), None)
        if latest is not None:
            yield Row(
                id=f"policies:{dataset.id}",
                mark=f"{latest.id} {newest.id}",
                changed_at=max(latest.created_at, newest.created_at),
                event=partial(_policies, ef, place, dataset.name, latest.version_tag),
            )


def _seen(ef: EmboFlow, place: Place, artifact: Artifact) -> dg.AssetObservation | None:
    lineage = artifact.lineage
    try:
        rows = ef.datasets.seen(artifact)
        run = ef.runs.get(str(lineage.workflow_run_id))
    except EmboflowError:
        return None  # collected, or damaged: the checks say so
    summary = artifact.summary or {}
    return dg.AssetObservation(
        keys.artifact_key(place, run.runtime_snapshot.workflow_slug, str(lineage.node_id)),
        description=f"what the policy {summary.get('policy')} saw",
        metadata={
            "policy": str(summary.get("policy")),
            "artifact_id": artifact.id,
            "workflow_run_id": run.id,
            "dataset_version_sha256": str(summary.get("versionSha256")),
            "episodes_seen": len(rows),
            "episodes": page.table(
                [
                    {
                        "episode": row.get("episode"),
                        "id": row["id"],
                        "content sha256": row["content"],
                        "source": _source(row),
                    }
                    for row in rows
                ]
            ),
        },
    )


def _policies(ef: EmboFlow, place: Place, name: str, tag: str) -> dg.AssetObservation | None:
    try:
        rows = ef.datasets.policies(name, None, tag)
    except EmboflowError:
        return None
    if not rows:
        return None
    return dg.AssetObservation(
        keys.dataset_key(place, name),
        description=f"policies that saw episodes of {tag}",
        metadata={
            "dataset_version": tag,
            "policies": len(rows),
            "policies_that_saw_it": page.table(
                [
                    {
                        "policy": row["policy"],
                        "same data": row["same"],
                        "changed since": row["changed"],
                        "listed": row["listed"],
                        "node": row["node"],
                        "training config": row["artifactId"],
                        "version sha256": row["versionSha256"],
                        "made": row["madeAt"],
                    }
                    for row in rows
                ]
            ),
            "policies_of_an_episode": f"emboflow dataset policies {name} EPISODE --tag {tag}",
        },
    )


def _source(row: dict[str, object]) -> str:
    source = row.get("source")
    return str(source.get("ref") or source.get("path") or "") if isinstance(source, dict) else ""
