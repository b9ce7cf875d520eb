"""Publishing: all problems at once, versions without gaps, equal content unchanged."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flows import SMALL, diamond


def test_equal_content_is_unchanged_and_a_change_is_the_next_version(ef: EmboFlow) -> None:
    first = ef.workflows.publish(SMALL)
    same = ef.workflows.publish(SMALL)
    moved = ef.workflows.publish({**SMALL, "layout": {"src": {"x": 10, "y": 20}}})

    assert (first.version.version_number, first.unchanged) == (1, False)
    assert (same.version.id, same.unchanged) == (first.version.id, True)
    assert (moved.version.version_number, moved.definition.published_version_number) == (2, 2)
    assert (moved.version.summary or {})["executionDigest"] == (first.version.summary or {})[
        "executionDigest"
    ]
    assert [v.version_number for v in ef.workflows.versions("small")] == [2, 1]
    assert [r.action for r in ef.audit.list(action="workflow.publish")] == ["workflow.publish"] * 2


def test_16_publishers_at_once_get_consecutive_numbers(ef: EmboFlow) -> None:
    def publish(number: int) -> int:
        return ef.workflows.publish({**SMALL, "description": f"by {number}"}).version.version_number

    with ThreadPoolExecutor(16) as pool:
        numbers = sorted(pool.map(publish, range(16)))

    assert numbers == list(range(1, 17))
    assert ef.workflows.get("small").latest_version_number == 16
    assert ef.verify().problems == []


def test_nothing_is_written_when_anything_is_wrong(ef: EmboFlow) -> None:
    broken = diamond()
    broken["nodes"][1]["type"] = "pyton"
    broken["nodes"][3]["after"] = ["left", "nowhere", "tail"]

    with pytest.raises(InvalidInputError) as caught:
        ef.workflows.publish(broken)

    kinds = {p.kind for p in caught.value.problems}
    assert {ErrorKind.NODE_TYPE, ErrorKind.EDGE_DANGLING, ErrorKind.GRAPH_CYCLE} <= kinds
    text = str(caught.value)
    assert "did you mean 'python'" in text
    assert "join -> tail -> join" in text or "tail -> join -> tail" in text
    assert ef.mongo["workflow_definitions"].count_documents({}) == 0


def test_an_unknown_workflow_names_the_nearest(ef: EmboFlow) -> None:
    ef.workflows.publish(SMALL)

    with pytest.raises(NotFoundError) as caught:
        ef.workflows.get("smal")

    assert caught.value.hint == "did you mean small?"
