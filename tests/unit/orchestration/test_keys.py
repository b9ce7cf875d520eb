"""The names that dashboards and run filters are built on."""

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import Place

PLACE = Place("acme", "pick-place")
SLUGS = st.from_regex(r"[a-z0-9]{1,6}(-[a-z0-9]{1,6}){0,3}", fullmatch=True)


def test_asset_keys_follow_the_contract():
    assert keys.raw_key(PLACE, "arm-1").path == ["acme", "pick-place", "raw", "arm-1"]
    assert keys.artifact_key(PLACE, "triage", "report").path == [
        *("acme", "pick-place"),
        *("artifacts", "triage", "report"),
    ]
    assert keys.dataset_key(PLACE, "grasps").path == ["acme", "pick-place", "datasets", "grasps"]


def test_groups_and_jobs_write_dashes_as_underscores():
    assert keys.group_name(PLACE, "raw") == "acme/pick_place/raw"
    assert keys.job_name(PLACE, "night-run") == "acme__pick_place__night_run"
    assert keys.op_name(PLACE, "night-run", "to-canonical") == "acme__pick_place__night_run__to_canonical"


@given(st.lists(SLUGS, min_size=4, max_size=4), st.lists(SLUGS, min_size=4, max_size=4))
def test_two_places_never_share_an_op(one, other):
    names = {keys.op_name(Place(a, b), c, d) for a, b, c, d in (one, other)}

    assert len(names) == len({tuple(one), tuple(other)})


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (["acme", "pick-place", "raw", "arm"], PLACE),
        (["acme", "pick-place", "artifacts", "triage", "report"], PLACE),
        (["acme", "pick-place", "datasets", "grasps"], PLACE),
        (["acme", "pick-place", "raw"], None),
        (["acme", "pick-place", "reports", "weekly"], None),
        (["summary"], None),
    ],
)
def test_a_key_of_ours_names_its_place(path, place):
    assert keys.place_of(dg.AssetKey(path)) == place
