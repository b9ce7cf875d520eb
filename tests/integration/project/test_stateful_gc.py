"""Keeping and letting go against a model of a few dicts; broken rules are told from ours."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from emboflow_dagster.errors import ConflictError, ErrorKind, ForbiddenError, IntegrityError
from emboflow_dagster.mongo import objects
from emboflow_dagster.project.gc import collect, letting_go, sweep
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.gc.liveness import Liveness
from emboflow_dagster.project.handle import EmboFlow

CONTENTS = st.sampled_from([b"a", b"b", b"c"])
NAMES = st.sampled_from(["one", "two"])
OURS = settings(
    max_examples=int(os.environ.get("EMBOFLOW_FAULTS") == "all") * 195 + 5,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Keeping(RuleBasedStateMachine):
    """What a user is promised: everything stays but what was let go, and that goes."""

    ef: EmboFlow

    def __init__(self) -> None:
        super().__init__()
        self.prefix = uuid4().hex[:10]
        self.versions: dict[str, list[bytes]] = {"one": [], "two": []}
        self.let_go: set[tuple[str, int]] = set()
        self.gone: set[tuple[str, int]] = set()
        self.owned: set[tuple[str, int]] = set()
        self.last: dict[str, int] = {}
        self.held: set[str] = set()
        self.orphans = 0

    def key(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def content(self, content: bytes) -> bytes:
        return self.prefix.encode() + content  # nobody else's bytes keep ours

    @rule(name=NAMES, content=CONTENTS)
    def put(self, name: str, content: bytes) -> None:
        known = self.versions[name]
        blob = self.ef.blobs.put(self.content(content), object_id=self.key(name))
        newest = (name, len(known) - 1)
        if not known or known[-1] != content or newest in self.let_go | self.gone:
            known.append(content)
        assert blob.version == len(known) - 1

    @rule(name=NAMES, back=st.integers(0, 3))
    def withdraw(self, name: str, back: int) -> None:
        version = len(self.versions[name]) - 1 - back
        if version < 0:
            return
        refused = name in self.held or (name, version) in self.owned
        try:
            self.ef.blobs.withdraw(self.key(name), version, reason="a test")
        except ConflictError:
            assert (name, version) in self.owned - self.gone
        except ForbiddenError as error:
            refusal = (error.kind, name in self.held)
            assert refusal == (ErrorKind.LEGAL_HOLD, True)
        else:
            assert not refused or (name, version) in self.gone
            if (name, version) not in self.gone:
                self.let_go.add((name, version))

    @rule(name=NAMES)
    def reinstate(self, name: str) -> None:
        if self.versions[name]:
            self.ef.blobs.reinstate(self.key(name), reason="a test")
            self.let_go -= {row for row in self.let_go if row[0] == name}

    @rule(name=NAMES, last=st.one_of(st.none(), st.integers(1, 2)))
    def retain(self, name: str, last: int | None) -> None:
        if self.versions[name]:
            self.ef.blobs.retain(self.key(name), keep_last=last)
            self.last.pop(name, None)
            if last is not None:
                self.last[name] = last

    @rule(name=NAMES, hold=st.booleans())
    def hold(self, name: str, hold: bool) -> None:
        if self.versions[name]:
            self.ef.blobs.retain(self.key(name), hold=hold)
            (self.held.add if hold else self.held.discard)(name)

    @rule(name=NAMES)
    def claim(self, name: str) -> None:
        """What a record's transaction does to the newest version."""
        version = len(self.versions[name]) - 1
        if version < 0 or (name, version) in self.owned | self.gone | self.let_go:
            return
        owner = {"record": "notes", "field": "ref", "record_id": "n"}
        self.ef.mongo.in_transaction(
            lambda session: objects.own(
                self.ef.mongo,
                self.ef.scope,
                session,
                object_id=self.key(name),
                version=version,
                **owner,
            )
        )
        self.owned.add((name, version))

    @rule()
    def crash_before_the_metadata(self) -> None:
        self.orphans += 1
        self.ef.blobs.put_payload(self.content(b"orphan %d" % self.orphans), content_type="text/plain")

    @rule(dry=st.booleans())
    def collect(self, dry: bool) -> None:
        for key in self.ef.store.iter_keys():
            os.utime(self.ef.store.path_of(key), (1e9, 1e9))
        going = self.going()
        live = {self.versions[n][v] for n, v in self.all() - going - self.gone}
        wanted = {row for row in going if self.versions[row[0]][row[1]] not in live}

        report = self.ef.gc(grace_s=0, dry_run=dry)

        names = {f"{self.key(n)}.v{v}" for n, v in wanted}
        assert {name for name in report.versions if name.startswith(self.prefix)} == names
        if not dry:
            self.gone |= wanted
            self.let_go = (self.let_go | {r for r in going if r in self.by_rule()}) - self.gone

    def all(self) -> set[tuple[str, int]]:
        return {(name, v) for name, known in self.versions.items() for v in range(len(known))}

    def by_rule(self) -> set[tuple[str, int]]:
        return {
            (name, v)
            for name, last in self.last.items()
            if name not in self.held
            for v in range(len(self.versions[name]) - last)
        }

    def going(self) -> set[tuple[str, int]]:
        free = self.let_go | self.by_rule()
        return {row for row in free if row[0] not in self.held} - self.owned - self.gone

    @rule(name=NAMES, back=st.integers(0, 5))
    def read(self, name: str, back: int) -> None:
        version = len(self.versions[name]) - 1 - back
        if version < 0:
            return
        content = self.versions[name][version]
        try:
            assert self.ef.blobs.read(self.key(name), version) == self.content(content)
        except IntegrityError as error:
            told = (error.kind, (name, version) in self.gone)
            assert told == (ErrorKind.BLOB_WITHDRAWN, True)
        if (name, version) in self.gone:
            return
        edges = {e.kind for e in self.ef.blobs.why_kept(self.key(name), version, grace=timedelta(0))}
        if (name, version) in self.going():
            assert edges <= {EdgeKind.SHARED, EdgeKind.YOUNG}
        else:
            assert edges - {EdgeKind.SHARED, EdgeKind.YOUNG}

    def teardown(self) -> None:
        self.collect(dry=False)
        for name in self.versions:
            for back in range(len(self.versions[name])):
                self.read(name, back)
        payloads = len(list(self.ef.store.iter_keys()))
        wanted = len({self.versions[n][v] for n, v in self.all() - self.gone})
        problems = self.ef.verify().problems
        for name in ("objects", "object_history"):
            self.ef.mongo[name].delete_many({"object_id": {"$regex": f"^{self.prefix}"}})
        self.ef.mongo["_emboflow_meta"].delete_many({"name": {"$regex": f"^{self.prefix}"}})
        for key in list(self.ef.store.iter_keys()):
            self.ef.store.delete(key)
        assert problems == []
        assert payloads == wanted


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOFLOW_GC_UNSAFE_GRACE", "1")


