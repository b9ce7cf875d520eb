"""Ownership against a small model of it: who owns which version, who names it, what was let go."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from emboflow_dagster import BlobRef, Create, Deactivate, Update
from emboflow_dagster.errors import EmboflowError, ErrorKind
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo import ownership
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.project.test_stateful_blobs import OURS

LONG = os.environ.get("EMBOFLOW_FAULTS") == "all"
FIELDS = {"assets": "storageRef", "annotations": "payload"}
BLOBS = st.sampled_from(["one", "two"])
RECORDS = st.sampled_from(["asset", "label-a", "label-b"])
BACK = st.sampled_from([0, 0, 0, 1])


@dataclass
class Version:
    """A version of a blob: which collection it is meant for, which record owns it, whether it was let go."""

    meant: str | None
    owner: str | None = None
    noted: bool = False


@dataclass
class Record:
    """A record: its id, the version it names, whether it is in use."""

    id: str
    names: tuple[str, int] | None
    used: bool = True


def collection(record: str) -> str:
    return "assets" if record.startswith("asset") else "annotations"


class Ownership(RuleBasedStateMachine):
    """What owning a blob means to its users."""

    ef: EmboFlow
    task: str
    target: str

    def __init__(self) -> None:
        super().__init__()
        self.prefix = uuid4().hex[:10]
        self.blobs: dict[str, list[Version]] = {"one": [], "two": []}
        self.records: dict[str, Record] = {}
        self.count = 0

    # ------------------------------------------------------------------------------------------- the model

    def key(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def at(self, names: tuple[str, int]) -> Version | None:
        versions = self.blobs[names[0]]
        return versions[names[1]] if 0 <= names[1] < len(versions) else None

    def newest(self, names: tuple[str, int]) -> bool:
        return names[1] == len(self.blobs[names[0]]) - 1

    def expected(self, record: str, names: tuple[str, int]) -> list[str]:
        """What speaks against a record naming a version."""
        version = self.at(names)
        if version is None:
            return ["ref-not-found"]
        found = ["blob-owner-not-empty"] if version.owner else []
        if version.meant not in (None, collection(record)):
            found += ["blob-owner-mismatch", "blob-owner-field-mismatch"]
        return found + ([] if self.newest(names) else ["blob-not-claimable"])

    def claim(self, record: str, names: tuple[str, int]) -> None:
        self.let_go(record)
        self.blobs[names[0]][names[1]] = Version(collection(record), record)
        self.records[record].names = names

    def let_go(self, record: str, names: tuple[str, int] | None = None) -> None:
        """The version that a record names loses it, when it has it."""
        names = names or self.records[record].names
        version = self.at(names) if names else None
        if names is None or version is None or version.owner != record:
            return
        version.noted = True
        if self.newest(names):
            version.owner = version.meant = None

    # ------------------------------------------------------------------------------------------- the system

    def told(self, call: Callable[[], Any]) -> tuple[Any, list[str]]:
        """What a call gave, or the codes of why not."""
        try:
            return call(), []
        except EmboflowError as error:
            return None, [p.kind.value for p in error.problems] or [error.kind.value]

    def version(self, name: str, back: int) -> tuple[str, int]:
        return name, max(0, len(self.blobs[name]) - 1 - back)

    def ref(self, names: tuple[str, int]) -> BlobRef:
        return BlobRef(object_id=self.key(names[0]), version=names[1])

    @rule(name=BLOBS, meant=st.sampled_from([None, None, "assets", "annotations"]))
    def put(self, name: str, meant: str | None) -> None:
        self.count += 1
        owner = (meant, FIELDS[meant]) if meant else None
        self.ef.blobs.put(f"{self.count}".encode(), object_id=self.key(name), owner=owner)
        before = self.blobs[name][-1].meant if self.blobs[name] else None
        self.blobs[name].append(Version(meant or before))

    @rule(record=RECORDS, name=BLOBS, back=BACK)
    def write(self, record: str, name: str, back: int) -> None:
        names = self.version(name, back)
        where, known = collection(record), self.records.get(record)
        fields: dict[str, Any] = {FIELDS[where]: self.ref(names)}
        if known is not None:
            if not known.used:
                return
            unchanged = known.names == names
            _, codes = self.told(lambda: self.ef.cud([Update(where, known.id, fields)]))
            assert codes == ([] if unchanged else self.expected(record, names))
            if not codes and not unchanged:
                self.claim(record, names)
            return
        fields |= (
            {"type": "raw_file", "displayName": f"{self.prefix} {record}"}
            if where == "assets"
            else {"annotationTaskId": self.task, "targetRef": {"id": self.target}}
        )
        made, codes = self.told(lambda: self.ef.cud([Create(where, fields)]))
        assert codes == self.expected(record, names)
        if made:
            self.records[record] = Record(made[0].id, None)
            self.claim(record, names)

    @rule(record=RECORDS)
    def end(self, record: str) -> None:
        known = self.records.get(record)
        if known is not None:
            _, codes = self.told(lambda: self.ef.cud([Deactivate(collection(record), known.id)]))
            assert codes == ([] if known.used else ["state"])
            known.used = False

    @rule(record=st.sampled_from(["label-a", "label-b"]))
    def come_back(self, record: str) -> None:
        known = self.records.get(record)
        if known is None or known.used:
            return
        names = known.names
        version = self.at(names) if names else None
        mine = names is None or (self.newest(names) and version is not None and version.owner == record)
        wanted = [] if names is None or mine else self.expected(record, names)
        change = Update("annotations", known.id, {"status": "draft"})
        _, codes = self.told(lambda: self.ef.cud([change]))
        assert codes == wanted
        known.used = not codes
        if not codes and names and not mine:
            self.claim(record, names)

    @rule(name=BLOBS, back=BACK)
    def release(self, name: str, back: int) -> None:
        names = self.version(name, back)
        version = self.at(names)
        _, codes = self.told(lambda: self.ef.blobs.release(self.key(name), names[1]))
        if version is None:
            assert codes == ["not-found"]
            return
        owner = self.records.get(version.owner or "")
        in_use = owner is not None and owner.used and owner.names == names
        assert codes == (["state"] if owner is None or version.noted or in_use else [])
        if not codes:
            self.let_go(version.owner or "", names)

    @rule(name=BLOBS, record=RECORDS)
    def transfer(self, name: str, record: str) -> None:
        known = self.records.get(record)
        if known is None:
            return
        names = self.version(name, 0)
        version = self.at(names)
        to = (collection(record), known.id, FIELDS[collection(record)])
        _, codes = self.told(lambda: self.ef.blobs.transfer(self.key(name), to=to))
        if version is None:
            assert codes == ["not-found"]
        elif version.owner in (None, record) or not known.used:
            assert codes == ["state"]
        elif collection(version.owner) == "assets":
            assert codes == ["blob-field"]
        else:
            assert codes == []
            before = version.owner
            self.let_go(record)
            self.blobs[name][-1] = Version(collection(record), record)
            self.records[before].names, known.names = None, names

    @invariant()
    def everybody_has_what_is_theirs(self) -> None:
        mine = {"_id": {"$regex": f"^{self.prefix}"}}
        for row in self.ef.mongo["objects"].find(mine):
            version = self.blobs[row["_id"].partition(".")[2]][-1]
            owner = self.records[version.owner].id if version.owner else None
            where = (version.meant, FIELDS[version.meant]) if version.meant else (None, None)
            assert (row["owner_record"], row["owner_record_field"], row["owner_record_id"]) == (*where, owner)
        noted = {row["name"] for row in self.ef.mongo[META].find({"kind": "release"})}
        assert {name for name in noted if name.startswith(self.prefix)} == {
            f"{self.key(name)}.v{number}"
            for name, versions in self.blobs.items()
            for number, version in enumerate(versions)
            if version.noted
        }

    def forget(self) -> None:
        """Remove what this example made, so that the next one does not look through it again."""
        ids = {"_id": {"$in": [record.id for record in self.records.values()]}}
        for name in FIELDS:
            self.ef.mongo[name].delete_many(ids)
        for name in ("objects", "object_history"):
            self.ef.mongo[name].delete_many({"object_id": {"$regex": f"^{self.prefix}"}})
        self.ef.mongo[META].delete_many({"_id": {"$regex": "^(release|audit):"}})
        self.ef.mongo["audit_logs"].delete_many({})

    def teardown(self) -> None:
        found = self.ef.verify().problems
        self.forget()
        assert found == []


@pytest.fixture
def place(ef: EmboFlow) -> dict[str, Any]:
    """What every annotation needs."""
    blob = ef.blobs.put(b"target")
    fields = {
        "type": "raw_file",
        "displayName": "target",
        "storageRef": {"objectId": blob.object_id, "version": 0},
    }
    [target] = ef.cud([Create("assets", fields)])
    wanted = {"targetType": "asset", "targetRef": {"id": target.id}, "labelType": "segment"}
    [task] = ef.cud([Create("annotation_tasks", wanted)])
    return {"ef": ef, "task": task.id, "target": target.id}


@pytest.mark.slow
def test_ownership_is_the_model(place: dict[str, Any]) -> None:
    how = settings(OURS, max_examples=150 if LONG else 8, stateful_step_count=20)
    run_state_machine_as_test(type("Machine", (Ownership,), place), settings=how)


# ----------------------------------------------------------------------- ownership that is broken on purpose

CHECKED, CLAIM, LET_GO, PROBLEMS = (
    ownership.check,
    ownership.claim,
    ownership.let_go,
    ownership._problems,
)


def without(*kinds: ErrorKind) -> Callable[..., Any]:
    def problems(*args: Any) -> Any:
        return [problem for problem in PROBLEMS(*args) if problem.kind not in kinds]

    return problems


def sets_the_id_alone(mongo: Any, scope: Any, session: Any, mentions: Any) -> None:
    CLAIM(mongo, scope, session, mentions)
    for m in mentions:
        kept = {"owner_record": None, "owner_record_field": None}
        mongo["objects"].update_one({"_id": m.ref.object_id}, {"$set": kept}, session=session)


def claims_nothing(*_: Any) -> None:
    pass


def leaves_the_note(mongo: Any, scope: Any, session: Any, mentions: Any) -> None:
    notes = [{"$regex": f"^release:{m.ref.object_id}"} for m in mentions]
    rows = [row for note in notes for row in mongo[META].find({"_id": note}, session=session)]
    CLAIM(mongo, scope, session, mentions)
    for row in rows:
        mongo[META].replace_one({"_id": row["_id"]}, row, upsert=True, session=session)


def notes_nothing(mongo: Any, scope: Any, session: Any, mention: Any, **how: Any) -> None:
    LET_GO(mongo, scope, session, mention, **how)
    mongo[META].delete_many({"kind": "release"}, session=session)


def keeps_the_owner(mongo: Any, scope: Any, session: Any, mention: Any, **how: Any) -> None:
    raw = mongo["objects"].find_one({"_id": mention.ref.object_id}, session=session)
    LET_GO(mongo, scope, session, mention, **how)
    mongo["objects"].replace_one({"_id": raw["_id"]}, raw, session=session)


Story = tuple[tuple[Any, ...], ...]
CLAIMED: Story = (("put", "one", None), ("write", "label-a", "one", 0))
LET_GO_AGAIN: Story = (*CLAIMED, ("end", "label-a"), ("release", "one", 0))
MOVED: Story = (*CLAIMED, ("put", "two", None), ("write", "asset", "two", 0), ("transfer", "one", "asset"))
#: What is broken, and the shortest story that shows it.
BROKEN: dict[str, tuple[str, Callable[..., Any], Story]] = {
    "takes what has an owner": (
        "_problems",
        without(ErrorKind.BLOB_OWNER_NOT_EMPTY),
        (*CLAIMED, ("write", "label-b", "one", 0)),
    ),
    "takes what is meant for others": (
        "_problems",
        without(ErrorKind.BLOB_OWNER_MISMATCH, ErrorKind.BLOB_OWNER_FIELD_MISMATCH),
        (("put", "one", "assets"), ("write", "label-a", "one", 0)),
    ),
    "takes what is in the history": (
        "_problems",
        without(ErrorKind.BLOB_NOT_CLAIMABLE),
        (("put", "one", None), ("put", "one", None), ("write", "label-a", "one", 1)),
    ),
    "sets the id alone": ("claim", sets_the_id_alone, CLAIMED),
    "claims nothing": ("claim", claims_nothing, CLAIMED),
    "leaves the note": ("claim", leaves_the_note, (*LET_GO_AGAIN, ("come_back", "label-a"))),
    "notes nothing": ("let_go", notes_nothing, LET_GO_AGAIN),
    "keeps the owner": ("let_go", keeps_the_owner, LET_GO_AGAIN),
    "moves nothing": ("move", claims_nothing, MOVED),
}


def tell(place: dict[str, Any], story: Story) -> None:
    """The rules of a story, one after the other, the invariant after each."""
    machine: Any = type("Machine", (Ownership,), place)()
    try:
        for name, *arguments in story:
            getattr(machine, name)(*arguments)
            machine.everybody_has_what_is_theirs()
    finally:
        machine.forget()


def test_every_story_is_that_of_the_model(place: dict[str, Any]) -> None:
    for _, _, story in BROKEN.values():
        tell(place, story)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ownership_is_caught(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    attribute, broken, story = BROKEN[name]
    monkeypatch.setattr(ownership, attribute, broken)

    with pytest.raises(AssertionError):
        tell(place, story)
