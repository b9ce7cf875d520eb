"""Dagster's processes one by one under a supervisor, so that each of them can be killed and comes back.

What is killed is chosen by a seed. What must hold afterwards is read from MongoDB and from Dagster's log.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from emboflow_dagster import EmboFlow
from emboflow_dagster.model.run import RUN_TERMINAL, TaskStatus, WorkflowRun
from emboflow_dagster.orchestration import keys
from tests.acceptance.served import Deployment, descendants

CODE_LOCATION = "emboflow_dagster.orchestration.code_location"
KINDS = ("daemon", "worker", "step", "server")
PATIENCE_S = 20.0
QUICK = "quick"
FORKED = "forked"
SOURCE = "import time\ndef go(ctx, inputs):\n    time.sleep(3)\n    return {'assets': len(ctx.assets)}\n"


def workflows() -> Iterator[dict[str, Any]]:
    """One that runs in one process, and one of which every step is a process of its own.

    All runs are equal: without `cache: off` the first would answer for the others.
    """
    take = {"id": "take", "type": "source", "cache": "off"}
    keep = {"id": "keep", "type": "filter", "after": ["take"], "cache": "off"}
    yield {"workflow": QUICK, "nodes": [take, keep]}
    hook = {"language": "python", "entrypoint": "go", "source": SOURCE}
    work = {"id": "work", "type": "python", "after": ["take"], "codeHook": hook, "cache": "off"}
    last = {"id": "last", "type": "filter", "after": ["work"], "cache": "off"}
    yield {"workflow": FORKED, "nodes": [take, work, last]}


def command_of(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@dataclass
class Supervised:
    """The processes of one deployment: each that ended is started again when :meth:`look` is called."""

    deployment: Deployment
    daemons: int = 1
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    """Every process that was ever below one of ours: what is left of them is ended at the end."""

    socket: Path = Path()
    port: int | None = None
    """Where the code server listens instead of the socket, as one of another machine does."""

    def commands(self) -> dict[str, list[str]]:
        """What is to run."""
        python = [sys.executable, "-W", "ignore", "-m"]
        place = ["--socket", str(self.socket)] if self.port is None else ["--port", str(self.port)]
        server = ["dagster", "api", "grpc", *place, "-m", CODE_LOCATION]
        server += ["--location-name", "emboflow"]
        file = self.deployment.folder / "workspace.yaml"
        daemon = [*python, "dagster._daemon", "run", "-w", str(file), "--log-level", "warning"]
        return {"server": [*python, *server], **{f"daemon-{n}": daemon for n in range(self.daemons)}}

    def look(self) -> None:
        """Start what does not run."""
        for name, command in self.commands().items():
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                self.seen.update(descendants(process.pid))
                continue
            if name == "server":
                self.socket.unlink(missing_ok=True)
            with (self.deployment.folder / f"{name}.out").open("ab") as out:
                self.processes[name] = subprocess.Popen(
                    command,
                    cwd=self.deployment.folder,
                    env=self.deployment.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def victims(self, kind: str) -> list[int]:
        """The processes of a kind that live now."""
        if kind == "server":
            return [self.processes["server"].pid]
        if kind == "daemon":
            return [p.pid for name, p in self.processes.items() if name.startswith("daemon")]
        workers = [pid for pid in children(self.processes["server"].pid) if "spawn_main" in command_of(pid)]
        if kind == "worker":
            return workers
        # A step is forked from the fork server of its worker.
        servers = [pid for w in workers for pid in children(w) if "forkserver" in command_of(pid)]
        return [pid for one in servers for pid in children(one)]

    def end(self) -> None:
        """Kill all that was started, and all that those had started."""
        for process in self.processes.values():
            self.seen.update(descendants(process.pid))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pid in self.seen:
            if str(self.deployment.folder) in environment_of(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def environment_of(pid: int) -> str:
    """The environment of a process of ours; empty when it is gone or somebody else's."""
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """The children of a process, without theirs."""
    below = descendants(pid)
    return [one for one in below if _parent(one) == pid]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


@contextmanager
def supervised(deployment: Deployment, *, daemons: int = 1, port: int | None = None) -> Iterator[Supervised]:
    """Code server and daemons, brought back whenever :meth:`Supervised.look` finds one dead."""
    # The path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="emboflow-"))
    found = Supervised(deployment, daemons, socket=folder / "s", port=port)
    place = f"socket: {found.socket}" if port is None else f"host: 127.0.0.1\n      port: {port}"
    (deployment.folder / "workspace.yaml").write_text(
        f"load_from:\n  - grpc_server:\n      {place}\n      location_name: emboflow\n"
    )
    try:
        found.look()
        yield found
    finally:
        found.end()
        shutil.rmtree(folder, ignore_errors=True)


