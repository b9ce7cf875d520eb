"""What can be imported, is; what is named, exists.

Dagster's ``__init__`` has a module ``__getattr__``, so a type checker passes ``from dagster import NoSuch``.
Only importing every module, and looking up every ``dg.Name``, shows such a typo.
"""

import ast
import importlib
import importlib.metadata
import pkgutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import emboflow_dagster

ROOT = Path(__file__).resolve().parents[2]

# The names that the contract promises from the top of the package.
CONTRACT = {
    "BlobIOManager",
    "EmboFlow",
    "EmboFlowWorkflows",
    "MongoResource",
    "ObjectStoreResource",
    "build_definitions",
}


def modules() -> list[str]:
    found = pkgutil.walk_packages(emboflow_dagster.__path__, "emboflow_dagster.")
    return ["emboflow_dagster", *(module.name for module in found if not module.name.endswith(".__main__"))]


def source_files() -> list[Path]:
    folders = ("emboflow_dagster", "assets_defs", "resources")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def lookups(tree: ast.Module, library: str) -> Iterator[tuple[str, int]]:
    """Every ``alias.Name`` where ``import library as alias`` stands in the same file."""
    aliases = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
        if name.name == library
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield node.attr, node.lineno


@pytest.mark.parametrize("name", modules())
def test_the_module_imports_and_holds_what_it_exports(name):
    module = importlib.import_module(name)

    exported = getattr(module, "__all__", [])

    assert [export for export in exported if not hasattr(module, export)] == []
    assert len(set(exported)) == len(exported)


def test_every_python_file_is_a_module_that_the_test_above_sees():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "emboflow_dagster").rglob("*.py")
        if path.name != "__main__.py"
    }

    assert files == set(modules())


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_dagster_name_exists(path):
    import dagster

    used = lookups(ast.parse(path.read_text()), "dagster")

    assert [f"dagster.{name}, line {line}" for name, line in used if not hasattr(dagster, name)] == []


def test_the_top_of_the_package_exports_the_contract():
    exported = emboflow_dagster.__all__

    assert set(exported) >= CONTRACT
    assert list(exported) == sorted(exported)


def test_dir_shows_the_exported_names():
    assert set(dir(emboflow_dagster)) >= set(emboflow_dagster.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchThing"):
        emboflow_dagster.NoSuchThing  # noqa: B018


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert "version" in project["dynamic"]
    assert importlib.metadata.version("emboflow-dagster") == emboflow_dagster.__version__
