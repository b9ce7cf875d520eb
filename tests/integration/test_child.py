"""Functions in a child process: limits, crashes, orphans, lines and secrets. Each with a positive control."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from emboflow_dagster.errors import ErrorKind, ExecutionError, InvalidInputError, LimitError
from emboflow_dagster.runtime.child import run_child

PARTS = """
import json, os, signal, subprocess, sys, time

def echo(value): return value
def env(): return dict(os.environ)
def where(): return os.getcwd()
def hoard(mib):
    held = bytearray(mib << 20)
    return len(held)
def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
    return "done"
def sleep(seconds):
    time.sleep(seconds); return "awake"
def die(number):
    os.kill(os.getpid(), number)
def leave(code): os._exit(code)
def say(lines, width=0):
    for i in range(lines): print("x" * width or i)
def raw(stream, text):
    os.write({"out": 1, "err": 2}[stream], bytes.fromhex(text))
def fill():
    with open("/dev/full", "w") as full: full.write("x")
def fail():
    from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem
    raise InvalidInputError.of([Problem(ErrorKind.SLUG, "a.b", "found '!'")], hint="do it right")
def family(path, seconds, detach):
    pids = []
    for n in range(5):
        pid = os.fork()
        if pid == 0:
            if detach: os.setsid()
            if os.fork(): time.sleep(60)
            time.sleep(60); os._exit(0)
        pids.append(pid)
    open(path, "w").write(json.dumps([os.getpid(), *pids]))
    time.sleep(seconds)
    return "left them"
def big(size): return "x" * size
def unserialisable(): return object()
def spoken():
    from emboflow_dagster.runtime.child_main import log
    log("one"); log("zwei ü"); return None
def forge(kind, payload):
    from emboflow_dagster.runtime import child_main
    child_main._send(kind.encode(), payload.encode())
    os._exit(0)
def soft_limits():
    import resource
    names = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_CPU")
    return {name: resource.getrlimit(getattr(resource, name))[0] for name in names}
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "child_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "child_parts"


