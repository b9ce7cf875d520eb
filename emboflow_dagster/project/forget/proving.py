"""What a tombstone claims, held against what is there: its hash, the audit log, the versions, the store."""

import json
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ConflictError, InvalidInputError, NotFoundError
from emboflow_dagster.model.collections import META
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Raw, translated
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.object_storage.payload import key_of
from emboflow_dagster.project.forget.tombstone import digest_of, shown
from emboflow_dagster.project.opened import Opened

_LIST = "`emboflow dataset forgotten` lists the tombstones"


def note_of(opened: Opened, tombstone: str) -> Raw:
    """The tombstone of the project with this id.

    Raises:
        NotFoundError: There is none.
        ConflictError: The forgetting is not finished.
    """
    name = f"{opened.scope.project_id}:{tombstone}"
    with translated():
        note = opened.mongo[META].find_one(
            {"_id": f"{Mark.FORGOTTEN.value}:{name}", "workspaceId": opened.scope.workspace_id}
        )
    if note is None:
        raise NotFoundError(f"nothing was forgotten under {tombstone}", hint=_LIST)
    if note["state"] != "destroyed":
        raise ConflictError(
            f"{tombstone}: the forgetting is not finished; nothing was changed",
            hint="say the same `emboflow dataset forget` again: it goes on where it is",
        )
    return note


def told(opened: Opened, note: Raw) -> dict[str, Any]:
    """A tombstone as it is shown, with who let its episodes be made again."""
    return shown(note, marks.read(opened.mongo, Mark.REINSTATED, note["name"]))


def proof(opened: Opened, note: Raw) -> list[dict[str, Any]]:
    """What holds of a tombstone now: a row for each claim, ``what``, ``ok`` and ``found``."""
    mongo, scope = opened.mongo, opened.scope
    with translated():
        told = mongo["audit_logs"].find_one(
            {
                "workspaceId": scope.workspace_id,
                "action": "dataset.forget",
                "afterSummary.tombstone": note["digest"],
            }
        )
        ids = [row["id"] for row in note["versions"]]
        readable = mongo["dataset_versions"].distinct(
            "_id", {"_id": {"$in": ids}, "status": {"$ne": "withdrawn"}}
        )
    destroyed = [row["sha256"] for row in note["payloads"] if not row.get("keptBy")]
    back = [sha256 for sha256 in destroyed if opened.store.exists(key_of(sha256))]
    there = f"{len(back)} of {len(destroyed)} are in the store again, put by somebody since: "
    return [
        _hash(note),
        _row(
            "audit log",
            told,
            f"row {told['metadata']['sequence']} has that hash" if told else "no row has that hash",
        ),
        _row(
            "versions",
            not readable,
            f"{', '.join(readable)}: not withdrawn" if readable else f"{len(ids)} withdrawn",
        ),
        _row(
            "payloads",
            not back,
            there + back[0] if back else f"none of {len(destroyed)} is in the store",
        ),
    ]


def read(path: Path) -> dict[str, Any]:
    """A tombstone that was written to a file as JSON, and what its hash proves without a database.

    Raises:
        InvalidInputError: It is no tombstone.
    """
    try:
        note = json.loads(path.read_bytes())
        row = _hash(note)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{path}: no tombstone", hint="`emboflow dataset forgotten TOMBSTONE --json` writes one"
        ) from error
    return {**note, "proof": [row]}


def _hash(note: Raw) -> dict[str, Any]:
    is_so = digest_of(note) == note["digest"]
    return _row("sha256 of it", is_so, "as it says" if is_so else "altered since")


def _row(what: str, ok: object, found: str) -> dict[str, Any]:
    return {"what": what, "ok": bool(ok), "found": found}
