"""A real ``emboflow dev`` on a home of its own, and what a person would do with it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration.webserver import Webserver

EMBOFLOW = Path(sys.executable).with_name("emboflow")
READY_SECONDS = 180
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
STATUS = "query Run($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } } }"


@dataclass(frozen=True)
class Deployment:
    """A home with its environment: commands run in it."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    def in_folder(cls, folder: Path) -> "Deployment":
        """A fresh one; an embedded database, one workspace, one project."""
        own = {
            "EMBOFLOW_HOME": str(folder / "home"),
            "EMBOFLOW_WORKSPACE": "acme",
            "EMBOFLOW_PROJECT": "pick-place",
            "EMBOFLOW_ACTOR": "user:ada",
        }
        return cls(folder, {**os.environ, **own})

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def emboflow(self, *words: str) -> Any:
        """What a command prints with ``--json``."""
        command = [str(EMBOFLOW), "--json", *words]
        result = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{words}: {result.stderr}"
        return json.loads(result.stdout)


@dataclass(frozen=True)
class Served:
    """A deployment that ``emboflow dev`` serves."""

    deployment: Deployment
    server: Webserver
    process: subprocess.Popen[bytes]

    def materialize(self, *keys: list[str], job: str = "__ASSET_JOB") -> str:
        """What the Materialize button does; the Dagster run's id."""
        selector = {
            "repositoryLocationName": "emboflow",
            "repositoryName": "__repository__",
            "jobName": job,
            "assetSelection": [{"path": key} for key in keys],
        }
        params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": []}}
        answer = self.server.ask(LAUNCH, {"params": params})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def ended(self, dagster_run_id: str, timeout_s: float = 180) -> str:
        """The status a Dagster run ends with."""
        over = ("SUCCESS", "FAILURE", "CANCELED")
        return until(
            lambda: next(
                (
                    s
                    for s in [self.server.ask(STATUS, {"id": dagster_run_id})["runOrError"]["status"]]
                    if s in over
                ),
                None,
            ),
            timeout_s,
        )


def until(look: Callable[[], Any], timeout_s: float) -> Any:
    """What ``look`` finds, asked until it finds something."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.3)
    raise AssertionError(f"nothing after {timeout_s:g} s")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def descendants(pid: int) -> list[int]:
    """The living children of a process, theirs, and so on (Linux)."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that still run our code."""
    left = []
    for pid in pids:
        try:
            if b"dagster" in Path(f"/proc/{pid}/cmdline").read_bytes():
                left.append(pid)
        except OSError:
            continue
    return left


@contextmanager
def serve(deployment: Deployment) -> Iterator[Served]:
    """``emboflow dev`` until the block ends; nothing that it started is left."""
    port = free_port()
    deployment.folder.mkdir(parents=True, exist_ok=True)
    with (deployment.folder / "dev.out").open("wb") as out:
        process = subprocess.Popen(
            [str(EMBOFLOW), "dev", "--port", str(port)],
            cwd=deployment.folder,
            env=deployment.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Webserver(f"http://127.0.0.1:{port}")
    try:

        def ready() -> bool | None:
            assert process.poll() is None, (deployment.folder / "dev.out").read_text()
            return True if server.url in (deployment.folder / "dev.out").read_text() else None

        until(ready, READY_SECONDS)
        yield Served(deployment, server, process)
    finally:
        stop(process)
        embedded.stop(deployment.home)


def stop(process: subprocess.Popen[bytes]) -> list[int]:
    """Ask, wait, kill what is left; returns what had to be killed."""
    children = descendants(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    left = alive(children)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left
