"""What the validators must let through: the other side of the corpus of bad inputs."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.model import text
from emboflow_dagster.model.base import check_datetime, new_id, utc_now
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.plugin import StorageConnection, check_secret_ref
from emboflow_dagster.model.storage import (
    StorageRef,
    check_bucket,
    check_storage_ref,
    object_id_for,
    uri_of,
)
from emboflow_dagster.mongo.filters import check_filter

SHA = "ab" * 32
REST: dict[str, Any] = {"checksum": f"sha256:{SHA}", "contentType": "text/csv; charset=utf-8", "size": 3}
KEYS = ["k", "sha256/ab/cd", "Größe/日本.mcap", "a b/c+d(1)=x,y.bag", "100%.csv", "run 1/a#b?.txt", "a;b"]


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (text.check_id, "ast_01J9ZZZZZZZZZZZZZZZZZZZZZZ"),
        (text.check_id, "_x"),
        (text.check_object_id, "a.b-c._d"),
        (text.check_object_id, "x" * 128),
        (text.check_slug, "pick-place-2"),
        (text.check_slug, "a" * 63),
        (text.check_slug, "all-runs"),
        (text.check_name, "Épisode 12: grasp (left)"),
        (text.check_name, "実験データ"),
        (text.check_name, "Манипулятор"),
        (text.check_name, "μ-law"),
        (text.check_version, 0),
        (text.check_version, 2**31 - 1),
        (text.check_sha256, SHA),
        (text.check_rel_path, "a/b.c/d e.hdf5"),
        (text.check_rel_path, "console.log"),
        (text.check_rel_path, "日" * 85),
        (text.check_rel_path, ".hidden/x"),
        (check_secret_ref, "env:EMBOFLOW_SECRET_S3"),
        (check_secret_ref, "file:/run/secrets/s3"),
        (check_secret_ref, "aws-sm:emboflow/ws_1/lake#key"),
    ],
)
def test_good_texts_are_returned_unchanged(check: Any, value: object) -> None:
    assert check(value) is value


@pytest.mark.parametrize("key", KEYS)
def test_a_reference_is_the_same_by_uri_and_by_bucket_and_key(key: str) -> None:
    by_key = check_storage_ref({"bucket": "lake.raw-1", "key": key, **REST})
    by_uri = check_storage_ref({"uri": uri_of("s3://lake.raw-1", key), **REST})

    assert by_key == by_uri
    assert (by_key.bucket, by_key.key, by_key.sha256, by_key.size) == ("lake.raw-1", key, SHA, 3)
    assert check_storage_ref(by_key.to_mongo()) == by_key


@pytest.mark.parametrize("key", KEYS)
def test_a_reference_of_a_store_of_files_keeps_its_bucket_and_key(key: str) -> None:
    raw = {
        "bucket": "local",
        "key": key,
        "uri": uri_of("file:///srv/a%20b/objects", key),
        "objectId": "m",
        "version": 0,
        **REST,
    }

    assert check_storage_ref(raw) == StorageRef.model_validate(raw)
    assert check_storage_ref(raw).version == 0


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"uri": "s3://other/k"}, ErrorKind.URI),
        ({"uri": "s3://lake/other"}, ErrorKind.URI),
        ({"uri": "s3://lake/k\n"}, ErrorKind.URI),
        ({"uri": "s3://lake/k#f"}, ErrorKind.URI_QUERY),
        ({"uri": "file://host/k"}, ErrorKind.URI_SCHEME),
        ({"uri": "s3://lake/a%2Fb"}, ErrorKind.PATH_ENCODED),
        ({"uri": "s3://lake/a%5cb"}, ErrorKind.PATH_ENCODED),
        ({"uri": "s3://lake/a\\b"}, ErrorKind.PATH_BACKSLASH),
        ({"key": "/k"}, ErrorKind.PATH_ABSOLUTE),
        ({"checksum": None}, ErrorKind.HASH),
        ({"size": "3"}, ErrorKind.SIZE),
        ({"size": 2**50 + 1}, ErrorKind.SIZE),
        ({"contentType": "text/csv\n"}, ErrorKind.CONTENT_TYPE),
        ({"objectId": "a b"}, ErrorKind.ID),
        ({"version": -1}, ErrorKind.VERSION_RANGE),
        ({"data": b"x"}, ErrorKind.REF_FIELD),
    ],
)
def test_one_wrong_part_of_a_reference_is_named(change: dict[str, Any], kind: ErrorKind) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_storage_ref({"bucket": "lake", "key": "k", **REST, **change})

    assert caught.value.kind == kind


@pytest.mark.parametrize("missing", ["checksum", "contentType", "size"])
def test_a_reference_without_hash_type_or_size_is_none(missing: str) -> None:
    with pytest.raises(InvalidInputError):
        check_storage_ref({"bucket": "lake", "key": "k", **{k: v for k, v in REST.items() if k != missing}})


@pytest.mark.parametrize("name", ["abc", "a" * 63, "lake.raw", "1-2", "10.0.0.x", "path", "local"])
def test_good_buckets(name: str) -> None:
    assert check_bucket(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "a" * 64,
        "a..b",
        "a.-b",
        "a-.b",
        "-ab",
        "ab-",
        ".ab",
        "1.2.3.4",
        "x-s3alias",
        "sthree-x",
        "x--x-s3",
        "abc\n",
    ],
)
def test_bad_buckets(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_bucket(name)
    assert caught.value.kind == ErrorKind.BUCKET


@pytest.mark.parametrize(
    "filter_",
    [
        {},
        {"status": "ready"},
        {"a": None, "summary.sourcePath": "/x", "createdAt": {"$gte": utc_now(), "$lt": utc_now()}},
        {"$or": [{"a": {"$in": [1, 2]}}, {"b": {"$not": {"$gt": 1.5}}}, {"c": {"$exists": False}}]},
        {"$and": [{"$nor": [{"a": {"$nin": ["x"]}}]}]},
        {"a": {"b": {"c": 1}}},
        {"a": [1, 2]},
        {"home": "$HOME"},
    ],
)
def test_good_filters(filter_: dict[str, Any]) -> None:
    assert check_filter(filter_) is filter_


@pytest.mark.parametrize(
    ("filter_", "kind"),
    [
        ({"a": {"$ne": {"$gt": ""}}}, ErrorKind.OPERATOR_NOT_ALLOWED),
        ({"\uff04where": "1"}, ErrorKind.OPERATOR_NOT_ALLOWED),
        ({"a": {"$eq": 1, "b": 2}}, ErrorKind.OPERATOR_NOT_ALLOWED),
        ({"a": {"$exists": 1}}, ErrorKind.FILTER_TYPE),
        ({"a": {"$not": 1}}, ErrorKind.FILTER_TYPE),
        ({"workspaceId.x": 1}, ErrorKind.FILTER_SCOPE_FIELD),
        ({"lineage.workspace-id": 1}, ErrorKind.FILTER_SCOPE_FIELD),
        ({"\uff50rojectId": 1}, ErrorKind.FILTER_SCOPE_FIELD),
        ({"PROJECT_ID": 1}, ErrorKind.FILTER_SCOPE_FIELD),
        ({"$or": [1]}, ErrorKind.FILTER_LIST),
        ({"": 1}, ErrorKind.KEY_EMPTY),
        ({"a": {"$in": [{"$where": 1}]}}, ErrorKind.OPERATOR_NOT_ALLOWED),
        ({"\ud800": 1}, ErrorKind.TEXT_SURROGATE),
        ({"a": {"$in": list(range(1001))}}, ErrorKind.FILTER_LIST),
    ],
)
def test_more_bad_filters(filter_: dict[str, Any], kind: ErrorKind) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_filter(filter_)
    assert caught.value.kind == kind


def test_a_connection_keeps_what_is_no_secret_and_never_shows_what_is() -> None:
    now = utc_now()
    fields: dict[str, Any] = {
        "id": "stc_1",
        "workspace_id": "ws_1",
        "type": "object_storage",
        "provider": "s3",
        "name": "S",
        "created_by": "ada",
        "created_at": now,
        "updated_at": now,
    }
    config = {
        "region": "eu-west-1",
        "endpointUrl": "https://s3.example.org:9000/x",
        "bucket": "b",
        "keyPrefix": "raw/",
        "tls": True,
    }

    assert (
        StorageConnection.checked(config=config, **fields, secret_ref="env:EMBOFLOW_SECRET_S3").config  # noqa: S106 - a name, no secret
        == config
    )
    with pytest.raises(InvalidInputError) as caught:
        StorageConnection.checked(config={"a": [{"uri": "mongodb://ada:hunter2@h/db"}]}, **fields)
    assert "hunter2" not in str(caught.value)
    assert "config.a.0.uri" in str(caught.value)
    with pytest.raises(InvalidInputError) as caught:
        StorageConnection.checked(**fields, secret_ref="hunter2")  # noqa: S106 - a name, no secret
    assert "hunter2" not in str(caught.value)


def test_dates_are_cut_to_milliseconds_in_utc() -> None:
    east = timezone(timedelta(hours=8))

    assert check_datetime(datetime(2026, 1, 1, 8, 0, 0, 123_999, tzinfo=east)) == datetime(
        2026, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC
    )
    assert utc_now().microsecond % 1000 == 0


def test_ids_sort_by_time_and_blob_ids_stay_short() -> None:
    first, second = new_id("run"), new_id("run")
    assert first != second
    assert text.check_id(first) == first
    long = object_id_for("acme", "x" * 200, "artifacts")
    assert text.check_object_id(long) == long
    assert (
        object_id_for("acme", "x" * 200, "artifacts") == long != object_id_for("acme", "x" * 201, "artifacts")
    )


def test_places_that_look_alike_have_blob_ids_of_their_own() -> None:
    places = [
        ("acme", "a-b"),
        ("acme", "a|b"),
        ("acme", "a.b"),
        ("acme", "a", "b"),
        ("acme.a", "b"),
        ("acme", "-a-b"),
        ("acme", "a-b-"),
        ("acme", ""),
        ("acme", "x"),
        ("_acme", "x"),
        ("acme", "é" * 300),
        ("acme", "è" * 300),
        ("acme", "\ud800"),
    ]
    ids = [object_id_for(*parts) for parts in places]

    assert len(set(ids)) == len(places)
    assert all(text.check_object_id(one) == one for one in ids)
    assert (ids[0], ids[3], ids[8]) == ("acme.a-b", "acme.a.b", "acme.x")


@pytest.mark.parametrize(
    "name", ["Arm demo (1).hdf5", "実験", "new", "-", "É" * 200, "api all", "x" * 62 + "-y"]
)
def test_any_name_gives_a_slug(name: str) -> None:
    assert text.check_slug(text.to_slug(name)) == text.to_slug(name)


@given(st.text())
def test_every_text_gives_a_slug(name: str) -> None:
    text.check_slug(text.to_slug(name))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner) | st.tuples(inner)
    ),
    max_leaves=15,
)


CHECKS: list[Any] = [
    check_freeform,
    check_filter,
    check_storage_ref,
    text.check_rel_path,
    text.check_name,
    text.check_object_id,
]


@given(ANYTHING)
def test_whatever_is_given_is_returned_or_refused_with_a_code(value: object) -> None:
    for check in CHECKS:
        caught = None
        try:
            result = check(value)
        except InvalidInputError as error:
            caught = error
        if caught is None:
            assert result == value
        else:
            assert caught.problems
            assert len(str(caught)) <= 2_000
