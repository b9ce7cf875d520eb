"""Reads and writes the many payloads of a dataset version."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from pathlib import Path
from typing import Final

from emboflow_dagster.blobs.entries import payload_ref
from emboflow_dagster.blobs.pages import Read
from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.model.storage import StorageRef

#: A put mostly waits for its disk or its bucket; several wait at once.
THREADS: Final = 8
_AT_ONCE: Final = 512
CONTENT_TYPE: Final = "application/octet-stream"


def reading(blobs: Blobs, ref: StorageRef) -> Read:
    """Reads payloads that a manifest at ``ref`` names; damage is its blob's."""

    def read(sha256: str, size: int) -> bytes:
        return blobs.read_ref(payload_ref(ref, sha256, size))

    return read


def put_files(blobs: Blobs, paths: Iterable[Path]) -> None:
    """Store files as payloads, some at once; refer to them inside the same ``blobs.writing()`` block."""
    left = iter(paths)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="put") as pool:
        while some := list(islice(left, _AT_ONCE)):
            # In a context of its own each: what the block says holds in the threads too.
            going = [
                pool.submit(copy_context().run, blobs.put_payload, path, content_type=CONTENT_TYPE)
                for path in some
            ]
            for one in going:
                one.result()
