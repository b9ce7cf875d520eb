"""Dataset versions: built on each other, never changed, never lost, exactly the files of their manifest."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import (
    AlreadyExistsError,
    ErrorKind,
    ImmutableError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.whole_project import write_demos


def flow(name: str = "lift", slug: str = "publishing", **config: Any) -> dict[str, Any]:
    """Demonstrations to the next version of a dataset."""
    return {
        "workflow": slug,
        "nodes": [
            {"id": "src", "type": "source"},
            {"id": "episodes", "type": "normalize", "after": ["src"], "config": {"fps": 20}},
            {
                "id": "publish",
                "type": "publish-dataset",
                "after": ["episodes"],
                "config": {"dataset": name, **config},
            },
        ],
    }


@pytest.fixture
def demos(ef: EmboFlow, tmp_path: Path) -> list[str]:
    """Three files of demonstrations, by name."""
    names = ["one", "two", "three"]
    for rows, name in enumerate(names, start=4):
        ef.assets.register(write_demos(tmp_path / f"{name}.hdf5", [rows]), type="hdf5_dataset", name=name)
        ef.assets.probe(name)
    ef.workflows.publish(flow())
    return names


def publish(ef: EmboFlow, *assets: str, slug: str = "publishing") -> str:
    done = ef.runs.work(ef.runs.request(slug, assets=assets).id)
    assert done.status == "success", [t.error_message for t in ef.tasks.list(done.id)]
    return done.id


def test_versions_build_on_each_other(ef: EmboFlow, demos: list[str]) -> None:
    publish(ef, "one")
    run = publish(ef, "one", "two")
    second, first = ef.datasets.versions("lift")
    head = ef.datasets.get("lift")

    assert (first.version_tag, second.version_tag) == ("v1", "v2")
    assert (first.parent_version_id, second.parent_version_id) == (None, first.id)
    assert (head.latest_version_id, head.status.value, head.type) == (second.id, "active", "canonical")
    assert (first.stats["episodes"], first.stats["frames"]) == (1, 4)
    assert (second.stats["episodes"], second.stats["frames"]) == (2, 9)
    assert first.source_asset_id == ef.assets.get("one").id
    assert second.source_asset_id is None
    assert (second.summary or {})["workflowRunId"] == run
    assert second.canonical_schema_version == "emboflow-canonical/1"
    assert (
        ef.datasets.version("lift")
        == ef.datasets.version("lift", "v2")
        == ef.datasets.version("lift", second.id)
    )
    assert [r.resource_id for r in ef.audit.list(action="dataset.commit")] == [second.id, first.id]
    manifest = ef.datasets.manifest(second)
    assert (manifest["datasetId"], manifest["versionTag"]) == (head.id, "v2")
    assert ef.verify().problems == []


def test_equal_content_is_no_new_version(ef: EmboFlow, demos: list[str]) -> None:
    publish(ef, "one")
    run = ef.runs.request("publishing", assets=["one"])
    for node in ("src", "episodes"):
        ef.tasks.work(run.id, node)
    worked = ef.tasks.work(run.id, "publish")

    assert worked.unchanged_dataset
    assert worked.dataset_version == ef.datasets.version("lift")
    assert [v.version_tag for v in ef.datasets.versions("lift")] == ["v1"]
    assert ef.runs.get(run.id).status == "success"
    assert ef.verify().problems == []


def test_an_older_content_again_is_a_new_version(ef: EmboFlow, demos: list[str]) -> None:
    for names in (["one"], ["two"], ["one"]):
        publish(ef, *names)
    third, second, first = ef.datasets.versions("lift")
    assert [third.parent_version_id, second.parent_version_id] == [second.id, first.id]
    assert (third.summary or {})["contentDigest"] == (first.summary or {})["contentDigest"]
    assert ef.verify().problems == []


def test_every_field_of_a_version_but_its_status_never_changes(ef: EmboFlow, demos: list[str]) -> None:
    publish(ef, "one")
    version = ef.datasets.version("lift")
    versions: Documents[DatasetVersion] = Documents(ef.mongo, ef.scope, DatasetVersion)
    raw = version.to_mongo()

    for field in set(raw) - {"status"}:
        with pytest.raises(ImmutableError, match=field) as caught:
            versions.change(version.id, {field: raw[field]})
        assert caught.value.kind == ErrorKind.IMMUTABLE
    with pytest.raises(ImmutableError):
        versions.change(version.id, {"status": "deprecated", "stats.frames": 9})
    assert versions.get(version.id) == version
    assert versions.change(version.id, {"status": "deprecated"}).status.value == "deprecated"


def test_an_export_is_the_files_of_the_manifest(ef: EmboFlow, demos: list[str], tmp_path: Path) -> None:
    publish(ef, "one", "two")
    version = ef.datasets.version("lift")
    out = ef.datasets.export("lift", tmp_path / "out")
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    manifest = json.loads(files.pop("manifest.json"))

    assert {row["path"]: (row["sha256"], row["size"]) for row in manifest["files"]} == {
        path: (hashlib.sha256(content).hexdigest(), len(content)) for path, content in files.items()
    }
    assert files
    assert files["version/manifest.json"] == ef.blobs.read_ref(version.manifest_ref)
    assert {"frames.parquet", "episodes.parquet", "tasks.parquet"} <= set(files)
    stored = ef.datasets.manifest(version)
    assert {name: manifest[name] for name in stored if name not in ("files", "columns")} == {
        name: value for name, value in stored.items() if name not in ("files", "columns")
    }


def test_an_export_of_damaged_bytes_is_refused(ef: EmboFlow, demos: list[str], tmp_path: Path) -> None:
    publish(ef, "one")
    file = ef.datasets.manifest(ef.datasets.version("lift"))["files"][0]
    path = ef.store.path_of(f"sha256/{file['sha256'][:2]}/{file['sha256'][2:]}")
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(b"x" * file["size"])

    with pytest.raises(IntegrityError):
        ef.datasets.export("lift", tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_tag_is_given_once(ef: EmboFlow, demos: list[str]) -> None:
    ef.workflows.publish(flow("tagged", "tagging", tag="gold"))
    publish(ef, "one", slug="tagging")
    done = ef.runs.work(ef.runs.request("tagging", assets=["two"]).id)

    assert done.status == "failed"
    assert "versionTag" in str(ef.tasks.get(done.id, "publish").error_message)
    assert [v.version_tag for v in ef.datasets.versions("tagged")] == ["gold"]
    assert ef.verify().problems == []


def test_a_tag_that_somebody_chose_is_passed_over(ef: EmboFlow, demos: list[str]) -> None:
    ef.workflows.publish(flow("lift", "tagging", tag="v2"))
    publish(ef, "one", slug="tagging")
    publish(ef, "two")
    assert [v.version_tag for v in ef.datasets.versions("lift")] == ["v3", "v2"]


def test_two_that_publish_at_once_both_get_a_version(ef: EmboFlow, opener, demos: list[str]) -> None:
    runs = [ef.runs.request("publishing", assets=[name]).id for name in demos]
    for run in runs:
        for node in ("src", "episodes"):
            ef.tasks.work(run, node)
    handles = [opener() for _ in runs]

    with ThreadPoolExecutor(len(runs)) as pool:
        worked = list(
            pool.map(lambda pair: pair[0].tasks.work(pair[1], "publish"), zip(handles, runs, strict=True))
        )

    versions = ef.datasets.versions("lift")
    assert sorted(v.version_tag for v in versions) == ["v1", "v2", "v3"]
    assert {v.id for v in versions} == {w.dataset_version.id for w in worked if w.dataset_version}
    by_id = {v.id: v for v in versions}
    chain, at = [], ef.datasets.get("lift").latest_version_id
    while at is not None:
        chain.append(by_id[at].version_tag)
        at = by_id[at].parent_version_id
    assert chain == ["v3", "v2", "v1"]
    assert {v.stats["frames"] for v in versions} == {4, 5, 6}
    assert {ef.datasets.manifest(v)["versionTag"] for v in versions} == {"v1", "v2", "v3"}
    assert [ef.runs.get(run).status.value for run in runs] == ["success"] * 3
    assert ef.verify().problems == []


def test_a_publish_overtaken_between_draft_and_write_starts_over(
    ef: EmboFlow, demos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deterministically: another version comes just before the first attempt's transaction."""
    publish(ef, "one")
    run = ef.runs.request("publishing", assets=["two"]).id
    for node in ("src", "episodes"):
        ef.tasks.work(run, node)
    succeed = ef.runs.recorder.succeed
    overtaken: list[str] = []

    def late(*args: Any) -> Any:
        if not overtaken:
            overtaken.append("once")
            publish(ef, "three")
        return succeed(*args)

    monkeypatch.setattr(ef.runs.recorder, "succeed", late)
    worked = ef.tasks.work(run, "publish")

    assert worked.dataset_version is not None
    assert worked.dataset_version.version_tag == "v3"
    assert [v.stats["frames"] for v in ef.datasets.versions("lift")] == [5, 6, 4]
    assert ef.verify().problems == []


def test_datasets_by_name(ef: EmboFlow) -> None:
    made = ef.datasets.create("empty", type="canonical")

    assert ef.datasets.get("empty") == ef.datasets.get(made.id) == made
    assert (ef.datasets.versions("empty"), [d.name for d in ef.datasets.list()]) == ([], ["empty"])
    with pytest.raises(NotFoundError, match="no version"):
        ef.datasets.version("empty")
    with pytest.raises(AlreadyExistsError):
        ef.datasets.create("empty", type="canonical")
    for name, kind in (("Not A Slug", "canonical"), ("fine", "Not A Type")):
        with pytest.raises(InvalidInputError):
            ef.datasets.create(name, type=kind)
    assert ef.verify().problems == []
