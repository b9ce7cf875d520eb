"""Redis and Celery workers as processes: what stands for the machines of a deployment."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.acceptance.served import Deployment, descendants, free_port, until

CELERY = Path(sys.executable).with_name("celery")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale-out.md"


def redis_server() -> str:
    """The program; a laptop without it skips, CI does not."""
    found = shutil.which("redis-server")
    if found is None and not os.environ.get("CI"):
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    assert found is not None, "CI has a redis-server (.ci/run installs it)"
    return found


@dataclass
class Broker:
    """A Redis that forgets everything when it ends."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [redis_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self.process = subprocess.Popen(
            [*command, str(self.folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, 60)

    def _answers(self) -> bool | None:
        with suppress(redis.ConnectionError), redis.Redis(port=self.port) as client:
            return client.ping() or None
        return None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    made = Broker(folder)
    made.start()
    try:
        yield made
    finally:
        made.kill()


@dataclass
class Worker:
    """One Celery worker with its pool: a machine."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def said(self, text: str) -> int:
        return self.log.read_text(errors="replace").count(text)

    def wait_until_ready(self) -> None:
        def ready() -> bool | None:
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            return self.said(" ready.") > 0 or None

        until(ready, 180)

    def taken(self) -> int:
        """The steps that it has taken up."""
        return self.said("] received")

    def kill(self) -> None:
        """The machine is gone: everything on it at once, the children of a step included."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def kill_parent_only(self) -> None:
        """The process that speaks with the broker; what executes the step goes on."""
        self.process.kill()
        self.process.wait()


def start_worker(deployment: Deployment, name: str, *, slots: int = 1) -> Worker:
    log = deployment.folder / f"{name}-{free_port()}.log"
    # The command of the page on scaling out, with a name and a number of slots.
    (said,) = re.findall(r"^celery (-A .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    options = said.replace("one@", f"{name}@").replace("--concurrency 2", f"--concurrency {slots}").split()
    assert {f"{name}@%h", str(slots)} <= set(options)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(CELERY), *options, "--loglevel", "INFO"],
            cwd=deployment.folder,
            env=deployment.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Worker(name, process, log)


def on_celery(deployment: Deployment, at: Broker, **more: str) -> Deployment:
    """The deployment with its steps on Celery."""
    # The variables of the page, but for those that name machines.
    said = dict(re.findall(r"^export (\w+)=(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    own = {"EMBOFLOW_EXECUTOR": said["EMBOFLOW_EXECUTOR"], "C_FORCE_ROOT": "1", **more}
    own["EMBOFLOW_CELERY_BROKER"] = said["EMBOFLOW_CELERY_BROKER"].replace(":6379", f":{at.port}")
    own["DAGSTER_HOME"] = str(deployment.home / "dagster")
    return replace(deployment, environment={**deployment.environment, **own})


def hook(node: str, after: list[str], source: str, **more: Any) -> dict[str, Any]:
    """A node that calls `run(ctx, inputs)`."""
    code = {"language": "python", "entrypoint": "run", "source": source}
    return {"id": node, "type": "python", "after": after, "codeHook": code, **more}


QUICK = "def run(ctx, inputs):\n    return {'assets': len(ctx.assets)}\n"


def slow(seconds: float) -> str:
    return (
        f"import time\ndef run(ctx, inputs):\n    time.sleep({seconds})\n    return {{'slept': {seconds}}}\n"
    )


def at_once(tasks: list[dict[str, Any]]) -> int:
    """How many of the tasks ran at the same time, at most."""
    edges = [
        edge
        for task in tasks
        for edge in (
            (datetime.fromisoformat(task["startedAt"]), 1),
            (datetime.fromisoformat(task["finishedAt"]), -1),
        )
    ]
    most = running = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    return most
