"""Ownership as operations that can be interrupted: requests to `ef.cud`, transfer, release, uploads."""

from pathlib import Path
from typing import ClassVar

from emboflow_dagster import BlobRef, Create, Deactivate, Update
from emboflow_dagster.errors import IntegrityError, TransitionError
from emboflow_dagster.model.collections import META
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.faults.operation import Ack, Counts, Operation

FIELD = {"assets": "storageRef", "annotations": "payload"}


def ref(object_id: str) -> BlobRef:
    return BlobRef(object_id=object_id, version=0)


def asset(name: str) -> Create:
    """An asset that owns the blob of its name."""
    return Create("assets", {"type": "raw_file", "displayName": name, "storageRef": ref(name)})


def labels(ef: EmboFlow, target: str) -> list[Create]:
    """A task on an asset, and an annotation that owns the blob ``label``."""
    task = {"targetType": "asset", "targetRef": {"id": target}, "labelType": "segment"}
    fields = {"annotationTaskId": "#task", "targetRef": {"id": target}, "payload": ref("label")}
    return [Create("annotation_tasks", task, ref="#task"), Create("annotations", fields)]


def owners(ef: EmboFlow) -> dict[str, str]:
    """Blob to the name of the record that owns it."""
    names = {row["_id"]: row["displayName"] for row in ef.mongo["assets"].find()}
    found = {row["_id"]: row.get("owner_record_id") for row in ef.mongo["objects"].find()}
    return {blob: names.get(id_, "the label") if id_ else "nobody" for blob, id_ in sorted(found.items())}


class WithAssets(Operation):
    """Two assets made from blobs, and blobs without owner."""

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        for name in ("one", "two", "three", "label", "other"):
            ef.blobs.put(name.encode(), object_id=name)
        ef.cud([asset("one"), asset("two")])

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        now = str(owners(ef))
        return [one for one in acked if one != now]


class Cud(WithAssets):
    """Two creates with blobs, one without, a replaced blob, a record put out of use."""

    name = "cud"
    adds: ClassVar[Counts] = {"assets": 1, "annotation_tasks": 1, "annotations": 1}
    audit: ClassVar[Counts] = {
        "asset.register": 1,
        "annotation_task.create": 1,
        "annotation.create": 1,
        "asset.update": 1,
        "asset.archive": 1,
    }

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        one, two = ef.assets.get("one"), ef.assets.get("two")
        ef.cud(
            [
                asset("three"),
                *labels(ef, one.id),
                Update("assets", one.id, {"storageRef": ref("other")}),
                Deactivate("assets", two.id),
            ]
        )
        ack(str(owners(ef)))

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        if not ef.mongo["assets"].count_documents({"displayName": "three"}):
            self.act(ef, folder, lambda _: None)

    def wrong(self, ef: EmboFlow) -> list[str]:
        found = owners(ef)
        notes = [row["name"] for row in ef.mongo[META].find({"kind": "release"})]
        wanted = {"label": "the label", "one": "nobody", "other": "one", "three": "three", "two": "two"}
        statuses = sorted(row.status.value for row in ef.assets.list())
        fine = (
            found == wanted and notes == ["one.v0"] and statuses == ["archived", "registered", "registered"]
        )
        return [] if fine else [f"owners {found}, let go {notes}, assets {statuses}"]


class RepeatedCud(Cud):
    """The same with a request id: whoever does not know how far it came sends it again."""

    name = "cud-again"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        super().prepare(ef, folder)
        (folder / "assets").write_text(" ".join(ef.assets.get(name).id for name in ("one", "two")))

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        one, two = (folder / "assets").read_text().split()
        changes = [
            asset("three"),
            *labels(ef, one),
            Update("assets", one, {"storageRef": ref("other")}),
            Deactivate("assets", two),
        ]
        done = ef.cud(changes, request_id="the one")
        ack(str(owners(ef)) if len(done) == len(changes) else "another")

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        self.act(ef, folder, lambda _: None)


class Transfer(WithAssets):
    """From an annotation to an asset, whose own blob is let go."""

    name = "transfer"
    audit: ClassVar[Counts] = {"blob.transfer": 1}

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        super().prepare(ef, folder)
        ef.cud(labels(ef, ef.assets.get("one").id))

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ef.blobs.transfer("label", to=("assets", ef.assets.get("two").id, "storageRef"))
        ack(str(owners(ef)))

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        if owners(ef)["label"] != "two":
            self.act(ef, folder, lambda _: None)

    def wrong(self, ef: EmboFlow) -> list[str]:
        found = owners(ef)
        notes = [row["name"] for row in ef.mongo[META].find({"kind": "release"})]
        payloads = [row["payload"] for row in ef.mongo["annotations"].find()]
        names = {row.display_name: row.storage_ref.object_id for row in ef.assets.list()}
        fine = (found["label"], found["two"], notes, payloads) == ("two", "nobody", ["two.v0"], [{}])
        fine = fine and names == {"one": "one", "two": "label"}
        return [] if fine else [f"owners {found}, let go {notes}, payloads {payloads}, assets {names}"]


