"""How many annotations hold at a dataset's latest version, as observations on its page."""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import NamedTuple

import dagster as dg

from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.project.handle import EmboFlow


class Told(NamedTuple):
    """What there is to tell of a dataset, in which state, changed when; the counts cost something to know."""

    id: str
    mark: str
    changed_at: datetime
    event: Callable[[], dg.AssetObservation]


def annotations_told(ef: EmboFlow, place: Place) -> Iterator[Told]:
    """One for each dataset of which something was said; a new version or annotation changes its mark."""
    for dataset, latest, changed_at in ef.annotations.annotated():
        yield Told(
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
