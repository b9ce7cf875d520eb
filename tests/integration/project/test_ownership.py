"""What happens to a blob after a record owns it: read by its owner, transferred, let go."""

from typing import Any

import pytest

from emboflow_dagster import BlobRef, Create, Deactivate, Update
from emboflow_dagster.errors import (
    ConflictError,
    EmboflowError,
    ErrorKind,
    ImmutableError,
    InvalidInputError,
    NotFoundError,
    TransitionError,
)
from emboflow_dagster.model.collections import META
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.flows import settle
from tests.integration.project.test_cud import annotated, asset, ref, snapshot


def refused(ef: EmboFlow, call: Any) -> EmboflowError:
    settle(ef)
    before = snapshot(ef)
    with pytest.raises(EmboflowError) as caught:
        call()

    assert snapshot(ef) == before
    return caught.value


def owner_of(ef: EmboFlow, object_id: str) -> tuple[str | None, str | None, str | None]:
    head = ef.blobs.get(object_id)
    return head.owner_record, head.owner_record_field, head.owner_record_id


def releases(ef: EmboFlow) -> list[str]:
    return [row["name"] for row in ef.mongo[META].find({"kind": "release"}).sort("_id", 1)]


# ---------------------------------------------------------------------------------------------- read by owner


def test_a_blob_is_read_by_the_record_that_owns_it(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"t,x\n", content_type="text/csv", custom_metadata={"name": "rows.csv"})
    [made] = ef.cud([Create("assets", {"type": "raw_file", "displayName": "rows", "storageRef": ref(blob)})])
    where = ("assets", made.id, "storageRef")

    with ef.blobs.open_owned(*where) as stream:
        assert stream.read() == b"t,x\n"
    assert ef.blobs.info(*where).to_json() == {"name": "rows.csv", "mimetype": "text/csv", "size": 4}
    assert ef.blobs.get_owned(*where).object_id == blob.object_id


@pytest.mark.parametrize(
    ("where", "kind", "text"),
    [
        (("assets", "ast_none", "storageRef"), "not-found", "document assets with ID ast_none not found"),
        (("assets", None, "summary"), "blob-field", "blob owner assets.summary must be of blob type"),
        (
            ("assets", None, "nothing"),
            "blob-field",
            "blob owner field nothing does not exist in blob owner assets",
        ),
        (("nothing", None, "storageRef"), "blob-field", "blob owner nothing is unknown"),
        (
            ("annotations", None, "payload"),
            "blob-field",
            "no value for owner field payload in blob owner doc annotations",
        ),
    ],
)
def test_a_read_by_owner_is_refused(ef: EmboFlow, where: Any, kind: str, text: str) -> None:
    made, _, annotation = annotated(ef)
    own = {"assets": made.id, "annotations": annotation.id}

    error = refused(ef, lambda: ef.blobs.read_owned(where[0], where[1] or own.get(where[0], "x"), where[2]))

    assert (error.kind.value, text in error.message) == (kind, True)


def test_a_record_of_another_scope_shows_no_bytes(ef: EmboFlow, opener: Any) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    for other in (opener("acme", "other"), opener("rival")):
        with pytest.raises(NotFoundError, match=f"document assets with ID {made.id} not found"):
            other.blobs.open_owned("assets", made.id, "storageRef")


@pytest.mark.parametrize("home", ["object_store", "in_object"])
def test_text_comes_in_pieces_of_10_000_bytes_that_cut_no_character(ef: EmboFlow, home: str) -> None:
    whole = "äöü€😀" * 2500
    blob = ef.blobs.put(whole.encode(), content_type="text/plain; charset=utf-8", home=home)
    where = ("annotations", annotated(ef, ref(blob))[2].id, "payload")

    pieces = []
    start: int | None = 0
    while start is not None:
        piece = ef.blobs.text(*where, start=start)
        assert len(piece.text.encode()) <= 10_000
        assert not piece.is_base64
        pieces.append(piece.text)
        start = piece.following

    assert "".join(pieces) == whole
    assert len(pieces) == 4
    assert ef.blobs.text(*where, start=10**9).text == ""
    with pytest.raises(InvalidInputError):
        ef.blobs.text(*where, start=-1)


