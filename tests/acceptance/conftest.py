"""A deployment for each test on one real server; every process started here is ended here."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from emboflow_dagster import EmboFlow
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration import handles
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.project.settings import Settings

#: Files of a minute and more, the longest first: a file is one worker's, and the last one is waited for.
LONGEST = (
    *("test_demo", "test_dagster_dev", "test_browser", "test_run_control", "test_dagster_ways_in"),
    *("test_ways_in", "test_dagster_runs", "test_faults_runs", "test_dagster_homes", "test_celery"),
    *("test_dagster_killed", "test_dagster_check_shown", "test_step_logs", "test_dagster_io_manager"),
)
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One embedded server for all tests of this process."""
    home = tmp_path_factory.mktemp("acceptance-mongo")
    yield embedded.ensure(home).uri
    embedded.stop(home)


@pytest.fixture
def settings(mongo_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A workspace, an object store and a DAGSTER_HOME of the test alone, set in the environment.

    One database for all: making the collections takes a second, and nothing is seen across workspaces.
    """
    made = Settings(
        home=tmp_path / "home",
        mongo_uri=mongo_uri,
        database="acceptance",
        object_store=(tmp_path / "objects").as_uri(),
        workspace=f"acme-{next(_numbers)}",
        project="pick-place",
        actor="user:ada",
        dagster_home=tmp_path / "dagster",
    )
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def ef(settings: Settings) -> Iterator[EmboFlow]:
    """An open handle on it."""
    with EmboFlow.open(settings) as handle:
        yield handle
    handles.close_all()


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Its Dagster instance."""
    with dagster_instance.opened(settings.dagster_home) as opened:
        yield opened


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A raw input that every machine can read: a small table."""
    path = tmp_path / "joints.csv"
    path.write_text("time,joint\n" + "".join(f"{i / 10},{i % 7}\n" for i in range(50)))
    return path


@pytest.fixture
def asset(ef: EmboFlow, table: Path) -> Asset:
    """It, registered."""
    return ef.assets.register(table, type="raw_file")


@pytest.fixture
def place(settings: Settings) -> Place:
    """The workspace and project, as definitions name them."""
    return Place(settings.workspace, settings.project)