class Release(WithAssets):
    name = "release"
    audit: ClassVar[Counts] = {"blob.release": 1}

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        super().prepare(ef, folder)
        ef.cud([Deactivate("assets", ef.assets.get("one").id)])

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ef.blobs.release("one")
        ack(str(owners(ef)))

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        try:
            self.act(ef, folder, lambda _: None)
        except TransitionError:  # the interrupted one did it
            if owners(ef)["one"] != "nobody":
                raise

    def wrong(self, ef: EmboFlow) -> list[str]:
        notes = [row["name"] for row in ef.mongo[META].find({"kind": "release"})]
        return [] if (owners(ef)["one"], notes) == ("nobody", ["one.v0"]) else [f"let go {notes}"]


class Upload(Operation):
    """Bytes of an announced upload."""

    name = "upload"

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        blob = ef.blobs.announce(owner=("assets", "storageRef"), name="rows.csv", size=4)
        (folder / "announced").write_text(blob.object_id)

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        done = ef.blobs.upload((folder / "announced").read_text(), b"t,x\n")
        ack(f"{done.upload_status} {done.data_sha256}")

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        there = [f"{row['upload_status']} {row.get('data_sha256')}" for row in ef.mongo["objects"].find()]
        return [one for one in acked if one not in there]

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        try:
            self.act(ef, folder, lambda _: None)
        except TransitionError as error:
            if "the upload is completed" not in error.message:
                raise

    def wrong(self, ef: EmboFlow) -> list[str]:
        rows = [(row["upload_status"], row["version"]) for row in ef.mongo["objects"].find()]
        if rows != [("completed", 0)]:
            return [f"the uploads are {rows}"]
        try:
            found = ef.blobs.read((ef.mongo["objects"].find_one() or {})["_id"])
        except IntegrityError as error:
            return [error.message]
        return [] if found == b"t,x\n" else [f"the upload has {found!r}"]


class Announce(Operation):
    name = "announce"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.blobs.announce(owner=("assets", "storageRef"), name="rows.csv").object_id)

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        return [id_ for id_ in acked if ef.mongo["objects"].count_documents({"_id": id_}) != 1]

    def wrong(self, ef: EmboFlow) -> list[str]:
        heads = sorted(row["_id"] for row in ef.mongo["objects"].find())
        notes = sorted(row["name"] for row in ef.mongo[META].find({"kind": "upload"}))
        # Announced twice there are two: the unacknowledged one is there or not, and expires.
        return [] if heads == notes and len(heads) in (1, 2) else [f"heads {heads}, notes {notes}"]


class Abandon(Upload):
    name = "abandon"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ef.blobs.abandon((folder / "announced").read_text())
        ack("gone")

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        return ["it is there again"] if acked and ef.mongo["objects"].count_documents({}) else []

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        if ef.mongo["objects"].count_documents({}):
            self.act(ef, folder, lambda _: None)

    def wrong(self, ef: EmboFlow) -> list[str]:
        left = [ef.mongo["objects"].count_documents({}), ef.mongo[META].count_documents({"kind": "upload"})]
        return [] if left == [0, 0] else [f"heads and notes left: {left}"]


class PutTemporary(Operation):
    name = "put-temporary"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.blobs.put_temporary(b"preview").id)

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        return [id_ for id_ in acked if ef.blobs.open_temporary(id_).read() != b"preview"]

    def wrong(self, ef: EmboFlow) -> list[str]:
        notes = ef.mongo[META].count_documents({"kind": "temporary"})
        return [] if notes in (1, 2) else [f"{notes} temporary blobs"]


class ClaimOne(WithAssets):
    """Only for several at once: each makes a record of its own that wants the same blob."""

    name = "claim-one"

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        [made] = ef.cud([asset("three")])
        ack(made.id)


OWNERSHIP: tuple[Operation, ...] = (Cud(), Upload())
#: For the long version alone.
MORE_OWNERSHIP: tuple[Operation, ...] = (
    RepeatedCud(),
    Transfer(),
    Release(),
    Announce(),
    Abandon(),
    PutTemporary(),
)