def running(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def test_arguments_and_results_are_json(parts: str) -> None:
    value = {"a": [1, 2.5, None, True], "b": "ü€😀", "lone": "\udcff"}

    assert run_child(f"{parts}:echo", value) == value


def test_a_secret_of_this_process_is_not_in_the_child(parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOFLOW_MONGO_URI", "mongodb://canary-5f1c@host")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-5f1c")
    monkeypatch.setenv("PYTHONSTARTUP", "canary-5f1c")

    seen = run_child(f"{parts}:env")
    given = run_child(f"{parts}:env", env={"ASKED_FOR": "canary-5f1c"})

    assert "canary-5f1c" not in str(seen)
    assert {"PATH", "HOME", "TMPDIR", "LANG"} <= set(seen)
    assert seen["HOME"] == seen["TMPDIR"] != os.environ["HOME"]
    assert given["ASKED_FOR"] == "canary-5f1c"  # the search would find it


def test_memory_is_limited(parts: str) -> None:
    assert run_child(f"{parts}:hoard", 100, memory_mb=512) == 100 << 20

    with pytest.raises(LimitError, match="more than 512 MiB") as caught:
        run_child(f"{parts}:hoard", 600, memory_mb=512)

    assert caught.value.kind is ErrorKind.LIMIT_MEMORY


def test_wall_clock_time_is_limited(parts: str) -> None:
    assert run_child(f"{parts}:sleep", 0.2, timeout_s=20) == "awake"
    start = time.monotonic()

    with pytest.raises(LimitError, match=r"0\.5 s of wall-clock") as caught:
        run_child(f"{parts}:sleep", 60, timeout_s=0.5)

    assert caught.value.kind is ErrorKind.LIMIT_TIME
    assert time.monotonic() - start < 5


def test_processor_time_is_limited(parts: str) -> None:
    assert run_child(f"{parts}:spin", 0.1, cpu_s=5) == "done"

    with pytest.raises(LimitError, match="1 s of processor time") as caught:
        run_child(f"{parts}:spin", 30, cpu_s=1, timeout_s=60)

    assert caught.value.kind is ErrorKind.LIMIT_TIME


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGKILL", "SIGILL"])
def test_a_crash_names_its_signal(parts: str, name: str) -> None:
    with pytest.raises(ExecutionError, match=name) as caught:
        run_child(f"{parts}:die", int(getattr(signal, name)))

    assert caught.value.kind is ErrorKind.CHILD_CRASHED
    assert not isinstance(caught.value, LimitError)


def test_an_exit_without_a_result_is_a_crash(parts: str) -> None:
    with pytest.raises(ExecutionError, match="exit code 7 and no result") as caught:
        run_child(f"{parts}:leave", 7)

    assert caught.value.kind is ErrorKind.CHILD_CRASHED


def test_a_full_disk_is_said_to_be_one(parts: str) -> None:
    with pytest.raises(ExecutionError, match="No space left on device") as caught:
        run_child(f"{parts}:fill")
    assert (caught.value.kind, caught.value.hint) == (ErrorKind.DISK_FULL, "make room, then run it again")


def test_our_errors_come_back_as_they_were_raised(parts: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        run_child(f"{parts}:fail")

    assert caught.value.kind is ErrorKind.SLUG
    assert caught.value.hint == "do it right"
    assert [(p.kind, p.path, p.message) for p in caught.value.problems] == [
        (ErrorKind.SLUG, "a.b", "found '!'")
    ]


def test_other_errors_are_execution_errors_with_a_traceback_on_stderr(parts: str) -> None:
    lines: list[str] = []

    with pytest.raises(ExecutionError, match="TypeError") as caught:
        run_child(f"{parts}:say", "many", on_stderr=lines.append)

    assert caught.value.kind is ErrorKind.NODE_FAILED
    assert lines[0] == "Traceback (most recent call last):"
    assert "child_main" not in "".join(lines)


def test_a_result_has_a_size_limit(parts: str) -> None:
    assert len(run_child(f"{parts}:big", 1 << 20)) == 1 << 20

    with pytest.raises(LimitError) as caught:
        run_child(f"{parts}:big", 65 << 20)

    assert caught.value.kind is ErrorKind.LIMIT_SIZE


def test_a_result_that_is_no_json_is_an_error(parts: str) -> None:
    with pytest.raises(ExecutionError, match="not JSON serializable"):
        run_child(f"{parts}:unserialisable")


@pytest.mark.parametrize(
    ("kind", "payload"),
    [("R", "{oops"), ("E", "[1]"), ("E", '{"type": "SystemExit", "code": "x"}'), ("?", "1")],
)
def test_a_forged_answer_is_an_error_of_ours(parts: str, kind: str, payload: str) -> None:
    with pytest.raises(ExecutionError):
        run_child(f"{parts}:forge", kind, payload)


def test_texts_for_the_log_come_on_their_own_way(parts: str) -> None:
    logged: list[str] = []
    printed: list[str] = []

    run_child(f"{parts}:spoken", on_log=logged.append, on_stdout=printed.append)

    assert logged == ["one", "zwei ü"]
    assert printed == []


def test_a_million_lines_are_counted_at_constant_memory(parts: str) -> None:
    import resource

    count, last = 0, ""

    def take(line: str) -> None:
        nonlocal count, last
        count, last = count + 1, line

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run_child(f"{parts}:say", 1_000_000, on_stdout=take)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert (count, last) == (1_000_000, "999999")
    assert grown_kib < 20_000


@pytest.mark.parametrize("width", [5_000_000, 10 << 20])
def test_a_very_long_line_is_cut_and_counts_once(parts: str, width: int) -> None:
    lines: list[str] = []

    run_child(f"{parts}:say", 1, width, on_stdout=lines.append)

    assert len(lines) == 1
    assert lines[0].endswith(f"[cut: the line has {width} bytes]")
    assert len(lines[0]) < 70_000


def test_bytes_that_are_no_text_are_replaced(parts: str) -> None:
    lines: list[str] = []

    run_child(f"{parts}:raw", "err", b"ok\xff\xfe\0\r\nno end".hex(), on_stderr=lines.append)

    assert lines == ["ok\ufffd\ufffd\\x00", "no end"]


@pytest.mark.parametrize("detach", [False, True], ids=["same group", "own sessions"])
@pytest.mark.parametrize("ends", ["by itself", "by the limit"])
def test_everything_a_child_started_ends_with_it(parts: str, tmp_path: Path, detach: bool, ends: str) -> None:
    import json

    pids = tmp_path / "pids"
    if ends == "by itself":
        run_child(f"{parts}:family", str(pids), 0.3, detach, timeout_s=30)
    else:
        with pytest.raises(LimitError):
            run_child(f"{parts}:family", str(pids), 60, detach, timeout_s=1)

    family = json.loads(pids.read_text())
    assert len(family) == 6
    assert running(family) == []
    everybody = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    left = []
    for pid in everybody:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if b"ARROW_DEFAULT_MEMORY_POOL=system" in environ and str(tmp_path).encode() in (
            Path(f"/proc/{pid}/cmdline").read_bytes()
        ):
            left.append(pid)
    assert left == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_does_not_outlive_its_parent(parts: str, tmp_path: Path, number: int) -> None:
    import json

    pids = tmp_path / "pids"
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from emboflow_dagster.runtime.child import run_child
        run_child("child_parts:family", {str(pids)!r}, 60, True)
    """)
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 20
        while not (pids.exists() and pids.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        family = json.loads(pids.read_text())
        assert len(running(family)) == 6  # they were there

        parent.send_signal(number)
        parent.wait(15)
    finally:
        parent.kill()
        parent.wait()

    deadline = time.monotonic() + 10
    while running(family) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running(family) == []


def test_a_callback_that_raises_ends_the_child(parts: str, tmp_path: Path) -> None:
    class StopHere(Exception):  # noqa: N818 - what a cancelled step raises is no error
        pass

    def stop(line: str) -> None:
        raise StopHere(line)

    start = time.monotonic()
    with pytest.raises(StopHere, match="0"):
        run_child(f"{parts}:say", 100_000_000, on_stdout=stop)

    assert time.monotonic() - start < 10


def test_limits_are_set_before_anything_is_imported(parts: str) -> None:
    soft = run_child(f"{parts}:soft_limits", memory_mb=700, cpu_s=9)

    assert soft == {"RLIMIT_AS": 700 << 20, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1024, "RLIMIT_CPU": 9}


def test_its_folder_is_a_temporary_one_or_the_one_given(parts: str, tmp_path: Path) -> None:
    own = Path(run_child(f"{parts}:where"))

    assert not own.exists()
    assert Path(run_child(f"{parts}:where", cwd=tmp_path)) == tmp_path.resolve()
