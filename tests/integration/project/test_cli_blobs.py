"""`emboflow blob` as people meet it: what is missing, what became of a version, what was said and kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.cli.command_line import exit_status
from emboflow_dagster.project.handle import EmboFlow

Command = Callable[..., str]


@pytest.fixture
def command(ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """What a command prints for people; its error lines, when it fails with ``status``."""
    for name, value in ef.settings.environment().items():
        monkeypatch.setenv(name, value)

    def run(*words: str, status: int = 0) -> str:
        ended = exit_status(list(words))
        captured = capsys.readouterr()
        assert ended == status, captured.err
        return captured.out if status == 0 else captured.err

    return run


def hint(error: str) -> str:
    return error.partition("hint: ")[2].strip()


def test_a_blob_that_is_not_there_comes_with_a_hint(ef: EmboFlow, command: Command) -> None:
    assert hint(command("blob", "show", "x", status=1)).startswith("there is no blob in workspace acme yet")
    ef.blobs.put(b"one", object_id="policy")
    ef.blobs.put(b"two", object_id="policy")
    assert "STATE" not in command("blob", "history", "policy")
    temporary = ef.blobs.put_temporary(b"preview").id

    for verb, *more in (
        *(("show",), ("get",), ("history",), ("verify",), ("why-kept",), ("owner",), ("release",)),
        *(("retain",), ("abandon",), ("upload", __file__), ("withdraw", "--reason", "r")),
        *(
            ("reinstate", "--reason", "r"),
            ("repair", "--version", "0"),
            ("transfer", "--to", "assets.a.storageRef"),
        ),
    ):
        error = command("blob", verb, "polcy", *more, status=1)
        assert error.startswith("error[not-found]: Object not found for object_id=polcy"), verb
        assert hint(error) == "did you mean policy?", verb
    assert hint(command("blob", "show", "zzz", status=1)) == "`emboflow blob list` shows what there is"
    assert hint(command("blob", "get", "policy", "--version", "7", status=1)) == (
        "the newest is version 1: `emboflow blob history policy`"
    )
    assert "--temporary" in hint(command("blob", "get", temporary, status=1))


def test_what_became_of_a_version_is_seen_where_people_look(
    ef: EmboFlow, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")
    damaged, *_ = [ef.blobs.put(content, object_id="m") for content in (b"aa", b"bb", b"cc", b"dd")]
    for number, reason in ((1, "no consent"), (2, "a mistake")):
        said = command("blob", "withdraw", "m", "--version", f"{number}", "--reason", reason)
        assert said.startswith(f"m: version {number} let go; `emboflow gc` collects the bytes after ")
        assert said.endswith("(in 23 h)\n")
        if number == 1:
            for path in Path(ef.store.path_of(ef.blobs.get("m", 1).storage_ref.key)).parents[:1]:  # type: ignore[union-attr,arg-type]
                for file in path.iterdir():
                    os.utime(file, (0, 0))
            ef.gc(grace_s=0)
    path = ef.store.path_of(damaged.storage_ref.key)  # type: ignore[union-attr]
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(b"xx")
    command("blob", "get", "m", "--version", "0", status=1)

    told = {int(line.split()[0]): line for line in command("blob", "history", "m").splitlines()[1:]}
    ends = {0: "damaged", 1: "collected", 2: "let go", 3: "-"}
    assert {n: line.endswith(ends[n]) for n, line in told.items()} == dict.fromkeys(ends, True)
    pages = {n: command("blob", "show", "m", "--version", f"{n}") for n in range(4)}
    assert "damaged 2" in pages[0]
    assert "hash-mismatch" in pages[0]
    assert "by ada: no consent" in pages[1]
    assert "by ada: a mistake" in pages[2]
    assert "state" not in pages[3]
    # What was collected on purpose is nothing wrong: only the damaged one is.
    command("blob", "verify", "m", "--all-versions", status=1)
    path.write_bytes(b"aa")
    command("blob", "repair", "m", "--version", "0")
    checked = command("blob", "verify", "m", "--all-versions").splitlines()[1:]
    assert [line.split()[-1] for line in checked] == ["recorded", "recorded", "collected", "recorded"]
    assert command("blob", "withdraw", "m", "--version", "1", "--reason", "again").startswith(
        "m: nothing to do"
    )
    assert command("blob", "reinstate", "m", "--reason", "back") == "m: 1 version taken back\n"
    assert command("blob", "reinstate", "m", "--reason", "back") == "m: nothing to take back\n"


def test_a_put_keeps_the_type_and_loses_nothing_that_is_said(
    ef: EmboFlow, command: Command, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    command("blob", "put", str(one), "--id", "m", "--type", "ml_model", "--tag", "a")
    command("blob", "put", str(two), "--id", "m")
    assert (ef.blobs.get_ml_model("m").version, ef.blobs.get("m").tags) == (1, [])
    command("blob", "put", str(two), "--id", "m", "--metadata", '{"stage": "best"}')

    assert ef.blobs.get("m").custom_metadata == {"stage": "best"}
    command("blob", "put", str(two), "--id", "m", "--metadata", '{"stage": "best"}')
    assert ef.blobs.get("m").version == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--id", "m"], "--id"),
        (["--tag", "a"], "--tag"),
        (["--type", "artifact"], "--type"),
        (["--home", "gridfs"], "--home"),
        (["--metadata", "{}"], "--metadata"),
    ],
)
def test_what_a_temporary_blob_cannot_have_is_refused(
    command: Command, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "f").write_bytes(b"1")
    error = command("blob", "put", str(tmp_path / "f"), "--temporary", *words, status=2)

    assert f"a temporary blob has no {said}" in error


def test_a_temporary_blob_says_how_long_it_can_be_read(command: Command, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")

    said = command("blob", "put", str(tmp_path / "f"), "--temporary", "--ttl", "2h").splitlines()[-1]

    assert said.endswith("(in 1 h)")


def test_a_folder_is_no_payload(command: Command, tmp_path: Path) -> None:
    error = command("blob", "put", str(tmp_path), status=1)

    assert "is a folder; a blob is one file" in error
    assert "emboflow asset register" in hint(error)


def test_one_object_that_is_not_there_is_one_kind_of_error_everywhere(ef: EmboFlow) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: ef.blobs.withdraw("no", reason="r"),
        lambda: ef.blobs.get("no"),
        lambda: ef.blobs.why_kept("no"),
        lambda: ef.blobs.retain("no", keep_last=1),
        lambda: ef.blobs.reinstate("no", reason="r"),
        lambda: ef.blobs.owner("no"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^Object not found for object_id=no\.$"):
            call()
