"""A process is killed at every MongoDB command of all that writes; done again, everything is as if done once.

`make faults` tries every point; the tests try some of each operation.
"""

import time

import pytest

from tests.integration.faults.conftest import Stages
from tests.integration.faults.harness import ALL, Stage
from tests.integration.faults.operations import OPERATIONS, differences

MOMENTS = ("started", "succeeded")
SAMPLE = 3  # points of an operation


def points(total: int, *, most: int = SAMPLE) -> list[tuple[int, str]]:
    """Which commands to be killed at, and when: all, or some over the whole operation, the last included."""
    every = [(point, moment) for point in range(1, total + 1) for moment in MOMENTS]
    if ALL or len(every) <= most:
        return every
    # Writes come late: the sample is denser there.
    places = {round((len(every) - 1) * (1 - (i / most) ** 1.5)) for i in range(most)}
    return [every[place] for place in sorted(places)]


def after(stage: Stage, point: int, moment: str, *, broken: str | None = None) -> list[str]:
    """What is wrong after a kill and a repetition; empty when it is as if done once."""
    outcome = stage.interrupted(point, moment, broken=broken)
    where = f"{stage.operation.name}, killed when command {point} {moment}"
    assert outcome.killed, f"{where}: was not killed: {outcome}"
    with stage.open() as ef:
        found = [f"left behind: {p.code} {p.message}" for p in ef.verify(all=True).problems]
        found += [f"lost: {text}" for text in stage.operation.lost(ef, outcome.acked)]
        stage.operation.repeat(ef, stage.folder)
        found += differences(stage.operation, ef, stage.before)
    return [f"{where} ({outcome.commands[-1]}): {text}" for text in found]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "first-init"])
def test_killed_anywhere_and_done_again_it_is_done_once(stages: Stages, name: str) -> None:
    stage = stages(name)
    whole = stage.interrupted(0, "started")
    assert whole.error is None
    assert whole.acked
    with stage.open() as ef:
        assert stage.operation.lost(ef, whole.acked) == []
        assert differences(stage.operation, ef, stage.before) == []

    found = [text for point, moment in points(len(whole.commands)) for text in after(stage, point, moment)]

    assert found == []


def test_what_a_killed_writer_held_is_free_again_within_seconds(stages: Stages) -> None:
    """The server ends an abandoned transaction after 5 s, and looks every few seconds."""
    stage = stages("publish-second")
    last = len(stage.interrupted(0, "started").commands)
    stage.interrupted(last, "started", free=False)

    begun = time.monotonic()
    with stage.open() as ef:
        stage.operation.repeat(ef, stage.folder)
        took = time.monotonic() - begun
        assert differences(stage.operation, ef, stage.before) == []

    assert took < 15


@pytest.mark.timeout(3600)
def test_killed_while_a_database_is_made_it_is_made_by_the_next_one(stages: Stages) -> None:
    stage = stages("first-init")
    total = len(stage.interrupted(0, "started").commands)

    every = [(point, moment) for point in range(1, total + 1) for moment in MOMENTS]
    chosen = every[::7] if ALL else [every[len(every) // 3]]
    found = [text for point, moment in chosen for text in after(stage, point, moment)]

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
        ("cud", "without_transactions"),
        *([("transfer", "without_transactions")] if ALL else []),
        ("upload", "completed_before_its_bytes"),
        ("put-gridfs", "gridfs_last"),
        ("import-flowcept", "renumbering"),
    ],
)
def test_a_broken_variant_is_caught(stages: Stages, name: str, broken: str) -> None:
    """The positive control: the same kills find what is written in the wrong order or not at once."""
    stage = stages(name)
    total = len(stage.interrupted(0, "started", broken=broken).commands)
    every = [(point, moment) for point in range(total, 0, -1) for moment in MOMENTS]

    assert any(after(stage, point, moment, broken=broken) for point, moment in every)
