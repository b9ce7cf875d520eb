"""A process is killed at every step of all that writes; done again, everything is as if done once.

A step is a MongoDB command, a call that changes a file of the store (`steps`), or any moment after a command.
`make faults` tries every point; the tests try some of each operation.
"""

import time
from typing import NamedTuple

import pytest

from tests.conftest import Kills
from tests.integration.faults import steps
from tests.integration.faults.conftest import Stages
from tests.integration.faults.driver import LATER, Outcome
from tests.integration.faults.harness import ALL, Stage
from tests.integration.faults.operations import OPERATIONS, differences

MOMENTS = ("started", "succeeded")
#: How long after a command, in milliseconds: while the next one is made, while files are written and hashed.
DELAYS_MS = (0.3, 2.0)
SAMPLE = 3  # commands of an operation
FILE_SAMPLE = 4  # calls on files
#: More of each of these: what the blob store writes. With them it is over 200 kills in `make test`.
BLOB_STORE = ("put-often", "put-new", "cud", "claim", "gc", "upload")
MORE = 3


class Point(NamedTuple):
    """Where to be killed."""

    number: int
    moment: str
    delay_ms: float = 0


def every_command(total: int) -> list[Point]:
    """Before and after each command."""
    return [Point(number, moment) for number in range(1, total + 1) for moment in MOMENTS]


def points(name: str, whole: Outcome) -> list[Point]:
    """Where to be killed in an operation: everywhere, or at some points over all of it, the last included."""
    commands = every_command(len(whole.commands))
    files = [Point(n, moment) for n, name in enumerate(whole.files, 1) for moment in steps.moments(name)]
    if ALL:
        later = [Point(n, LATER, ms) for n in range(1, len(whole.commands) + 1) for ms in DELAYS_MS]
        return commands + files + later
    # Writes come late: the sample is denser there.
    times = MORE if name in BLOB_STORE else 1
    return sample(commands, SAMPLE * times, 1.5) + sample(files, FILE_SAMPLE * times, 1)


def sample(every: list[Point], most: int, power: float) -> list[Point]:
    """At most so many of them."""
    if len(every) <= most:
        return every
    places = {round((len(every) - 1) * (1 - (i / most) ** power)) for i in range(most)}
    return [every[place] for place in sorted(places)]


def after(stage: Stage, point: Point, kills: Kills, *, broken: str | None = None) -> list[str]:
    """What is wrong after a kill and a repetition; empty when it is as if done once."""
    outcome = stage.interrupted(point.number, point.moment, broken=broken, delay_ms=point.delay_ms)
    last = (outcome.commands if point.moment in (*MOMENTS, LATER) else outcome.files)[-1:]
    where = f"{stage.operation.name}, killed at {point} {last}"
    if not outcome.killed and outcome.error is None and (point.moment == LATER or stage.operation.threads):
        return []  # it was faster, or its threads did less, or something else, at this place
    assert outcome.killed, f"{where}: was not killed: {outcome}"
    kills.add(control=broken is not None)
    with stage.open() as ef:
        found = [f"left behind: {p.code} {p.message}" for p in ef.verify(all=True).problems]
        found += [f"lost: {text}" for text in stage.operation.lost(ef, outcome.acked)]
        stage.operation.repeat(ef, stage.folder)
        found += differences(stage.operation, ef, stage.before)
    return [f"{where}: {text}" for text in found]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "first-init"])
def test_killed_anywhere_and_done_again_it_is_done_once(stages: Stages, kills: Kills, name: str) -> None:
    stage = stages(name)
    whole = stage.interrupted(0, "started")
    assert whole.error is None
    assert whole.acked
    with stage.open() as ef:
        assert stage.operation.lost(ef, whole.acked) == []
        assert differences(stage.operation, ef, stage.before) == []

    found = [text for point in points(name, whole) for text in after(stage, point, kills)]

    assert found == []


def test_what_a_killed_writer_held_is_free_again_within_seconds(stages: Stages, kills: Kills) -> None:
    """The server ends an abandoned transaction after 5 s, and looks every few seconds."""
    stage = stages("publish-second")
    last = len(stage.interrupted(0, "started").commands)
    assert stage.interrupted(last, "started", free=False).killed
    kills.add()

    begun = time.monotonic()
    with stage.open() as ef:
        stage.operation.repeat(ef, stage.folder)
        took = time.monotonic() - begun
        assert differences(stage.operation, ef, stage.before) == []

    assert took < 15


@pytest.mark.timeout(3600)
def test_killed_while_a_database_is_made_it_is_made_by_the_next_one(stages: Stages, kills: Kills) -> None:
    stage = stages("first-init")
    total = len(stage.interrupted(0, "started").commands)

    every = every_command(total)
    chosen = every[::2] if ALL else [every[len(every) // 3]]
    found = [text for point in chosen for text in after(stage, point, kills)]

    assert found == []


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("request", "without_transactions"),
        ("register-file", "without_transactions"),
        ("work-artifact", "without_transactions"),
        ("put-new", "metadata_first"),
        ("put-next", "read_check_write"),
        ("put-often", "cleared_unseen"),
        ("cud", "without_transactions"),
        *([("transfer", "without_transactions")] if ALL else []),
        ("upload", "completed_before_its_bytes"),
        ("put-gridfs", "gridfs_last"),
        ("import-flowcept", "renumbering"),
    ],
)
def test_a_broken_variant_is_caught(stages: Stages, kills: Kills, name: str, broken: str) -> None:
    """The positive control: the same kills find what is written in the wrong order or not at once."""
    stage = stages(name)
    total = len(stage.interrupted(0, "started", broken=broken).commands)

    assert any(after(stage, point, kills, broken=broken) for point in reversed(every_command(total)))


@pytest.mark.timeout(1200)
def test_a_payload_that_is_written_in_its_place_is_caught_between_two_commands(
    stages: Stages, kills: Kills
) -> None:
    """The positive control of the files: at every command the broken store looks like the right one."""
    stage = stages("put-new")
    broken = "written_in_place"
    whole = stage.interrupted(0, "started", broken=broken)
    commands = every_command(len(whole.commands))
    torn = [Point(n, steps.TORN) for n, name in enumerate(whole.files, 1) if name == "write"]

    assert not any(after(stage, point, kills, broken=broken) for point in commands)
    assert any(after(stage, point, kills, broken=broken) for point in torn)
