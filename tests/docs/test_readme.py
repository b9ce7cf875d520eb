"""The README and the docs: what they show is what happens, what they list is what there is.

A ``console`` block is typed into one shell, in order; its output is compared line by line, where ``...`` in
a line is any text and a line of ``...`` any lines. A ``python`` block is executed there too, and the ``text``
block behind it is what it prints. A ``yaml`` block that begins with a file name is that file.
"""

import importlib.util
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from emboflow_dagster import errors
from emboflow_dagster.errors import EmboflowError, ErrorKind
from emboflow_dagster.mongo import embedded
from emboflow_dagster.runtime import validate, workflow_file
from emboflow_dagster.runtime.registry import node_types

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
BIN = Path(sys.executable).parent
MARK = "@@ command"


class Block(NamedTuple):
    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(kind, text) for kind, text in found]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a ``console`` block, each with the lines it is shown to print."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether ``printed`` is what is ``shown``; runs of blanks count as one.

    >>> matches(["a ... c", "...", "z"], ["a b  c", "x", "y", "z"])
    True
    """
    if not shown:
        return not printed
    first, rest = shown[0], shown[1:]
    if first.strip() == "...":
        return any(matches(rest, printed[start:]) for start in range(len(printed) + 1))
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in first.split("..."))
    pattern = pattern.replace(".*", r"\s?.*\s?") if "..." in first else pattern
    return (
        bool(printed)
        and bool(re.fullmatch(pattern, " ".join(printed[0].split())))
        and matches(rest, printed[1:])
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("readme")
    yield place
    embedded.stop(place / ".emboflow")


@pytest.fixture(scope="module")
def environment(folder):
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "EMBOFLOW_ACTOR": "user:ada",
        "PYTHONWARNINGS": "error",
    }


@pytest.fixture(scope="module")
def quick_start(folder, environment):
    """What each command of the README printed, in one shell, before its Python examples are run."""
    typed = []
    for block in blocks(ROOT / "README.md"):
        name = re.match(r"# (\S+\.yaml)\n", block.text) if block.kind == "yaml" else None
        if name:
            (folder / name[1]).write_text(block.text)
        if block.kind == "console":
            typed += commands(block.text)
    script = "\n".join(
        f"echo '{MARK} {i}'\n{command}\necho \"{MARK} ended $?\"" for i, (command, _) in enumerate(typed)
    )
    shell = subprocess.run(
        ["bash"],
        input=script,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    outputs = re.findall(rf"{MARK} \d+\n(.*?){MARK} ended (\d+)$", shell.stdout, re.MULTILINE | re.DOTALL)
    assert len(outputs) == len(typed), shell.stdout + shell.stderr
    return [
        (command, shown, out.splitlines(), int(status), shell.stderr)
        for (command, shown), (out, status) in zip(typed, outputs, strict=True)
    ]


def test_the_quick_start_does_what_it_shows(quick_start):
    assert len(quick_start) > 8
    for command, shown, printed, status, told in quick_start:
        assert status == 0, f"{command}: {told[-2000:]}"
        assert matches(shown, printed), (
            f"{command}\nshown:\n{chr(10).join(shown)}\nprinted:\n{chr(10).join(printed)}"
        )


def test_the_python_examples_print_what_they_show(quick_start, folder, environment):
    found = blocks(ROOT / "README.md")
    examples = [(a.text, b.text) for a, b in pairwise(found) if a.kind == "python" and b.kind == "text"]

    assert len(examples) == 1
    for code, shown in examples:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert (done.stdout, done.returncode) == (shown, 0), done.stderr


def test_the_definitions_example_loads(quick_start, folder, environment):
    [code] = [b.text for b in blocks(ROOT / "README.md") if b.kind == "python" and "dg.Definitions" in b.text]
    (folder / "definitions.py").write_text(code)
    done = subprocess.run(
        [BIN / "dagster", "definitions", "validate", "-f", "definitions.py"],
        cwd=folder,
        env={**environment, "EMBOFLOW_PROJECT": "quickstart", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_make_targets_and_commands_that_are_named_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    # A decision may name what is still to come.
    text = "\n".join(page.read_text() for page in PAGES if page.parent.name != "decisions")
    named = set(re.findall(r"`make ([a-z0-9-]+)`", text)) | set(
        re.findall(r"^make ([a-z0-9-]+)", text, re.MULTILINE)
    )
    spoken = set(re.findall(r"`emboflow ([a-z]+(?: [a-z][a-z-]*)?)", text))

    assert named - targets == set()
    from emboflow_dagster.cli.app import NOUNS, app

    known = {command.name for command in app.registered_commands} | set(NOUNS)
    for words in spoken:
        first, _, second = words.partition(" ")
        assert first in known, words
        if second and first in NOUNS:
            verbs = NOUNS[first].app
            assert second in {c.name for c in (*verbs.registered_commands, *verbs.registered_groups)}, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page

        assert there.exists(), f"{target}: no such file"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{target}: no such heading"


def _tables():
    spec = importlib.util.spec_from_file_location("docs_tables", Path(__file__).with_name("tables.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("index", [0, 1])
def test_the_tables_of_node_types_are_those_of_the_registry(index):
    tables = _tables()
    file, name, make = tables.PARTS[index]
    found = tables.part((ROOT / file).read_text(encoding="utf-8"), name)

    assert found[2] == make(), "python tests/docs/tables.py"


def test_workflow_examples_are_valid():
    for page in PAGES:
        for block in blocks(page):
            if block.kind == "yaml" and "nodes:" in block.text:
                _, problems = validate.validate(workflow_file.load(block.text), registry=node_types())

                assert problems == [], page


def test_every_error_code_and_class_is_explained_and_no_other():
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    codes = re.findall(r"^\| `([a-z0-9-]+)` \| \S", text, re.MULTILINE)
    classes = re.findall(r"^\| `([A-Za-z]+Error)` \|", text, re.MULTILINE)
    tree = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, EmboflowError)
    ]

    assert sorted(codes) == sorted(kind.value for kind in ErrorKind)
    assert sorted(classes) == sorted(cls.__name__ for cls in tree)


def test_the_example_of_the_errors_page_prints_what_it_shows(environment):
    page = blocks(ROOT / "docs" / "errors.md")
    [(code, shown)] = [(a.text, b.text) for a, b in pairwise(page) if a.kind == "python"]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == shown


@pytest.mark.parametrize("name", ["blobs", "annotations"])
def test_the_examples_of_a_page_print_what_they_show(folder, environment, name):
    page = blocks(ROOT / "docs" / f"{name}.md")
    examples = [(a.text, b.text) for a, b in pairwise(page) if a.kind == "python" and b.kind == "text"]
    assert len(examples) == sum(block.kind == "python" for block in page)

    for code, shown in examples:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert (done.stdout, done.returncode) == (shown, 0), done.stderr


def test_the_decisions_are_numbered_once_and_say_problem_decision_and_cost():
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [page.name.partition("-")[0] for page in pages]

    assert len(set(numbers)) == len(numbers)
    for page in pages:
        text = page.read_text(encoding="utf-8").lower()

        assert text.startswith(f"# {int(page.name.partition('-')[0])}. ")
        for part in ("problem", "decision", "(cost|consequences)"):
            assert re.search(rf"^##.*{part}", text, re.MULTILINE), f"{page.name}: {part}"
