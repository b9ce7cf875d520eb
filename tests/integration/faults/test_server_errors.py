"""The server fails a command of an operation: it is done exactly once all the same, or refused.

`make faults` tries every command of every operation with every error; the tests try each command with one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.faults import driver as broken_variants
from tests.integration.faults.conftest import Stages
from tests.integration.faults.driver import IN_TRANSACTION
from tests.integration.faults.harness import ALL, Stage
from tests.integration.faults.operations import OPERATIONS, differences

Failure = dict[str, Any]
COMMANDS = ("insert", "update", "delete", "findAndModify", "commitTransaction", "find", "aggregate")
RETRYABLE = {"errorLabels": ["RetryableWriteError"]}
ERRORS: dict[str, Failure] = {
    "not primary": {"errorCode": 10107},
    "time exceeded": {"errorCode": 262},
    "maxTimeMS expired": {"errorCode": 50},
    "write conflict": {"errorCode": 112},
    "connection closed": {"closeConnection": True},
    "shutdown before the majority": {"writeConcernError": {"code": 91, "errmsg": "injected"}, **RETRYABLE},
    "no majority in time": {"writeConcernError": {"code": 64, "errmsg": "injected"}},
}
TIMES = (1, 2)


def cases(commands: list[str]) -> list[tuple[str, str, int]]:
    """Command, error and how often it fails: all that apply, or one of them for each command."""
    chosen: list[tuple[str, str, int]] = []
    for command in COMMANDS:
        inside, outside = command + IN_TRANSACTION in commands, command in commands
        if not (inside or outside):
            continue
        # A write concern is of a whole transaction, and reads have none.
        writes = outside and command not in ("find", "aggregate")
        fitting = [e for e in ERRORS if "writeConcernError" not in ERRORS[e] or writes]
        every = [(command, error, times) for error in fitting for times in TIMES]
        # Another one for each operation and command, the same every time.
        chosen += every if ALL else [every[(len(commands) * 5 + len(command)) % len(every)]]
    return chosen


@contextmanager
def failing(stage: Stage, command: str, failure: Failure, times: int) -> Iterator[None]:
    """The server fails ``command`` of the library's own connections, ``times`` times."""
    point = {"configureFailPoint": "failCommand"}
    data = {"failCommands": [command], "appName": "emboflow", **failure}
    stage.admin.admin.command({**point, "mode": {"times": times}, "data": data})
    try:
        yield
    finally:
        stage.admin.admin.command({**point, "mode": "off"})


def after(stage: Stage, ef: EmboFlow, command: str, error: str, times: int) -> list[str]:
    """What is wrong after a failure, and a repetition when it was refused."""
    operation = stage.operation
    where = f"{operation.name}, {command} fails {times}x: {error}"
    stage.reset()
    acked: list[str] = []
    refused: EmboflowError | None = None
    with failing(stage, command, ERRORS[error], times):
        try:
            if operation.opening:
                with stage.open() as fresh:
                    operation.act(fresh, stage.folder, acked.append)
            else:
                operation.act(ef, stage.folder, acked.append)
        except EmboflowError as caught:
            refused = caught
        except Exception as caught:  # noqa: BLE001 - what is looked for
            return [f"{where}: {type(caught).__name__} is not of our errors: {caught}"]
    stage.free()  # a transaction whose commit failed stays open for 5 s
    with stage.open() as fresh:
        found = [f"lost: {text}" for text in operation.lost(fresh, acked)]
        if refused is not None or not acked:
            operation.repeat(fresh, stage.folder)
        found += differences(operation, fresh, stage.before)
    how = f"refused as {refused.kind.value}: {refused}" if refused else "succeeded"
    return [f"{where} ({how}): {text}" for text in found]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "first-init"])
def test_a_failed_command_is_survived_or_refused_and_repeatable(stages: Stages, name: str) -> None:
    stage = stages(name)
    commands = stage.interrupted(0, "started").commands
    with stage.open() as ef:
        found = [text for case in cases(commands) for text in after(stage, ef, *case)]

    assert found == []


def test_a_broken_variant_is_caught(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: a run whose parts are written one after the other is found half-written."""
    stage = stages("request")
    from emboflow_dagster.mongo.client import Mongo

    monkeypatch.setattr(Mongo, "in_transaction", Mongo.in_transaction)  # put back afterwards
    broken_variants.without_transactions()
    with stage.open() as ef:
        assert after(stage, ef, "findAndModify", "maxTimeMS expired", 1) != []
