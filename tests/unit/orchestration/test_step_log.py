"""A task's log in a step: bounded events, a bounded print, then the command that shows the rest."""

from types import SimpleNamespace

import pytest

from emboflow_dagster.orchestration import orphans, step_log
from emboflow_dagster.runtime.log_records import record

COMMAND = "emboflow task logs run_1:count"


def made(**tags):
    """A log, and the events that it made; of a step only its tags and its logger are asked for."""
    events = []
    context = SimpleNamespace(log=SimpleNamespace(info=events.append), run=SimpleNamespace(tags=tags))
    return step_log.StepLog(context, SimpleNamespace(id="run_1"), "count"), events


def test_few_lines_are_events_and_the_first_errors_always_are():
    log, events = made()
    for n in range(200):
        log.line(f"line {n}")
    log.line("error[node-failed]: no gripper")

    assert events == [
        *(f"line {n}" for n in range(step_log.EVENTS)),
        f"more lines came; all are shown by: {COMMAND} --follow",
        "error[node-failed]: no gripper",
    ]


def test_errors_are_bounded_too():
    log, events = made()
    for n in range(200):
        log.line(f"error: {n}")

    assert len(events) == step_log.EVENTS + 1


def test_what_is_printed_is_bounded_and_says_how_to_see_the_rest(monkeypatch, capsys):
    monkeypatch.setattr(step_log, "PRINTED_BYTES", 16)
    log, _ = made()
    log.printed("stdout", record("stdout", b"one\r two") + record("stdout", b"50%", ends=False))
    log.printed("stderr", record("stderr", b"\xff"))
    log.printed("stdout", record("stdout", b"100% and more"))
    log.printed("stdout", record("stdout", b"never"))
    log.printed("log", record("log", b"an event already"))

    out, err = capsys.readouterr()
    assert out == f"one\r two\n50%100%\n... all of it is shown by: {COMMAND} --stdout\n"
    assert err == "\ufffd\n"


@pytest.mark.parametrize("tag", [orphans.PROCESS_TAG])
def test_a_command_that_executes_a_run_itself_keeps_its_terminal(capsys, tag):
    log, _ = made(**{tag: "{}"})
    log.printed("stdout", record("stdout", b"one"))

    assert capsys.readouterr() == ("", "")


def test_the_command_is_fit_for_a_shell():
    assert step_log.command("run_1", "count", 2) == f"{COMMAND} --attempt 2"
