"""Every wrong use is one line with its code, a hint, and its status; standard output stays empty."""

import re

import pytest
import typer

from emboflow_dagster.cli import failures
from emboflow_dagster.errors import ConfigurationError, ErrorKind, InvalidInputError, NotFoundError

ERROR = re.compile(r"\Aerror\[([a-z-]+)\]: [^\n]+\n(?:hint: [^\n]+\n)?\Z")
DEFECT = "this is a defect of EmboFlow; --debug shows where it happened"
WRONG_USAGE = [
    ["nonsense"],
    ["--nonsense"],
    ["asset"],
    ["asset", "nonsense"],
    ["asset", "show"],
    ["asset", "show", "a", "b"],
    ["asset", "register"],
    ["asset", "register", "no-such-file", "--type", "rosbag", "--nonsense"],
    ["asset", "register", ".", "--type", "nonsense"],
    ["asset", "list", "--limit", "none"],
    ["asset", "list", "--limit", "0"],
    ["asset", "list", "--status", "nonsense"],
    ["dataset", "create", "name"],
    ["workflow", "run", "slug", "--asset", "a", "--timeout", "5"],
    ["run", "list", "--status", "done"],
    ["run", "wait", "run_x", "--timeout", "soon"],
    ["task", "logs", "run_x:a", "--stream", "nonsense"],
    ["blob", "put", "no-such-file", "--metadata", "[1]"],
    ["blob", "put", "no-such-file", "--metadata", "{"],
    ["worker", "--json"],
    ["recorder", "--json"],
    ["dev", "--port", "0"],
]
FAILED = [
    (["node", "show", "fliter"], "node-type"),
    (["--workspace", "Not A Slug", "asset", "list"], "slug"),
    (["asset", "list", "--actor", "nobody"], "id"),
    (["asset", "register", "no-such-file"], "not-found"),
    (["blob", "put", "no-such-file"], "not-found"),
    (["workflow", "validate", "no-such-file.yaml"], "not-found"),
]


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=" ".join)
@pytest.mark.parametrize("json", [False, True])
def test_wrong_usage_is_one_line_and_2(emboflow, arguments, json):
    ended = emboflow(*(["--json"] if json else []), *arguments)

    assert (ended.status, ended.out) == (2, "")
    assert ERROR.match(ended.err), ended.err
    assert ended.err.startswith("error[usage]: ")
    assert "hint: `emboflow" in ended.err


@pytest.mark.parametrize(("arguments", "code"), FAILED, ids=str)
def test_a_failure_is_one_line_and_1(emboflow, arguments, code):
    ended = emboflow(*arguments)

    assert (ended.status, ended.out) == (1, "")
    assert ERROR.match(ended.err), ended.err
    assert ended.err.startswith(f"error[{code}]: ")


def test_debug_alone_shows_a_traceback(emboflow):
    plain, debug = emboflow("node", "show", "fliter"), emboflow("node", "show", "fliter", "--debug")

    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert debug.err.endswith(plain.err)
    assert emboflow("--debug", "node", "show", "fliter").err == debug.err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (NotFoundError("no x", hint="try y"), 1, "error[not-found]: no x\nhint: try y\n"),
        (InvalidInputError("bad", kind=ErrorKind.USAGE), 2, "error[usage]: bad\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (typer.Abort(), 130, "interrupted\n"),
        (BrokenPipeError(), 141, ""),
        (SystemExit(3), 3, ""),
        (
            OSError(28, "No space left on device", "/data/x"),
            1,
            "error[disk-full]: /data/x: No space left on device\nhint: make room, then run it again\n",
        ),
        (
            PermissionError(13, "Permission denied", "/data/x"),
            1,
            "error[invalid-input]: /data/x: Permission denied\n",
        ),
        (
            ConfigurationError("mongodb://ada:s3cret@db1:27017/?x=1 is not right"),
            1,
            "error[configuration]: mongodb://ada:***@db1:27017/?x=1 is not right\n",
        ),
        (
            ValueError("two\nlines \x1b[31m"),
            1,
            f"error[internal]: ValueError: two lines \\x1b[31m\nhint: {DEFECT}\n",
        ),
    ],
)
def test_every_end_has_its_line_and_status(capsys, error, status, said):
    assert failures.report(error, debug=False) == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "text",
    [
        "mongodb://ada:s3cret@db1,db2/?replicaSet=rs0",
        "mongodb+srv://ada:s3cret@cluster/x",
        "s3://key:s3cret@bucket/prefix",
        "two: mongodb://a:s3cret@x and mongodb://b:s3cret@y",
        "mongodb://ada:s3cret%40x@db1/",
        "mongodb://ada:un/escaped/s3cret@db1/",
        "mongodb://ada:un@escaped:s3cret@db1/",
    ],
)
def test_no_password_is_ever_shown(text):
    assert "s3cret" not in failures.redacted(text)
    assert "***" in failures.redacted(text)


def test_an_address_without_a_password_is_shown_as_it_is():
    text = "mongodb://db1:27017/?replicaSet=rs0 for ada@acme.org and http://127.0.0.1:3000/runs"
    assert failures.redacted(text) == text
