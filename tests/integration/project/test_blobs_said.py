"""What is said of a payload beside its bytes: kept, or a version of its own, never lost without a word."""

from typing import Any

import pytest

from emboflow_dagster.model.blob import StorageType
from emboflow_dagster.project.handle import EmboFlow

BEFORE: dict[str, Any] = {
    "type": "ml_model",
    "content_type": "text/csv",
    "custom_metadata": {"stage": "new"},
    "tags": ["a"],
}


@pytest.fixture(params=list(StorageType))
def home(request: pytest.FixtureRequest) -> StorageType:
    return request.param


@pytest.fixture
def ef(opener: Any) -> EmboFlow:
    return opener(allow_gridfs=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "artifact"},
        {"content_type": "text/plain"},
        {"custom_metadata": {"stage": "best"}},
        {"custom_metadata": {}},
        {"tags": ["b"]},
        {"tags": []},
    ],
    ids=str,
)
def test_what_is_said_anew_of_equal_bytes_is_a_version(
    ef: EmboFlow, home: StorageType, changed: dict[str, Any]
) -> None:
    ef.blobs.put(b"same", object_id="m", home=home, **BEFORE)
    made = ef.blobs.put(b"same", object_id="m", home=home, **{**BEFORE, **changed})

    assert made.version == 1
    assert ef.blobs.get("m") == made
    assert {name: getattr(made, name) for name in BEFORE} == {**BEFORE, **changed}
    assert ef.blobs.read("m", 0) == ef.blobs.read("m") == b"same"


def test_nothing_new_said_of_equal_bytes_is_nothing_done(ef: EmboFlow, home: StorageType) -> None:
    first = ef.blobs.put(b"same", object_id="m", home=home, **BEFORE)

    assert ef.blobs.put(b"same", object_id="m", home=home, **BEFORE) == first
    assert ef.blobs.put(b"same", object_id="m", home=home) == first
    assert ef.blobs.put(b"same", object_id="m", home=home, tags=["z"], by_content=True) == first
    assert ef.blobs.get("m").version == 0


def test_other_bytes_stay_of_the_type_that_the_blob_has(ef: EmboFlow, home: StorageType) -> None:
    ef.blobs.put(b"one", object_id="m", home=home, **BEFORE)
    made = ef.blobs.put(b"two", object_id="m", home=home)

    assert made == ef.blobs.get("m")
    assert (made.version, made.type) == (1, "ml_model")
    # What was said of the bytes before is not said of these.
    assert (made.content_type, made.custom_metadata, made.tags) == ("application/octet-stream", {}, [])
    assert ef.blobs.put(b"three", object_id="m", home=home, type="artifact").type == "artifact"
