"""Annotations, edits of a dataset and confirmations in any order, against a small model of what holds."""

import os
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np  # noqa: TID253 - episodes are numbers
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from emboflow_dagster.project.dataset_changes import Change, Delete, Relabel, Trim
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.versions_made import episode, made

LONG = os.environ.get("EMBOFLOW_FAULTS") == "all"
LENGTH, FPS = 12, 20
PLACES = st.integers(0, 3)


@dataclass(frozen=True)
class Ep:
    """An episode: which one, the frames of it that are left, its task."""

    name: int
    first: int = 0
    last: int = LENGTH
    task: str = "lift"


@dataclass
class Said:
    """An annotation: where it was said or confirmed (version, episode, first frame in the recording)."""

    id: str
    held: list[tuple[int, Ep, int | None]] = field(default_factory=list)


class Carried(RuleBasedStateMachine):
    """What a reader of a dataset believes about annotations."""

    ef: EmboFlow
    folder: Path
    number = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).number += 1
        self.name = f"reach-{type(self).number}"
        stamps = np.arange(LENGTH, dtype=np.int64) * 50_000_000
        given = [
            episode(seed, LENGTH, source_timestamp_ns=2**60 + stamps, t0_ns=2**60) for seed in (1, 2, 3, 4)
        ]
        made(self.ef, self.folder / self.name, self.name, given, fps=FPS)
        self.versions = [[Ep(n) for n in range(4)]]
        self.said: list[Said] = []

    @property
    def now(self) -> list[Ep]:
        return self.versions[-1]

    def edited(self, change: Change, after: list[Ep]) -> None:
        self.ef.datasets.edit(self.name, [change])
        self.versions.append(after)

    # ------------------------------------------------------------------------------------------------ rules

    @precondition(lambda self: len(self.now) > 1 and len(self.versions) < 8)
    @rule(place=PLACES)
    def delete(self, place: int) -> None:
        place %= len(self.now)
        self.edited(Delete([place]), [e for n, e in enumerate(self.now) if n != place])

    @precondition(lambda self: len(self.versions) < 8)
    @rule(place=PLACES, task=st.sampled_from(["lift", "place"]))
    def relabel(self, place: int, task: str) -> None:
        place %= len(self.now)
        old = self.now[place]
        if old.task != task:
            after = deepcopy(self.now)
            after[place] = Ep(old.name, old.first, old.last, task)
            self.edited(Relabel([place], task=task), after)

    @precondition(lambda self: len(self.versions) < 8)
    @rule(place=PLACES, cut=st.integers(1, 3))
    def trim(self, place: int, cut: int) -> None:
        place %= len(self.now)
        old = self.now[place]
        if old.last - old.first > cut + 1:
            after = deepcopy(self.now)
            after[place] = Ep(old.name, old.first + cut, old.last, old.task)
            self.edited(Trim(place, cut), after)

    @precondition(lambda self: 1 < len(self.versions) < 8)
    @rule(back=st.integers(1, 3))
    def restore(self, back: int) -> None:
        number = max(0, len(self.versions) - 1 - back)
        if self.versions[number] != self.now:
            self.ef.datasets.restore(self.name, f"v{number + 1}")
            self.versions.append(list(self.versions[number]))

    @precondition(lambda self: len(self.said) < 6)
    @rule(back=st.integers(0, 2), place=PLACES, frame=st.one_of(st.none(), st.integers(0, 8)))
    def say(self, back: int, place: int, frame: int | None) -> None:
        number = max(0, len(self.versions) - 1 - back)
        there = self.versions[number]
        place %= len(there)
        if frame is not None:
            frame %= there[place].last - there[place].first
        start = None if frame is None else frame / FPS
        one = self.ef.annotations.flag(self.name, place, "look", tag=f"v{number + 1}", start=start)
        at = None if frame is None else there[place].first + frame
        self.said.append(Said(one.id, [(number, there[place], at)]))

    @precondition(lambda self: self.said)
    @rule(which=st.integers(0, 5))
    def confirm(self, which: int) -> None:
        one = self.said[which % len(self.said)]
        state, spot = self.expected(one, len(self.versions) - 1)
        if state == "stale" and spot is not None:
            self.ef.annotations.confirm(one.id, self.name)
            place, _ = spot
            one.held.append((len(self.versions) - 1, self.now[place], one.held[-1][2]))

    # ------------------------------------------------------------------------------------------- the model

    def expected(self, one: Said, number: int) -> tuple[str | None, tuple[int, int | None] | None]:
        """State at a version, and place and frame there; no state: it is not shown."""
        there = self.versions[number]
        for _, said_of, at in reversed(one.held):
            if said_of in there:
                return "valid", (there.index(said_of), None if at is None else at - said_of.first)
        said_at, said_of, at = one.held[-1]
        if said_at > number:
            return None, None
        for place, e in enumerate(there):
            if e.name == said_of.name:
                inside = at is None or e.first <= at
                return "stale", (place, None if at is None else at - e.first) if inside else None
        return "removed", None

    @invariant()
    def the_newest_version_and_the_first_are_as_the_model_says(self) -> None:
        for number in {0, len(self.versions) - 1}:
            found = {row.annotation.id: row for row in self.ef.annotations.at(self.name, f"v{number + 1}")}
            for one in self.said:
                state, spot = self.expected(one, number)
                if state is None:
                    assert one.id not in found
                    continue
                row = found[one.id]
                assert row.state.value == state, (row.reason, one.held, self.versions[number])
                if spot is None:
                    assert row.spot is None
                    continue
                assert row.spot is not None
                start = None if spot[1] is None else spot[1] / FPS
                assert (row.spot.episode, row.spot.start) == (spot[0], pytest.approx(start))


def test_annotations_hold_where_the_model_says(ef: EmboFlow, tmp_path: Path) -> None:
    Carried.ef, Carried.folder = ef, tmp_path
    many = 40 if LONG else 3
    run_state_machine_as_test(
        Carried,
        settings=settings(max_examples=many, stateful_step_count=12, deadline=None, derandomize=not LONG),
    )
    assert ef.verify().problems == []
