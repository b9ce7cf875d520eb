"""The examples of the page on the IO manager, executed."""

import importlib
import re
import sys
from pathlib import Path

import dagster as dg
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "io-manager.md"


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The page's modules, importable."""
    text = PAGE.read_text(encoding="utf-8")
    names = []
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        name = re.match(r"# (\w+)\.py\n", code)
        assert name, code
        (tmp_path / f"{name[1]}.py").write_text(code)
        names.append(name[1])
    monkeypatch.syspath_prepend(tmp_path)
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


def materialized(definitions, *more):
    assets = [*definitions.assets, *more]
    result = dg.materialize(
        assets, instance=dg.DagsterInstance.ephemeral(), resources=dict(definitions.resources)
    )
    return {event.asset_key.to_user_string(): event for event in result.get_asset_materialization_events()}


def test_the_examples_do_what_the_page_says(ef, settings, examples):
    events = materialized(examples["report"].defs, examples["pinned"].compared)
    trajectories = materialized(examples["trajectories"].defs)
    prefix = f"{settings.workspace}.pick-place"

    assert set(events) == {"episodes", "long_ones", "compared"}
    assert ef.blobs.get(f"{prefix}.long_ones").content_type == "application/vnd.apache.arrow.file"
    assert ef.blobs.read(f"{prefix}.compared") == b"2"
    assert set(trajectories) == {"reach", "largest"}
    assert ef.blobs.get(f"{prefix}.reach").serializer == "trajectory"
    assert (
        ef.blobs.read(f"{prefix}.largest")
        == b'{"elbow": 0.6000000238418579, "shoulder": 0.10000000149011612}'
    )


def test_the_page_names_every_setting_of_the_manager(examples):
    from emboflow_dagster import BlobIOManager

    text = PAGE.read_text(encoding="utf-8")
    settings = set(BlobIOManager.model_fields) - {"mongo", "object_store"}

    assert {name for name in settings if f"`{name}`" not in text} == set()
