"""One JSON value for programs; tables that fit for people; nothing a name could do to a terminal."""

import doctest
import json
from importlib.metadata import version

import pytest

from emboflow_dagster.cli import failures, figures, output, state
from emboflow_dagster.runtime.registry import node_types

TYPES = sorted(node_types().ids())


@pytest.mark.parametrize(
    "arguments",
    [
        ["node", "list", "--json"],
        ["--json", "node", "list"],
        ["node", "--json", "list"],
        ["--json", "node", "--json", "list", "--json"],
    ],
)
def test_json_is_taken_in_every_place_and_is_alone_on_stdout(emboflow, arguments):
    ended = emboflow(*arguments)

    assert (ended.status, ended.err) == (0, "")
    assert [row["id"] for row in ended.json] == TYPES


def test_the_options_of_one_command_do_not_reach_the_next(emboflow):
    emboflow("--json", "--project", "other", "node", "list")

    assert not emboflow("node", "list").out.startswith("[")
    assert state.current().project is None


@pytest.mark.parametrize("node", TYPES)
def test_every_node_type_is_shown_with_its_options(emboflow, node):
    ended, page = emboflow("node", "show", node, "--json"), emboflow("node", "show", node)

    assert ended.json["id"] == node
    assert ended.json["options"] == node_types().require(node).options.model_json_schema(by_alias=True)
    assert [name for name in ended.json["options"].get("properties", {}) if name not in page.out] == []


def test_the_version_is_the_package_s(emboflow):
    assert emboflow("--version").out == f"emboflow {version('emboflow-dagster')}\n"
    assert emboflow("--version", "--json").json == {"version": version("emboflow-dagster")}


def test_a_pipe_gets_whole_lines(emboflow):
    lines = emboflow("node", "list").out.splitlines()

    assert len(lines) == 1 + len(TYPES)
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_a_table_keeps_to_the_terminal_s_width(emboflow, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))

    ended = emboflow("node", "list")

    assert ended.status == 0
    assert max(len(line) for line in ended.out.splitlines()) <= columns


def test_a_column_that_may_go_goes_first(emboflow, monkeypatch):
    wide = emboflow("node", "list").out.splitlines()[0].split()
    monkeypatch.setenv("COLUMNS", "60")
    narrow = emboflow("node", "list").out.splitlines()[0].split()

    assert wide == ["TYPE", "TITLE", "PRODUCES", "DESCRIPTION"]
    assert narrow == ["TYPE", "DESCRIPTION"]


def test_a_table_shows_what_is_missing_wrong_or_hostile(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.prepare_streams()
    output.table(("A", ">N", "B"), [("x\x1b[2J", 3, None), ("success", 2.5, True), ("", 12, False)])

    assert capsys.readouterr().out.splitlines() == [
        "A           N  B",
        "x\\x1b[2J    3  -",
        "success   2.5  yes",
        "-          12  no",
    ]


def test_rich_s_own_markup_in_a_name_is_a_name(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.prepare_streams()
    output.table(("NAME",), [("[red]x[/red] :smile:",)])

    assert capsys.readouterr().out.splitlines()[1] == "[red]x[/red] :smile:"


def test_json_is_ascii_so_that_no_locale_breaks_it(capsys):
    state.reset()
    state.current().json = True
    output.emit({"name": "böx \ud83e"}, lambda: None)
    text = capsys.readouterr().out

    assert text.isascii()
    assert json.loads(text) == {"name": "böx \ud83e"}


def test_no_colour_without_a_terminal(emboflow):
    assert "\x1b" not in emboflow("node", "list").out
    assert "\x1b" not in emboflow("node", "list", "--help").out


@pytest.mark.parametrize("module", [figures, failures, output])
def test_the_examples_of_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0
