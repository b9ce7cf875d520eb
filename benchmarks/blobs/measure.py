"""The run: every side in turn, round by round, so that what else the machine does hits all of them alike."""

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import Peer
from process import Process, SideError, can_trace, syncs_in

BLOCK = 1 << 20
STEPS = ("write", "read", "version")
Times = dict[str, list[float]]


@dataclass
class Findings:
    """What was found out about one side."""

    versions: str = ""
    times: dict[int, Times] = field(default_factory=dict)  #: seconds, by size in bytes and step
    peaks: dict[int, dict[str, int]] = field(default_factory=dict)  #: bytes above idle
    rates: dict[int, float] = field(default_factory=dict)  #: versions of 1 KiB a second, by threads
    frame: Times = field(default_factory=dict)
    frame_peak: int = 0
    keeps: bool | None = None
    damage: str = "not tried"
    syncs: int | None = None
    notes: list[str] = field(default_factory=list)

    def median(self, size: int, step: str) -> float | None:
        """Seconds, or ``None`` when it was not measured."""
        values = self.times.get(size, {}).get(step)
        return statistics.median(values) if values else None


@dataclass(frozen=True)
class Plan:
    """How much is measured; after so many minutes no further round begins (each size has one at least)."""

    sizes: tuple[int, ...]
    rounds: int | None
    minutes: float
    small_seconds: float
    frame_rows: int
    frame_rounds: int

    def rounds_of(self, size: int) -> int:
        """More of the short ones."""
        if self.rounds is not None:
            return self.rounds if size <= 64 << 20 else min(self.rounds, 3)
        return 15 if size <= BLOCK else 7 if size <= 16 << 20 else 3 if size <= 256 << 20 else 2


class Payload:
    """A file of random bytes, changed at its beginning for every put."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        block = os.urandom(min(size, BLOCK))
        with path.open("wb") as file:
            for _ in range(max(1, size // BLOCK)):
                file.write(block)

    def renew(self) -> str:
        """Other content, and nothing left to write back: no side pays for another's pages."""
        with self.path.open("r+b") as file:
            file.write(os.urandom(min(self.size, 4096)))
        os.sync()
        return str(self.path)


class Runner:
    """The processes of all sides and what they were found to do."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.found: dict[Peer, Findings] = {}
        self._running: dict[Peer, Process] = {}
        self._end = 0.0

    def start(self, peer: Peer, python: Path, options: dict[str, Any]) -> None:
        """Begin a side's process, after counting what another one of it syncs.

        Raises:
            SideError: It does not start.
        """
        found = Findings()
        place = self.folder / peer.name.replace(" ", "-")
        if can_trace() and not peer.syncs:
            found.syncs = self._syncs(python, peer, place.with_name(place.name + "-traced"), options)
        process = Process(python, peer.side, place, options)
        found.versions = process.hello["versions"]
        self.found[peer], self._running[peer] = found, process

    def _syncs(self, python: Path, peer: Peer, place: Path, options: dict[str, Any]) -> int | None:
        trace = place.with_suffix(".strace")
        source = Payload(self.folder / "traced", 1 << 16)
        try:
            process = Process(python, peer.side, place, {**options, "database": "bench_traced"}, trace=trace)
            try:
                process.ask(do="put", path=source.renew(), name="traced")
                before = syncs_in(trace)
                process.ask(do="put", path=source.renew(), name="traced")
                return syncs_in(trace) - before
            finally:
                process.close()
        except SideError:
            return None

    def run(self) -> None:
        """Measure everything that the plan says."""
        self._end = time.monotonic() + 60 * self.plan.minutes
        self._check()
        for size in self.plan.sizes:
            self._size(size)
        self._small()
        self._frames()

    def close(self) -> None:
        """End all processes."""
        for process in self._running.values():
            process.close()

    def _try(self, peer: Peer, what: str, **command: Any) -> dict[str, Any] | None:
        process = self._running.get(peer)
        if process is None:
            return None
        try:
            return process.ask(**command)
        except SideError as error:
            self.found[peer].notes.append(f"{what}: {error}")
            print(f"  {peer.name}: {what}: {error}", flush=True)
            if "process" in str(error) or "no answer" in str(error):
                self._running.pop(peer).close()
            return None

    def _check(self) -> None:
        paths = []
        for number in range(2):
            place = self.folder / f"checked-{number}"  # one name: some sides go by it
            place.mkdir()
            paths.append(Payload(place / "checked", 1 << 16).renew())
        for peer, found in self.found.items():
            if peer.max_bytes and (answer := self._try(peer, "check", do="check", paths=paths)):
                found.keeps, found.damage = answer["keeps"], answer["damage"]
                self._try(peer, "clean", do="clean", names=["checked"])

    def _size(self, size: int) -> None:
        payload = Payload(self.folder / "payload", size)
        sides = [peer for peer in self.found if size <= peer.max_bytes]
        rounds = self.plan.rounds_of(size)
        names = [f"p{size}-{number}" for number in range(rounds)]
        for turn, name in enumerate(names):
            if turn and time.monotonic() > self._end:
                break
            print(f"{label(size)}: round {turn + 1} of {rounds}", flush=True)
            shift = turn % len(sides) if sides else 0
            for peer in list(sides[shift:] + sides[:shift]):
                if not self._round(peer, payload, name):
                    sides.remove(peer)
                elif size > BLOCK:
                    self._try(peer, "clean", do="clean", names=[name])
        if size <= BLOCK:
            for peer in sides:
                self._try(peer, "clean", do="clean", names=names)
        payload.path.unlink()

    def _round(self, peer: Peer, payload: Payload, name: str) -> bool:
        what = label(payload.size)
        put = self._try(peer, f"{what} write", do="put", path=payload.renew(), name=name)
        if put is None:
            return False
        os.sync()
        get = self._try(peer, f"{what} read", do="get", handle=put["handle"], size=payload.size)
        again = self._try(peer, f"{what} new version", do="put", path=payload.renew(), name=name)
        found = self.found[peer]
        times = found.times.setdefault(payload.size, {step: [] for step in STEPS})
        peaks = found.peaks.setdefault(payload.size, dict.fromkeys(STEPS, 0))
        for step, answer in zip(STEPS, (put, get, again), strict=True):
            if answer is not None:
                times[step].append(answer["seconds"])
                peaks[step] = max(peaks[step], answer["peak"])
        return get is not None and again is not None

    def _small(self) -> None:
        for threads in (1, 8):
            for peer, found in self.found.items():
                if not peer.max_bytes or (threads > 1 and not peer.threads):
                    continue
                os.sync()
                answer = self._try(
                    peer, f"{threads} writers", do="small", threads=threads, seconds=self.plan.small_seconds
                )
                if answer is not None:
                    found.rates[threads] = answer["rate"]

    def _frames(self) -> None:
        for turn in range(self.plan.frame_rounds):
            print(f"DataFrame: round {turn + 1} of {self.plan.frame_rounds}", flush=True)
            for peer, found in self.found.items():
                if not peer.frames:
                    continue
                os.sync()
                answer = self._try(peer, "frame", do="frame", rows=self.plan.frame_rows, seed=turn + 0.5)
                if answer is not None:
                    found.frame.setdefault("write", []).append(answer["put"])
                    found.frame.setdefault("read", []).append(answer["get"])
                    found.frame_peak = max(found.frame_peak, answer["peak"])


def label(size: int) -> str:
    """A size for people: ``64 KiB``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"
