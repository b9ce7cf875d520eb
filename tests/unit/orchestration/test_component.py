"""The component: kept state, its version, and what happens when the database does not answer."""

import json
import logging
import threading

import dagster as dg
import pytest

from emboflow_dagster import EmboFlowWorkflows
from emboflow_dagster.errors import UnavailableError
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration import state
from emboflow_dagster.orchestration.catalog import digest
from tests.unit.orchestration.catalogs import catalog, project, triage

GRASPS = dg.AssetKey(["acme", "pick-place", "datasets", "grasps"])


class FromMemory(EmboFlowWorkflows):
    """Reads a catalog that the test holds instead of a database."""

    now = None

    def read_database(self):
        if FromMemory.now is None:
            raise UnavailableError("no MongoDB answers at 127.0.0.1:1")
        return self.selected(FromMemory.now)


@pytest.fixture
def instance(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dagster_instance.opened(tmp_path) as opened:
        yield opened


@pytest.fixture
def database(small_catalog, monkeypatch):
    monkeypatch.setattr(FromMemory, "now", small_catalog)
    return monkeypatch


def shown():
    return dg.build_defs_for_component(FromMemory()).resolve_asset_graph().get_all_asset_keys()


def stored(tmp_path):
    return sorted(path.name for path in tmp_path.glob("defs_state/*/*"))


def test_loading_reads_the_database_and_keeps_what_it_read(instance, database, small_catalog, tmp_path):
    assert GRASPS in shown()
    assert stored(tmp_path) == [digest(small_catalog)]


def test_an_unchanged_catalog_is_not_stored_twice(instance, database, small_catalog, tmp_path):
    shown()
    database.setattr(FromMemory, "now", {**small_catalog, "generatedAt": "2030-01-01T00:00:00+00:00"})
    shown()

    assert stored(tmp_path) == [digest(small_catalog)]


def test_a_reload_shows_what_was_published(instance, database):
    before = shown()
    database.setattr(FromMemory, "now", catalog(project("other", [], [], [triage()])))

    assert {key.path[1] for key in before} == {"pick-place"}
    assert {key.path[1] for key in shown()} == {"other"}


def test_without_a_database_the_last_known_state_is_shown_and_said(instance, database, caplog):
    known = shown()
    database.setattr(FromMemory, "now", None)

    with caplog.at_level(logging.WARNING):
        again = shown()

    assert again == known
    [line] = caplog.messages
    assert line.startswith("MongoDB is not reachable, using the last known state: error[unavailable]: ")
    assert line.endswith("no MongoDB answers at 127.0.0.1:1")


def test_without_a_database_and_a_state_the_location_is_empty(instance, monkeypatch, caplog):
    monkeypatch.setattr(FromMemory, "now", None)

    assert shown() == set()
    assert "no state is known yet" in caplog.text


def test_without_an_instance_it_still_loads(database):
    assert GRASPS in shown()


def test_a_load_pinned_to_a_version_does_not_ask_the_database(instance, database, small_catalog):
    from dagster._core.definitions.definitions_load_context import (
        DefinitionsLoadContext,
        DefinitionsLoadType,
    )
    from dagster._core.definitions.repository_definition import RepositoryLoadData
    from dagster_shared.serdes.objects.models.defs_state_info import DefsStateInfo

    shown()
    database.setattr(FromMemory, "now", catalog(project("other", [], [], [triage()])))
    shown()
    pinned = DefsStateInfo.add_version(None, FromMemory().defs_state_config.key, digest(small_catalog))
    load = DefinitionsLoadContext(
        DefinitionsLoadType.RECONSTRUCTION, RepositoryLoadData(defs_state_info=pinned)
    )

    with DefinitionsLoadContext.scoped(load):
        keys = shown()

    assert {key.path[1] for key in keys} == {"pick-place"}


def test_refreshes_at_once_keep_one_pointer_each(instance, small_catalog):
    """Dagster reads, changes and writes back one record of all newest versions."""
    storage = instance.defs_state_storage

    def keep(number):
        state.store(f"key-{number}", {**small_catalog, "schema": number}, storage)

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(storage.get_latest_defs_state_info().info_mapping) == 8


def test_each_selection_of_projects_has_a_state_of_its_own():
    keys = {
        EmboFlowWorkflows(workspace=workspace, project=project).defs_state_config.key
        for workspace, project in ((None, None), ("acme", None), ("acme", "one"), ("acme", "two"))
    }

    assert len(keys) == 4


# Dagster reads its YAML through a function that pydantic has deprecated, and warns about classes of its own.
@pytest.mark.filterwarnings("ignore:.*parse_obj_as:DeprecationWarning", "ignore:.*is currently in beta")
def test_a_defs_yaml_loads_it_by_the_name_of_the_documentation():
    from dagster.components.testing import create_defs_folder_sandbox

    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=EmboFlowWorkflows,
            defs_path="workflows",
            defs_yaml_contents={
                "type": "emboflow_dagster.EmboFlowWorkflows",
                "attributes": {"workspace": "acme", "refresh_on_load": False},
            },
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert isinstance(component, EmboFlowWorkflows)
            assert component.workspace == "acme"
            assert json.dumps(sorted(definitions.resolve_all_asset_keys())) == "[]"