def check(ef: EmboFlow, how: settings) -> None:
    machine = type("Machine", (Keeping,), {"ef": ef})
    run_state_machine_as_test(machine, settings=how)


@pytest.mark.slow
def test_keeping_is_the_model(ef: EmboFlow) -> None:
    check(ef, OURS)


# ------------------------------------------------------------------------ rules that are broken on purpose

JUDGE, BY_RULE, RETAIN = Liveness.judge, Liveness._by_rule, letting_go.retain


def notes_no_holds(*args: Any, hold: bool | None, **how: Any) -> Any:
    return RETAIN(*args, hold=None if hold is None else False, **how)


def counts_one_too_many(self: Any, row: Any, head: int, hold: Any) -> Any:
    fewer = {**hold, "keepLast": hold["keepLast"] - 1} if hold and hold.get("keepLast") else hold
    return BY_RULE(self, row, head, fewer)


def asks_nobody(self: Any, verdicts: Any) -> None:
    """Owners do not count."""


def forgets_who_let_go(self: Any, rows: Any, heads: Any, **how: Any) -> Any:
    verdicts = JUDGE(self, rows, heads, **how)
    for verdict in verdicts:
        if verdict.release and not verdict.edges:
            verdict.edges.append(_edge())
    return verdicts


def _edge() -> Any:
    from emboflow_dagster.project.gc.edges import Edge

    return Edge(EdgeKind.VERSION, "nobody let it go")


def buries_nothing(_: Any, payloads: Any, by: str) -> set[str]:
    return set(payloads)


def frees_what_is_kept(shards: Any, shard: str) -> dict[bytes, EdgeKind]:
    return {}


BROKEN: list[tuple[Any, str, Callable[..., Any]]] = [
    (letting_go, "retain", notes_no_holds),
    (Liveness, "_by_rule", counts_one_too_many),
    (Liveness, "_ask", asks_nobody),
    (Liveness, "judge", forgets_who_let_go),
    (sweep, "bury", buries_nothing),
    (collect.Shards, "kept", frees_what_is_kept),
]


@pytest.mark.parametrize(("place", "name", "broken"), BROKEN, ids=[b.__name__ for _, _, b in BROKEN])
def test_a_broken_rule_is_caught(
    ef: EmboFlow, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, broken: Callable[..., Any]
) -> None:
    monkeypatch.setattr(place, name, broken)

    with pytest.raises((AssertionError, IntegrityError, ValueError, KeyError)):
        tell(ef)


# One program with a bit of everything, so that a fault is found without a hunt.
STORY: list[tuple[str, dict[str, Any]]] = [
    *(("put", {"name": "one", "content": content}) for content in (b"a", b"b", b"c")),
    ("put", {"name": "two", "content": b"a"}),
    ("claim", {"name": "one"}),
    ("crash_before_the_metadata", {}),
    ("collect", {"dry": True}),
    ("withdraw", {"name": "one", "back": 2}),
    ("withdraw", {"name": "one", "back": 0}),
    ("read", {"name": "one", "back": 2}),
    ("collect", {"dry": False}),
    ("read", {"name": "one", "back": 2}),
    ("hold", {"name": "two", "hold": True}),
    ("withdraw", {"name": "two", "back": 0}),
    ("hold", {"name": "two", "hold": False}),
    ("withdraw", {"name": "two", "back": 0}),
    ("collect", {"dry": False}),
    *(("read", {"name": "one", "back": back}) for back in range(3)),
    ("put", {"name": "two", "content": b"a"}),
    ("put", {"name": "two", "content": b"b"}),
    ("put", {"name": "two", "content": b"c"}),
    ("retain", {"name": "two", "last": 2}),
    ("collect", {"dry": False}),
    *(("read", {"name": "two", "back": back}) for back in range(4)),
]


def tell(ef: EmboFlow) -> None:
    machine = type("Machine", (Keeping,), {"ef": ef})()
    for name, how in STORY:
        getattr(machine, name)(**how)
    machine.teardown()


def test_the_story_is_as_the_model_has_it(ef: EmboFlow) -> None:
    tell(ef)