def test_what_is_no_text_comes_as_base64(ef: EmboFlow) -> None:
    blob = ef.blobs.put(bytes(range(256)) * 40, content_type="video/mp4")
    where = ("annotations", annotated(ef, ref(blob))[2].id, "payload")

    piece = ef.blobs.text(*where, start=9_000)

    import base64

    assert piece.is_base64
    assert base64.b64decode(piece.text) == (bytes(range(256)) * 40)[9_000:19_000]
    assert (piece.start, piece.following) == (9_000, None)


# --------------------------------------------------------------------------------------------------- transfer


def test_ownership_moves_to_another_record_and_both_change(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"rows", content_type="text/csv")
    made, _, annotation = annotated(ef, ref(blob))
    old = made.storage_ref.object_id

    moved = ef.blobs.transfer(blob.object_id, to=("assets", made.id, "storageRef"))

    assert owner_of(ef, blob.object_id) == ("assets", "storageRef", made.id)
    assert moved.owner_record_id == made.id
    assert ef.assets.get("rows").storage_ref.object_id == blob.object_id
    assert ef.assets.get("rows").size_bytes == 4
    raw = ef.mongo["annotations"].find_one({"_id": annotation.id})
    assert raw is not None
    assert raw["payload"] == {}
    assert releases(ef) == [f"{old}.v0"]
    [row] = ef.audit.list(action="blob.transfer")
    assert (row.before_summary or {})["owner_record_id"] == annotation.id
    assert (row.after_summary or {})["owner_record_id"] == made.id
    assert ef.verify().problems == []


def test_where_a_field_cannot_be_empty_another_blob_takes_the_place(ef: EmboFlow) -> None:
    one, two = ef.cud([asset(ef, "one"), asset(ef, "two")])
    blob, gone = one.storage_ref.object_id, two.storage_ref.object_id
    new = ef.blobs.put(b"new")

    error = refused(ef, lambda: ef.blobs.transfer(blob, to=("assets", two.id, "storageRef")))
    assert (type(error), error.kind) == (InvalidInputError, ErrorKind.BLOB_FIELD)
    assert "cannot be empty" in error.message
    ef.blobs.transfer(blob, to=("assets", two.id, "storageRef"), replacement=ref(new))

    assert owner_of(ef, blob) == ("assets", "storageRef", two.id)
    assert owner_of(ef, new.object_id) == ("assets", "storageRef", one.id)
    assert owner_of(ef, gone) == (None, None, None)
    assert ef.blobs.read_owned("assets", one.id, "storageRef") == b"new"
    assert ef.verify().problems == []


def test_a_transfer_that_cannot_be_changes_nothing(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"label")
    made, _, annotation = annotated(ef, ref(blob))
    fixed = ef.blobs.put(b"fixed")
    [artifact] = ef.cud([Create("artifacts", {"type": "x", "producerId": "ada", "storageRef": ref(fixed)})])
    to_asset = ("assets", made.id, "storageRef")
    nobodys = ef.blobs.put(b"nobody's")
    cases: list[tuple[str, tuple[str, str, str], BlobRef | None, type[EmboflowError]]] = [
        (nobodys.object_id, to_asset, None, TransitionError),
        ("nothing", to_asset, None, NotFoundError),
        (blob.object_id, ("assets", "ast_none", "storageRef"), None, NotFoundError),
        (blob.object_id, ("assets", made.id, "summary"), None, InvalidInputError),
        (blob.object_id, ("annotations", annotation.id, "payload"), None, TransitionError),
        (blob.object_id, ("artifacts", artifact.id, "storageRef"), None, ImmutableError),
        (fixed.object_id, to_asset, None, ImmutableError),
        (made.storage_ref.object_id, ("annotations", annotation.id, "payload"), ref(fixed), ConflictError),
    ]
    for object_id, to, replacement, expected in cases:
        error = refused(
            ef, lambda o=object_id, t=to, r=replacement: ef.blobs.transfer(o, to=t, replacement=r)
        )
        assert isinstance(error, expected), (object_id, to, error)

    ef.cud([Deactivate("assets", made.id)])
    assert type(refused(ef, lambda: ef.blobs.transfer(blob.object_id, to=to_asset))) is TransitionError


# ---------------------------------------------------------------------------------------------------- release


