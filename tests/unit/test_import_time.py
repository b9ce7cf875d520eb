"""Heavy libraries load where they are used: what an import costs, measured in a fresh interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "PIL",
    "av",
    "boto3",
    "botocore",
    "docker",
    "h5py",
    "matplotlib",
    "mcap",
    "numpy",
    "pandas",
    "pyarrow",
    "rosbags",
    "tfrecord",
}
PROBE = """
import importlib, json, sys, time
sys.path.insert(0, {root!r})
for name in {before!r}:
    importlib.import_module(name)
known, started = set(sys.modules), time.process_time()
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps({{"seconds": time.process_time() - started, "roots":
    sorted({{name.partition(".")[0] for name in set(sys.modules) - known}})}}))
"""


def fresh_import(*names: str, before: tuple[str, ...] = ()) -> tuple[float, set[str]]:
    """CPU seconds and the top-level packages that importing ``names`` adds to ``before``."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(root=str(ROOT), before=before, names=names)],
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(result.stdout)
    return report["seconds"], set(report["roots"])


def why(name: str, heavy: set[str]) -> str:
    return f"{sorted(heavy)} came in; who asked: python -X importtime -c 'import {name}' 2>&1 | less"


@pytest.mark.parametrize("name", ["emboflow_dagster", "emboflow_dagster.cli"])
def test_no_heavy_library_and_no_dagster(name):
    _, roots = fresh_import(name)

    assert roots & (HEAVY | {"dagster"}) == set(), why(name, roots & (HEAVY | {"dagster"}))


@pytest.mark.parametrize(
    "name",
    [
        "emboflow_dagster.orchestration",
        "emboflow_dagster.project",
        "emboflow_dagster.runtime",
        "emboflow_dagster.formats",
    ],
)
def test_no_heavy_library_beyond_dagster(name):
    _, roots = fresh_import(name, before=("dagster",))

    assert roots & HEAVY == set(), why(name, roots & HEAVY)


def test_the_library_costs_little_beyond_dagster():
    seconds, _ = fresh_import(
        "emboflow_dagster", "emboflow_dagster.project", "emboflow_dagster.orchestration", before=("dagster",)
    )

    assert seconds < 0.5


def test_every_module_imports_without_the_extras():
    """A team that installs no extra gets a library that loads; the error comes where the extra is needed."""
    optional = sorted(
        HEAVY - {"boto3", "botocore", "numpy", "pandas", "pyarrow"} | {"fiftyone", "lz4", "zstandard"}
    )
    program = f"""
import importlib, pkgutil, sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules.update(dict.fromkeys({optional!r}))
import emboflow_dagster
for module in pkgutil.walk_packages(emboflow_dagster.__path__, "emboflow_dagster."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
