"""A few mutants of every format in `make test`; `make mutants` makes 400 of each.

What they leave behind is counted twice: in the child that reads them, and of a run over them, in the home, in
the store and in this process.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from emboflow_dagster.project import tasks
from emboflow_dagster.project.handle import EmboFlow
from tests import mutants
from tests.integration.project.conftest import database, opener
from tests.integration.project.conftest import ef as project

__all__ = ["database", "opener", "project"]
ALL = os.environ.get("EMBOFLOW_FAULTS") == "all"
PROBED = (*mutants.WRITERS, *mutants.PACKERS)


@pytest.mark.parametrize("names", [PROBED, tuple(mutants.READ)], ids=["probed", "normalised"])
def test_damaged_files_end_as_reports(names):
    count = 6
    outcomes = mutants.run_together(names, count)

    print(mutants.table(outcomes))  # noqa: T201 - what a failure is read in
    for outcome in outcomes:
        assert (outcome.format, outcome.mutants, outcome.faults) == (outcome.format, count, [])
        assert outcome.is_fine
        assert outcome.warned > 0, outcome.format


@pytest.mark.parametrize("name", mutants.KINDS if ALL else ())  # an hour
def test_hundreds_of_each_kind_end_as_reports(name):
    outcome = mutants.run(name, 400)

    assert (outcome.mutants, outcome.faults) == (400, [])
    assert outcome.is_fine


def probe_badly(paths: list[str], done: str) -> None:
    """A control: crashes, hangs, raises and leaks."""
    keep = []
    with Path(done).open("a", encoding="utf-8") as stream:
        begun = len(Path(done).read_text().splitlines())
        for number, _ in enumerate(paths, begun):
            if number == 3:
                os.abort()
            if number == 5:
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                time.sleep(30)
            if number == 9:
                tempfile.mkstemp()
                subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
            keep.append(number)
            said = {"format": "x", "codes": [], "seconds": 0.0, **mutants.held()}
            said |= {"rss": number << 24, "files": 10 + len(keep)}
            if number == 7:
                said["raised"] = "ValueError: boom"
            stream.write(json.dumps(said) + "\n")
            stream.flush()


def test_what_must_not_happen_is_seen():
    outcome = mutants.run("csv", 150, target="tests.integration.test_mutants:probe_badly")

    assert not outcome.is_fine
    assert [fault.split()[0] for fault in outcome.faults] == ["crash", "hang", "mutant"]
    assert outcome.growth_mb > mutants.MAX_GROWTH_MB
    assert outcome.more_files > mutants.MAX_MORE_FILES
    assert outcome.left == 2  # a file and a process


@pytest.fixture
def damaged(tmp_path: Path) -> dict[str, Path]:
    """A damaged recording of some kinds that are normalised; in the long run of all."""
    found = {}
    for kind in mutants.READ.values() if ALL else ("mcap", "hdf5", "canonical"):
        place = tmp_path / "damaged" / kind.replace(" ", "-")
        place.mkdir(parents=True)
        (path,) = mutants.made(kind, 1, random.Random(kind), place)
        shutil.rmtree(place / "original")
        found[place.name] = Path(path)
    return found


def children() -> set[str]:
    """The processes that this one started and did not end."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def leftovers(ef: EmboFlow, servers: set[str]) -> Iterator[str]:
    """What runs left in the home, in the store and in this process, beside what is recorded."""
    yield from (f"work: {path.name}" for path in (ef.settings.home / "work").iterdir())
    store = Path(ef.store.root)
    for key in ef.store.iter_keys():
        os.utime(ef.store.path_of(key), (1e9, 1e9))
    verified = ef.verify(all=True)
    yield from (f"verify: {problem.message}" for problem in verified.problems)
    if count := verified.counts["unreferenced payloads"]:
        yield f"store: {count} payloads that nothing names"
    keys = {key.rpartition("/")[2] for key in ef.store.iter_keys()}
    # What a process writes into, and keeps open for the next payload, is named a flight.
    files = {path.name for path in store.rglob("*") if path.is_file() and not path.name.startswith("flight-")}
    yield from (f"store: {name}" for name in files - keys)
    for descriptor in Path("/proc/self/fd").iterdir():
        place = Path(os.path.realpath(descriptor))
        if place.is_relative_to(ef.settings.home) and not place.name.startswith("flight-"):
            yield f"open: {place}"
    for child in children() - servers:
        yield f"process: {Path(f'/proc/{child}/cmdline').read_bytes()!r}"


def test_runs_over_damaged_recordings_leave_nothing(project, damaged, monkeypatch):
    for name, path in damaged.items():
        project.assets.register(path, name=name, type="folder" if path.is_dir() else "raw_file")
    nodes = [{"id": "take", "type": "source"}, {"id": "probe", "type": "probe", "after": ["take"]}]
    drop = {"onMissingVideo": "drop-episode"}
    nodes.append({"id": "episodes", "type": "normalize", "after": ["probe"], "config": drop})
    more = ("quality-report", "preview") if ALL else ()
    nodes += [{"id": name, "type": name, "after": ["probe"]} for name in more]
    project.workflows.publish({"workflow": "damaged", "nodes": nodes})
    servers = children()  # of other tests, which stay for the session
    before = set(leftovers(project, servers)) if (project.settings.home / "work").exists() else set()

    run = project.runs.work(project.runs.request("damaged", assets=list(damaged)).id)

    told = {task.node_id: (task.status.value, task.error_message) for task in project.runs.tasks(run)}
    assert told["probe"] == ("success", None)
    assert all(status == "success" or message for status, message in told.values()), told
    assert "Traceback" not in str(told)
    assert set(leftovers(project, servers)) == before
    # A variant that forgets its folders, and a payload that nobody recorded, are seen.
    project.store.put(b"nobody's", content_type="text/plain")
    monkeypatch.setattr(tasks, "shutil", SimpleNamespace(rmtree=lambda *_, **__: None))
    project.runs.work(project.runs.request("damaged", assets=list(damaged)[:1]).id)
    monkeypatch.undo()
    assert {text.partition(":")[0] for text in set(leftovers(project, servers)) - before} == {"work", "store"}
