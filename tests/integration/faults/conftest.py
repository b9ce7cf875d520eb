"""One process that forks, one stage an operation."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.faults.harness import Driver, Stage, stage_of

Stages = Callable[[str], Stage]


class Kills:
    """How many processes a test killed; the end of the run tells the sum."""

    def __init__(self, test: pytest.Item) -> None:
        self._test = test

    def add(self) -> None:
        """One more."""
        self._test.user_properties.append(("kills", 1))


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> Kills:
    """Counts the kills of a test."""
    return Kills(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many there were."""
    total = 0
    for report in (one for rows in terminalreporter.stats.values() for one in rows):
        if isinstance(report, pytest.TestReport) and report.when == "call":
            total += sum(int(str(count)) for name, count in report.user_properties if name == "kills")
    if total:
        terminalreporter.write_line(f"{total} processes killed")


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    """The process whose children are killed."""
    process = Driver()
    yield process
    process.close()


@pytest.fixture
def stages(failing_mongo_uri: str, driver: Driver, tmp_path: Path) -> Iterator[Stages]:
    """Makes the prepared stage of an operation, on a server that nobody else uses."""
    made: list[Stage] = []

    def make(name: str) -> Stage:
        made.append(stage_of(name, failing_mongo_uri, tmp_path / f"stage-{len(made)}", driver))
        return made[-1]

    yield make
    for stage in made:
        stage.close()
