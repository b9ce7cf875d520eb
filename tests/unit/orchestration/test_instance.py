"""DAGSTER_HOME: made once, and never over what somebody wrote."""

import socket

import dagster as dg
import pytest

from emboflow_dagster.errors import ConfigurationError
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
