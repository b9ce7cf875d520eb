"""The two trials: processes of a side are started, told to put, killed, and asked afterwards."""

import contextlib
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from peers import Peer
from process import Process, SideError

WRITERS: Final = 4
EACH: Final = 25
SMALL: Final = 64 << 10
LARGE: Final = 16 << 20
NAME: Final = "thing"


@dataclass
class Together:
    """Of ``WRITERS * EACH`` puts at once."""

    acknowledged: int = 0
    readable: int = 0  #: of these, whose own bytes can be read afterwards
    refused: dict[str, int] = field(default_factory=dict)  #: by class of the error
    handles: int | None = None  #: distinct ones among the acknowledged; None: a put does not say


@dataclass
class Killed:
    """Of a writer that was killed again and again."""

    acknowledged: int = 0
    readable: int = 0
    torn: int = 0  #: times that the newest version gave bytes that nobody had put
    unreadable: dict[str, int] = field(default_factory=dict)  #: newest version could not be read, by error


class Place:
    """One side's store, which several processes of it open one after the other or at once."""

    def __init__(self, peer: Peer, python: Path, folder: Path, options: dict[str, Any]) -> None:
        self.peer, self.python, self.folder, self.options = peer, python, folder, options
        self._versions = ""

    def versions(self) -> str:
        """What the side says that it is."""
        if not self._versions:
            self.folder.mkdir(parents=True, exist_ok=True)
            process = self.process("asked", joins=False)
            self._versions = process.hello["versions"]
            process.close()
        return self._versions

    def process(self, name: str, *, joins: bool) -> Process:
        """A process on the store of that name; the first of them makes it."""
        options = self.options | {"database": f"promises_{self.folder.name}_{name}", "joins": joins}
        return Process(self.python, self.peer.side, self.folder / name, options)

    def size(self, wanted: int) -> int:
        """The payload, as large as the side takes it."""
        return min(wanted, self.peer.max_bytes)


def together(place: Place, name: str) -> Together:
    """All writers begin at once, on one object."""
    first = place.process(name, joins=False)
    writers = [first, *(place.process(name, joins=True) for _ in range(WRITERS - 1))]
    logs = [place.folder / f"{name}-{n}.jsonl" for n in range(WRITERS)]
    command = {"do": "many", "name": NAME, "count": EACH, "size": place.size(SMALL)}
    with ThreadPoolExecutor(WRITERS) as threads:
        asked = [
            threads.submit(w.ask, 600, **command, log=str(log)) for w, log in zip(writers, logs, strict=True)
        ]
        for answer in asked:
            answer.result()
    for writer in writers:
        writer.close()
    told = [line for log in logs for line in _lines(log)]
    found = Together()
    for line in told:
        if "refused" in line:
            found.refused[line["refused"]] = found.refused.get(line["refused"], 0) + 1
    done = [line for line in told if "handle" in line]
    found.acknowledged = len(done)
    reader = place.process(name, joins=True)
    try:
        answer = reader.ask(600, do="sums", name=NAME, handles=[line["handle"] for line in done])
    finally:
        reader.close()
    found.readable = _readable(done, answer)
    if not answer["listed"]:
        found.handles = len({json.dumps(line["handle"]) for line in done})
    return found


def killed(place: Place, name: str, kills: int, seed: int) -> Killed:
    """A writer that is killed while it puts; after each kill a fresh process reads the newest version."""
    found = Killed()
    moments = random.Random(seed)
    log = place.folder / f"{name}.jsonl"
    writer = place.process(name, joins=False)
    writer.ask(do="many", name=NAME, count=1, size=place.size(LARGE), log=str(log))
    if "handle" not in _lines(log)[-1]:
        raise SideError(f"the first put: {_lines(log)[-1]}")
    for _ in range(kills):
        before = len(_lines(log))
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(
                writer.ask, 600, do="many", name=NAME, count=1000, size=place.size(LARGE), log=str(log)
            )
            while len(_lines(log)) <= before:  # it has begun
                time.sleep(0.001)
            time.sleep(moments.uniform(0.0, 0.4))
            writer.kill()
            with contextlib.suppress(SideError):
                asked.result()
        writer = place.process(name, joins=True)
        lines = _lines(log)
        last = [line["handle"] for line in lines if "handle" in line][-1]
        answer = writer.ask(600, do="sums", name=NAME, handles=[last])
        newest = answer.get("newest", answer["sums"][-1])
        if newest.startswith("refused"):
            found.unreadable[newest] = found.unreadable.get(newest, 0) + 1
        elif newest not in {line["try"] for line in lines}:
            found.torn += 1
    done = [line for line in _lines(log) if "handle" in line]
    answer = writer.ask(1200, do="sums", name=NAME, handles=[line["handle"] for line in done])
    writer.close()
    found.acknowledged = len(done)
    found.readable = _readable(done, answer)
    return found


def _readable(done: list[dict[str, Any]], answer: dict[str, Any]) -> int:
    """How many of the acknowledged can be read: by their handle, or among all that the side lists."""
    if answer["listed"]:
        return len({line["try"] for line in done} & set(answer["sums"]))
    return sum(line["try"] == got for line, got in zip(done, answer["sums"], strict=True))


def _lines(log: Path) -> list[dict[str, Any]]:
    """What was written whole; a killed writer may leave half a line."""
    if not log.exists():
        return []
    text = log.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
