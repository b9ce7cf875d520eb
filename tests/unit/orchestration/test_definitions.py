"""What a code location is made of, from a catalog alone."""

import warnings

import dagster as dg
import pytest

from emboflow_dagster import build_definitions
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import digest, read_catalog, write_catalog
from emboflow_dagster.orchestration.jobs import MAX_WORKFLOW_JOBS
from emboflow_dagster.orchestration.specs import EmboFlowTranslator
from tests.unit.orchestration.catalogs import catalog, dataset, node, project, raw_asset, triage, workflow

ROOT = ["acme", "pick-place"]
TAKE = dg.AssetKey([*ROOT, "artifacts", "triage", "take"])
LOOK = dg.AssetKey([*ROOT, "artifacts", "triage", "look"])
CANONICAL = dg.AssetKey([*ROOT, "artifacts", "triage", "to-canonical"])
GRASPS = dg.AssetKey([*ROOT, "datasets", "grasps"])
LEFT = dg.AssetKey([*ROOT, "raw", "left-arm"])


def graph_of(definitions):
    return definitions.resolve_asset_graph()


def test_lineage_leads_from_raw_inputs_to_the_dataset(definitions):
    graph = graph_of(definitions)

    assert graph.get(TAKE).parent_keys == {LEFT, dg.AssetKey([*ROOT, "raw", "right-arm"])}
    assert graph.get(LOOK).parent_keys == {TAKE}
    assert graph.get(CANONICAL).parent_keys == {LOOK}
    assert graph.get(GRASPS).parent_keys == {CANONICAL}


def test_raw_inputs_are_external_and_nodes_are_not(definitions):
    graph = graph_of(definitions)

    assert not graph.get(LEFT).is_materializable
    assert not graph.get(dg.AssetKey([*ROOT, "datasets", "imported"])).is_materializable
    assert graph.get(GRASPS).is_materializable


def test_external_assets_have_groups_of_their_own(definitions):
    graph = graph_of(definitions)
    groups = {}
    for key in graph.get_all_asset_keys():
        groups.setdefault(graph.get(key).group_name, set()).add(graph.get(key).is_materializable)

    assert groups == {
        "acme/pick_place/raw": {False},
        "acme/pick_place/imported": {False},
        "acme/pick_place/workflows/triage": {True},
        "acme/pick_place/datasets": {True},
    }


def test_pages_say_whose_what_kind_and_which_code(definitions):
    node_ = graph_of(definitions).get(GRASPS)

    assert node_.code_version == "code-publish"
    assert node_.owners == ["team:acme"]
    assert {tag.removeprefix("dagster/kind/") for tag in node_.tags} == {"dataset", "parquet", "mongodb"}
    assert "emboflow dataset versions grasps" in node_.description
    assert node_.metadata["emboflow/workflow_version"] == 1


def test_the_job_of_a_workflow_holds_its_nodes_and_names_its_version(definitions):
    job = definitions.resolve_job_def("acme__pick_place__triage")

    assert job.asset_layer.executable_asset_keys == {TAKE, LOOK, CANONICAL, GRASPS}
    assert job.run_tags["emboflow/workflow_version"] == "wfv_triage_1"


def test_everything_loads(definitions):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dg.Definitions.validate_loadable(definitions)


def test_text_of_users_is_shown_as_text():
    evil = raw_asset("evil", name="<img src=x> **bold** [l](x)", createdBy="eve@example.org")
    spec = graph_of(build_definitions(catalog(project("pick-place", [evil])))).get(
        dg.AssetKey([*ROOT, "raw", "evil"])
    )

    assert r"\<img src=x\> \*\*bold\*\* \[l\](x)" in spec.description
    assert spec.owners == ["eve@example.org", "team:acme"]


def test_the_oldest_workflow_owns_a_dataset_that_two_publish():
    younger = workflow(
        "again", [node("publish-again", "publish-dataset", dataset="grasps")], definition_id="wf_2"
    )
    older = workflow("first", [node("publish", "publish-dataset", dataset="grasps")], definition_id="wf_1")
    graph = graph_of(
        build_definitions(catalog(project("pick-place", [], [dataset("grasps")], [younger, older])))
    )

    assert graph.get(GRASPS).metadata["emboflow/workflow"] == "first"
    assert graph.has(dg.AssetKey([*ROOT, "artifacts", "again", "publish-again"]))


def test_equal_names_in_two_projects_stand_side_by_side():
    everything = catalog(project("one", [], [], [triage()]), project("two", [], [], [triage()]))

    jobs = {job.name for job in build_definitions(everything).resolve_all_job_defs()}

    assert {"acme__one__triage", "acme__two__triage"} <= jobs


def test_many_workflows_share_one_job():
    many = [workflow(f"w{i}", [node("take", "source")]) for i in range(MAX_WORKFLOW_JOBS + 1)]
    definitions = build_definitions(catalog(project("pick-place", [], [], many)))

    assert {job.name for job in definitions.resolve_all_job_defs()} - {"__ASSET_JOB"} == {
        keys.SHARED_JOB,
        keys.ANY_VERSION_JOB,
        keys.SCRUB_JOB,
    }


def test_a_translator_decides_what_is_shown(small_catalog):
    class Quiet(EmboFlowTranslator):
        def owners(self, place, created_by):
            return ["team:robots"]

    graph = graph_of(build_definitions(small_catalog, translator=Quiet()))

    assert graph.get(GRASPS).owners == ["team:robots"]


def test_only_the_selected_project_is_shown():
    everything = catalog(project("one", [], [], [triage()]), project("two", [], [], [triage()]))

    keys_ = graph_of(build_definitions(everything, workspace="acme", project="two")).get_all_asset_keys()

    assert {key.path[1] for key in keys_} == {"two"}


def test_a_catalog_has_the_same_version_whenever_it_was_written(small_catalog):
    later = {**small_catalog, "generatedAt": "2026-06-06T00:00:00+00:00"}
    other = {**small_catalog, "workspaces": []}

    assert digest(later) == digest(small_catalog)
    assert digest(other) != digest(small_catalog)


def test_a_catalog_survives_its_file(small_catalog, tmp_path):
    write_catalog(small_catalog, tmp_path / "state")

    assert read_catalog(tmp_path / "state") == small_catalog


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}'])
def test_a_state_of_another_release_is_refused_with_the_remedy(text, tmp_path):
    (tmp_path / "state").write_text(text)

    with pytest.raises(InvalidInputError, match="state of the code location"):
        read_catalog(tmp_path / "state")
