"""DAGSTER_HOME: made once, and never over what somebody wrote."""

import socket

import dagster as dg
import pytest
import yaml

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.orchestration import compute_logs
from emboflow_dagster.orchestration import instance as dagster_instance
from emboflow_dagster.orchestration.dev import DEFAULT_PORT, free_port


def test_a_fresh_home_is_ready_to_run(tmp_path):
    made = dagster_instance.prepare(tmp_path / "dagster")

    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        assert made
        assert instance.get_runs_count() == 0
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_coordinator.get_run_queue_config().max_user_code_failure_retries == 3


def test_a_second_time_changes_nothing(tmp_path):
    dagster_instance.prepare(tmp_path)
    config = tmp_path / "dagster.yaml"
    config.write_text(config.read_text() + "# mine\n")

    assert dagster_instance.prepare(tmp_path) is False
    assert config.read_text().endswith("# mine\n")


def test_a_home_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot be made ready"):
        dagster_instance.prepare(tmp_path / "file" / "dagster")


def test_a_fresh_home_has_no_daemon(tmp_path):
    with dagster_instance.opened(tmp_path) as instance:
        assert not dagster_instance.daemon_is_alive(instance)


def test_a_taken_port_is_refused_when_it_was_asked_for():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is taken"):
            free_port("127.0.0.1", port)


def test_without_a_port_a_free_one_is_taken():
    assert free_port("127.0.0.1", None) >= DEFAULT_PORT


@pytest.fixture
def environment(monkeypatch):
    for name in ("EMBOFLOW_OBJECT_STORE", compute_logs.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize(
    ("store", "said", "expected"),
    [
        (None, None, None),
        ("file:///data", None, None),
        ("s3://lake/team/", None, ("lake", "team/compute-logs")),
        ("s3://lake", None, ("lake", "compute-logs")),
        ("s3://lake/team", "local", None),
        ("s3://lake/team", "s3://logs/steps", ("logs", "steps")),
        (None, "s3://logs", ("logs", "compute-logs")),
    ],
)
def test_what_steps_print_goes_where_the_environment_says(environment, tmp_path, store, said, expected):
    for name, value in (("EMBOFLOW_OBJECT_STORE", store), (compute_logs.VARIABLE, said)):
        if value:
            environment(name, value)
    config = (yaml.safe_load(compute_logs.block(tmp_path)) or {}).get("compute_logs")

    assert (config and (config["config"]["bucket"], config["config"]["prefix"])) == expected
    if config:
        assert config["class"] == "S3ComputeLogManager"
        assert config["config"]["local_dir"] == str(tmp_path / "compute-logs")


@pytest.mark.parametrize("said", ["gs://logs", "/var/log", "s3://", "s3://key:secret@logs"])
def test_a_place_for_logs_that_is_not_understood_is_refused(environment, tmp_path, said):
    environment(compute_logs.VARIABLE, said)

    with pytest.raises(ConfigurationError, match="EMBOFLOW_COMPUTE_LOGS"):
        dagster_instance.prepare(tmp_path)

    assert not (tmp_path / "dagster.yaml").exists()