def test_a_record_out_of_use_lets_its_blob_go(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    object_id = made.storage_ref.object_id
    error = refused(ef, lambda: ef.blobs.release(object_id))
    assert isinstance(error, TransitionError)
    assert f"is in use: assets.{made.id}.storageRef names it" in error.message
    ef.cud([Deactivate("assets", made.id)])

    let_go = ef.blobs.release(object_id)

    assert let_go.owner_record_id is None
    assert owner_of(ef, object_id) == (None, None, None)
    assert releases(ef) == [f"{object_id}.v0"]
    [row] = ef.audit.list(action="blob.release")
    assert (row.before_summary or {})["owner_record_id"] == made.id
    assert ef.blobs.read_owned("assets", made.id, "storageRef") == b"rows"  # until it is collected
    assert isinstance(refused(ef, lambda: ef.blobs.release(object_id)), TransitionError)
    assert ef.verify().problems == []


def test_what_belongs_to_another_record_is_not_read_by_the_old_one(ef: EmboFlow) -> None:
    one, two = ef.cud([asset(ef, "one"), asset(ef, "two")])
    ef.cud([Deactivate("assets", one.id)])
    ef.blobs.release(one.storage_ref.object_id)
    ef.cud(
        [Update("assets", two.id, {"storageRef": BlobRef(object_id=one.storage_ref.object_id, version=0)})]
    )

    with pytest.raises(NotFoundError, match="belongs to another record"):
        ef.blobs.read_owned("assets", one.id, "storageRef")
    assert ef.blobs.read_owned("assets", two.id, "storageRef") == b"one"
    assert ef.verify().problems == []


def test_an_older_version_that_nobody_names_is_let_go_by_a_note_alone(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    object_id = made.storage_ref.object_id
    ef.blobs.put(b"next", object_id=object_id)
    history = list(ef.mongo["object_history"].find())
    assert isinstance(refused(ef, lambda: ef.blobs.release(object_id, 0)), TransitionError)
    ef.cud([Deactivate("assets", made.id)])

    ef.blobs.release(object_id, 0)

    assert releases(ef) == [f"{object_id}.v0"]
    assert list(ef.mongo["object_history"].find()) == history
    assert isinstance(refused(ef, lambda: ef.blobs.release(object_id, 0)), TransitionError)
    assert isinstance(refused(ef, lambda: ef.blobs.release(object_id, 7)), NotFoundError)
    assert ef.verify().problems == []


def test_what_is_never_put_out_of_use_is_not_let_go(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"x")
    ef.cud([Create("artifacts", {"type": "x", "producerId": "ada", "storageRef": ref(blob)})])

    error = refused(ef, lambda: ef.blobs.release(blob.object_id))

    assert error.hint == "artifacts are never put out of use: their bytes stay"


def test_another_workspace_can_neither_transfer_nor_release(ef: EmboFlow, opener: Any) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    rival, sibling = opener("rival"), opener("acme", "other")
    [theirs] = rival.cud([asset(rival, "theirs")])
    object_id = made.storage_ref.object_id
    for other in (rival, sibling):
        error = refused(ef, lambda o=other: o.blobs.release(object_id))
        assert isinstance(error, NotFoundError)
    error = refused(ef, lambda: rival.blobs.transfer(object_id, to=("assets", theirs.id, "storageRef")))
    assert isinstance(error, NotFoundError)


def test_verify_finds_an_owner_that_was_taken_without_a_note(ef: EmboFlow) -> None:
    blob = ef.blobs.put(b"label")
    annotation = annotated(ef, ref(blob))[2]
    ef.cud([Deactivate("annotations", annotation.id)])
    ef.mongo["objects"].update_one({"_id": blob.object_id}, {"$set": {"owner_record_id": None}})

    assert [(p.code, p.collection, p.id) for p in ef.verify().problems] == [
        ("owner-mismatch", "annotations", annotation.id)
    ]


def test_verify_finds_a_note_about_a_version_that_is_owned(ef: EmboFlow) -> None:
    [made] = ef.cud([asset(ef, "rows")])
    object_id = made.storage_ref.object_id
    ef.cud([Deactivate("assets", made.id)])
    ef.blobs.release(object_id)
    ef.mongo["objects"].update_one(
        {"_id": object_id},
        {"$set": {"owner_record": "assets", "owner_record_field": "storageRef", "owner_record_id": made.id}},
    )

    assert [(p.code, p.id) for p in ef.verify().problems] == [("owner-mismatch", object_id)]
