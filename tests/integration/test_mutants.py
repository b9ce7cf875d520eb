"""A few mutants of every format in `make test`; `make mutants` makes 400 of each."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests import mutants

COUNT = 400 if os.environ.get("EMBOFLOW_FAULTS") == "all" else 8


@pytest.mark.parametrize("name", mutants.KINDS)
def test_damaged_files_end_as_reports(name):
    outcome = mutants.run(name, COUNT)

    assert outcome.mutants == COUNT
    assert outcome.faults == []
    assert outcome.is_fine
    assert outcome.warned > 0


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
            keep.append(number)
            said = {"format": "x", "codes": [], "seconds": 0.0, "rss": number << 24, "files": 10 + len(keep)}
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
