"""The six graphs of the samples, as they are: published and run by the command in this process.

`make test-sample-graphs` plays the same through Dagster, in processes of their own.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime import validate
from emboflow_dagster.runtime.registry import node_types
from tests import sample_graphs
from tests.integration.containers.conftest import docker_client, docker_host
from tests.integration.test_cli import in_this_process
from tests.sample_files import needed

__all__ = ["docker_client", "docker_host"]
pytestmark = pytest.mark.samples


@pytest.fixture
def player(ef: EmboFlow, tmp_path: Path) -> sample_graphs.Player:
    """The command on the test's project; `emboflow worker` executes what is asked for."""
    environment = ef.settings.environment()

    def emboflow(*words: str) -> Any:
        return in_this_process(environment, "--json", *words).json

    def carry(run_id: str) -> None:
        ended = in_this_process(environment, "--json", "worker", "--once")
        assert run_id in [run["_id"] for run in json.loads(ended.raw)["runs"]], ended.err

    def register(path: Path, name: str, kind: str) -> None:
        ef.assets.register(path, name=name, type=kind)  # 27 commands would take longer than the run

    return sample_graphs.Player(emboflow, register, carry, tmp_path)


def test_all_six_are_there_and_understood():
    needed(sample_graphs.FILES)

    assert sorted(sample_graphs.GRAPHS) == sample_graphs.FILES
    for name in sample_graphs.FILES:
        assert validate.validate(sample_graphs.graph(name), registry=node_types())[1] == [], name


@pytest.mark.parametrize("name", sample_graphs.GRAPHS)
def test_a_graph_runs_to_what_it_expects(player, request, name):
    needed(sample_graphs.FILES)
    if name in sample_graphs.DOCKER:
        request.getfixturevalue("docker_client")

    sample_graphs.GRAPHS[name](player, sample_graphs.FOLDER / name)
