"""Blobs against a model of three lines: a list of contents an object. Broken stores are told from ours."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.mongo import objects
from emboflow_dagster.project.handle import EmboFlow

CONTENTS = st.sampled_from([b"a", b"b", b"c", b"d" * 1000])
NAMES = st.sampled_from(["one", "two"])
HOMES = st.sampled_from([StorageType.OBJECT_STORE, StorageType.IN_OBJECT])
OURS = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
# To find a fault that was put in, the smallest example is not needed.
HUNT = settings(
    OURS,
    max_examples=100,
    phases=(Phase.generate,),
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
)


class Store(RuleBasedStateMachine):
    """What a blob is to its users."""

    ef: EmboFlow

    def __init__(self) -> None:
        super().__init__()
        self.prefix = uuid4().hex[:10]
        self.versions: dict[str, list[bytes]] = {"one": [], "two": []}
        self.homes: dict[str, StorageType] = {}
        self.labels: dict[str, str | None] = {}
        self.requests: dict[str, dict[str, int]] = {"one": {}, "two": {}}

    def key(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def accept(
        self,
        name: str,
        content: bytes,
        blob: BlobObject,
        home: StorageType | None = None,
        label: str | None = None,
    ) -> None:
        known = self.versions[name]
        home = home or StorageType.OBJECT_STORE
        said = label is not None and self.labels.get(name) != label
        if not known or known[-1] != content or self.homes[name] is not home or said:
            known.append(content)
            self.labels[name] = label
        self.homes[name] = home
        assert blob.storage_type is home
        assert (blob.version, blob.prev_version) == (
            len(known) - 1,
            len(known) - 2 if len(known) > 1 else None,
        )
        assert blob.object_size_bytes == len(content)

    @rule(name=NAMES, content=CONTENTS, label=st.sampled_from(["x", "$y"]), home=HOMES)
    def put(self, name: str, content: bytes, label: str, home: StorageType) -> None:
        blob = self.ef.blobs.put(
            content, object_id=self.key(name), custom_metadata={"label": label}, home=home
        )
        self.accept(name, content, blob, home, label)
        assert blob.custom_metadata == {"label": label}

    @rule(name=NAMES)
    def put_the_same_again(self, name: str) -> None:
        if self.versions[name]:
            content, home = self.versions[name][-1], self.homes[name]
            blob = self.ef.blobs.put(content, object_id=self.key(name), home=home)
            self.accept(name, content, blob, home)

    @rule(name=NAMES, content=CONTENTS, request=st.sampled_from(["r1", "$version", "r3"]))
    def put_by_request(self, name: str, content: bytes, request: str) -> None:
        blob = self.ef.blobs.put(content, object_id=self.key(name), request_id=request)
        if request in self.requests[name]:
            assert blob.version == self.requests[name][request]
        else:
            self.accept(name, content, blob)
            self.requests[name][request] = blob.version

    @rule(name=NAMES, content=CONTENTS, kept=st.booleans())
    def put_and_die_before_the_archive_is_done(self, name: str, content: bytes, kept: bool) -> None:
        """A kill before the history was written (or, ``kept``, after it) leaves the outbox filled."""
        whole = objects.archive
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(objects, "archive", lambda *_: self._history_only() if kept else 0)
            blob = self.ef.blobs.put(content, object_id=self.key(name))
        assert objects.archive is whole
        self.accept(name, content, blob)

    def _history_only(self) -> int:
        for raw in self.ef.mongo["objects"].find({"_id": {"$regex": f"^{self.prefix}"}}):
            for row in raw["tail"]:
                history = {**row, "_id": f"{raw['_id']}.v{row['version']}"}
                self.ef.mongo["object_history"].replace_one({"_id": history["_id"]}, history, upsert=True)
        return 0

    @precondition(lambda self: any(self.versions.values()))
    @rule(name=NAMES)
    def archive(self, name: str) -> None:
        objects.archive(self.ef.mongo, self.key(name))

    @rule(name=NAMES, back=st.integers(0, 6))
    def read(self, name: str, back: int) -> None:
        version = len(self.versions[name]) - 1 - back
        if version < 0:
            with pytest.raises(NotFoundError):
                self.ef.blobs.get(self.key(name), len(self.versions[name]) + back)
            return
        blob = self.ef.blobs.get(self.key(name), version)
        assert blob.version == version
        assert self.ef.blobs.read(self.key(name), version) == self.versions[name][version]

    @rule(name=NAMES, limit=st.integers(1, 4), below=st.integers(0, 8))
    def page(self, name: str, limit: int, below: int) -> None:
        rows = self.ef.blobs.history(self.key(name), below=below, limit=limit)
        expected = list(range(len(self.versions[name])))[:below][::-1][:limit]
        assert [row.version for row in rows] == expected

    @invariant()
    def everything_is_there_in_order(self) -> None:
        for name, contents in self.versions.items():
            rows = self.ef.blobs.history(self.key(name))
            assert [row.version for row in rows] == list(range(len(contents)))[::-1]
            sizes = [row.object_size_bytes for row in rows][::-1]
            assert sizes == [len(content) for content in contents]

    def teardown(self) -> None:
        found = self.ef.verify().problems
        for name in ("objects", "object_history"):
            self.ef.mongo[name].delete_many({"object_id": {"$regex": f"^{self.prefix}"}})
        assert found == []


def check(ef: EmboFlow, how: settings) -> None:
    machine = type("Machine", (Store,), {"ef": ef})
    run_state_machine_as_test(machine, settings=how)


@pytest.mark.slow
def test_the_store_is_the_model(ef: EmboFlow) -> None:
    check(ef, OURS)


# ----------------------------------------------------------------------- stores that are broken on purpose

PUT, HISTORY, AT_VERSION = objects.put_version, objects.history, objects.at_version


def loses_the_outbox(mongo: Any, object_id: str, *_: Any) -> int:
    mongo["objects"].update_one({"_id": object_id}, {"$set": {"tail": []}})
    return 1


def forgets_requests(mongo: Any, blob: BlobObject, *, request_id: str | None = None, **how: Any) -> Any:
    return PUT(mongo, blob, **how)


def overwrites(mongo: Any, blob: BlobObject, **how: Any) -> Any:
    mongo["objects"].delete_one({"_id": blob.object_id})
    return PUT(mongo, blob, **how)


def every_put_is_a_version(mongo: Any, blob: BlobObject, **how: Any) -> Any:
    mongo["objects"].update_one({"_id": blob.object_id}, {"$set": {"data_sha256": "0" * 64}})
    return PUT(mongo, blob, **how)


def forgets_the_predecessor(mongo: Any, blob: BlobObject, **how: Any) -> Any:
    put = PUT(mongo, blob, **how)
    mongo["objects"].update_one({"_id": blob.object_id}, {"$set": {"prev_version": None}})
    return put._replace(blob=put.blob.model_copy(update={"prev_version": None}))


def history_without_the_outbox(mongo: Any, *args: Any, **how: Any) -> Any:
    rows = HISTORY(mongo, *args, **how)
    stored = {r["version"] for r in mongo["object_history"].find({"object_id": args[1]})}
    head = mongo["objects"].find_one({"_id": args[1]}) or {}
    return [row for row in rows if row.version in stored or row.version == head.get("version")]


def pages_from_the_wrong_end(mongo: Any, *args: Any, limit: int = 100, **how: Any) -> Any:
    return HISTORY(mongo, *args, limit=100, **how)[-limit:]


def always_the_newest(mongo: Any, workspace_id: str, object_id: str, version: int) -> Any:
    AT_VERSION(mongo, workspace_id, object_id, version)
    return objects.head(mongo, workspace_id, object_id)


BROKEN: list[tuple[str, Callable[..., Any]]] = [
    ("archive", loses_the_outbox),
    ("put_version", forgets_requests),
    ("put_version", overwrites),
    ("put_version", every_put_is_a_version),
    ("put_version", forgets_the_predecessor),
    ("history", history_without_the_outbox),
    ("history", pages_from_the_wrong_end),
    ("at_version", always_the_newest),
]


@pytest.mark.parametrize(("name", "broken"), BROKEN, ids=[broken.__name__ for _, broken in BROKEN])
def test_a_broken_store_is_caught(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., Any]
) -> None:
    monkeypatch.setattr(objects, name, broken)

    with pytest.raises((AssertionError, NotFoundError, ValueError, KeyError)):
        check(ef, HUNT)
