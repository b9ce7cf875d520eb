"""`emboflow blob owner`, `transfer` and `release`, and `ef.blobs.owner` that they show."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from emboflow_dagster import Deactivate
from emboflow_dagster.cli.command_line import exit_status
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_cud import annotated, asset

Command = Callable[..., Any]


@pytest.fixture
def command(ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """What a command prints with ``--json``; its error line, when it fails with ``status``."""
    for name, value in ef.settings.environment().items():
        monkeypatch.setenv(name, value)

    def run(*words: str, status: int = 0) -> Any:
        ended = exit_status(["--json", *words])
        captured = capsys.readouterr()
        assert ended == status, captured.err
        return json.loads(captured.out) if status == 0 else captured.err

    return run


def where(told: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(told[name] for name in ("status", "collection", "id", "field", "name"))


def test_who_owns_a_blob_is_told_from_the_announcement_to_the_end(ef: EmboFlow, command: Command) -> None:
    free = ef.blobs.put(b"nobody's").object_id
    meant = ef.blobs.announce(owner=("assets", "storageRef"), name="rows.csv").object_id
    [made] = ef.cud([asset(ef, "rows")])
    owned = made.storage_ref.object_id

    assert where(command("blob", "owner", free)) == ("free", None, None, None, None)
    assert where(command("blob", "owner", meant)) == ("intended", "assets", None, "storageRef", None)
    assert where(command("blob", "owner", owned)) == ("owned", "assets", made.id, "storageRef", "rows")

    refused = command("blob", "release", owned, status=1)
    assert refused.startswith("error[state]")
    assert "hint: put the record out of use" in refused

    ef.cud([Deactivate("assets", made.id)])
    told = command("blob", "release", owned, "--version", "0")
    assert where(told) == ("let_go", "assets", made.id, "storageRef", "rows")
    assert told["by"] == "ada"
    assert told["since"] == ef.blobs.owner(owned).since.isoformat()
    assert command("blob", "owner", owned) == told
    assert command("blob", "release", owned, status=1).startswith("error[state]")
    assert ef.verify().problems == []


def test_a_superseded_version_is_told_from_the_newest(ef: EmboFlow, command: Command) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    object_id = made.storage_ref.object_id
    ef.blobs.put(b"others", object_id=object_id)

    told = command("blob", "owner", object_id, "--version", "0")

    assert (told["newest"], told["status"], told["id"]) == (False, "owned", made.id)
    assert command("blob", "owner", object_id)["newest"] is True
    assert command("blob", "owner", object_id, "--version", "7", status=1).startswith("error[not-found]")


def test_a_blob_is_transferred_from_record_to_record(ef: EmboFlow, command: Command) -> None:
    made, _, annotation = annotated(ef)
    object_id = made.storage_ref.object_id
    to = f"annotations.{annotation.id}.payload"
    instead = ef.blobs.put(b"instead").object_id

    assert command("blob", "transfer", object_id, "--to", to, status=1).startswith("error[blob-field]")
    told = command("blob", "transfer", object_id, "--to", to, "--replacement", f"{instead}@0")

    assert where(told)[:4] == ("owned", "annotations", annotation.id, "payload")
    assert where(command("blob", "owner", instead))[:3] == ("owned", "assets", made.id)
    assert ef.assets.get(made.id).storage_ref.object_id == instead
    back = command("blob", "transfer", object_id, "--to", f"assets.{made.id}.storageRef")
    assert where(back)[:4] == ("owned", "assets", made.id, "storageRef")
    assert command("blob", "owner", instead)["status"] == "let_go"
    assert ef.verify().problems == []


@pytest.mark.parametrize("to", ["assets", "assets.ast_1", "a.b.c.d", ""])
def test_what_is_no_place_is_wrong_usage(ef: EmboFlow, command: Command, to: str) -> None:
    assert "COLLECTION.ID.FIELD" in command("blob", "transfer", "policy", "--to", to, status=2)


@pytest.mark.parametrize("replacement", ["policy@", "policy@one", "policy@-1"])
def test_what_is_no_version_of_a_replacement_is_wrong_usage(
    ef: EmboFlow, command: Command, replacement: str
) -> None:
    words = ("blob", "transfer", "policy", "--to", "assets.ast_1.storageRef", "--replacement", replacement)

    assert "BLOB@N" in command(*words, status=2)


def test_the_owner_of_another_workspace_s_blob_is_not_told(ef: EmboFlow, opener: Any) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    object_id = made.storage_ref.object_id

    with pytest.raises(NotFoundError):
        opener(workspace="other").blobs.owner(object_id)
    # A workspace's blobs are its projects', their records are not each other's.
    assert (
        opener(project="other").blobs.owner(object_id).record_id,
        opener(project="other").blobs.owner(object_id).name,
    ) == (made.id, None)
