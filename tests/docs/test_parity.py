"""The page about Flowcept and Voedger: every row has its test, every code its line; its example is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emboflow_dagster.blobs.flowcept import FlowceptBlobs
from emboflow_dagster.blobs.flowcept_report import Code
from emboflow_dagster.mongo import embedded

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")


def test_every_row_is_there_and_every_test_that_is_named_exists() -> None:
    files = ("parity_flowcept", "parity_voedger", "ownership", "blob_quota")
    source = "".join(
        (ROOT / f"tests/integration/project/test_{name}.py").read_text(encoding="utf-8") for name in files
    )
    rows = {
        number for cell in re.findall(r"^\| (P-[^|]+) \|", TEXT, re.MULTILINE) for number in cell.split(", ")
    }
    tests = set(re.findall(r"`(test_\w+)`", TEXT))

    assert rows == {f"P-{number:02}" for number in (*range(1, 28), *range(30, 47))}
    assert tests - set(re.findall(r"^def (test_\w+)", source, re.MULTILINE)) == set()
    for line in TEXT.splitlines():
        if line.startswith("| P-"):
            assert "`test_" in line.rsplit("|", 2)[1], line


def test_every_code_of_a_report_is_explained_and_no_other() -> None:
    section = TEXT.partition("## What an import finds")[2]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)

    assert sorted(re.findall(r"`([a-z-]+)`", "".join(cells))) == sorted(code.value for code in Code)


def test_every_call_that_is_named_exists() -> None:
    named = set(re.findall(r"`ef\.blobs\.([a-z_]+)", TEXT))
    named |= {"iter_object_history", "download_object", "object_report", "get_ml_model", "get_dataset"}

    assert {name for name in named if not name.endswith("_") and not hasattr(FlowceptBlobs, name)} == set()


@pytest.mark.timeout(120)
def test_the_example_prints_what_it_shows(tmp_path: Path) -> None:
    [(code, shown)] = re.findall(
        r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "EMBOFLOW_ACTOR": "user:ada", "EMBOFLOW_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        embedded.stop(tmp_path / "home")

    assert (done.stdout, done.returncode) == (shown, 0), done.stderr
