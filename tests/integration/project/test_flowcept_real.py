"""Flowcept 1.0.3 itself writes a database, it comes over, goes back out, and Flowcept reads it.

`make test-flowcept` makes the virtual environment with Flowcept and runs this.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient

from emboflow_dagster.project.handle import EmboFlow

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".flowcept-venv" / "bin" / "python"
SCRIPT = Path(__file__).with_name("write_with_flowcept.py")
ODD = "a name: with/odd characters"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="no .flowcept-venv: make test-flowcept")
Read = dict[str, dict[str, dict[str, Any]]]


def flowcept(*arguments: object, folder: Path) -> Read:
    done = subprocess.run(
        [str(PYTHON), str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def name(mongo_uri: str) -> Iterator[str]:
    name = f"flowcept_{uuid4().hex[:10]}"
    yield name
    client: MongoClient[Any] = MongoClient(mongo_uri)
    for database in (name, f"{name}_out"):
        client.drop_database(database)
    client.close()


def test_what_flowcept_wrote_comes_over_and_goes_back(
    ef: EmboFlow, mongo_uri: str, name: str, tmp_path: Path
) -> None:
    theirs = flowcept(mongo_uri, name, tmp_path, folder=tmp_path)

    report = ef.blobs.import_flowcept(mongo_uri, name)

    assert report.ok
    assert {(f.object_id, f.version, f.code.value) for f in report.findings} == {
        (ODD, None, "id-changed"),
        (ODD, 0, "metadata-as-text"),
        ("mixed", None, "history-gap"),
        ("uncontrolled", None, "history-gap"),
        ("moved-in", 1, "stale-pointer"),
        ("moved-out", 1, "stale-data"),
        ("text", 0, "hash-missing"),
        ("not-bytes", 0, "hash-missing"),
        ("not-bytes", 0, "data-not-bytes"),
    }
    assert report.counts["new"] == sum(map(len, theirs.values()))
    wrong_there = ("moved-out", "1")  # P-22: Flowcept itself returns the old bytes
    for object_id, versions in theirs.items():
        here = object_id if object_id != ODD else "a-name-with-odd-characters-a4735498b12f"
        assert {str(r["version"]) for r in ef.blobs.get_object_history(here)} == versions.keys()
        for number, row in versions.items():
            content = ef.blobs.read(here, int(number))
            assert ef.blobs.get(here, int(number)).data_sha256 == hashlib.sha256(content).hexdigest()
            if (object_id, number) == wrong_there:
                assert row["sha256"] == hashlib.sha256(b"old, inside").hexdigest() != row["recorded"]
                assert content == b"new, outside"
            elif object_id == "text":
                assert content == b"text without a hash"
            elif object_id != "not-bytes":
                assert hashlib.sha256(content).hexdigest() == row["sha256"] == row["recorded"]
    assert ef.blobs.get("pickled").serializer == "pickle"
    assert ef.verify().ok
    again = ef.blobs.import_flowcept(mongo_uri, name)
    assert (again.counts["new"], again.counts["unchanged"]) == (0, report.counts["new"])

    back = ef.blobs.export_flowcept(mongo_uri, f"{name}_out")

    assert back.ok
    read = flowcept(mongo_uri, f"{name}_out", tmp_path, "read", folder=tmp_path)
    assert read.keys() == theirs.keys()
    assert read["moved-out"]["1"]["sha256"] == hashlib.sha256(b"new, outside").hexdigest()
    for object_id, versions in theirs.items():
        assert read[object_id].keys() == versions.keys()
        for number, row in versions.items():
            mine = read[object_id][number]
            for field in ("type", "custom_metadata", "tags"):
                assert mine[field] == row[field]
            for field in ("created_at", "updated_at"):
                assert abs(mine[field] - row[field]) < 0.001
            if object_id not in ("text", "not-bytes") and (object_id, number) != wrong_there:
                assert (mine["sha256"], mine["recorded"]) == (row["sha256"], row["recorded"])