def say(line: str) -> None:
    """For whoever watches a long hunt."""
    sys.stdout.write(f"\n{line}")
    sys.stdout.flush()


@dataclass
class Outcome:
    """What a hunt did."""

    kills: Counter[str] = field(default_factory=Counter)
    longest_silence_s: float = 0.0
    """The longest time for which a run that had begun had neither a lease nor any change."""

    def __str__(self) -> str:
        killed = ", ".join(f"{n} {kind}" for kind, n in sorted(self.kills.items()))
        return f"killed: {killed}; longest silence of a running run {self.longest_silence_s:.0f} s"


def hunt(
    ef: EmboFlow,
    instance: dg.DagsterInstance,
    processes: Supervised,
    *,
    kills: int,
    seed: int,
    kinds: Sequence[str] = KINDS,
    pause_s: float = 4.0,
    timeout_s: float = 3_600.0,
) -> Outcome:
    """Kill processes at random while the queue drains, then wait until every run is over, in Dagster too."""
    chance, outcome = random.Random(seed), Outcome()
    deadline, next_at, open_then = time.monotonic() + timeout_s, time.monotonic(), 0
    plan = [kinds[n % len(kinds)] for n in range(kills)]
    chance.shuffle(plan)
    while True:
        processes.look()
        open_ = [run for run in ef.runs.list(limit=0) if run.status not in RUN_TERMINAL]
        outcome.longest_silence_s = max(outcome.longest_silence_s, *(silence(ef, run) for run in open_), 0.0)
        if not open_ and not instance.get_runs_count(dg.RunsFilter(statuses=_AT_WORK)):
            return outcome
        assert time.monotonic() < deadline, f"{len(open_)} runs are open: {[run.id for run in open_][:5]}"
        # Spread over the whole drain: something has come to its end between two kills, or long nothing has.
        waited = time.monotonic() - next_at
        if plan and waited >= 0 and (len(open_) != open_then or waited > PATIENCE_S):
            for place, kind in enumerate(plan):
                found = processes.victims(kind)
                if found:
                    victim = chance.choice(found)
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        outcome.kills[kind] += 1
                        say(f"{len(open_)} open: killed {kind} {victim}")
                    del plan[place]
                    open_then = len(open_)
                    next_at = time.monotonic() + pause_s * chance.uniform(0.5, 1.5)
                    break
        time.sleep(0.2)


_AT_WORK = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def silence(ef: EmboFlow, run: WorkflowRun) -> float:
    """How long nothing was heard of a run that had begun, on the server's clock."""
    if run.status != "running":
        return 0.0
    beats = [task.heartbeat_at for task in ef.runs.tasks(run) if task.status is TaskStatus.RUNNING]
    last = max(time_ for time_ in (run.updated_at, *beats) if time_ is not None)
    return float((ef.mongo.server_time() - last).total_seconds())


def wrong(ef: EmboFlow, instance: dg.DagsterInstance) -> list[str]:
    """What does not hold of invariants I9 to I15, each as a sentence; the rest is for `verify`."""
    found: list[str] = []
    for run in ef.runs.list(limit=0):
        if run.status not in RUN_TERMINAL:
            found.append(f"{run.id} is {run.status}")
        claimed = [known for known in run.dagster_run_ids if known]
        if len(claimed) != 1:
            found.append(f"{run.id} was started {len(claimed)} times")
        succeeded: Counter[str] = Counter()
        for one in instance.get_runs(dg.RunsFilter(tags={keys.TAG_RUN_ID: run.id})):
            if not one.is_finished:
                found.append(f"{run.id}: Dagster run {one.run_id} is {one.status.value} for ever")
            done = instance.get_records_for_run(one.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS).records
            if done and one.run_id not in claimed:
                found.append(f"{run.id}: Dagster run {one.run_id} worked at it without having it")
            succeeded.update(str(row.event_log_entry.step_key) for row in done)
        found += [f"{run.id}: {step} succeeded {n} times" for step, n in succeeded.items() if n > 1]
        for task in ef.runs.tasks(run):
            if task.attempt != 1:
                found.append(f"{run.id}: {task.node_id} is at attempt {task.attempt}")
    return [*found, *(f"{p.collection} {p.id} {p.field}: {p.message}" for p in ef.verify().problems)]


def prepared(ef: EmboFlow, folder: Path, *, quick: int, forked: int) -> None:
    """A queue: an asset, both workflows, and so many runs of each, mixed."""
    table = folder / "rows.csv"
    table.write_text("t,x\n0,1\n")
    asset = ef.assets.register(table, type="raw_file", name="rows")
    for workflow in workflows():
        ef.workflows.publish(workflow)
    every = max(1, quick // max(1, forked))
    for number in range(quick):
        ef.runs.request(QUICK, assets=[asset.id])
        if number % every == 0 and number // every < forked:
            ef.runs.request(FORKED, assets=[asset.id])
