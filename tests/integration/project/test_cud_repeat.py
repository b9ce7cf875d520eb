"""A request to `ef.cud` with an id is done once, however often and by how many it is sent."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from emboflow_dagster import BlobRef, Create, Deactivate, Update
from emboflow_dagster.errors import ConflictError, EmboflowError, ErrorKind, InvalidInputError
from emboflow_dagster.project.changes import Change
from emboflow_dagster.project.cud_repeat import fingerprint
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flows import settle
from tests.integration.project.test_cud import snapshot


def request(ef: EmboFlow, name: str = "rows") -> list[Change]:
    """An asset with its blob, a task on it, an annotation without blob."""
    blob = ef.blobs.put(name.encode(), object_id=name)
    ref = BlobRef(object_id=blob.object_id, version=0)
    return [
        Create("assets", {"type": "raw_file", "displayName": name, "storageRef": ref}, ref="#1"),
        Create(
            "annotation_tasks",
            {"targetType": "asset", "targetRef": {"id": "#1"}, "labelType": "box"},
            ref="#2",
        ),
        Create("annotations", {"annotationTaskId": "#2", "targetRef": {"id": "#1"}, "payload": {"a": 1}}),
    ]


def test_the_same_request_under_the_same_id_gives_the_same_and_writes_nothing(ef: EmboFlow) -> None:
    changes = request(ef)
    made = ef.cud(changes, request_id="ingest/7")
    settle(ef)
    before = snapshot(ef)

    assert ef.cud(changes, request_id="ingest/7") == made
    assert snapshot(ef) == before
    assert ef.blobs.get("rows").owner_record_id == made[0].id


def test_records_are_returned_as_they_are_by_then(ef: EmboFlow) -> None:
    changes = request(ef)
    made = ef.cud(changes, request_id="one")
    ef.cud([Update("annotations", made[2].id, {"payload": {"a": 2}}), Deactivate("assets", made[0].id)])

    asset, _, annotation = ef.cud(changes, request_id="one")

    assert (asset.status, annotation.payload) == ("archived", {"a": 2})


def test_an_update_is_not_done_again(ef: EmboFlow) -> None:
    annotation = ef.cud(request(ef))[2]
    submit = [Update("annotations", annotation.id, {"status": "submitted"})]
    ef.cud(submit, request_id="submit")
    ef.cud([Update("annotations", annotation.id, {"status": "approved"})])

    assert [row.status for row in ef.cud(submit, request_id="submit")] == ["approved"]


def test_another_request_under_the_id_is_refused(ef: EmboFlow) -> None:
    ef.cud(request(ef), request_id="one")
    other = request(ef, "others")
    settle(ef)
    before = snapshot(ef)

    with pytest.raises(ConflictError, match="stands for another request") as caught:
        ef.cud(other, request_id="one")

    assert caught.value.kind is ErrorKind.REQUEST_REUSED
    assert snapshot(ef) == before


def test_a_refused_request_leaves_its_id_free(ef: EmboFlow) -> None:
    changes = request(ef)
    with pytest.raises(EmboflowError):
        ef.cud([*changes, Create("annotations", {"payload": {}})], request_id="one")

    assert len(ef.cud(changes, request_id="one")) == 3


def test_ids_of_other_projects_are_others(opener: Any) -> None:
    here, there = opener(), opener(project="other")
    made = here.cud(request(here, "here"), request_id="one")

    assert there.cud(request(there, "there"), request_id="one")[0].id != made[0].id


def test_sixteen_that_send_one_request_make_it_once(ef: EmboFlow) -> None:
    changes = request(ef)
    found: list[tuple[str, ...]] = []
    start = threading.Barrier(16)

    def send() -> None:
        start.wait()
        found.append(tuple(document.id for document in ef.cud(changes, request_id="one")))

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(found), len(set(found))) == (16, 1)
    assert ef.mongo["assets"].count_documents({}) == 1
    assert ef.verify().problems == []


@pytest.mark.parametrize("request_id", ["", "x" * 201, "a\nb", 7, b"one"])
def test_what_is_no_id_is_refused(ef: EmboFlow, request_id: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ef.cud(request(ef), request_id=request_id)

    assert caught.value.kind is ErrorKind.ID


def test_requests_are_told_apart_by_all_that_they_say() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    others = [
        [Create("assets", {"a": 1})],
        [Create("assets", {"a": "1"})],
        [Create("assets", {"a": True})],
        [Create("assets", {"a": None})],
        [Create("assets", {"a": at})],
        [Create("assets", {"a": [1]})],
        [Create("assets", {"a": {"b": 1}})],
        [Create("assets", {"a": 1.0})],
        [Create("assets", {1: 1})],
        [Create("assets", {"a": BlobRef(object_id="b", version=0)})],
        [Create("assets", {"a": BlobRef(object_id="b", version=1)})],
        [Create("assets", {"a": 1}, ref="#1")],
        [Create("annotations", {"a": 1})],
        [Update("assets", "ast_1", {"a": 1})],
        [Update("assets", "ast_2", {"a": 1})],
        [Deactivate("assets", "ast_1")],
        [Create("assets", {"a": 1}), Create("assets", {"a": 1})],
    ]

    assert len({fingerprint(one) for one in others}) == len(others)
    assert fingerprint([Create("assets", {"a": 1, "b": 2})]) == fingerprint(
        [Create("assets", {"b": 2, "a": 1})]
    )
