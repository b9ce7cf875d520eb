"""A fresh DAGSTER_HOME that several processes open at once; the deployment without any database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPEN = """
import sys
from pathlib import Path
from emboflow_dagster.orchestration import instance
with instance.opened(Path(sys.argv[1])) as opened:
    assert opened.get_runs_count() == 0
    assert list(opened.all_instigator_state()) == []
"""


def test_first_openers_do_not_race(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", OPEN, str(tmp_path / "dagster")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]

    errors = [process.communicate(timeout=120)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors


@pytest.mark.parametrize("uri", [None, "mongodb://ada:hunter2@127.0.0.1:1/?replicaSet=none"])
def test_the_deployment_is_valid_without_a_database(tmp_path, uri):
    environment = {**os.environ, "EMBOFLOW_HOME": str(tmp_path / "home")}
    if uri:
        environment["EMBOFLOW_MONGO_URI"] = uri

    result = subprocess.run(
        [str(Path(sys.executable).with_name("dagster")), "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert "Traceback" not in said
    assert "hunter2" not in said
    assert not (tmp_path / "home" / "mongo").exists()
    if uri:
        # Validation loads the location twice; neither has a state to fall back on.
        [line] = {line for line in said.splitlines() if "MongoDB is not reachable" in line}
        assert "127.0.0.1:1" in line
