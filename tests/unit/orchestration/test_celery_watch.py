"""When a step that was sent away is given up: never while anybody vouches for it, always when nobody does."""

from collections.abc import Callable

import pytest

from emboflow_dagster.orchestration.celery_watch import (
    LOOK_EVERY_S,
    ON_ITS_WAY_S,
    SILENT_S,
    Answers,
    Signs,
    Verdict,
)

WORKER = "celery@left"
STORIES = {
    "nobody took it up, the workers are busy": (Signs(), Verdict.WAIT),
    "its worker answers": (Signs(WORKER, 0.0), Verdict.WAIT),
    "silent for a moment": (Signs(WORKER, SILENT_S - 1), Verdict.WAIT),
    "silent, but its task has a live lease": (Signs(WORKER, SILENT_S * 100, held=True), Verdict.WAIT),
    "silent, and nobody holds its task": (Signs(WORKER, SILENT_S), Verdict.LOST),
    "ended just now, the result is on its way": (Signs(WORKER, 0.0, 0.0), Verdict.WAIT),
    "ended, and its worker died before it said so": (Signs(WORKER, SILENT_S, ON_ITS_WAY_S), Verdict.ENDED),
    "ended long ago, with an older lease": (Signs(WORKER, SILENT_S, ON_ITS_WAY_S, held=True), Verdict.ENDED),
}
Judge = Callable[[Signs], Verdict]


def wrong(judge: Judge) -> list[str]:
    return [story for story, (signs, verdict) in STORIES.items() if judge(signs) is not verdict]


def test_every_story_ends_as_told():
    assert wrong(Signs.verdict) == []


def lease_is_not_asked(signs: Signs) -> Verdict:
    return Signs(signs.worker, signs.silent_s, signs.ended_s, held=False).verdict()


def log_is_not_asked(signs: Signs) -> Verdict:
    return Signs(signs.worker, signs.silent_s, None, signs.held).verdict()


def worker_is_not_asked(signs: Signs) -> Verdict:
    return Signs(signs.worker, SILENT_S, signs.ended_s, signs.held).verdict()


def waits_for_ever(signs: Signs) -> Verdict:
    return Verdict.WAIT if signs.verdict() is Verdict.LOST else signs.verdict()


def has_no_patience(signs: Signs) -> Verdict:
    return Signs(signs.worker, signs.silent_s + SILENT_S, signs.ended_s, signs.held).verdict()


@pytest.mark.parametrize(
    "broken", [lease_is_not_asked, log_is_not_asked, worker_is_not_asked, waits_for_ever, has_no_patience]
)
def test_a_judge_that_leaves_a_sign_out_is_caught(broken: Judge):
    assert wrong(broken) != []


class Talk:
    """A broker and a clock of the test's own: what is asked here is when, not whether, they are asked."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.alive = True
        self.down = False
        self.asked: list[float] = []
        self.control = self

    def ping(self, destination: list[str], timeout: float) -> list[dict[str, object]]:
        assert destination == [WORKER]
        assert timeout > 0
        self.asked.append(self.now)
        if self.down:
            raise ConnectionError
        return [{WORKER: {"ok": "pong"}}] if self.alive else []


@pytest.fixture
def talk() -> Talk:
    return Talk()


@pytest.fixture
def answers(talk: Talk) -> Answers:
    return Answers(talk, clock=lambda: talk.now)  # pyright: ignore[reportArgumentType]


def test_a_worker_is_silent_since_its_last_answer(talk: Talk, answers: Answers):
    assert answers.silent_for(WORKER) == 0
    talk.now += LOOK_EVERY_S
    assert answers.silent_for(WORKER) == 0
    talk.alive = False
    talk.now += LOOK_EVERY_S
    assert answers.silent_for(WORKER) == LOOK_EVERY_S
    talk.now += 100
    assert answers.silent_for(WORKER) == LOOK_EVERY_S + 100


def test_steps_of_one_worker_share_a_question(talk: Talk, answers: Answers):
    for _ in range(50):
        answers.silent_for(WORKER)

    assert talk.asked == [talk.now]


def test_a_broker_that_is_down_makes_nobody_silent(talk: Talk, answers: Answers):
    answers.silent_for(WORKER)
    talk.alive, talk.down = False, True
    talk.now += 600

    assert answers.silent_for(WORKER) == 0
