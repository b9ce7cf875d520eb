"""Eight processes do the same at the same moment: it is done once, and all of them are told the same."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.mongo import embedded
from tests.integration.faults.conftest import Stages
from tests.integration.faults.driver import Order, Outcome
from tests.integration.faults.harness import ALL, Driver
from tests.integration.faults.operations import differences

PROCESSES = 8
ROUNDS = 20 if ALL else 1
SAME = (
    "register-file",
    "register-folder",
    "register-in-place",
    "publish-first",
    "publish-second",
    "request",
    "adopt",
    "bind",
    "put-new",
    "put-next",
    "first-open",
)


def told(outcomes: list[Outcome]) -> tuple[set[tuple[str, ...]], list[Any]]:
    """What was acknowledged, and what was refused."""
    return {tuple(o.acked) for o in outcomes if o.error is None}, [o.error for o in outcomes if o.error]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SAME)
def test_eight_at_once_do_it_once(stages: Stages, name: str) -> None:
    stage = stages(name)
    for _ in range(ROUNDS):
        outcomes = stage.at_once(PROCESSES)
        acked, refused = told(outcomes)

        assert refused == []
        assert len(acked) == 1, acked
        with stage.open() as ef:
            assert differences(stage.operation, ef, stage.before) == []


@pytest.mark.timeout(1200)
def test_eight_files_of_one_name_get_eight_names(stages: Stages) -> None:
    stage = stages("register-one-name")
    for _ in range(ROUNDS):
        acked, refused = told(stage.at_once(PROCESSES))

        assert refused == []
        assert acked == {("rows.csv",), *((f"rows.csv ({n})",) for n in range(2, PROCESSES + 1))}
        with stage.open() as ef:
            assert ef.assets.documents.count() == PROCESSES
            assert ef.verify(all=True).problems == []


@pytest.mark.timeout(1200)
def test_64_processes_get_64_consecutive_versions(stages: Stages) -> None:
    stage = stages("put-own")
    outcomes = stage.at_once(64)
    acked, refused = told(outcomes)

    assert refused == []
    assert sorted(int(text.split()[0]) for (text,) in acked) == list(range(64))
    with stage.open() as ef:
        assert stage.operation.lost(ef, [text for (text,) in acked]) == []
        assert ef.verify(all=True).problems == []


@pytest.mark.timeout(1200)
def test_streams_of_eight_processes_on_one_object_are_one_sequence(stages: Stages) -> None:
    stage = stages("put-own-often")
    for _ in range(ROUNDS):
        outcomes = stage.at_once(PROCESSES)
        acked, refused = told(outcomes)

        assert refused == []
        each = [[int(text.split()[0]) for text in one] for one in acked]
        assert sorted(number for numbers in each for number in numbers) == list(range(12 * PROCESSES))
        assert all(numbers == sorted(numbers) for numbers in each)
        with stage.open() as ef:
            assert [text for one in acked for text in stage.operation.lost(ef, list(one))] == []
            assert ef.verify(all=True).problems == []


@pytest.mark.timeout(1200)
def test_of_eight_that_take_a_task_one_gets_it(stages: Stages) -> None:
    stage = stages("claim")
    for _ in range(ROUNDS):
        acked, refused = told(stage.at_once(PROCESSES))

        assert len(acked) == 1
        assert Counter(error["code"] for error in refused) == {"state": PROCESSES - 1}
        with stage.open() as ef:
            assert differences(stage.operation, ef, stage.before) == []


@pytest.mark.timeout(1200)
def test_of_eight_records_that_want_a_blob_one_owns_it(stages: Stages) -> None:
    stage = stages("claim-one")
    for _ in range(ROUNDS):
        acked, refused = told(stage.at_once(PROCESSES))

        assert len(acked) == 1
        assert Counter(error["code"] for error in refused) == {"blob-owner-not-empty": PROCESSES - 1}
        with stage.open() as ef:
            assert ef.blobs.get("three").owner_record_id == next(iter(acked))[0]
            assert ef.verify(all=True).problems == []


@pytest.mark.timeout(1200)
def test_eight_that_open_a_fresh_home_share_one_server_and_one_project(
    tmp_path: Path, driver: Driver
) -> None:
    for number in range(2 if ALL else 1):
        home = tmp_path / f"fresh-{number}"
        order = Order("first-open", None, "emboflow", str(home), str(tmp_path), processes=PROCESSES)
        try:
            acked, refused = told(driver.carry_out(order))

            assert refused == []
            assert len(acked) == 1
            with open_again(order) as ef:
                assert ef.init().to_json()["created"] == []
                assert ef.verify(all=True).problems == []
                assert ef.mongo["workspaces"].count_documents({}) == 1
        finally:
            embedded.stop(home)


def open_again(order: Order) -> Any:
    """A handle on what the order left."""
    from emboflow_dagster.project.handle import EmboFlow

    return EmboFlow.open(order.settings())


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("register-file", "without_transactions"),
        ("put-next", "read_check_write"),
        *([("claim-one", "claims_without_comparing")] if ALL else []),
    ],
)
def test_a_broken_variant_is_caught(stages: Stages, name: str, broken: str) -> None:
    """The positive control: what these tests say is nothing if they let this through."""
    stage = stages(name)
    for _ in range(20):
        acked, refused = told(stage.at_once(PROCESSES, broken=broken))
        with stage.open() as ef:
            found = differences(stage.operation, ef, stage.before)
        if (refused and name != "claim-one") or len(acked) != 1 or found:
            return
    pytest.fail(json.dumps({"broken": broken, "caught": False}))
