"""The six graphs of the samples under a real `emboflow dev`: `make test-sample-graphs`, minutes.

Every command is a process of its own, the daemon starts the runs, containers run in a real Docker daemon, and
afterwards everything that was recorded is verified.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import docker_engine, sample_graphs
from tests.acceptance import killing
from tests.acceptance import served as serving
from tests.sample_files import needed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.samples,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="minutes: make test-sample-graphs"),
]


def test_all_six_run_under_dagster_to_what_they_expect(tmp_path_factory, capsys):
    import docker

    needed(sample_graphs.FILES)
    folder = tmp_path_factory.mktemp("played")
    with docker_engine.daemon(tmp_path_factory.mktemp("docker")) as address:
        client = docker.DockerClient(base_url=address)
        docker_engine.make_images(client)
        deployment = serving.Deployment.in_folder(folder)
        deployment.environment["DOCKER_HOST"] = address

        def carry(run_id: str) -> None:
            def decided() -> bool | None:
                # It fails where the run failed or waits for people: `run show` says what is so.
                words = ("--json", "run", "wait", run_id, "--timeout", "5")
                command = [str(serving.EMBOFLOW), *words]
                ended = subprocess.run(
                    command,
                    env=deployment.environment,
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                over = "error[timeout]" not in ended.stderr
                return True if over or "waits for people" in ended.stderr else None

            serving.until(decided, 1200)

        def register(path: Path, name: str, kind: str) -> None:
            deployment.emboflow("asset", "register", str(path), "--name", name, "--type", kind)

        player = sample_graphs.Player(deployment.emboflow, register, carry, folder)
        with serving.serve(deployment) as running:
            for name, play in sample_graphs.GRAPHS.items():
                play(player, sample_graphs.FOLDER / name)
                with capsys.disabled():
                    killing.say(f"{name}: as expected")
            for run in deployment.emboflow("run", "list"):
                # Dagster says the same of each.
                [dagster_run] = run["dagsterRunIds"][-1:]
                said = running.server.ask(serving.STATUS, {"id": dagster_run})["runOrError"]["status"]
                assert said == {"success": "SUCCESS", "failed": "FAILURE"}[run["status"]], json.dumps(run)
            assert deployment.emboflow("verify", "--all")["ok"] is True
        left = client.containers.list(all=True)
        client.close()
        assert left == []
