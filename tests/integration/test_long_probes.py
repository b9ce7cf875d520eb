"""A probe that takes long: it says how far it is, and ends at once when nobody wants it any more."""

import gzip
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

COMMAND = str(Path(sys.executable).parent / "emboflow")
PROBING = """\
workflow: look
nodes:
  - {id: source, type: source}
  - {id: probe, type: probe, after: [source]}
"""


@pytest.fixture
def folder(mongo_uri, tmp_path, monkeypatch) -> Iterator[Path]:
    """A deployment with an asset that takes a minute to unpack, and TMPDIR of the test alone."""
    monkeypatch.setenv("EMBOFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EMBOFLOW_MONGO_URI", mongo_uri)
    monkeypatch.setenv("EMBOFLOW_DATABASE", f"cli_{uuid4().hex[:12]}")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    piece = gzip.compress(os.urandom(1 << 18) + bytes(32 << 20), compresslevel=9)  # 110:1, no bomb yet
    with (tmp_path / "long.gz").open("wb") as stream:
        for _ in range(400):
            stream.write(piece)
    emboflow("asset", "register", str(tmp_path / "long.gz"), "--in-place", "--name", "long")
    yield tmp_path
    (tmp_path / "long.gz").unlink()


def emboflow(*arguments: str) -> str:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(what: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def at_work_in(folder: Path) -> list[int]:
    """Processes whose working directory is below a folder: children of the parsers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink().is_relative_to(folder):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def reading(stream: int) -> Iterator[str]:
    """What a terminal or pipe shows, all of it so far at each step, until it is closed."""
    shown = b""
    while True:
        try:
            data = os.read(stream, 65_536)
        except OSError:  # the other end of the terminal is closed
            return
        if not data:
            return
        shown += data
        yield shown.decode("utf-8", "replace")


LONG = pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="EMBOFLOW_FAULTS=all runs it")


@pytest.mark.parametrize("terminal", [True, pytest.param(False, marks=LONG)])
def test_a_long_probe_says_how_far_it_is_and_ctrl_c_leaves_nothing_behind(folder, terminal):
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [COMMAND, "asset", "probe", "long"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = next(text for text in reading(ours) if "MiB of" in text)
    assert ("\x1b[" in shown) == terminal
    assert "probing long" in shown
    assert at_work_in(folder)

    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    *_, rest = reading(ours)
    assert process.wait(30) == 130
    assert time.monotonic() - begun < 10

    os.close(ours)
    assert "Traceback" not in rest
    assert "interrupted" in rest
    assert at_work_in(folder) == []
    assert list((folder / "tmp").iterdir()) == []
    assert list((folder / "home" / "work").iterdir()) == []
    asset = json.loads(emboflow("asset", "show", "long", "--json"))
    assert asset["status"] == "registered"
    assert json.loads(emboflow("asset", "reports", "long", "--json")) == []


@LONG
def test_a_run_that_is_given_up_ends_the_probing_child_within_seconds(folder):
    (folder / "look.yaml").write_text(PROBING)
    emboflow("workflow", "publish", str(folder / "look.yaml"))
    process = subprocess.Popen(
        [COMMAND, "workflow", "run", "look", "--asset", "long", "--wait", "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: any(folder / "tmp" != Path(f"/proc/{p}/cwd").readlink() for p in at_work_in(folder)))
    children = at_work_in(folder)

    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    wait_for(lambda: not set(at_work_in(folder)) & set(children), 20)

    assert time.monotonic() - begun < 15
    assert process.wait(60) == 130
    (run,) = json.loads(emboflow("run", "list", "--json"))
    assert run["status"] == "cancelled"
