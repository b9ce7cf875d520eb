"""A database that can be set back to a known state in milliseconds, and the process that operates on it."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from emboflow_dagster.model.collections import COLLECTIONS, META
from emboflow_dagster.mongo import gridfs
from emboflow_dagster.mongo.setup import set_up
from emboflow_dagster.project.handle import EmboFlow, open_database
from tests.integration.faults.driver import Order, Outcome
from tests.integration.faults.operations import KNOWN, Operation, counts

GRIDFS = (gridfs.FILES, gridfs.CHUNKS)
REPOSITORY = Path(__file__).parents[3]
#: Every point instead of a sample: `make faults`.
ALL = os.environ.get("EMBOFLOW_FAULTS") == "all"


class Driver:
    """The process of `driver.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.faults.driver"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def carry_out(self, order: Order) -> list[Outcome]:
        """What each of the order's processes came to."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the driver died"
        return [Outcome(**row) for row in json.loads(line)]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Stage:
    """One operation's database and store, as they are before it."""

    def __init__(self, operation: Operation, uri: str, database: str, folder: Path, driver: Driver) -> None:
        self.operation = operation
        self.driver = driver
        # After an injected shutdown the driver waits for the next heartbeat: 10 s by default.
        quick = f"{uri}&heartbeatFrequencyMS=500&serverMonitoringMode=poll"
        self.order = Order(operation.name, quick, database, str(folder / "home"), str(folder))
        self.store = folder / "home" / "objects"
        self._kept = folder / "objects-before"
        self.admin: MongoClient[dict[str, Any]] = MongoClient(uri, appname="faults")
        self.database = self.admin[database]
        (folder / "home").mkdir(parents=True, exist_ok=True)  # the first try does what all others do
        self._documents: dict[str, list[dict[str, Any]]] = {}
        self.before: Counter[str] = Counter()

    def prepare(self) -> None:
        """Make the state that every try begins with."""
        if self.operation.name == "first-init":
            return
        settings = self.order.settings()
        if self.operation.opening:
            mongo = open_database(settings)
            set_up(mongo)
            mongo.close()
        else:
            with EmboFlow.open(settings) as ef:
                for name in (*COLLECTIONS, META, *GRIDFS):
                    ef.mongo[name].delete_many({} if name != META else {"_id": {"$ne": "schema"}})
            with EmboFlow.open(settings) as ef:
                self.operation.prepare(ef, Path(self.order.folder))
                self.before = counts(ef)
        for name in (*COLLECTIONS, META, *GRIDFS):
            self._documents[name] = list(self.database[name].find())
        if self.store.exists():
            shutil.copytree(self.store, self._kept)

    def reset(self) -> None:
        """Set documents and payloads back to it."""
        self.free()
        if self.operation.name == "first-init":
            self.admin.drop_database(self.database.name)
        else:
            with self.admin.start_session() as session:
                session.with_transaction(self._restore)
        shutil.rmtree(self.store, ignore_errors=True)
        if self._kept.exists():
            shutil.copytree(self._kept, self.store)

    def free(self) -> None:
        """End abandoned transactions; the server does it after 5 s by itself, for which one test waits."""
        self.admin.admin.command("killAllSessions", [])

    def _restore(self, session: Any) -> None:
        for name, rows in self._documents.items():
            self.database[name].delete_many({}, session=session)
            if rows:
                self.database[name].insert_many(rows, session=session)

    def interrupted(
        self, point: int, moment: str, *, broken: str | None = None, free: bool = True, delay_ms: float = 0
    ) -> Outcome:
        """Begin anew and be killed at one point; what the dead held is freed unless told not to."""
        self.reset()
        how = {"point": point, "moment": moment, "broken": broken, "delay_ms": delay_ms}
        order = Order(**{**asdict(self.order), **how})
        outcome = self.driver.carry_out(order)[0]
        if free:
            self.free()
        return outcome

    def at_once(self, processes: int, *, broken: str | None = None) -> list[Outcome]:
        """Begin anew with several processes."""
        self.reset()
        order = Order(**{**asdict(self.order), "processes": processes, "broken": broken})
        return self.driver.carry_out(order)

    def open(self) -> EmboFlow:
        """What a user has afterwards."""
        return EmboFlow.open(self.order.settings())

    @property
    def folder(self) -> Path:
        """Where the operation's files are."""
        return Path(self.order.folder)

    def close(self) -> None:
        """Drop the database."""
        self.admin.drop_database(self.database.name)
        self.admin.close()


def stage_of(name: str, uri: str, folder: Path, driver: Driver) -> Stage:
    """A prepared stage."""
    stage = Stage(KNOWN[name], uri, f"faults_{os.getpid()}_{name.replace('-', '_')}", folder, driver)
    stage.prepare()
    return stage
