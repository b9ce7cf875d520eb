"""`emboflow annotation` at dataset versions, and what other commands say to a newcomer, as typed."""

import json
from pathlib import Path

import pytest

from tests.integration.test_cli import Deployment
from tests.integration.test_cli_datasets import deployment  # noqa: F401 - a fixture


def test_annotations_from_a_file_to_the_next_version(
    deployment: Deployment,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # xdist gives its workers those of the terminal
    rows = [
        {"selector": {"episode": 0, "from": 0.1, "to": 0.2}, "payload": {"label": "grasp"}},
        {"selector": {"episode": 1}, "payload": {"label": "blurry"}},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "one.json").write_text('{"label": "place"}')
    task = deployment.here("annotation", "open", "reach:v1", "--label-type", "segment", "--json").json["_id"]
    added = deployment.here("annotation", "add", task, str(tmp_path / "rows.json"), "--json").json
    one = deployment.here(
        "annotation", "add", task, str(tmp_path / "one.json"), "--episode", "2", "--from", "0.3", "--json"
    ).json[0]
    assert [row["payload"]["label"] for row in added] == ["grasp", "blurry"]
    assert one["targetRef"]["selector"]["episodePlace"] == 2
    flag = deployment.here("annotation", "flag", "reach", "3", "check", "--comment", "odd", "--json").json
    assert flag["payload"] == {"flag": "check", "comment": "odd"}

    deployment.here("dataset", "edit", "relabel", "reach", "0", "--task", "place")
    at = deployment.here("annotation", "list", "--version", "reach", "--json").json
    assert [row["at"]["state"] for row in at] == ["stale", "valid", "valid", "valid"]
    page = deployment.here("annotation", "list", "--version", "reach", "--state", "stale")
    assert "relabelled: tasks" in page.out
    assert "annotations  3 valid, 1 stale" in deployment.here("dataset", "diff", "reach").out
    assert "0.100-0.200" in deployment.here("annotation", "carry", "reach").out
    done = deployment.here(
        "annotation", "carry", "reach", "--confirm", "--comment", "the same", "--json"
    ).json
    assert [row["at"]["state"] for row in done] == ["valid"] * 4
    assert deployment.db["audit_logs"].count_documents({"action": "annotation.confirm"}) == 1
    moved = deployment.here(
        "annotation", "confirm", added[1]["_id"], "reach:v2", "--episode", "4", "--json"
    ).json
    assert moved["at"]["episode"] == 4
    assert deployment.here("annotation", "unflag", flag["_id"], "--comment", "fine").status == 0


TOLD = [
    (["annotation", "list", "--state", "stale"], 2, "goes with --version"),
    (["annotation", "list", "--version", "reach", "--mine"], 2, "goes with neither"),
    (["annotation", "list", "--version", "reach", "--state", "stal"], 2, "did you mean 'stale'?"),
    (["annotation", "open", "reech", "--label-type", "segment"], 1, "DATASET[:TAG]"),
    (["annotation", "flag", "reach", "99", "blurry"], 1, "there are 0 to 7"),
    (["annotation", "show", "ant_none"], 1, "`emboflow annotation list`"),
    (["run", "show", "run_none"], 1, "`emboflow run list`"),
    (["asset", "register", "HERE", "--type", "hdf5"], 2, "did you mean 'hdf5_dataset'?"),
    (["asset", "register", "HERE", "HERE", "--name", "x"], 2, "--name is for one asset"),
]


def test_what_a_newcomer_is_told(deployment: Deployment, tmp_path: Path) -> None:  # noqa: F811
    for words, status, said in TOLD:
        ended = deployment.here(*(str(tmp_path) if word == "HERE" else word for word in words))
        assert (ended.status, said in ended.err) == (status, True), (words, ended.err)


def test_a_file_s_own_assets_say_how_to_be_registered(deployment: Deployment, tmp_path: Path) -> None:  # noqa: F811
    graph = {
        "slug": "bound",
        "assetBindings": {"src": ["hdf5/lift"]},
        "logicGraph": {"nodes": [{"nodeId": "src", "nodeType": "source-asset"}], "edges": []},
        "runtimeGraph": {"nodes": [{"nodeId": "src", "nodeType": "source-asset", "executorType": "python"}]},
    }
    (tmp_path / "bound.json").write_text(json.dumps(graph))
    assert deployment.here("workflow", "publish", str(tmp_path / "bound.json")).status == 0
    ended = deployment.here("workflow", "run", "bound")
    assert ended.status == 1
    assert "the workflow file binds it: register it, with that --name" in ended.err
