"""Writes of long payloads, into each home, and what lets them go: most of their time is between commands."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from emboflow_dagster.model.collections import META
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.faults.operation import Ack, Operation

#: Longer than the buffers of the store's pump.
LONG = 9 * 1024 * 1024 + 123


def long_payload(word: str) -> Iterator[bytes]:
    """A payload in pieces."""
    line = word.encode() * 1000
    left = LONG
    while left:
        piece = line[:left]
        left -= len(piece)
        yield piece


class PutStream(Operation):
    """Long payloads from a stream: hashed beside the disk, in blocks, under a name at the end."""

    name = "put-stream"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        ef.blobs.put(b"zero", object_id="model")

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        for word in ("one", "two"):
            blob = ef.blobs.put(long_payload(word), object_id="model", request_id=word)
            ack(f"{blob.version} {blob.data_sha256}")

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        there = [f"{blob.version} {blob.data_sha256}" for blob in ef.blobs.history("model")]
        return [one for one in acked if one not in there]

    def wrong(self, ef: EmboFlow) -> list[str]:
        found = [
            (content[:3], len(content))
            for blob in ef.blobs.history("model")
            for content in [ef.blobs.read("model", blob.version)]
        ]
        return [] if found == [(b"two", LONG), (b"one", LONG), (b"zer", 4)] else [f"the versions are {found}"]


class PutHomes(Operation):
    """One object whose versions move from home to home, and shares bytes with another one."""

    name = "put-homes"
    homes: ClassVar = ("object_store", "in_object", "gridfs", "object_store", "gridfs", "in_object")

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        for number, home in enumerate(self.homes):
            content = f"{home} {number}".encode()
            blob = ef.blobs.put(content, object_id="moving", home=home, request_id=f"{number}")
            ef.blobs.put(content, object_id=f"twin-{number}", request_id=f"{number}")
            ack(f"{blob.version} {blob.data_sha256}")

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        there = [f"{blob.version} {blob.data_sha256}" for blob in ef.blobs.history("moving")] if acked else []
        return [one for one in acked if one not in there]

    def wrong(self, ef: EmboFlow) -> list[str]:
        found = [ef.blobs.read("moving", blob.version) for blob in ef.blobs.history("moving")]
        wanted = [f"{home} {number}".encode() for number, home in enumerate(self.homes)]
        twins = [ef.blobs.read(f"twin-{number}") for number in range(len(self.homes))]
        return [] if (found[::-1], twins) == (wanted, wanted) else [f"the versions are {found}, {twins}"]


class LetGo(Operation):
    """Kept by a rule, withdrawn, taken back, collected, and the same bytes put again."""

    name = "gc-put-again"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        for content in ("one", "two", "three"):
            ef.blobs.put(content.encode(), object_id="model", request_id=content)
        ef.blobs.put(b"gone", object_id="gone")
        ef.blobs.put(b"back", object_id="back")
        for path in ef.store.root.rglob("*"):
            if path.is_file():
                os.utime(path, (1e9, 1e9))

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ef.blobs.retain("model", keep_last=1)
        ef.blobs.withdraw("gone", reason="a test")
        ef.blobs.withdraw("back", reason="a test")
        ef.blobs.reinstate("back", reason="needed")
        os.environ["EMBOFLOW_GC_UNSAFE_GRACE"] = "1"
        try:
            ef.gc(grace_s=0)
        finally:
            del os.environ["EMBOFLOW_GC_UNSAFE_GRACE"]
        ack("collected")
        blob = ef.blobs.put(b"gone", object_id="again", request_id="again")
        ack(f"put {blob.version}")

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        kept = [("model", b"three"), ("back", b"back")]
        kept += [("again", b"gone")] if "put 0" in acked else []
        return [name for name, content in kept if ef.blobs.read(name) != content]

    def wrong(self, ef: EmboFlow) -> list[str]:
        found = sorted(row["name"] for row in ef.mongo[META].find({"kind": "tombstone"}))
        # Whoever put "gone" again before it was collected keeps its bytes: only then is it no tombstone's.
        fine = {"model.v0", "model.v1"} <= set(found) <= {"gone.v0", "model.v0", "model.v1"}
        payloads = len(list(ef.store.iter_keys()))
        return [
            *self.lost(ef, ["put 0"]),
            *([] if fine and payloads == 3 else [f"{found}, {payloads} payloads"]),
        ]


FILES: tuple[Operation, ...] = (PutStream(), PutHomes(), LetGo())
