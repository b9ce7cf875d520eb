"""Who decides how steps become processes: the workflow file, the deployment, the kind of the nodes."""

import dagster as dg
import pytest

from emboflow_dagster import build_definitions
from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.orchestration import celery_app
from emboflow_dagster.orchestration.celery_executor import emboflow_celery
from emboflow_dagster.orchestration.executors import (
    EXECUTOR,
    FORKED,
    any_version_executor,
    executor_for,
    location_executor,
)
from tests.unit.orchestration.catalogs import catalog, node, project, workflow

SHORT = ["source", "filter", "set-union"]
LONG = ["source", "probe"]


@pytest.mark.parametrize(
    ("said", "steps", "short", "long"),
    [
        (None, None, "in_process", "emboflow_forkserver"),
        ("auto", None, "in_process", "emboflow_forkserver"),
        ("in-process", None, "in_process", "in_process"),
        ("multiprocess", None, "emboflow_forkserver", "emboflow_forkserver"),
        ("celery", None, "in_process", "emboflow_celery"),
        ("kubernetes", None, "in_process", "k8s"),
        ("celery", "in-process", "in_process", "in_process"),
        ("celery", "multiprocess", "emboflow_forkserver", "emboflow_forkserver"),
        (None, "in-process", "in_process", "in_process"),
        (None, "multiprocess", "emboflow_forkserver", "emboflow_forkserver"),
    ],
)
def test_the_file_comes_before_the_deployment_and_that_before_the_nodes(
    monkeypatch, said, steps, short, long
):
    monkeypatch.setenv(EXECUTOR, said or "")

    assert (short, long) == (executor_for(SHORT, steps).name, executor_for(LONG, steps).name)


@pytest.mark.parametrize(
    ("said", "default", "any_version"),
    [
        ("", FORKED, dg.in_process_executor),
        ("in-process", dg.in_process_executor, dg.in_process_executor),
        ("multiprocess", FORKED, dg.in_process_executor),
        ("celery", emboflow_celery, emboflow_celery),
    ],
)
def test_materialize_and_old_versions_go_where_the_steps_of_the_deployment_go(
    monkeypatch, said, default, any_version
):
    monkeypatch.setenv(EXECUTOR, said)

    assert default is location_executor()
    assert any_version is any_version_executor()


def test_an_executor_that_there_is_none_of_is_refused_with_those_there_are(monkeypatch):
    monkeypatch.setenv(EXECUTOR, "dask")

    with pytest.raises(ConfigurationError, match="found 'dask'; allowed are auto, in-process, multiprocess"):
        location_executor()


def test_the_job_of_a_workflow_has_the_executor_that_its_file_names(monkeypatch):
    monkeypatch.setenv(EXECUTOR, "")
    nodes = [node("take", "source"), node("look", "probe", ["take"])]
    flows = [workflow("one", nodes, steps="in-process"), workflow("many", nodes)]
    definitions = build_definitions(catalog(project("pick-place", [], [], flows)))

    found = {
        slug: definitions.resolve_job_def(f"acme__pick_place__{slug}").executor_def.name
        for slug in ("one", "many")
    }

    assert found == {"one": "in_process", "many": "emboflow_forkserver"}


def test_without_a_broker_the_error_says_what_to_set(monkeypatch):
    monkeypatch.delenv(celery_app.BROKER, raising=False)

    with pytest.raises(ConfigurationError, match="EMBOFLOW_CELERY_BROKER is not set"):
        celery_app.make_app()


def test_a_message_is_taken_once_and_no_worker_keeps_one_in_the_hand(monkeypatch):
    monkeypatch.setenv(celery_app.BROKER, "redis://127.0.0.1:1/0")
    conf = celery_app.make_app().conf

    assert not conf.task_acks_late
    assert conf.worker_disable_prefetch
    assert conf.worker_max_tasks_per_child == 1
    assert conf.result_backend == "redis://127.0.0.1:1/0"
