"""The state of the code location in MongoDB: what one machine keeps, another one finds."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from emboflow_dagster.errors import EmboflowError, NotFoundError
from emboflow_dagster.mongo import definition_states
from emboflow_dagster.mongo.client import connect
from emboflow_dagster.orchestration.shared_state import SharedDefsState

YAML = """\
telemetry: {enabled: false}
storage: {sqlite: {base_dir: RECORDS}}
defs_state_storage:
  module: emboflow_dagster.orchestration.shared_state
  class: SharedDefsState
  config: {mongo_uri: {env: EMBOFLOW_MONGO_URI}, database: NAME, folder: COPIES}
"""


def machine(folder: Path, name: str) -> dg.DagsterInstance:
    """An instance with a folder of its own; only Dagster's records (Postgres elsewhere) are shared."""
    home = folder / name
    home.mkdir()
    text = (
        YAML.replace("RECORDS", str(folder / "records"))
        .replace("COPIES", str(home / "copies"))
        .replace("NAME", "states_" + folder.name[-40:])
    )
    (home / "dagster.yaml").write_text(text)
    return dg.DagsterInstance.from_config(str(home))


def storage_of(instance: dg.DagsterInstance) -> SharedDefsState:
    found = instance.defs_state_storage
    assert isinstance(found, SharedDefsState)
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.write_text('{"schema":1}')
    return path


def test_another_machine_finds_the_newest_state_and_every_older_one(mongo_uri, monkeypatch, tmp_path, state):
    monkeypatch.setenv("EMBOFLOW_MONGO_URI", mongo_uri)
    with machine(tmp_path, "left") as left, machine(tmp_path, "right") as right:
        storage_of(left).upload_state_from_path("flows[*/*]", "v1", state)
        state.write_text('{"schema":1,"more":true}')
        storage_of(left).upload_state_from_path("flows[*/*]", "v2", state)

        assert storage_of(right).get_latest_version("flows[*/*]") == "v2"
        found = tmp_path / "found"
        storage_of(right).download_state_to_path("flows[*/*]", "v1", found)
        assert found.read_text() == '{"schema":1}'
        storage_of(right).download_state_to_path("flows[*/*]", "v2", found)
        assert found.read_text() == '{"schema":1,"more":true}'


def test_what_a_machine_has_read_once_it_reads_without_the_database(mongo_uri, monkeypatch, tmp_path, state):
    monkeypatch.setenv("EMBOFLOW_MONGO_URI", mongo_uri)
    with machine(tmp_path, "left") as left, machine(tmp_path, "right") as right:
        storage_of(left).upload_state_from_path("flows", "v1", state)
        storage_of(right).download_state_to_path("flows", "v1", tmp_path / "once")
    monkeypatch.setenv(
        "EMBOFLOW_MONGO_URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200&replicaSet=x"
    )
    with dg.DagsterInstance.from_config(str(tmp_path / "right")) as right:
        storage_of(right).download_state_to_path("flows", "v1", tmp_path / "again")
        assert (tmp_path / "again").read_text() == '{"schema":1}'
        with pytest.raises(EmboflowError):
            storage_of(right).download_state_to_path("flows", "v2", tmp_path / "never")


def test_a_state_that_nobody_kept_is_named(mongo_uri, monkeypatch, tmp_path):
    monkeypatch.setenv("EMBOFLOW_MONGO_URI", mongo_uri)
    with machine(tmp_path, "left") as left, pytest.raises(NotFoundError, match=r"no state v9 of .* flows"):
        storage_of(left).download_state_to_path("flows", "v9", tmp_path / "never")


def test_a_state_that_is_there_is_left_as_it_is(mongo_uri, monkeypatch, tmp_path, state):
    monkeypatch.setenv("EMBOFLOW_MONGO_URI", mongo_uri)
    with machine(tmp_path, "left") as left, machine(tmp_path, "right") as right:
        storage_of(left).upload_state_from_path("flows", "once", state)
        state.write_text("other")
        storage_of(right).upload_state_from_path("flows", "once", state)
        with machine(tmp_path, "third") as third:
            storage_of(third).download_state_to_path("flows", "once", tmp_path / "found")

    assert (tmp_path / "found").read_text() == '{"schema":1}'


def test_states_that_were_replaced_long_ago_go_and_no_others(mongo_uri, tmp_path):
    with closing(connect(mongo_uri, "states_old_" + tmp_path.name[-30:])) as mongo:
        states = mongo[definition_states.STATES]
        for key, version in (
            ("flows", "old"),
            ("flows", "again"),
            ("flows", "young"),
            ("flows:other", "old"),
        ):
            definition_states.keep(mongo, key, version, version.encode())
        long_ago = definition_states.REPLACED_FOR + timedelta(days=1)
        for version in ("old", "again"):
            for row in states.find({"version": version}):
                ages = {name: row[name] - long_ago for name in ("createdAt", "keptAt")}
                states.update_one({"_id": row["_id"]}, {"$set": ages})
        definition_states.keep(mongo, "flows", "again", b"again")  # another machine has it as its newest one
        definition_states.keep(mongo, "flows", "new", b"new")

        assert sorted(row["_id"] for row in states.find()) == [
            "flows:again",
            "flows:new",
            "flows:other:old",
            "flows:young",
        ]
