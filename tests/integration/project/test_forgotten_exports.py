"""An export that was made before an episode was forgotten comes back: refused, or without the episode."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import EmboflowError, ErrorKind
from emboflow_dagster.formats.canonical.schema import Episode
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_forgotten_runs import FLOW, WHY, coded, ran, recorded
from tests.integration.project.versions_made import episode, made

LONG = pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="EMBOFLOW_FAULTS=all runs it")
PROCESS = """
def process(episode, context):
    print("called for", context.ref)
    return {"observation.state": episode["observation.eef_pos"], "action": episode["action"]}
"""


def left(ef: EmboFlow, dataset: str) -> list[str]:
    return [entry["source"]["ref"] for entry in ef.datasets.episodes(dataset)]


def into(ef: EmboFlow, asset: str, dataset: str) -> dict[str, Any]:
    nodes = [*FLOW["nodes"][:3], {**FLOW["nodes"][3], "config": {"dataset": dataset}}]
    hooked = {"id": "code", "type": "python", "after": ["look"], "codeHook": coded(PROCESS, "process")}
    ef.workflows.publish({"workflow": "again", "nodes": [*nodes, hooked]})
    return ran(ef, asset)


def test_it_is_known_by_its_numbers_its_list_and_its_bytes(ef: EmboFlow, tmp_path: Path) -> None:
    """Without a run: a version with the same numbers, an exported folder, one of its payloads."""
    made(ef, tmp_path / "1", "reach", [episode(1, 200), episode(2, 200)])
    ef.datasets.export("reach", tmp_path / "exported")
    frames = next(iter(ef.datasets.episodes("reach")))["files"]["frames"]
    key = frames["sha256"]
    with ef.store.open(f"sha256/{key[:2]}/{key[2:]}", sha256=key, size=frames["size"]) as opened:
        (tmp_path / "frames.parquet").write_bytes(opened.read())

    def again(one: Episode) -> Episode:
        names = {name: name.replace("observation.", "seen.") for name in one.features}
        source = {"assetId": None, "path": "tree", "ref": f"episode {one.source['ref']}"}
        features = {names[name]: values for name, values in one.features.items()}
        return replace(
            one, source=source, features=features, specs={names[n]: s for n, s in one.specs.items()}
        )

    made(ef, tmp_path / "2", "copied", [again(episode(1, 200)), again(episode(2, 200))])
    # The control: replayed actions, under other states, are another episode.
    replayed = {**episode(3, 200).features, "action": episode(1, 200).features["action"]}
    made(ef, tmp_path / "3", "replayed", [replace(episode(3, 200), features=replayed)])

    told = ef.datasets.forget("reach", [0], reason=WHY)

    assert {row["datasetId"] for row in told["versions"]} == {
        ef.datasets.get(name).id for name in ("reach", "copied")
    }
    assert left(ef, "copied") == ["episode data/demo_2"]
    with pytest.raises(EmboflowError, match=told["id"]) as refused:
        made(ef, tmp_path / "4", "later", [again(episode(1, 200))])
    assert refused.value.kind is ErrorKind.EPISODE_FORGOTTEN
    for name in ("exported", "frames.parquet"):
        with pytest.raises(EmboflowError, match=r"forgotten by .* \(no consent\)") as said:
            ef.assets.register(tmp_path / name, type="folder" if name == "exported" else "raw_file")
        assert said.value.kind is ErrorKind.EPISODE_FORGOTTEN
    assert [len((row.after_summary or {})["forgotten"]) for row in ef.audit.list(action="asset.refuse")] == [
        1,
        1,
    ]
    assert ef.assets.list() == []
    ef.assets.register(tmp_path / "exported", type="folder", without_forgotten=True)
    [row] = ef.audit.list(action="asset.register")
    assert [one["tombstone"] for one in (row.after_summary or {})["forgotten"]] == [told["id"]]
    ef.datasets.reinstate(told["id"], reason="consent was given")
    ef.assets.register(tmp_path / "frames.parquet", type="raw_file")


@LONG
def test_an_export_that_comes_back(ef: EmboFlow, tmp_path: Path) -> None:
    asset = recorded(ef, tmp_path / "demos")
    ef.workflows.publish(FLOW)
    ran(ef, asset)
    tree = tmp_path / "lerobot"
    ef.datasets.deliver("lifts", str(tree), format="lerobot-v3.0")
    ef.datasets.deliver("lifts", str(tmp_path / "packed.zip"), format="lerobot-v3.0")
    ef.datasets.export("lifts", tmp_path / "canonical")
    bare = shutil.copytree(tree, tmp_path / "bare", ignore=shutil.ignore_patterns("lineage", "delivery.json"))
    before = ef.assets.register(bare, name="before", type="standard_dataset").id
    assert into(ef, before, "copied")["publish"].status == "success"
    assert left(ef, "copied") == ["episode 0", "episode 1"]
    package = next(a for a in ef.artifacts.list() if a.type == "normalized_dataset_package")
    ef.artifacts.fetch(package, tmp_path / "package")

    told = ef.datasets.forget("lifts", [1], reason=WHY)

    # What had been made of the export has it no longer, and is found by nothing but its numbers.
    assert {row["datasetId"] for row in told["versions"]} == {
        ef.datasets.get(name).id for name in ("lifts", "copied")
    }
    assert left(ef, "copied") == ["episode 0"]

    registered = len(ef.assets.list())
    for path in (tree, tmp_path / "packed.zip", tmp_path / "canonical", tmp_path / "package"):
        with pytest.raises(EmboflowError, match=WHY) as said:
            ef.assets.register(path, type="archive" if path.suffix else "folder", name="back")
        assert said.value.kind is ErrorKind.EPISODE_FORGOTTEN
        assert "--without-forgotten" in str(said.value.hint)
    assert len(ef.assets.list()) == registered
    rows = ef.audit.list(action="asset.refuse")
    assert len(rows) == 4
    assert {row["tombstone"] for one in rows for row in (one.after_summary or {})["forgotten"]} == {
        told["id"]
    }

    # Taken all the same, and without a word of where it comes from: no run makes the episode of it.
    back = ef.assets.register(tree, name="back", type="standard_dataset", without_forgotten=True)
    [row] = [r for r in ef.audit.list(action="asset.register") if (r.after_summary or {})["name"] == "back"]
    assert [one["ref"] for one in (row.after_summary or {})["forgotten"]] == ["episode 1"]
    (bare / "README.md").unlink()  # other bytes than those that were registered
    silent = ef.assets.register(bare, name="silent", type="standard_dataset")
    assert not (silent.summary or {}).get("forgotten")
    for number, one in enumerate((back, silent, ef.assets.get(before))):
        tasks = into(ef, one.id, f"again-{number}")
        assert {name: task.error_message for name, task in tasks.items()} == dict.fromkeys(tasks), one
        assert left(ef, f"again-{number}") == ["episode 0"]
        assert "episode-forgotten" in tasks["episodes"].last_result_preview["sources"][0]["left out"]
        printed = b"".join(ef.tasks.output(tasks["code"].workflow_run_id, "code")).splitlines()
        assert printed == [b"called for episode 0"]
    assert ef.verify(all=True).problems == []


@LONG
def test_a_clean_export_comes_back(ef: EmboFlow, tmp_path: Path) -> None:
    """The control: what is without it is taken, also where it was made beside it."""
    asset = recorded(ef, tmp_path / "demos")
    ef.workflows.publish(FLOW)
    ran(ef, asset)
    ef.datasets.forget("lifts", [1], reason=WHY)
    ef.datasets.deliver("lifts", str(tmp_path / "after"), format="lerobot-v3.0")
    lines = (tmp_path / "after" / "lineage" / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"]["ref"] for line in lines] == ["data/demo_0"]
    back = ef.assets.register(tmp_path / "after", name="after", type="standard_dataset").id
    into(ef, back, "again")
    assert left(ef, "again") == ["episode 0"]
    assert ef.audit.list(action="asset.refuse") == []


@LONG
def test_bytes_that_were_destroyed_are_not_taken_again(ef: EmboFlow, tmp_path: Path) -> None:
    asset = recorded(ef, tmp_path / "demos")
    ef.workflows.publish(FLOW)
    ran(ef, asset)
    ef.datasets.forget("lifts", [0, 1], reason=WHY, with_source=True)
    (tmp_path / "more").mkdir()
    shutil.copy(tmp_path / "demos" / "a.hdf5", tmp_path / "more" / "renamed.hdf5")
    (tmp_path / "more" / "note.txt").write_text("nothing of it")
    for path in (tmp_path / "more", tmp_path / "more" / "renamed.hdf5"):
        with pytest.raises(EmboflowError, match=r"the bytes of 'renamed.hdf5' were destroyed") as said:
            ef.assets.register(path, type="folder" if path.is_dir() else "hdf5_dataset")
        assert said.value.kind is ErrorKind.EPISODE_FORGOTTEN
    ef.assets.register(tmp_path / "more" / "note.txt", type="raw_file")
    taken = ef.assets.register(tmp_path / "more", type="folder", without_forgotten=True)
    [held] = (taken.summary or {})["forgotten"]
    assert held["path"] == "'renamed.hdf5'"
    assert ef.verify(all=True).problems == []
