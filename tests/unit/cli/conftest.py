"""The command, executed in this process; nothing here needs a database."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from emboflow_dagster.cli.command_line import exit_status


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON value it has to be."""
        return json.loads(self.out)


@pytest.fixture
def emboflow(capsys, monkeypatch, tmp_path) -> Callable[..., Ended]:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("EMBOFLOW_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        status = exit_status(arguments)
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run
