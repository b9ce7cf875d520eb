"""One process that forks, one stage an operation."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.faults.harness import Driver, Stage, stage_of

Stages = Callable[[str], Stage]


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
