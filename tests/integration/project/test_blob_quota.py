"""P-37: a deployment bounds the size of a payload, however it comes and wherever it goes."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

MOST = 3 << 20


def endless() -> Iterator[bytes]:
    """A stream that nobody could store."""
    while True:
        yield b"x" * 100_000


def sources(folder: Path, size: int) -> dict[str, Any]:
    """The same bytes in every form that a payload has."""
    content = b"x" * size
    (folder / "payload").write_bytes(content)
    return {
        "bytes": content,
        "view": memoryview(content),
        "path": folder / "payload",
        "file": io.BytesIO(content),
        "chunks": iter([content[:100], content[100:]]),
    }


@pytest.fixture
def bounded(opener: Callable[..., EmboFlow]) -> EmboFlow:
    return opener(max_blob_bytes=MOST, allow_gridfs=True)


@pytest.mark.parametrize("form", ["bytes", "view", "path", "file", "chunks"])
@pytest.mark.parametrize("home", ["object_store", "gridfs"])
def test_a_payload_of_the_bound_is_stored_and_one_byte_more_is_not(
    bounded: EmboFlow, tmp_path: Path, form: str, home: str
) -> None:
    assert bounded.blobs.put(sources(tmp_path, MOST)[form], object_id="fits", home=home).size == MOST
    keys = sorted(bounded.store.iter_keys())

    with pytest.raises(InvalidInputError, match=f"max {MOST} bytes allowed") as caught:
        bounded.blobs.put(sources(tmp_path, MOST + 1)[form], object_id="more", home=home)

    assert caught.value.kind is ErrorKind.BLOB_QUOTA
    assert sorted(bounded.store.iter_keys()) == keys
    assert bounded.mongo["objects"].count_documents({}) == 1
    assert bounded.mongo["fs.chunks"].count_documents({}) == (0 if home == "object_store" else 12)
    assert bounded.verify(all=True).ok


def test_a_stream_is_stopped_and_not_read_to_its_end(bounded: EmboFlow) -> None:
    for put in (bounded.blobs.put, bounded.blobs.put_temporary):
        with pytest.raises(InvalidInputError) as caught:
            put(endless())
        assert caught.value.kind is ErrorKind.BLOB_QUOTA
    assert list(bounded.store.iter_keys()) == []


def test_an_upload_is_refused_when_it_is_announced_or_when_it_grows(bounded: EmboFlow) -> None:
    with pytest.raises(InvalidInputError) as caught:
        bounded.blobs.announce(owner=("assets", "storageRef"), name="a", size=MOST + 1)
    assert caught.value.kind is ErrorKind.BLOB_QUOTA

    blob = bounded.blobs.announce(owner=("assets", "storageRef"), name="a")
    with pytest.raises(InvalidInputError) as caught:
        bounded.blobs.upload(blob.object_id, endless())
    assert caught.value.kind is ErrorKind.BLOB_QUOTA
    assert bounded.blobs.get(blob.object_id).upload_status == "announced"
    assert bounded.blobs.upload(blob.object_id, b"small").completed


def test_the_environment_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOFLOW_MAX_BLOB_BYTES", "1000")
    assert Settings.from_env().max_blob_bytes == 1000
    assert Settings.from_env().environment()["EMBOFLOW_MAX_BLOB_BYTES"] == "1000"
    for wrong in ("-1", "1e6", "many"):
        monkeypatch.setenv("EMBOFLOW_MAX_BLOB_BYTES", wrong)
        with pytest.raises(InvalidInputError, match="EMBOFLOW_MAX_BLOB_BYTES"):
            Settings.from_env()
