"""`emboflow task logs`: selected, cut, as JSON, byte for byte, and followed from another process."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_cli import COMMAND, Deployment

FLOW = """\
workflow: talks
nodes:
  - {id: source, type: source}
  - id: talk
    type: python
    after: [source]
    config: {gate: "GATE"}
    codeHook:
      entrypoint: talk
      source: |
        import sys, time
        from pathlib import Path

        def talk(ctx, inputs):
            for n in range(3):
                print("out", n, flush=True)
            sys.stderr.buffer.write(b"\\xff\\x1b[31m err")
            sys.stderr.buffer.flush()
            ctx.log("said")
            gate, until = Path(ctx.config["gate"]), time.monotonic() + 120
            while not gate.exists() and time.monotonic() < until:
                time.sleep(0.02)
            print("last")
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, mongo_uri: str) -> Iterator[Deployment]:
    made = Deployment(tmp_path_factory.mktemp("cli-logs") / "home", mongo_uri)
    folder = made.home.parent
    (folder / "talks.yaml").write_text(FLOW.replace("GATE", str(folder / "gate")))
    (folder / "rows.csv").write_text("t,x\n0,1\n")
    assert (
        made.here(
            "asset", "register", str(folder / "rows.csv"), "--type", "raw_file", "--name", "rows"
        ).status
        == 0
    )
    assert made.here("workflow", "publish", str(folder / "talks.yaml")).status == 0
    yield made
    made.client.drop_database(made.db.name)
    made.client.close()


@pytest.fixture(scope="module")
def followed(deployment: Deployment) -> tuple[str, list[dict], str]:
    """A task that two commands followed while a worker executed it: its name, JSON lines, plain text."""
    gate: Path = deployment.home.parent / "gate"
    run = deployment.here("workflow", "run", "talks", "--asset", "rows", "--json").json
    task = f"{run['_id']}:talk"
    how = {
        "env": {**os.environ, **deployment.environment},
        "cwd": deployment.home.parent,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    follow = [COMMAND, "task", "logs", task, "--follow"]
    as_json = subprocess.Popen([*follow, "--json"], **how)
    plain = subprocess.Popen([*follow, "--stdout", "--log"], **how)
    assert as_json.stdout is not None
    assert plain.stderr is not None
    # It waits for a task that is not there yet: only then somebody takes it.
    assert any(b"talk is pending; its log is shown as it comes" in line for line in plain.stderr)
    worker = subprocess.Popen([COMMAND, "worker", "--once"], **how)
    rows = []
    for line in as_json.stdout:
        rows.append(json.loads(line))
        if rows[-1]["line"] == "said":
            assert deployment.here("task", "show", task, "--json").json["status"] == "running"
            gate.touch()
    text, _ = plain.communicate(timeout=120)
    assert [one.wait(120) for one in (as_json, plain, worker)] == [0, 0, 0]
    for one in (as_json, worker):
        one.communicate()
    return task, rows, text.decode()


def test_a_log_is_followed_from_another_process_and_ends_with_its_task(followed, deployment):
    task, rows, text = followed

    assert [row["line"] for row in rows if row["stream"] == "stdout"] == ["out 0", "out 1", "out 2", "last"]
    assert [row for row in rows if row["stream"] == "stderr"] == [
        {"stream": "stderr", "line": "\ufffd\x1b[31m err", "attempt": 1}
    ]
    assert sorted(text.splitlines()) == ["last", "out 0", "out 1", "out 2", "said"]
    again = deployment.here("task", "logs", task, "--follow", "--json")
    assert sorted(map(str, map(json.loads, again.out.splitlines()))) == sorted(map(str, rows))


def test_streams_are_selected_and_cut(followed, deployment):
    task, rows, _ = followed

    def shown(*options: str) -> str:
        return deployment.here("task", "logs", task, *options).out

    assert shown("--log") == shown("--stream", "log") == "said\n"
    assert shown("--stdout", "-n", "2") == "out 2\nlast\n"
    assert shown("--stderr") == "\ufffd\\x1b[31m err\n"
    assert shown("--lines", "0") == ""
    everything = deployment.here("task", "logs", task, "--json").json
    assert sorted(map(str, everything)) == sorted(str({k: r[k] for k in ("stream", "line")}) for r in rows)
    assert deployment.here("task", "logs", task, "--lines", "0", "--json").json == []
    assert shown("--attempt", "1", "--log") == "said\n"


def test_one_stream_is_given_byte_for_byte(followed, deployment):
    task, _, _ = followed
    raw = deployment.outside("task", "logs", task, "--stderr", "--raw")

    assert (raw.status, raw.raw) == (0, b"\xff\x1b[31m err")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--attempt", "7"), 1, "has no attempt 7"),
        (("--raw",), 2, "needs one of --stdout, --stderr, --log"),
        (("--raw", "--log", "--follow"), 2, "goes with neither --follow, --lines nor --json"),
        (("--stream", "stdin"), 2, "allowed are log, stdout, stderr"),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_refused(followed, deployment, options, status, message):
    ended = deployment.here("task", "logs", followed[0], *options)

    assert ended.status == status
    assert message in ended.err
    assert ended.out == ""
