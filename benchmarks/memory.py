"""The most memory that a put and a verified get hold above idle, at sizes far beyond it.

The payload is a generated stream: nothing of it lies on the disk before. Each step has a process of its own.

    python benchmarks/memory.py [--sizes 1GiB,10GiB] [--homes object_store,gridfs] [--folder DIR]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.mongo import embedded
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

TARGET = 32 << 20
CHUNK = 1 << 20


def main() -> int:
    """Print the table; exit 1 when more than 32 MiB were held."""
    if sys.argv[1:2] == ["--step"]:
        return step(*sys.argv[2:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="1GiB", help="for example 64MiB,1GiB,10GiB")
    parser.add_argument(
        "--homes", default="object_store", help="object_store, gridfs, in_object (to 256 KiB)"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="on which disk; default: a temporary folder"
    )
    options = parser.parse_args()
    over = False
    print(f"{'home':14} {'size':>8} {'step':>5} {'seconds':>9} {'MiB/s':>8} {'MiB above idle':>15}")
    with tempfile.TemporaryDirectory(prefix="emboflow-bench-", dir=options.folder) as folder:
        home = Path(folder) / "home"
        try:
            server = embedded.ensure(home)
            for size_text in options.sizes.split(","):
                for where in options.homes.split(","):
                    for what in ("put", "get"):
                        over |= not report(home, server.uri, where, size_text, what)
                    with EmboFlow.open(Settings.from_env(home=home, mongo_uri=server.uri)) as ef:
                        for key in list(ef.store.iter_keys()):
                            ef.store.delete(key)
        finally:
            embedded.stop(home)
    print(f"aimed at: at most {TARGET >> 20} MiB at any size")
    return 1 if over else 0


def report(home: Path, uri: str, where: str, size_text: str, what: str) -> bool:
    """Run one step in a process of its own; whether it stayed below the target."""
    command = [sys.executable, __file__, "--step", what, str(home), uri, where, str(bytes_of(size_text))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "EMBOFLOW_ALLOW_GRIDFS": "1"}
    )
    if done.returncode:
        print(f"{where:14} {size_text:>8} {what:>5} {done.stderr.strip().splitlines()[-1][:90]}")
        return False
    seconds, above = (float(word) for word in done.stdout.split())
    speed = bytes_of(size_text) / seconds / 2**20
    print(
        f"{where:14} {size_text:>8} {what:>5} {seconds:9.2f} {speed:8.0f} {above / 2**20:15.1f}", flush=True
    )
    return above <= TARGET


def step(what: str, home: str, uri: str, where: str, size_text: str) -> int:
    """Put or get, and print seconds and bytes above idle."""
    size, name = int(size_text), f"memory-{size_text}"
    try:
        with EmboFlow.open(Settings.from_env(home=home, mongo_uri=uri)) as ef:
            ef.blobs.put(b"warm", object_id=f"warm-{where}", home=where)
            ef.blobs.read(f"warm-{where}")
            Path("/proc/self/clear_refs").write_text("5")
            idle = status("VmRSS")
            began = time.perf_counter()
            if what == "put":
                ef.blobs.put(generated(size), object_id=name, home=where)
            else:
                with ef.blobs.open(name) as stream:
                    found = sum(map(len, iter(lambda: stream.read(CHUNK), b"")))
                if found != size:
                    raise SystemExit(f"read {found} bytes of {size}")
            print(time.perf_counter() - began, status("VmHWM") - idle)
    except EmboflowError as error:
        raise SystemExit(error.message) from None
    return 0


def generated(size: int) -> Iterator[bytes]:
    """Chunks that differ from each other, made as they are asked for."""
    block = bytearray(os.urandom(CHUNK))
    for number in range(0, size, CHUNK):
        block[:8] = number.to_bytes(8, "big")
        yield bytes(block[: min(CHUNK, size - number)])


def status(name: str) -> int:
    """A figure of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise KeyError(name)


def bytes_of(text: str) -> int:
    """``10GiB`` in bytes."""
    found = re.fullmatch(r"(\d+)(KiB|MiB|GiB)", text.strip())
    if found is None:
        raise SystemExit(f"--sizes: {text!r}; write 64MiB or 10GiB")
    return int(found[1]) << {"KiB": 10, "MiB": 20, "GiB": 30}[found[2]]


if __name__ == "__main__":
    sys.exit(main())
