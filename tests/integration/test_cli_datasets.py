"""`emboflow dataset diff`, `edit` and `verify`, as typed."""

import json
import os
import pty
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.versions_made import episode, made
from tests.integration.test_cli import ERROR, Deployment, Ended, plain


@pytest.fixture
def deployment(tmp_path: Path, mongo_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A project with one dataset of eight episodes."""
    deployment = Deployment(tmp_path / "home", mongo_uri)
    with monkeypatch.context() as patch:
        for name, value in deployment.environment.items():
            patch.setenv(name, value)
        with EmboFlow.from_env() as ef:
            made(ef, tmp_path / "made", "reach", [episode(seed, 10) for seed in range(8)])
    yield deployment
    deployment.client.drop_database(deployment.db.name)
    deployment.client.close()


def test_an_edit_prints_the_version_and_the_difference_says_what_it_did(deployment: Deployment) -> None:
    version = deployment.here(
        "dataset", "edit", "delete", "reach", "1", "3-4", "--reason", "bad", "--json"
    ).json
    stored = deployment.db["dataset_versions"].find_one({"versionTag": "v2"})
    found = deployment.here("dataset", "diff", "reach", "--json").json
    page = deployment.here("dataset", "diff", "reach", "v1", "v2")

    assert version == plain(stored)
    assert found["counts"] == {"added": 0, "removed": 3, "changed": 0, "unchanged": 5}
    assert [row["episode"] for row in found["removed"]] == [1, 3, 4]
    assert found == deployment.here("dataset", "diff", "reach", "--from", "v1", "--to", "v2", "--json").json
    assert page.status == 0
    assert "0 added, 3 removed, 0 changed, 5 unchanged" in page.out
    assert "data/demo_3" in page.out


def test_every_edit_and_its_undo(deployment: Deployment) -> None:
    edits = [
        ["relabel", "reach", "0,1", "--task", "place", "--success", "no", "--flag", "seen"],
        ["trim", "reach", "2", "--start", "1", "--stop", "5"],
        ["split", "reach", "3", "--at", "4", "--at", "8"],
        ["merge", "reach", "reach:v1"],
        ["undo", "reach", "--reason", "twice is too much"],
        ["restore", "reach", "v2"],
    ]
    counts = []
    for words in edits:
        ended = deployment.here("dataset", "edit", *words)
        assert (ended.status, ERROR.match(ended.err)) == (0, None), ended.err
        counts.append(deployment.here("dataset", "versions", "reach", "--json").json[0]["stats"]["episodes"])

    assert counts == [8, 8, 10, 18, 10, 8]
    assert deployment.here("verify", "--json").json["ok"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["edit", "delete", "reach", "9-3"], "invalid-input"),
        (["edit", "delete", "reach", "first"], "id"),
        (["edit", "delete", "reach", "0", "--base", "v7"], "conflict"),
        (["edit", "undo", "reach"], "state"),
        (["diff", "reach"], "not-found"),
        (["diff", "reach", "v1", "v9"], "not-found"),
        (["verify", "."], "not-found"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_one_line(deployment: Deployment, words: list[str], code: str) -> None:
    ended = deployment.here("dataset", *words)
    match = ERROR.match(ended.err)

    assert (ended.status, ended.out) == (1, "")
    assert match is not None
    assert match[1] == code


def test_an_exported_folder_is_checked_where_there_is_no_database(
    deployment: Deployment, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    deployment.here("dataset", "export", "reach", "--output", str(out))
    [version] = deployment.here("dataset", "versions", "reach", "--json").json
    nowhere = {"EMBOFLOW_MONGO_URI": "mongodb://127.0.0.1:1", "EMBOFLOW_HOME": str(tmp_path / "none")}
    fine = deployment.outside(
        "dataset", "verify", str(out), "--expect", version["manifestRef"]["checksum"], "--json", **nowhere
    )
    other = deployment.here("dataset", "verify", str(out), "--expect", "0" * 64, "--json")

    assert (fine.json["ok"], fine.json["byEpisode"], fine.json["episodes"]) == (True, True, 8)
    assert other.status == 1
    assert [p["code"] for p in json.loads(other.raw)["problems"]] == ["hash-mismatch"]
    (out / "episodes.parquet").write_bytes(b"")
    damaged = deployment.here("dataset", "verify", str(out))
    assert damaged.status == 1
    assert "episodes.parquet" in damaged.out
    assert not (tmp_path / "none").exists()


def test_a_package_in_an_archive_says_which_version_it_is(deployment: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "reach.zip"
    told = deployment.here(
        "dataset", "export", "reach", "--version", "v1", "--format", "lerobot-v3.0", "-o", str(out), "--json"
    ).json

    assert (told["kind"], told["format"], told["versionTag"]) == ("zip", "lerobot-v3.0", "v1")
    assert (told["episodes"], told["frames"], told["path"]) == (8, 80, str(out))
    assert told["archiveBytes"] == out.stat().st_size
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert f"| `{told['treeSha256']}` |" in archive.read("reach-v1/README.md").decode()
        assert len(archive.namelist()) == told["files"]
    refused = deployment.here("dataset", "export", "reach", "--format", "zarr", "-o", str(tmp_path / "no"))
    assert (refused.status, refused.err.partition("]")[0]) == (1, "error[invalid-input")
    assert not (tmp_path / "no").exists()


def typing(deployment: Deployment, text: str, *words: str) -> Ended:
    """The command on a terminal where somebody types."""
    ours, theirs = pty.openpty()
    os.write(ours, f"{text}\n".encode())
    with (
        os.fdopen(ours, "rb"),
        os.fdopen(theirs, encoding="utf-8") as terminal,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("sys.stdin", terminal)
        return deployment.here(*words)


def test_forgetting_asks_first(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = ["dataset", "forget", "reach", "2", "--reason", "no consent"]
    unasked = deployment.here(*words)
    assert (unasked.status, unasked.out) == (2, "")
    assert unasked.err.startswith("error[usage]: this destroys the bytes of the episodes everywhere")
    assert "--yes" in unasked.err
    refused = typing(deployment, "lift", *words)
    assert refused.status == 1
    assert "at most destroyed" in refused.err
    assert "nothing was done" in refused.err
    assert len(deployment.here("dataset", "versions", "reach", "--json").json) == 1
    done = typing(deployment, "reach", *words, "--json")
    assert (done.status, done.json["state"]) == (0, "destroyed"), done.err
    assert "a successor with 7 episodes" in done.err
    assert "type reach to go on" in done.err


def test_forgetting_shows_its_plan_then_does_it_and_says_so(deployment: Deployment) -> None:
    words = ["dataset", "forget", "reach", "2", "--reason", "no consent"]
    plan = deployment.here(*words, "--dry-run")
    planned = deployment.here(*words, "--dry-run", "--json").json
    none = deployment.here("dataset", "forgotten")
    done = deployment.here(*words, "--base", "v1", "--yes", "--json").json
    listed = deployment.here("dataset", "forgotten")
    old = deployment.here(
        "dataset", "export", "reach", "--tag", "v1", "--output", str(deployment.home / "old")
    )

    assert plan.status == 0
    assert "withdrawn" in plan.out
    assert (planned["dryRun"], [row["episodes"] for row in planned["successors"]]) == (True, [7])
    assert "nothing was forgotten" in none.err
    assert [e["episode"] for e in done["episodes"]] == [2]
    assert done["destroyed"]["payloads"] == len(planned["payloads"]) == 1
    assert done["id"] in listed.out
    assert "no consent" in listed.out
    proved = deployment.here("dataset", "forgotten", done["id"])
    note = deployment.home / "tombstone.json"
    note.write_bytes(deployment.here("dataset", "forgotten", done["id"], "--json").raw)
    alone = deployment.here("dataset", "forgotten", str(note), "--json").json
    note.write_text(note.read_text().replace("no consent", "a mistake"))
    forged = deployment.here("dataset", "forgotten", str(note))
    assert proved.status == 0
    for words in ("no consent", "1 withdrawn", "none of 1 is in the store", "they prove what was there"):
        assert words in proved.out
    assert alone["proof"] == [{"what": "sha256 of it", "ok": True, "found": "as it says"}]
    assert (forged.status, "altered since" in forged.out) == (1, True)
    assert deployment.here("dataset", "forgotten", "fgt_none").err.startswith("error[not-found]: nothing was")
    assert old.status == 1
    assert old.err.startswith("error[episode-forgotten]: episode ep_")
    assert deployment.here("verify", "--all").status == 0
    assert (
        deployment.here("audit", "list", "--action", "dataset.forget", "--json").json[0]["afterSummary"][
            "tombstone"
        ]
        == done["digest"]
    )
