"""Packages of real recordings, and the environment of real LeRobot; `make verify-lerobot` makes it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from emboflow_dagster.runtime import delivering
from tests.sample_files import SAMPLES

SCRIPT = Path(__file__).with_name("in_lerobot.py")
VENV = os.environ.get("LEROBOT_VENV")


@pytest.fixture(scope="session")
def samples() -> Path:
    if not VENV:
        pytest.skip("real LeRobot has an environment of its own: make verify-lerobot")
    if not SAMPLES.is_dir():
        pytest.fail(f"no samples under {SAMPLES}; set EMBOFLOW_SAMPLES")
    return SAMPLES


@pytest.fixture(scope="session")
def in_lerobot(tmp_path_factory):
    """Runs a verb of `in_lerobot.py`: offline, without anything of this environment."""
    home = tmp_path_factory.mktemp("lerobot-home")

    def run(*arguments, cwd=None):
        environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            ["nice", f"{VENV}/bin/python", str(SCRIPT), *map(str, arguments)],
            env=environment,
            cwd=cwd or home,
            capture_output=True,
            text=True,
            timeout=1_500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4_000:]
        if arguments[0] == "train":
            return done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def deliver(tmp_path_factory):
    """Makes the LeRobot package of a canonical folder, as nodes and the command do."""

    def made(folder, name, **more):
        out = tmp_path_factory.mktemp("deliveries") / name
        request = {"package": str(folder), "out": str(out), "format": delivering.LEROBOT, "name": name}
        return out, delivering.deliver(request | more)

    return made
