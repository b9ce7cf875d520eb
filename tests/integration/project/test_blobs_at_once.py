"""Many writers of one blob at the same moment: every one of them gets a version of its own, without a gap."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from emboflow_dagster.model.blob import StorageType
from emboflow_dagster.mongo import objects
from emboflow_dagster.project.handle import EmboFlow

WRITERS = 1_000


def put_all(ef: EmboFlow, writers: int) -> list[int]:
    """A content of its own from each writer; the versions they were told, in their order."""

    def put(number: int) -> int:
        return ef.blobs.put(b"%d" % number, object_id="hot", home=StorageType.IN_OBJECT).version

    with ThreadPoolExecutor(200) as pool:
        return list(pool.map(put, range(writers)))


def test_a_thousand_writers_get_a_thousand_consecutive_versions(ef: EmboFlow) -> None:
    told = put_all(ef, WRITERS)

    assert sorted(told) == list(range(WRITERS))
    stored = {blob.version: blob.data_sha256 for blob in ef.blobs.history("hot", limit=WRITERS)}
    assert stored == {version: sha256(b"%d" % writer).hexdigest() for writer, version in enumerate(told)}
    assert ef.verify().problems == []


def test_writers_that_read_check_and_write_lose_versions(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control."""

    def put_version(mongo: object, blob: objects.BlobObject, **_: object) -> objects.Put:
        old = ef.mongo["objects"].find_one({"_id": blob.object_id})
        number = old["version"] + 1 if old else 0
        fields = {**blob.to_mongo(), "version": number, "prev_version": number - 1 if number else None}
        ef.mongo["objects"].replace_one({"_id": blob.object_id}, {**fields, "tail": []}, upsert=True)
        return objects.Put(blob.model_copy(update={"version": number}), new=True)

    monkeypatch.setattr(objects, "put_version", put_version)

    try:
        told = put_all(ef, 200)
    except Exception:  # noqa: BLE001 - a duplicate key is a loss as well
        return
    assert sorted(told) != list(range(200))
