"""The same surroundings for every test: none of the machine's own settings, credentials or caches.

A test that wants a setting sets it. Without this a developer's `EMBOFLOW_MONGO_URI` would be written to, and
a stray `AWS_PROFILE` would make a test pass here and fail elsewhere.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

#: Where the test material is, not how EmboFlow behaves.
KEPT = frozenset(
    {"EMBOFLOW_SAMPLES", "EMBOFLOW_CORPUS", "EMBOFLOW_MONGOD", "EMBOFLOW_SCREENSHOTS", "EMBOFLOW_FAULTS"}
    | {"EMBOFLOW_FAULTS_RUNS", "EMBOFLOW_FAULTS_KILLS", "EMBOFLOW_FAULTS_SEED"}
    | {name for name in os.environ if name.startswith("EMBOFLOW_TEST_S3")}
    | {"EMBOFLOW_GRAPHS_NODES", "EMBOFLOW_GRAPHS_FAN"}
)
REMOVED_PREFIXES = ("EMBOFLOW_", "AWS_", "DAGSTER_", "XDG_")

for _name in list(os.environ):
    if _name.startswith(REMOVED_PREFIXES) and _name not in KEPT:
        del os.environ[_name]

#: What the tests have at one time, 5 GB, with as much again for their processes.
ROOM_BYTES = 10 << 30


def in_memory() -> str | None:
    """A folder of this user's in memory for what the tests write, or ``None`` where there is no room.

    Their servers and stores wait for the disk a hundred thousand times. No test cuts the power, and what a
    killed process wrote is in a file of memory just as well.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a folder of this user's alone is made in it
    try:
        there, machine = os.statvfs(memory), Path("/proc/meminfo").read_text(encoding="ascii")
        available = int(machine.split("MemAvailable:")[1].split()[0]) << 10
        if there.f_flag & os.ST_NOEXEC or min(there.f_bavail * there.f_frsize, available) < ROOM_BYTES:
            return None
        folder = memory / f"emboflow-tests-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return str(folder) if folder.stat().st_uid == os.geteuid() and not folder.is_symlink() else None
    except (OSError, LookupError, ValueError):
        return None


# A TMPDIR that is set is kept: it says where, and workers have that of the process that started them.
if "TMPDIR" not in os.environ and (_folder := in_memory()) is not None:
    os.environ["TMPDIR"] = tempfile.tempdir = _folder

# A machine that is busy with other things is no failure, and half as many examples are most of what is found;
# EMBOFLOW_FAULTS=all draws all of them. Tests that say a number of their own keep it.
settings.register_profile(
    "short", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("long" if os.environ.get("EMBOFLOW_FAULTS") == "all" else "short")

# Before any test module is imported: libraries look at HOME when they are.
_EMPTY_HOME = tempfile.mkdtemp(prefix="emboflow-tests-home-")
os.environ["HOME"] = _EMPTY_HOME


def pytest_unconfigure() -> None:
    shutil.rmtree(_EMPTY_HOME, ignore_errors=True)


class Kills:
    """How many processes a test killed; the end of the run tells the sum, over all workers.

    Kills of a variant that was broken on purpose, as a positive control, count on their own.
    """

    def __init__(self, test: pytest.Item) -> None:
        self._test = test
        self.add(0)  # so that its failure counts, wherever it comes

    def add(self, count: int = 1, *, control: bool = False) -> None:
        """So many more."""
        self._test.user_properties.append(("control kills" if control else "kills", count))


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> Kills:
    """Counts the kills of a test."""
    return Kills(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many there were, and whether what they left was right every time."""
    total = {"kills": 0, "control kills": 0}
    failed: list[str] = []
    for report in (one for rows in terminalreporter.stats.values() for one in rows):
        if not isinstance(report, pytest.TestReport) or report.when != "call":
            continue
        mine = [(name, int(str(count))) for name, count in report.user_properties if name in total]
        for name, count in mine:
            total[name] += count
        if mine and report.failed:
            failed.append(report.nodeid)
    if any(total.values()):
        verdict = f"NOT clean: {len(failed)} tests failed" if failed else "all clean"
        controls = f"; {total['control kills']} more of broken variants" if total["control kills"] else ""
        terminalreporter.write_line(f"{total['kills']} processes killed, {verdict}{controls}")
