"""The command as a process: signals, pipes, locales, secrets, and a database that is not there."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from emboflow_dagster.mongo import embedded

COMMAND = str(Path(sys.executable).parent / "emboflow")
SLOW = """\
workflow: slow
nodes:
  - {id: source, type: source}
  - id: nap
    type: python
    after: [source]
    codeHook: {entrypoint: nap, source: "import time\\ndef nap(ctx, inputs):\\n    time.sleep(60)\\n"}
"""
NOBODY = "mongodb://ada:s3cret@127.0.0.1:1/?replicaSet=rs0"


def ended(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def deployment(mongo_uri, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EMBOFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EMBOFLOW_MONGO_URI", mongo_uri)
    monkeypatch.setenv("EMBOFLOW_DATABASE", f"cli_{uuid4().hex[:12]}")
    return tmp_path


def wait_for(what: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen(
        [COMMAND, "node", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}])
def test_no_locale_breaks_the_output(deployment, locale):
    file = deployment / "aufnahme-ä-\N{SNOWMAN}.csv"
    file.write_text("t,x\n0,1\n1,2\n")
    registered = ended("asset", "register", str(file), "--type", "raw_file", "--json", **locale)
    assert registered.returncode == 0, registered.stderr

    assert json.loads(registered.stdout)["displayName"] == file.name
    listed = ended("asset", "list", **locale)
    assert listed.returncode == 0, listed.stderr
    assert "aufnahme-" in listed.stdout
    assert ended("asset", "show", "--help", **locale).returncode == 0


def test_ctrl_c_ends_a_run_and_the_command_with_one_line(deployment):
    (deployment / "slow.yaml").write_text(SLOW)
    (deployment / "x.csv").write_text("t\n0\n")
    assert ended("workflow", "publish", str(deployment / "slow.yaml")).returncode == 0
    assert ended("asset", "register", str(deployment / "x.csv"), "--type", "raw_file").returncode == 0
    process = subprocess.Popen(
        [COMMAND, "workflow", "run", "slow", "--asset", "x.csv", "--wait", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = lambda: json.loads(ended("run", "list", "--status", "running", "--json").stdout) != []  # noqa: E731
    wait_for(running)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert not running()


def test_a_timeout_ends_the_run_that_is_executed_here(deployment):
    (deployment / "slow.yaml").write_text(SLOW)
    (deployment / "x.csv").write_text("t\n0\n")
    assert ended("workflow", "publish", str(deployment / "slow.yaml")).returncode == 0
    assert ended("asset", "register", str(deployment / "x.csv"), "--type", "raw_file").returncode == 0

    late = ended("workflow", "run", "slow", "--asset", "x.csv", "--wait", "--timeout", "2")

    assert (late.returncode, late.stdout) == (1, "")
    assert late.stderr.splitlines()[-1].startswith("error[timeout]: ")
    [run] = json.loads(ended("run", "list", "--json").stdout)
    assert run["status"] in ("failed", "cancelled")


def test_the_doctor_works_without_a_database_and_says_so(deployment):
    sick = ended("doctor", "--json", EMBOFLOW_MONGO_URI=NOBODY)
    report = json.loads(sick.stdout)

    assert sick.returncode == 1
    assert report["ok"] is False
    assert [c["name"] for c in report["checks"] if c["status"] == "fail"] == ["database"]
    assert "error[configuration]: 1 of " in sick.stderr
    well = ended("doctor", "--json")
    assert well.returncode == 0, well.stderr
    assert {c["name"] for c in json.loads(well.stdout)["checks"]} >= {
        *("python", "packages", "dagster versions", "extras", "settings", "mongod"),
        *("database", "transactions", "schema", "object store", "dagster home", "dagster"),
    }


def test_the_doctor_names_what_a_folder_lacks(deployment):
    (deployment / "file").write_text("")

    sick = ended("doctor", "--json", EMBOFLOW_OBJECT_STORE=(deployment / "file").as_uri())

    assert sick.returncode == 1
    assert [c["name"] for c in json.loads(sick.stdout)["checks"] if c["status"] == "fail"] == ["object store"]


def test_the_doctor_says_where_the_embedded_database_could_not_live(deployment, monkeypatch):
    monkeypatch.delenv("EMBOFLOW_MONGO_URI")
    (deployment / "file").write_text("")

    sick = ended("doctor", "--json", EMBOFLOW_HOME=str(deployment / "file"))

    assert sick.returncode == 1
    assert [c["name"] for c in json.loads(sick.stdout)["checks"] if c["status"] == "fail"] == [
        *("database", "object store", "dagster home")
    ]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("asset", "register", "~nobody-here/x", "--type", "raw_file"), {}),
        (("asset", "register", "~nobody-here/x"), {}),
        (("blob", "put", "~nobody-here/x"), {}),
        (("demo", "--input", "~nobody-here/x"), {}),
        (("asset", "list"), {"EMBOFLOW_HOME": "~nobody-here/x"}),
        (("asset", "list"), {"DAGSTER_HOME": "~nobody-here/x"}),
    ],
)
def test_a_home_of_nobody_is_not_found(deployment, arguments, environment):
    told = ended(*arguments, **environment)

    assert (told.returncode, told.stdout) == (1, "")
    assert "error[not-found]: ~nobody-here/x: there is no user of that name\n" in told.stderr


def test_a_working_directory_that_is_gone_is_named(deployment, monkeypatch):
    monkeypatch.delenv("EMBOFLOW_HOME")
    gone = deployment / "gone"
    gone.mkdir()

    told = subprocess.run(
        ["/bin/sh", "-c", f"rmdir '{gone}'; exec '{COMMAND}' asset list"],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("error[configuration]: the working directory is gone\n")


@pytest.mark.parametrize("name", ["admin", "Config", "local"])
def test_the_servers_own_databases_are_refused(deployment, name):
    refused = ended("init", EMBOFLOW_DATABASE=name)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"error[id]: EMBOFLOW_DATABASE: found '{name}'; admin, config and local are MongoDB's own\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [["asset", "list"], ["mongo", "uri"], ["mongo", "status"], ["mongo", "stop"], ["doctor"], ["init"]],
    ids=" ".join,
)
def test_no_output_holds_the_password(deployment, arguments):
    for debug in ([], ["--debug"]):
        told = ended(*arguments, *debug, EMBOFLOW_MONGO_URI=NOBODY)

        assert "s3cret" not in told.stdout + told.stderr


def test_the_embedded_database_is_started_shown_and_stopped(home):
    assert json.loads(ended("mongo", "status", "--json").stdout)["running"] is False
    assert json.loads(ended("mongo", "stop", "--json").stdout) == {"stopped": False}

    uri = ended("mongo", "uri")

    server = embedded.find(home)
    assert server is not None
    assert uri.stdout == f"{server.uri}\n"
    status = json.loads(ended("mongo", "status", "--json").stdout)
    assert (status["mode"], status["running"], status["pid"]) == ("embedded", True, server.pid)
    assert json.loads(ended("asset", "list", "--json").stdout) == []
    assert json.loads(ended("mongo", "stop", "--json").stdout) == {"stopped": True}
    assert embedded.find(home) is None


def test_help_needs_nothing_heavy():
    code = (
        "import sys\n"
        "from emboflow_dagster.cli.command_line import exit_status\n"
        "exit_status(['--help'])\n"
        "heavy = {'dagster', 'pymongo', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stderr == "[]\n"


def test_a_listing_needs_no_dagster(deployment):
    code = (
        "import sys\n"
        "from emboflow_dagster.cli.command_line import exit_status\n"
        "exit_status(['asset', 'list', '--json'])\n"
        "print(sorted({'dagster', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stderr.splitlines()[-1] == "[]"
