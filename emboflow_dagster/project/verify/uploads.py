"""Uploads that are not complete, temporary blobs, versions that were let go: what is noted of them holds."""

from typing import Any

from pydantic import ValidationError

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.model.collections import META
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.project.verify.report import VerifyReport, View


def check_uploads(view: View, report: VerifyReport) -> None:
    """What was announced can expire, and nobody owns it before it is complete (P-30, P-38)."""
    for raw in view.sound("objects", {"upload_status": 1, "owner_record_id": 1}):
        if raw.get("upload_status", "completed") == "completed":
            continue
        if marks.read(view.mongo, Mark.UPLOAD, raw["_id"]) is None:
            message = f"is {raw['upload_status']} without a note of when it expires"
            report.add(ErrorKind.BLOB_INCOMPLETE.value, "objects", raw["_id"], "upload_status", message)
        if raw.get("owner_record_id") is not None:
            message = f"is owned by {raw['owner_record_id']!r} and {raw['upload_status']}, not completed"
            report.add(ErrorKind.BLOB_INCOMPLETE.value, "objects", raw["_id"], "owner_record_id", message)


def check_notes(view: View, report: VerifyReport) -> None:
    """A temporary blob has its bytes until it expires; what was let go has no owner (I8)."""
    space = None if view.everything else view.workspace_id
    now = view.mongo.server_time()
    for note in marks.every(view.mongo, Mark.TEMPORARY, workspace_id=space):
        if note["expiresAt"] > now:
            _temporary(view, report, note)
    for note in marks.every(view.mongo, Mark.RELEASE, workspace_id=space):
        object_id, _, number = note["name"].rpartition(".v")
        # The owner that the note names; a version that is withdrawn while it is owned is another matter.
        owned = {
            "_id": object_id,
            "version": int(number) if number.isdecimal() else -1,
            "owner_record": note.get("record"),
            "owner_record_field": note.get("field"),
            "owner_record_id": note.get("recordId"),
        }
        with translated():
            head = view.mongo["objects"].find_one(owned, {"_id": 1}) if note.get("recordId") else None
        if head is not None:
            message = f"version {number} was let go by {note['recordId']!r} and is owned by it"
            report.add("owner-mismatch", "objects", object_id, "owner_record_id", message)


def _temporary(view: View, report: VerifyReport, note: dict[str, Any]) -> None:
    try:
        ref = StorageRef.model_validate(note["ref"])
    except (ValidationError, KeyError):
        report.add("document-invalid", META, note["_id"], "ref", "is no reference to bytes")
        return
    if not view.has_payload(ref.key):
        message = "the bytes of a temporary blob are gone before it has expired"
        report.add(ErrorKind.PAYLOAD_MISSING.value, META, note["_id"], "ref", message)


def was_let_go(view: View, blob: dict[str, Any]) -> bool:
    """Whether a version was taken from its owner: it is noted, or somebody else has it now."""
    if blob.get("owner_record_id") is not None:
        return True
    name = name_of(blob["object_id"], blob["version"])
    kinds = (Mark.RELEASE, Mark.TOMBSTONE)
    return any(marks.read(view.mongo, kind, name) is not None for kind in kinds)
