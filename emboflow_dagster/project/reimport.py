"""What is registered is held against what was forgotten: an export that comes back is refused, or marked."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs.forgotten import told
from emboflow_dagster.blobs.listing import walk
from emboflow_dagster.errors import EmboflowError, ErrorKind, ForbiddenError, shown
from emboflow_dagster.formats.exports.coming_back import is_package
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.child import run_child
from emboflow_dagster.runtime.forgotten import Forgotten

HINT: Final = (
    "--without-forgotten registers it all the same: its bytes are kept, no run makes those episodes of it; "
    "or `emboflow dataset reinstate TOMBSTONE --reason TEXT`"
)
SECONDS: Final = 600.0
#: What is smaller, such as a log with one line, may be the same bytes by chance.
MIN_BYTES: Final = 1024
_CHUNK: Final = 1 << 20
_TOLD: Final = 200


def look(opened: Opened, path: Path) -> list[dict[str, Any]]:
    """Which forgotten episodes a file or folder has, as far as it says so or has their very bytes.

    Nothing is read where nothing was forgotten. Of files only those are hashed that are as large as a
    payload that was destroyed.

    Returns:
        ``tombstone``, ``episode`` (its id; ``None`` where bytes are all that is known), ``ref`` (what the
        reader of LeRobot calls it), ``path`` (of the file that has the bytes).
    """
    forgotten = Forgotten(opened.mongo, opened.scope)
    if not forgotten or not path.exists():
        return []
    rows = list(_listed(forgotten, path))
    return [*rows, *_same_bytes(opened, forgotten, path)]


def refuse(opened: Opened, path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write to the audit log that it was refused, and raise.

    Raises:
        ForbiddenError: Kind `episode-forgotten`.
    """
    notes = Forgotten(opened.mongo, opened.scope).since(())
    by_name = {note["name"].rpartition(":")[2]: note for note, _ in notes}

    def body(session: Session) -> None:
        after = {"path": str(path), "forgotten": summary(rows), "refused": True}
        audit.record(
            opened.mongo,
            opened.scope,
            session,
            "asset.refuse",
            "assets",
            opened.scope.project_id,
            after=after,
        )

    opened.mongo.in_transaction(body)
    note = by_name[rows[0]["tombstone"]]
    episodes = len({(row["tombstone"], row["ref"], row["episode"]) for row in rows if row["path"] is None})
    files = sorted({row["path"] for row in rows if row["path"] is not None})
    what = (
        f"{episodes} of its episodes were forgotten"
        if episodes
        else f"the bytes of {files[0]} were destroyed"
    )
    raise ForbiddenError(
        f"{path.name}: {what}; nothing was registered; {told(note)}; tombstone {rows[0]['tombstone']}",
        kind=ErrorKind.EPISODE_FORGOTTEN,
        hint=HINT,
    )


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an audit row and an asset keep of it."""
    return [dict(row) for row in rows[:_TOLD]]


def _listed(forgotten: Forgotten, path: Path) -> Iterator[dict[str, Any]]:
    if not is_package(path):
        return
    notes = forgotten.since(())
    rules = [rule.to_json() for rule in forgotten.matches()]
    try:
        found = run_child("emboflow_dagster.runtime.coming_back:found", str(path), rules, timeout_s=SECONDS)
    except EmboflowError:
        return  # it cannot be read, as whoever reads it will say
    for row in found:
        name = notes[row["rule"]][0]["name"].rpartition(":")[2]
        place = row["episode"] if isinstance(row["episode"], int) else None
        ref = None if place is None else f"episode {place}"
        yield {"tombstone": name, "episode": row["id"] or None, "ref": ref, "path": None}


def _same_bytes(opened: Opened, forgotten: Forgotten, path: Path) -> Iterator[dict[str, Any]]:
    gone = forgotten.destroyed(opened.mongo, opened.scope)
    sizes = {size for size, _ in gone.values() if size >= MIN_BYTES}
    if not sizes:
        return
    for file in walk(path) if path.is_dir() else [path]:
        if file.stat().st_size not in sizes:
            continue
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while piece := stream.read(_CHUNK):
                digest.update(piece)
        if (found := gone.get(digest.hexdigest())) is not None:
            name = file.name if file == path else file.relative_to(path).as_posix()
            yield {"tombstone": found[1], "episode": None, "ref": None, "path": shown(name)}
