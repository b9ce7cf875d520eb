"""Every command says what it does, what it takes, and shows a call that is right."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from emboflow_dagster.cli import asset
from emboflow_dagster.cli.app import NOUNS, app
from emboflow_dagster.model.asset import AssetStatus, AssetType
from emboflow_dagster.model.run import RunStatus

TOP: Any = typer.main.get_command(app)
CONTRACT = {
    *("init", "doctor", "dev", "demo", "verify", "scrub", "gc", "sync", "worker", "recorder"),
    *(f"mongo {verb}" for verb in ("uri", "status", "stop")),
    *(f"asset {verb}" for verb in ("register", "probe", "show", "list", "reports", "recover")),
    *(f"dataset {verb}" for verb in ("create", "show", "list", "versions", "diff", "export", "verify")),
    *(f"dataset {verb}" for verb in ("forget", "forgotten", "reinstate", "evidence", "policies")),
    *(f"dataset edit {verb}" for verb in ("delete", "relabel", "trim", "split", "merge", "undo", "restore")),
    *(f"workflow {verb}" for verb in ("publish", "validate", "show", "list", "versions", "run")),
    *(f"run {verb}" for verb in ("show", "list", "wait", "cancel", "retry")),
    *(f"schedule {verb}" for verb in ("add", "list", "show", "pause", "resume", "remove")),
    *(f"task {verb}" for verb in ("show", "list", "logs", "retry")),
    *(f"artifact {verb}" for verb in ("list", "show", "get", "evidence")),
    *(f"blob {verb}" for verb in ("put", "get", "list", "history", "show", "verify", "repair")),
    *(f"blob {verb}" for verb in ("announce", "upload", "abandon", "owner", "transfer", "release")),
    *(f"blob {verb}" for verb in ("withdraw", "reinstate", "retain", "why-kept")),
    *("blob import-flowcept", "blob export-flowcept"),
    *(f"node {verb}" for verb in ("list", "show", "register", "disable", "enable")),
    *(f"annotation {verb}" for verb in ("list", "show", "open", "assign", "add", "submit")),
    *(f"annotation {verb}" for verb in ("approve", "reject", "cancel", "carry", "confirm")),
    *(f"annotation {verb}" for verb in ("flag", "unflag")),
    "audit list",
}
GLOBALS = {"workspace", "project", "actor", "json", "debug"}


def leaves(group: Any = TOP, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        where = f"{path} {name}".strip()
        if hasattr(command, "commands"):
            yield from leaves(command, where)
        else:
            yield where, command


COMMANDS = dict(leaves())


def test_the_commands_are_those_of_the_contract():
    assert set(COMMANDS) == CONTRACT


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_option_and_argument_is_explained(path):
    command = COMMANDS[path]

    assert command.help
    assert command.help.splitlines()[0].rstrip().endswith(".")
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []
    assert {p.name for p in command.params} >= GLOBALS


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_every_noun_is_explained(noun):
    assert TOP.commands[noun].help


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_the_example_of_a_command_is_a_call_of_it(path):
    head, _, example = COMMANDS[path].epilog.partition(": ")
    words = shlex.split(example)
    if words[0] != "emboflow":  # a call inside of another program's
        assert f"$(emboflow {path})" in example
        return

    assert head == "Example"
    assert " ".join(words[1 : 1 + len(path.split())]) == path
    COMMANDS[path].make_context("emboflow", words[1 + len(path.split()) :])


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_help_ends_with_0(emboflow, path):
    ended = emboflow(*path.split(), "--help")

    assert (ended.status, ended.err) == (0, "")
    assert f"emboflow {path}" in ended.out
    assert "Example: " in ended.out


def test_nothing_at_all_shows_the_help(emboflow):
    ended = emboflow()

    assert (ended.status, ended.err) == (0, "")
    assert "Usage: emboflow" in ended.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (asset.TYPES, AssetType),
        (COMMANDS["asset list"].params[1].help, AssetStatus),
        (COMMANDS["run list"].params[1].help, RunStatus),
    ],
)
def test_the_help_lists_every_word_there_is(text, words):
    listed = text.rpartition(": ")[2].rstrip(".").split(", ")

    assert listed == [word.value for word in words]
