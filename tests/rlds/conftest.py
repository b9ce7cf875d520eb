"""Versions of real recordings, and the environment of TensorFlow Datasets; `make verify-rlds` makes it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from emboflow_dagster.formats.probe import format_of
from emboflow_dagster.runtime import delivering
from emboflow_dagster.runtime.normalizing import normalize
from tests.sample_files import SAMPLES

SCRIPT = Path(__file__).with_name("in_tfds.py")
VENV = os.environ.get("RLDS_VENV")


@pytest.fixture(scope="session", autouse=True)
def environment():
    if not VENV:
        pytest.skip("TensorFlow Datasets has an environment of its own: make verify-rlds")


@pytest.fixture(scope="session")
def samples() -> Path:
    if not SAMPLES.is_dir():
        pytest.fail(f"no samples under {SAMPLES}; set EMBOFLOW_SAMPLES")
    return SAMPLES


@pytest.fixture(scope="session")
def in_tfds(tmp_path_factory):
    """Runs a verb of `in_tfds.py`: without anything of this environment."""
    home = tmp_path_factory.mktemp("tfds-home")

    def run(verb, folder):
        done = subprocess.run(
            ["nice", f"{VENV}/bin/python", str(SCRIPT), verb, str(folder)],
            env={"HOME": str(home), "PATH": os.environ["PATH"], "TF_CPP_MIN_LOG_LEVEL": "2"},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=1_500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4_000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def canonical(samples, tmp_path_factory):
    """A sample as a canonical folder, by the code of the `normalize` node."""
    made: dict[str, Path] = {}

    def of(place, fps, **more):
        if place not in made:
            path, out = samples / place, tmp_path_factory.mktemp("canonical") / "package"
            asset = {"id": "ast_1", "name": path.name, "path": str(path), "sha256": "0" * 64}
            normalize(
                {
                    "assets": [asset | {"format": format_of(path)}],
                    "out": str(out),
                    "fps": fps,
                    "robotType": "robot",
                    "task": None,
                    "topics": {},
                    "mapping": {},
                    "ratePolicy": None,
                    "videos": True,
                    "onMissingVideo": "skip",
                    "split": None,
                    "onMismatch": "raise",
                    **more,
                }
            )
            made[place] = out
        return made[place]

    return of


@pytest.fixture(scope="session")
def deliver(tmp_path_factory):
    """Makes the RLDS package of a canonical folder, as nodes and the command do; the folder of its shards."""

    def made(folder, name):
        out = tmp_path_factory.mktemp("deliveries") / name
        delivering.deliver({"package": str(folder), "out": str(out), "format": delivering.RLDS, "name": name})
        return out / name.replace("-", "_") / "1.0.0"

    return made
