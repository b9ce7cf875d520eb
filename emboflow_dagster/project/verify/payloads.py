"""Every version's bytes are there and hash to what is recorded (I1, I5)."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

from emboflow_dagster.blobs.examine import (
    UNREADABLE,
    Content,
    Damage,
    address,
    elsewhere,
    is_folder,
    judged,
    look,
    no_folder,
    of_version,
    parts,
)
from emboflow_dagster.blobs.forgotten import forgotten_payloads
from emboflow_dagster.blobs.homes import Homes
from emboflow_dagster.blobs.pages import FOLDER
from emboflow_dagster.blobs.quarantine import SET_ASIDE, Quarantine, described
from emboflow_dagster.errors import EmboflowError, ErrorKind, IntegrityError
from emboflow_dagster.model.asset import Asset, AssetSourceType
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.mongo import marks
from emboflow_dagster.mongo.client import Raw
from emboflow_dagster.mongo.marks import Mark
from emboflow_dagster.project.asset_files import check_in_place
from emboflow_dagster.project.verify.pool import in_order, threads
from emboflow_dagster.project.verify.progress import BEGINNING, UNLIMITED, Budget, Position, Progress
from emboflow_dagster.project.verify.report import VerifyReport, View
from emboflow_dagster.project.verify.walk import IN_PLACE, STORED, Item, Row, items

Tick = Callable[[int, int], None]
#: Sound payloads that are remembered, so that what many folders share is read once.
_REMEMBERED: Final = 200_000


def check_payloads(
    view: View,
    report: VerifyReport,
    progress: Progress,
    *,
    start: Position = BEGINNING,
    known: int = 0,
    budget: Budget = UNLIMITED,
    quarantine: bool = True,
    workers: int | None = None,
    tick: Tick | None = None,
) -> bool:
    """Read and hash every payload once, also those that listings and manifests name.

    Args:
        view: What to look through.
        report: Where findings go.
        progress: Told how far it came.
        start: Where to go on.
        known: So many of the report's problems are not about payloads.
        budget: When to stop before the end.
        quarantine: Set aside what is damaged.
        workers: Threads that read; one a core by default.
        tick: Called with payloads and bytes read so far.

    Returns:
        Whether it came to the end.
    """
    until = None if budget.max_seconds is None else time.monotonic() + budget.max_seconds
    enough = None if budget.max_bytes is None else report.counts["bytes"] + budget.max_bytes
    position = start
    width = threads(workers)
    with ThreadPoolExecutor(width, thread_name_prefix="verify") as pool:
        payloads = Payloads(view, report, pool, width, set_aside=quarantine, tick=tick)
        walked = in_order(pool, width, payloads.read, items(view, start, budget.since))
        for item, result in walked:
            payloads.judge(item, result)
            position = item.position
            over = (enough is not None and report.counts["bytes"] >= enough) or (
                until is not None and time.monotonic() >= until
            )
            if over:
                progress.save(position, report, known)
                pool.shutdown(wait=False, cancel_futures=True)  # what was to come is not read
                return False
            progress.came_to(position, report, known)
    return True


class Payloads:
    """Looks at each payload once and says what is wrong with it for every version that needs it."""

    def __init__(
        self,
        view: View,
        report: VerifyReport,
        pool: ThreadPoolExecutor,
        width: int,
        *,
        set_aside: bool,
        tick: Tick | None,
    ) -> None:
        self._view = view
        self._report = report
        self._pool = pool
        self._width = width
        self._set_aside = set_aside
        self._tick = tick
        self._homes = Homes(view.mongo, view.store, view.workspace_id, allow_gridfs=True)
        self._sound: dict[str, int] = {}
        self._wrong: dict[str, Content | None] = {}
        self._whole: set[str] = set()
        """Pages of dataset versions with nothing wrong below them: versions share them."""
        space = None if view.everything else view.workspace_id
        self._notes = {row["name"]: row for row in marks.every(view.mongo, Mark.QUARANTINE, "", space)}
        self._gone = {row["name"] for row in marks.every(view.mongo, Mark.TOMBSTONE, "", space)}
        self._forgotten = forgotten_payloads(view.mongo, space)
        self._quarantines: dict[str, Quarantine] = {}
        rows = view.sound("assets", {"sourceType": 1, "storageRef.objectId": 1})
        self._in_place_listings = {
            row["storageRef"].get("objectId")
            for row in rows
            if row["sourceType"] == AssetSourceType.REGISTERED_PATH.value
        }

    # ------------------------------------------------------------------------- in any thread: reading

    def read(self, item: Item) -> Any:
        """What is in an item's place; failures of the store are a result too."""
        if item.stage == STORED:
            return self._look(item.at)
        if item.stage == IN_PLACE:
            return self._in_place(item.rows[0])
        return [self._elsewhere(row) for row in item.rows]

    def _look(self, key: str) -> Content | EmboflowError | None:
        size = self._sound.get(key)
        if size is not None:
            return Content(str(address(key)), size)
        try:
            return self._wrong[key] if key in self._wrong else look(self._view.store, key)
        except EmboflowError as error:
            return error

    def _elsewhere(self, row: Row) -> Damage | None:
        blob = _blob(row.raw)
        if not isinstance(blob, BlobObject) or not blob.completed or self._collected(blob):
            return None
        return elsewhere(self._homes, blob)

    def _in_place(self, row: Row) -> list[IntegrityError]:
        try:
            return list(check_in_place(self._view.blobs, Asset.from_mongo(row.raw)))
        except UNREADABLE:  # its listing, reported with the blob
            return []

    # -------------------------------------------------------------------- in one thread: judging

    def judge(self, item: Item, result: Any) -> None:
        """Findings of one item, and what follows from them."""
        if item.stage == IN_PLACE:
            self._count(item.rows[0].raw.get("sizeBytes", 0))
            for error in result:
                self._report.add(error.kind.value, "assets", item.at, "storageRef", error.message)
            return
        if item.stage == STORED:
            self._stored(item, result)
            return
        for row, damage in zip(item.rows, result, strict=True):
            blob = self._readable(row)
            if blob is not None:
                self._count(blob.size)
                self._said(row, blob, [damage] if damage else [])

    def _stored(self, item: Item, found: Content | EmboflowError | None) -> None:
        versions = [(row, blob) for row in item.rows if (blob := self._readable(row)) is not None]
        if not versions:
            return
        self._remember(item.at, found)
        inner: dict[tuple[str, str], list[Damage]] = {}
        for row, blob in versions:
            ref = blob.storage_ref
            if ref is None:
                continue
            if isinstance(found, EmboflowError):
                said = Content(ref.sha256, ref.size)
                kind = found.kind if isinstance(found, IntegrityError) else ErrorKind.UNAVAILABLE
                self._said(row, blob, [Damage(kind, "storage_ref", found.message, said)])
                continue
            wrong = list(of_version(blob, ref, found))
            if not wrong and is_folder(ref.content_type) and blob.object_id not in self._in_place_listings:
                what = (ref.content_type, ref.checksum)
                if what not in inner:
                    inner[what] = self._parts(ref)
                wrong = inner[what]
            self._said(row, blob, wrong)

    def _parts(self, ref: StorageRef) -> list[Damage]:
        """What is wrong with the files of a folder or dataset version, read by all threads."""
        damages: list[Damage] = []
        try:
            walked: list[str] = []
            named = self._new_parts(ref, walked)
            for (path, inner), found in in_order(self._pool, self._width, self._part, named):
                self._remember(inner.key, found)
                if found is None and inner.sha256 in self._forgotten:
                    self._report.counts["forgotten"] += 1
                    continue
                if isinstance(found, EmboflowError):
                    said = Content(inner.sha256, inner.size)
                    text = f"{path}: {found.message}"
                    damages.append(Damage(ErrorKind.UNAVAILABLE, "storage_ref", text, said, None, inner.key))
                    continue
                damage = judged(Content(inner.sha256, inner.size), found, key=inner.key, part=path)
                if damage is not None:
                    damages.append(damage)
            if not damages and len(self._whole) < _REMEMBERED:
                self._whole.update(walked)
        except UNREADABLE as error:
            damages.append(no_folder(ref, error))
        return damages

    def _new_parts(self, ref: StorageRef, walked: list[str]) -> Iterator[tuple[str, StorageRef]]:
        """The files that are not known to be sound; pages of a tree are told to ``walked``."""
        for path, inner in parts(self._view.store, ref, skip=self._whole.__contains__):
            if path.startswith(f"{FOLDER}/"):
                walked.append(inner.sha256)
            if self._sound.get(inner.key) != inner.size or address(inner.key) != inner.sha256:
                yield path, inner

    def _part(self, named: tuple[str, StorageRef]) -> Content | EmboflowError | None:
        return self._look(named[1].key)

    def _remember(self, key: str, found: Content | EmboflowError | None) -> None:
        if key in self._sound or key in self._wrong:
            return
        self._count(found.size if isinstance(found, Content) else 0)
        if isinstance(found, Content) and found.sha256 == address(key):
            self._sound[key] = found.size
            if len(self._sound) > _REMEMBERED:  # the oldest half goes: read again, should it come again
                for old in list(self._sound)[: _REMEMBERED // 2]:
                    del self._sound[old]
        elif not isinstance(found, EmboflowError) and len(self._wrong) < _REMEMBERED:
            self._wrong[key] = found

    # ------------------------------------------------------------------------------------ versions

    def _readable(self, row: Row) -> BlobObject | None:
        """The version, when there should be bytes: not announced only, not collected on purpose."""
        blob = _blob(row.raw)
        if not isinstance(blob, BlobObject):
            field = "tail" if row.outbox else None
            self._report.add("document-invalid", row.collection, row.id, field, str(blob))
            return None
        if self._collected(blob):
            self._report.counts["collected"] += 1
            return None
        return blob if blob.completed else None

    def _collected(self, blob: BlobObject) -> bool:
        return marks.name_of(blob.object_id, blob.version) in self._gone

    def _said(self, row: Row, blob: BlobObject, damages: list[Damage]) -> None:
        name = marks.name_of(blob.object_id, blob.version)
        text = f"{blob.object_id} version {blob.version}"
        for damage in damages:
            message = damage.message if damage.message.startswith(text) else f"{text}: {damage.message}"
            self._report.add(damage.code.value, row.collection, row.id, damage.field, message)
        note = self._notes.get(name)
        if note is not None:
            self._report.counts["quarantined"] += 1
            if not damages:
                field = "storage_ref" if blob.storage_ref else "data"
                message = (
                    f"{text}: quarantined since {note['seenAt']:%Y-%m-%d %H:%M} UTC ({described(note)}), but "
                    f"its bytes are right: `emboflow blob repair {blob.object_id} --version {blob.version}`"
                )
                self._report.add("blob-quarantined", row.collection, row.id, field, message)
        if self._report.sound is not None and not damages:
            self._report.sound.add(name)
        if self._set_aside and note is None:
            worst = next((damage for damage in damages if damage.code in SET_ASIDE), None)
            if worst is not None and self._quarantine(blob.workspace_id).note(blob, worst):
                self._report.counts["quarantined"] += 1

    def _quarantine(self, workspace_id: str) -> Quarantine:
        if workspace_id not in self._quarantines:
            scope = replace(self._view.scope, workspace_id=workspace_id)
            self._quarantines[workspace_id] = Quarantine(self._view.mongo, scope)
        return self._quarantines[workspace_id]

    def _count(self, size: int) -> None:
        """One more payload of so many bytes."""
        self._report.counts["payloads"] += 1
        self._report.counts["bytes"] += size
        if self._tick:
            self._tick(self._report.counts["payloads"], self._report.counts["bytes"])


def _blob(raw: Raw) -> BlobObject | Exception:
    try:
        return BlobObject.from_mongo(raw)
    except UNREADABLE as error:
        return error
