"""The house itself: what lies at the top, what is shipped, and what must not be written anywhere."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = {
    "pyproject.toml",
    "emboflow_dagster",
    "assets_defs",
    "resources",
    "tests",
    "workspace.yaml",
    "README.md",
}
BESIDE = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "benchmarks",
    "docs",
    "requirements.lock",
}
PROMISED_TARGETS = {
    *("setup", "demo", "dev", "bench"),
    *("test", "test-fast", "check"),
    *("fmt", "lint", "types", "imports", "docs"),
}
LONGEST_MODULE = 500


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def lines_matching(pattern: str, *, but_not_in: set[str] = frozenset()) -> list[str]:
    found = []
    for path in tracked():
        name = str(path.relative_to(ROOT))
        if name in but_not_in:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(text.splitlines(), 1)
            if re.search(pattern, line)
        ]
    return found


def imports_of(path: Path) -> list[str]:
    """Module names of all import statements in ``path``, also those inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def library() -> list[Path]:
    folder = ROOT / "emboflow_dagster"
    return [path for path in tracked() if path.suffix == ".py" and path.is_relative_to(folder)]


def test_the_top_level_holds_the_seven_named_entries_and_little_beside():
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}

    assert top >= NAMED
    assert {name for name in top - NAMED - BESIDE if not name.startswith(".")} == set()


def test_the_wheel_ships_the_library_alone(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, capture_output=True, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [declared] = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        entry_points = archive.read(declared).decode()

    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"emboflow_dagster"}
    assert [name for name in names if "__pycache__" in name] == []
    assert set(names) >= {str(path.relative_to(ROOT)) for path in library()}
    assert "emboflow = emboflow_dagster.cli:main" in entry_points
    assert "[dagster_dg_cli.registry_modules]" in entry_points


def test_every_make_target_says_what_it_does():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z][a-z0-9-]*):.*## \S", makefile, re.MULTILINE))

    assert targets - explained == set()
    assert targets >= PROMISED_TARGETS


def test_the_lock_pins_every_package_with_its_hashes_and_names_no_place():
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=\S)", lock.strip())

    assert [entry for entry in entries if not re.match(r"[\w.\[\]-]+==\S+", entry)] == []
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"https?://|file:|--(?:extra-)?index|--find-links", lock) == []


#: Extras that an environment of their own is made for: too large for everybody's.
OUTSIDE_THE_LOCK = {"rerun"}


def test_the_lock_satisfies_what_the_project_asks_for():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lock = (ROOT / "requirements.lock").read_text()
    pinned: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", lock, re.MULTILINE):
        pinned.setdefault(canonicalize_name(name), set()).add(version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras.keys() & OUTSIDE_THE_LOCK == OUTSIDE_THE_LOCK
    locked = [extras[name] for name in extras if name not in OUTSIDE_THE_LOCK]
    asked = [*project["dependencies"], *chain.from_iterable(locked)]
    wanted = [one for one in map(Requirement, asked) if canonicalize_name(one.name) != project["name"]]

    assert [
        str(one)
        for one in wanted
        if not any(version in one.specifier for version in pinned.get(canonicalize_name(one.name), ()))
    ] == []


def test_every_library_that_is_imported_is_asked_for():
    """What comes along with another library may go away with it: import only what pyproject.toml names."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: asked for name, asked in project["optional-dependencies"].items() if name != "dev"}
    asked = [*project["dependencies"], *chain.from_iterable(extras.values())]
    declared = {canonicalize_name(Requirement(line).name) for line in asked}
    declared.add("pydantic-core")  # pydantic's other half, of exactly the release that pydantic names
    imported = {name.partition(".")[0] for path in library() for name in imports_of(path)}
    distributions = {"rerun": ["rerun-sdk"], **importlib.metadata.packages_distributions()}  # not in .venv
    outside = imported - set(sys.stdlib_module_names) - {"emboflow_dagster"}

    assert [
        name
        for name in sorted(outside)
        if not declared & set(map(canonicalize_name, distributions.get(name, ())))
    ] == []


def test_no_path_of_one_machine_and_no_registry_is_written_down():
    paths = r"(?<![\w.$}>])/(?:tmp|work|root|opt)/|/home/[a-z]"
    registries = r"pythonhosted|pypi\.org|registry\.npmjs|files\.debian|deb\.debian"

    assert lines_matching(paths, but_not_in={"tests/unit/test_house.py"}) == []
    assert lines_matching(registries, but_not_in={"tests/unit/test_house.py"}) == []


def test_nothing_is_left_for_later():
    leftovers = r"\bTODO\b|\bFIXME\b|\bXXX\b|raise NotImplementedError|pragma: no cover"

    assert [line for line in lines_matching(leftovers) if line.startswith("emboflow_dagster/")] == []


@pytest.mark.parametrize("path", library(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_module_is_short_and_says_what_it_is(path):
    text = path.read_text()

    assert len(text.splitlines()) <= LONGEST_MODULE
    assert ast.get_docstring(ast.parse(text))
    assert path.stem not in {"utils", "util", "helpers", "common", "core", "misc"}
