"""What the embedded server is told, and what its log is understood to say."""

import json
from pathlib import Path

import pytest

from emboflow_dagster.errors import ConfigurationError, ErrorKind
from emboflow_dagster.mongo.embedded import binary, launch, log, place, processes


def test_the_command_line_keeps_the_promises(tmp_path, monkeypatch):
    monkeypatch.delenv("EMBOFLOW_MONGOD_CACHE_GB", raising=False)
    here = place.Place(tmp_path)
    line = launch.command_line(Path("/bin/mongod"), here, place.Instance("0123456789ab"), 27000)

    for option, value in [
        ("--bind_ip", "127.0.0.1"),
        ("--port", "27000"),
        ("--dbpath", str(tmp_path.resolve() / "mongo" / "data")),
        ("--replSet", "emboflow-0123456789ab"),
        ("--wiredTigerCacheSizeGB", "0.25"),
    ]:
        assert line[line.index(option) + 1] == value
    assert {"--noscripting", "--nounixsocket", "transactionLifetimeLimitSeconds=5"} <= set(line)
    assert not {"--nojournal", "--bind_ip_all", "--ipv6"} & set(line)


@pytest.mark.parametrize("text", ["a lot", "0.1", "-1", "nan", "inf", "2000"])
def test_a_cache_size_out_of_bounds_is_refused(monkeypatch, text):
    monkeypatch.setenv("EMBOFLOW_MONGOD_CACHE_GB", text)

    with pytest.raises(ConfigurationError, match="EMBOFLOW_MONGOD_CACHE_GB"):
        launch.cache_gb()


def test_a_cache_size_is_taken(monkeypatch):
    monkeypatch.setenv("EMBOFLOW_MONGOD_CACHE_GB", "1.5")
    assert launch.cache_gb() == 1.5


@pytest.mark.parametrize(
    ("data", "ours", "refused"),
    [
        (None, "6.0.5", False),
        ("6.0.5", "6.0.5", False),
        ("6.0.20", "6.0.5", False),
        ("6.0.5", "7.0.1", False),
        ("5.0.0", "6.0.5", False),
        ("7.0.0", "6.0.5", True),
        ("6.1.0", "6.0.5", True),
        ("5.0.0", "7.0.0", True),
    ],
)
def test_versions_that_cannot_open_each_others_data(tmp_path, data, ours, refused):
    instance = place.Instance("0123456789ab", server_version=data, ready=True)
    if not refused:
        launch.refuse_other_versions(instance, ours, place.Place(tmp_path))
        return
    with pytest.raises(ConfigurationError, match=ours) as caught:
        launch.refuse_other_versions(instance, ours, place.Place(tmp_path))
    assert caught.value.kind == ErrorKind.DATA_FOLDER


def line(severity: str, number: int, message: str, /, **attributes: object) -> str:
    return json.dumps({"s": severity, "id": number, "msg": message, "attr": attributes})


def test_the_first_error_is_the_reason_not_the_crash_that_follows(tmp_path):
    path = tmp_path / "mongod.log"
    path.write_text(
        "\n".join(
            [
                line("I", 1, "starting"),
                line("W", 22120, "Access control is not enabled"),
                line(
                    "E",
                    22435,
                    "WiredTiger error",
                    error=28,
                    message={"msg": "write", "error_str": "No space left"},
                ),
                line("F", 23089, "Fatal assertion"),
                line("F", 6384300, "Writing fatal message", message="Got signal: 6"),
                "not json",
                "[1]",
                "",
            ]
        )
    )

    assert log.failure_reason(path) == "WiredTiger error: write No space left"


def test_a_log_without_errors_gives_its_last_warning_or_nothing(tmp_path):
    path = tmp_path / "mongod.log"
    assert log.failure_reason(path) is None
    path.write_text(line("W", 22120, "Access control is not enabled") + "\n")
    assert log.failure_reason(path) is None
    path.write_text(line("W", 5, "odd", error={"code": 9001, "errmsg": "Address in use"}) + "\n")
    assert log.failure_reason(path) == "odd: Address in use"
    assert log.failure_reason(path, offset=path.stat().st_size) is None


def test_a_log_over_its_bound_is_set_aside_once(tmp_path):
    path = tmp_path / "mongod.log"
    assert log.bound_log(path) is False
    path.write_text("x" * 100)
    assert log.bound_log(path, max_bytes=100) is False
    assert log.bound_log(path, max_bytes=99) is True
    assert not path.exists()
    path.write_text("y" * 100)
    assert log.bound_log(path, max_bytes=99) is True
    assert [file.name for file in tmp_path.iterdir()] == ["mongod.log.1"]


def test_packages_are_named_once():
    info = binary.MongodInfo(
        Path("mongod"), None, ("libssl.so.3", "libcrypto.so.3", "libcurl.so.4", "libx.so.1")
    )
    assert info.packages == ("libssl3", "libcurl4")


def test_this_very_process_is_itself_and_no_mongod(tmp_path):
    import os

    mine = processes.process(os.getpid())

    assert mine == processes.process(os.getpid())
    assert processes.mongod_port(os.getpid(), tmp_path) is None
    assert processes.process(2**22 + 1) is None
