"""The house as DESIGN draws it: the contracts hold, and each of them bites."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("emboflow_dagster", "assets_defs", "resources")

# contract id -> (module that must not, the line it must not hold)
VIOLATIONS = {
    "rooms": ("emboflow_dagster/model/intruder.py", "import emboflow_dagster.mongo"),
    "deployment": ("emboflow_dagster/project/intruder.py", "import resources"),
    "sql": ("emboflow_dagster/mongo/intruder.py", "import sqlalchemy"),
    "mongodb": ("emboflow_dagster/blobs/intruder.py", "import bson"),
    "s3": ("emboflow_dagster/orchestration/intruder.py", "import boto3"),
    "dagster": ("emboflow_dagster/runtime/intruder.py", "import dagster"),
    "terminal": ("emboflow_dagster/project/intruder.py", "import rich.table"),
    "processes": ("emboflow_dagster/mongo/intruder.py", "import subprocess"),
    "recordings": ("emboflow_dagster/runtime/intruder.py", "def read():\n    import h5py"),
    "tables": ("emboflow_dagster/blobs/intruder.py", "def read():\n    import pandas"),
}


def lint_imports(folder: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the copy of the house in ``folder``, never on the installed one."""
    options = [option for contract in contracts for option in ("--contract", contract)]
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for source in SOURCES:
        shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def contract_ids() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"] for contract in settings["contracts"]}


def test_every_contract_has_a_violation_here():
    assert set(VIOLATIONS) == contract_ids()


def test_all_contracts_hold(house):
    result = lint_imports(house)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("contract", sorted(VIOLATIONS))
def test_the_contract_bites(house, contract):
    module, line = VIOLATIONS[contract]
    intruder = house / module
    intruder.write_text(f"{line}\n")
    try:
        result = lint_imports(house, contract)
    finally:
        intruder.unlink()

    assert result.returncode == 1, result.stdout + result.stderr
    assert "intruder" in result.stdout


def test_a_room_that_nobody_placed_is_refused(house):
    (house / "emboflow_dagster" / "helpers").mkdir()
    (house / "emboflow_dagster" / "helpers" / "__init__.py").touch()
    try:
        result = lint_imports(house, "rooms")
    finally:
        shutil.rmtree(house / "emboflow_dagster" / "helpers")

    assert result.returncode == 1
    assert "emboflow_dagster.helpers" in result.stdout
