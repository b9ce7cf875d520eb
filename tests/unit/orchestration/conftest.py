"""A small catalog, and definitions built from it without any database."""

import json

import pytest

from tests.unit.orchestration.catalogs import catalog, dataset, project, raw_asset, triage


@pytest.fixture
def small_catalog():
    assets = [raw_asset("left-arm"), raw_asset("right-arm")]
    return catalog(project("pick-place", assets, [dataset("grasps"), dataset("imported")], [triage()]))


@pytest.fixture
def definitions(small_catalog):
    from emboflow_dagster import build_definitions

    return build_definitions(json.loads(json.dumps(small_catalog)))
