"""A value through the handlers and back, without a store."""

import io
import tempfile
from pathlib import Path

from emboflow_dagster.object_storage.payload import filling
from emboflow_dagster.orchestration.payloads.handler import Draft, Payload, Stored
from emboflow_dagster.orchestration.payloads.routing import Handlers


def dumped(value, *, handlers=None, format="parquet", preview_rows=3) -> tuple[bytes, Payload]:  # noqa: A002
    """The bytes of a value, and what is said of them."""
    with Draft(format=format, preview_rows=preview_rows) as draft:
        payload = (handlers or Handlers()).dump(value, draft)
        content = bytearray()
        with filling(payload.source) as fill:
            block = memoryview(bytearray(1 << 16))
            while count := fill(block):
                content += block[:count]
        return bytes(content), payload


def loaded(content: bytes, payload: Payload, annotation=None, *, handlers=None, serializer="same"):
    """The value of these bytes."""
    stored = Stored(
        content_type=payload.content_type,
        serializer=payload.serializer if serializer == "same" else serializer,
        size=len(content),
        opener=lambda: io.BytesIO(content),
        scratch=lambda: Path(tempfile.mkdtemp(prefix="emboflow-test-")),
        annotation=annotation,
        name=payload.name,
    )
    return (handlers or Handlers()).load(stored)


def back(value, annotation=None, **options):
    """What a value comes back as."""
    content, payload = dumped(value, **options)
    return loaded(content, payload, annotation, handlers=options.get("handlers"))
