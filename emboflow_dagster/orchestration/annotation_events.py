"""How many annotations hold at a dataset's latest version, as observations on its page."""

from collections.abc import Iterator
from functools import partial

import dagster as dg

from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.telling import Row
from emboflow_dagster.project.handle import EmboFlow


def annotation_rows(ef: EmboFlow, place: Place) -> Iterator[Row]:
    """One for each dataset of which something was said; a new version or annotation changes its mark."""
    for dataset, latest, changed_at in ef.annotations.annotated():
        yield Row(
            id=f"annotations:{dataset.id}",
            mark=f"{latest.id} {changed_at.isoformat()}",
            changed_at=max(latest.created_at, changed_at),
            event=partial(_observed, ef, place, dataset.name, latest.version_tag),
        )


def _observed(ef: EmboFlow, place: Place, name: str, tag: str) -> dg.AssetObservation:
    counts = ef.annotations.counts(name, tag)
    return dg.AssetObservation(
        keys.dataset_key(place, name),
        description=f"annotations at {tag}",
        metadata={
            "dataset_version": tag,
            **{f"annotations_{state}": count for state, count in counts.items()},
            "annotations_list": f"emboflow annotation list --version {name}:{tag}",
        },
    )
