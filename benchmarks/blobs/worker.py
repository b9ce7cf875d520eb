"""The process of one side: reads commands as JSON lines, does them, answers with what they took.

It runs in the side's own virtual environment and needs nothing but the standard library, so that every side
is measured by the same code, inside its own process, after everything is imported and connected.

    python worker.py SIDE FOLDER OPTIONS
"""

import hashlib
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
Command = dict[str, Any]


class Peak:
    """The most memory held since the start, above what was held then; of this process, in bytes."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._idle = _status("VmRSS")

    def above_idle(self) -> int:
        """Until now."""
        return max(0, _status("VmHWM") - self._idle)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise KeyError(name)


def consume(found: Any) -> int:
    """Let every byte go by; the number of bytes. Sides give bytes, a path, or a stream."""
    if isinstance(found, bytes | bytearray | memoryview):
        return len(found)
    if isinstance(found, Path):
        with found.open("rb", buffering=0) as file:
            return _drain(file)
    with found as stream:
        return _drain(stream)


def _drain(stream: Any) -> int:
    size = 0
    while chunk := stream.read(CHUNK):
        size += len(chunk)
    return size


def content(found: Any) -> bytes:
    """All bytes, for comparing."""
    if isinstance(found, bytes | bytearray | memoryview):
        return bytes(found)
    if isinstance(found, Path):
        return found.read_bytes()
    with found as stream:
        return bytes(stream.read())


def flip_in_files(folder: Path, marker: bytes) -> bool:
    """Damage every stored copy of what holds ``marker``; whether there was one in a file of the side."""
    found = False
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        at = data.find(marker)
        while at >= 0:
            found = True
            path.chmod(0o644)
            with path.open("r+b") as file:
                file.seek(at + 5)
                file.write(bytes([data[at + 5] ^ 0xFF]))
            at = data.find(marker, at + 1)
    return found


class Worker:
    """One side and what can be asked of it."""

    def __init__(self, name: str, folder: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        self.side: Any = importlib.import_module(f"sides.{name}").Side(folder, options)
        self._frame: Any = None

    def do(self, command: Command) -> dict[str, Any]:
        """Carry out one command."""
        handler: Callable[[Command], dict[str, Any]] = getattr(self, "do_" + command["do"])
        return handler(command)

    def do_hello(self, _: Command) -> dict[str, Any]:
        """Which versions work here."""
        return {"versions": self.side.versions(), "frames": hasattr(self.side, "put_frame")}

    def do_put(self, command: Command) -> dict[str, Any]:
        """Store a payload under a name, timed; what a side wants in memory is there before."""
        path = Path(command["path"])
        source = self._source(path, command["name"])
        peak = Peak()
        began = time.perf_counter()
        handle = self.side.put(source, command["name"])
        took = time.perf_counter() - began
        peak_bytes = peak.above_idle()
        return {"seconds": took, "peak": peak_bytes, "handle": self._stored(handle)}

    def do_get(self, command: Command) -> dict[str, Any]:
        """Read it to its end, timed."""
        self._before_get(command["handle"])
        peak = Peak()
        began = time.perf_counter()
        size = consume(self.side.get(command["handle"]))
        took = time.perf_counter() - began
        if size != command["size"]:
            raise ValueError(f"read {size} bytes, stored were {command['size']}")
        return {"seconds": took, "peak": peak.above_idle()}

    def _source(self, path: Path, name: str) -> Any:
        """The payload as the side takes it, brought where the side needs it: before the clock starts."""
        if hasattr(self.side, "before_put"):
            self.side.before_put(path, name)
        return path.read_bytes() if self.side.takes == "bytes" else path

    def _stored(self, handle: Any) -> Any:
        """The handle with what the side says only when it is asked again."""
        return self.side.after_put(handle) if hasattr(self.side, "after_put") else handle

    def _before_get(self, handle: Any) -> None:
        if hasattr(self.side, "before_get"):
            self.side.before_get(handle)

    def do_clean(self, command: Command) -> dict[str, Any]:
        """Remove what earlier commands stored."""
        self.side.clean(command["names"])
        return {}

    def do_small(self, command: Command) -> dict[str, Any]:
        """New versions of one object for a while; and over several objects, one thread each."""
        threads, seconds = command["threads"], command["seconds"]
        counts = [0] * threads
        errors: list[BaseException] = []

        for number in range(threads):
            self.side.put(self._small(threads, number, 0), f"small-{threads}-{number}")

        def work(number: int) -> None:
            end = time.perf_counter() + seconds
            try:
                while time.perf_counter() < end:
                    self.side.put(self._small(threads, number, counts[number]), f"small-{threads}-{number}")
                    counts[number] += 1
            except BaseException as error:  # noqa: BLE001 - told to the parent
                errors.append(error)

        began = time.perf_counter()
        running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        if errors:
            raise errors[0]
        return {"rate": sum(counts) / (time.perf_counter() - began)}

    def _small(self, threads: int, number: int, turn: int) -> Any:
        data = os.urandom(1024)
        if self.side.takes == "bytes":
            return data
        path = self.folder.parent / f"small-{self.folder.name}-{number}-{turn % 2}"
        path.write_bytes(data)
        return self._source(path, f"small-{threads}-{number}")

    def do_frame(self, command: Command) -> dict[str, Any]:
        """Store and load a DataFrame of a million rows and ten columns."""
        if self._frame is None:
            self._frame = make_frame(command["rows"])
        self._frame.iloc[0, 0] = command["seed"]
        peak = Peak()
        began = time.perf_counter()
        handle = self.side.put_frame(self._frame, "frame")
        put = time.perf_counter() - began
        began = time.perf_counter()
        back = self.side.get_frame(handle)
        get = time.perf_counter() - began
        if back.shape != self._frame.shape or back.iloc[0, 0] != command["seed"]:
            raise ValueError("another frame came back")
        return {"put": put, "get": get, "peak": peak.above_idle()}

    def do_check(self, command: Command) -> dict[str, Any]:
        """What the side does with an old version and with a flipped byte."""
        paths = [Path(path) for path in command["paths"]]
        handles = [self._stored(self.side.put(self._source(path, "checked"), "checked")) for path in paths]
        try:
            self._before_get(handles[0])
            keeps = content(self.side.get(handles[0])) == paths[0].read_bytes()
        except Exception:  # noqa: BLE001 - an old version that cannot be read is not kept
            keeps = False
        expected = paths[1].read_bytes()
        marker = expected[100:164]
        damage = getattr(self.side, "damage", None)
        found = damage(handles[1]) if damage else flip_in_files(self.folder, marker)
        if not found:
            return {"keeps": keeps, "damage": "not tried: the bytes are not found as they are"}
        try:
            self._before_get(handles[1])
            same = content(self.side.get(handles[1])) == expected
        except Exception as error:  # noqa: BLE001 - that is the good case
            return {"keeps": keeps, "damage": f"refused ({type(error).__name__})"}
        return {"keeps": keeps, "damage": "not seen: read from elsewhere" if same else "returned as if right"}

    def do_many(self, command: Command) -> dict[str, Any]:
        """New versions of one object, one after the other, each told to a log before and after it."""
        done = 0
        with Path(command["log"]).open("a", buffering=1) as log:
            for turn in range(command["count"]):
                data = os.urandom(command["size"])
                tried = {"try": hashlib.sha256(data).hexdigest()}
                log.write(json.dumps(tried) + "\n")
                try:
                    handle = self.side.put(self._given(data, command["name"], turn), command["name"])
                except Exception as error:  # noqa: BLE001 - a refusal is an answer
                    log.write(
                        json.dumps(tried | {"refused": type(error).__name__, "why": str(error)[:200]}) + "\n"
                    )
                    continue
                log.write(json.dumps(tried | {"handle": handle}) + "\n")
                done += 1
        return {"done": done}

    def do_sums(self, command: Command) -> dict[str, Any]:
        """The sha256 of what each handle gives back, or the class of the refusal."""
        every = getattr(self.side, "every", None)
        handles = every(command["name"]) if every else command["handles"]
        newest = getattr(self.side, "newest", None)
        answer = {"sums": [self._sum(lambda h=h: self._got(h)) for h in handles], "listed": bool(every)}
        return answer | ({"newest": self._sum(lambda: newest(command["name"]))} if newest else {})

    def _given(self, data: bytes, name: str, turn: int) -> Any:
        if self.side.takes == "bytes":
            if hasattr(self.side, "before_put"):
                self.side.before_put(data, name)
            return data
        folder = self.folder.parent / f"given-{self.folder.name}-{os.getpid()}-{turn % 2}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        return self._source(folder / name, name)

    def _got(self, handle: Any) -> Any:
        self._before_get(handle)
        return self.side.get(handle)

    def _sum(self, read: Callable[[], Any]) -> str:
        try:
            return hashlib.sha256(content(read())).hexdigest()
        except Exception as error:  # noqa: BLE001 - what it says of the loss
            return f"refused ({type(error).__name__})"


def make_frame(rows: int) -> Any:
    """Ten columns of numbers: eight of floats, two of integers."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(1)
    columns = {f"f{n}": random.standard_normal(rows) for n in range(8)}
    columns |= {f"i{n}": random.integers(0, 1 << 40, rows) for n in range(2)}
    return pd.DataFrame(columns)


def main() -> None:
    """Answer until the input ends."""
    name, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    sys.path.insert(0, str(Path(__file__).parent))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        worker = Worker(name, folder, options)
        answer: dict[str, Any] = worker.do_hello({})
    except BaseException as error:  # noqa: BLE001 - told to the parent
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=out, flush=True)
    if "error" in answer:
        return
    for line in sys.stdin:
        try:
            answer = worker.do(json.loads(line))
        except BaseException as error:  # noqa: BLE001 - told to the parent
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
