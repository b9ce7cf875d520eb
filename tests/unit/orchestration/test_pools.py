"""Limits: which nodes take a slot of which pool, and what the settings make of them."""

import re

import dagster as dg
import pytest
import yaml

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration import keys, pools
from tests.unit.orchestration.catalogs import node


def limits_of(instance: dg.DagsterInstance) -> dict[str, int]:
    return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}


def test_a_node_waits_in_the_pool_of_its_executor_and_metadata_waits_in_none():
    assert pools.pool_of(node("look", "probe")) == "emboflow_python"
    assert pools.pool_of(node("train", "python", executor="docker")) == "emboflow_docker"
    assert pools.pool_of(node("take", "source")) is None


def test_every_step_of_a_location_is_in_its_pool(definitions):
    job = definitions.resolve_job_def("acme__pick_place__triage")
    found = {one.name.rpartition("__")[2]: one.definition.pools for one in job.nodes}

    assert found["take"] == set()
    assert found["look"] == {"emboflow_python"}
    assert {"emboflow_python"} == definitions.resolve_job_def(keys.ANY_VERSION_JOB).nodes[0].definition.pools


def test_the_settings_limit_pools_and_leave_the_others_as_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv(pools.POOLS, "python=3, docker=1")
    with dagster_instance.opened(tmp_path) as instance:
        assert limits_of(instance) == {"emboflow_python": 3, "emboflow_docker": 1}

        instance.event_log_storage.set_concurrency_slots("emboflow_docker", 2)
        instance.event_log_storage.set_concurrency_slots("mine", 7)
    monkeypatch.setenv(pools.POOLS, "python=4")
    with dagster_instance.opened(tmp_path) as instance:
        assert limits_of(instance) == {"emboflow_python": 4, "emboflow_docker": 2, "mine": 7}
        assert pools.configure(instance) == {}


@pytest.mark.parametrize("said", ["gpu=1", "python", "python=-1", "python=many", "python=1001", "python=²"])
def test_a_limit_that_is_none_is_refused_with_what_was_found(monkeypatch, said):
    monkeypatch.setenv(pools.POOLS, said)

    with pytest.raises(InvalidInputError, match=re.escape(f"found '{said}'")):
        pools.limits()


def test_a_new_home_limits_the_runs_of_each_workspace_when_the_settings_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv(pools.WORKSPACE_RUNS, "2")
    dagster_instance.prepare(tmp_path)

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue.max_concurrent_runs == 4
        assert queue.tag_concurrency_limits == [
            {"key": keys.TAG_WORKSPACE, "value": {"applyLimitPerUniqueValue": True}, "limit": 2}
        ]


def test_a_workspace_may_have_a_lower_limit_of_its_own(monkeypatch):
    monkeypatch.setenv(pools.WORKSPACE_RUNS, "2, 007=1")

    said = yaml.safe_load(dagster_instance.config_text())["concurrency"]["runs"]

    assert said["tag_concurrency_limits"] == [
        {"key": keys.TAG_WORKSPACE, "value": {"applyLimitPerUniqueValue": True}, "limit": 2},
        {"key": keys.TAG_WORKSPACE, "value": "007", "limit": 1},
    ]
    monkeypatch.setenv(pools.WORKSPACE_RUNS, "acme=3,beta=1")
    assert pools.workspace_runs() == {"acme": 3, "beta": 1}


@pytest.mark.parametrize(("said", "why"), [("2,acme=3", "above 2 for all"), ("A_b=1", "words of a-z 0-9")])
def test_a_limit_that_could_not_hold_is_refused(monkeypatch, said, why):
    monkeypatch.setenv(pools.WORKSPACE_RUNS, said)

    with pytest.raises(InvalidInputError, match=why):
        pools.workspace_runs()


def test_without_the_setting_workspaces_share_what_there_is(monkeypatch):
    monkeypatch.delenv(pools.WORKSPACE_RUNS, raising=False)

    assert (
        "tag_concurrency_limits" not in yaml.safe_load(dagster_instance.config_text())["concurrency"]["runs"]
    )


@pytest.mark.parametrize("said", ["0", "x", "1001", "acme=0"])
def test_no_number_of_runs_is_refused(monkeypatch, said):
    monkeypatch.setenv(pools.WORKSPACE_RUNS, said)

    with pytest.raises(InvalidInputError, match=f"found '{said}'; allowed are 1 to 1000"):
        dagster_instance.config_text()
