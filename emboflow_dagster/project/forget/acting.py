"""Forgets episodes, in steps that each can be repeated: whoever is interrupted says it once more.

The intent comes first, so that it is finished although places of episodes have moved; then the successors,
one version a dataset; then everything that keeps the bytes lets go of them, in one transaction with the list
of what goes; then the bytes; and last the word that they are gone, with its row of the audit log.
"""

from collections.abc import Sequence
from typing import Any, Final

from emboflow_dagster.blobs.forgotten import reinstated, tombstones
from emboflow_dagster.errors import (
    ConflictError,
    ErrorKind,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
)
from emboflow_dagster.model.annotation import Annotation
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.collections import CACHE, META
from emboflow_dagster.model.dataset import Dataset, DatasetStatus, DatasetVersion, DatasetVersionStatus
from emboflow_dagster.mongo import audit, marks
from emboflow_dagster.mongo.client import Raw, Session, translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.marks import Mark, name_of
from emboflow_dagster.object_storage.payload import key_of
from emboflow_dagster.project.dataset_changes import Delete, Which
from emboflow_dagster.project.dataset_content import opened_content
from emboflow_dagster.project.dataset_edits import edit
from emboflow_dagster.project.forget import work
from emboflow_dagster.project.forget.destroying import destroy
from emboflow_dagster.project.forget.erasing import erase
from emboflow_dagster.project.forget.fence import fence
from emboflow_dagster.project.forget.matching import Match, chosen, copies, placed
from emboflow_dagster.project.forget.survey import Survey, survey
from emboflow_dagster.project.forget.tombstone import digest_of, kept_of, lists, shown, told_of
from emboflow_dagster.project.forget.widening import widened
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.digest import sha256_of

MAX_EPISODES: Final = 1000
#: How far it came.
BEGUN: Final = "begun"
LET_GO: Final = "let-go"
DESTROYED: Final = "destroyed"


class Forgetting:
    """What is to be forgotten in one project."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._mongo = opened.mongo
        self._scope = opened.scope
        self._datasets: Documents[Dataset] = Documents(opened.mongo, opened.scope, Dataset)
        self._versions: Documents[DatasetVersion] = Documents(opened.mongo, opened.scope, DatasetVersion)

    def forget(
        self,
        dataset: Dataset,
        base: DatasetVersion,
        episodes: Sequence[Which],
        *,
        reason: str,
        dry_run: bool,
        with_source: bool,
    ) -> dict[str, Any]:
        """The plan, or the tombstone; see :meth:`Datasets.forget`."""
        asked = {"datasetId": dataset.id, "episodes": list(episodes), "withSource": with_source}
        for note in self._unfinished():
            if dry_run and note["asked"] == asked:  # places have moved since: it is these that go on going
                return {"dryRun": True, "successors": [], **shown(note)}
            done = note if dry_run else self._finish(note)
            if note["asked"] == asked:
                return shown(done)
        if not episodes or len(episodes) > MAX_EPISODES:
            raise InvalidInputError(f"forget: 1 to {MAX_EPISODES} episodes are needed")
        try:
            with opened_content(self._opened, base) as content:
                fps = float(content.manifest["fps"])
                match, mine = chosen(content.episodes(), episodes, fps=fps)
        except InvalidInputError:
            known = self._known(dataset, episodes)
            if known is None:
                raise
            return shown(known)
        told = [told_of(entry, fps) for entry in mine]
        match = placed(self._opened, match, told)
        found = survey(self._opened, match, with_source=with_source)
        wider = widened(self._opened, match, found)
        if wider != match:
            match = wider
            found = survey(self._opened, match, with_source=with_source)
        self._refuse(found, with_source=with_source)
        note = {
            "asked": asked,
            "reason": reason,
            "by": self._scope.actor,
            "state": BEGUN,
            "match": match.to_json(),
            "episodes": told,
            **lists(found),
        }
        if dry_run:
            heads = {head.latest_version_id for head in self._datasets.find({}, limit=0)}
            return {
                "dryRun": True,
                "successors": [
                    {"datasetId": row["datasetId"], "of": row["versionTag"], "episodes": row["left"]}
                    for row in found.versions
                    if row["id"] in heads and row["left"]
                ],
                **{name: value for name, value in note.items() if name not in ("match", "state")},
            }
        # Named by what was asked: who was told that the note may not be kept says it again, and finds it.
        name = f"{self._scope.project_id}:fgt_{sha256_of({**asked, 'base': base.id})[:26]}"
        marks.once(self._mongo, Mark.FORGOTTEN, name, self._scope.workspace_id, **note)
        fence(self._opened)
        return shown(self._finish(self._read(f"{Mark.FORGOTTEN.value}:{name}")))

    def tombstones(self) -> list[dict[str, Any]]:
        """What was forgotten in the project, oldest first."""
        notes = tombstones(self._mongo, self._scope.workspace_id, self._scope.project_id)
        allowed = reinstated(self._mongo, self._scope.project_id)
        return [
            shown(note, allowed.get(note["name"]))
            for note in sorted(notes, key=lambda note: note["createdAt"])
        ]

    # ------------------------------------------------------------------------------------------ before

    def _unfinished(self) -> list[Raw]:
        notes = tombstones(self._mongo, self._scope.workspace_id, self._scope.project_id)
        return [note for note in notes if note["state"] != DESTROYED]

    def _known(self, dataset: Dataset, episodes: Sequence[Which]) -> Raw | None:
        """The tombstone of the same episodes: who did not hear that they were forgotten is told."""
        if any(isinstance(which, int) for which in episodes):
            return None
        for note in tombstones(self._mongo, self._scope.workspace_id, self._scope.project_id):
            same = note["asked"]["datasetId"] == dataset.id
            if same and set(episodes) <= {episode["id"] for episode in note["episodes"]}:
                return note
        return None

    def _refuse(self, found: Survey, *, with_source: bool) -> None:
        rows = (*found.versions, *found.artifacts, *found.annotations, *found.logs)
        objects = [row.get("objectId") for row in rows]
        objects += [row.get("objectId") for row in found.sources] if with_source else []
        for object_id in sorted({one for one in objects if one}):
            hold = marks.read(self._mongo, Mark.HOLD, object_id)
            if hold and hold.get("hold"):
                raise ForbiddenError(
                    f"{object_id}: under legal hold by {hold.get('by')}; nothing was forgotten",
                    kind=ErrorKind.LEGAL_HOLD,
                    hint="lift the hold first: `emboflow blob retain ID --no-hold`",
                )
        if not with_source:
            return
        for row in found.sources:
            if row["inPlace"]:
                raise InvalidInputError(
                    f"asset {row['name']}: was registered in place; nothing was forgotten",
                    hint="its file is not the store's: leave --with-source out and delete it yourself",
                )
            if not row["alone"]:
                raise ConflictError(
                    f"asset {row['name']}: other episodes come from it; nothing was forgotten",
                    hint="leave --with-source out, or forget those episodes too",
                )

    # ------------------------------------------------------------------------------------------- steps

    def _finish(self, note: Raw) -> Raw:
        """Bring a forgetting to its end from wherever it is."""
        match = Match.from_json(note["match"])
        if note["state"] == BEGUN:
            self._successors(note, match)
            note = self._let_go(note, match)
        if note["state"] == LET_GO:
            payloads = {row["sha256"]: row["size"] for row in note["payloads"]}
            old = frozenset(key_of(row["sha256"]) for row in note["oldManifests"])
            gone, kept, busy = destroy(self._opened, match, payloads, old)
            if busy:
                raise ConflictError(
                    f"{len(busy)} payloads are being written at this moment; the rest was destroyed",
                    hint="say it once more in a minute: it goes on where it is",
                )
            rows = (*note["artifacts"], *note["annotations"], *note["logs"])
            erase(self._mongo, [row for row in rows if row.get("sha256") and row["objectId"]])
            note = self._say(note, gone, kept)
        return note

    def _successors(self, note: Raw, match: Match) -> None:
        """A version without them for each dataset whose newest one has them."""
        match = match.knowing(copies(self._opened, {place.sha256 for place in match.places}))
        for dataset in self._datasets.find({"status": {"$ne": DatasetStatus.ARCHIVED.value}}, limit=0):
            head = self._versions.find_one({"_id": dataset.latest_version_id})
            if head is None or head.status is DatasetVersionStatus.WITHDRAWN:
                continue
            with opened_content(self._opened, head) as content:
                total = content.root.episodes
                fps = float(content.manifest["fps"])
                mine = [one.index for one in content.episodes() if match(one.entry, fps)]
            if mine and len(mine) < total:
                edit(self._opened, dataset, head, [Delete(mine)], [], reason=note["reason"], tag=None)

    def _let_go(self, note: Raw, match: Match) -> Raw:
        """Withdraw the versions, bury the rest, and say what goes, at once."""
        with_source = note["asked"]["withSource"]
        found = survey(self._opened, match, with_source=with_source)
        self._refuse(found, with_source=with_source)
        rows = (*found.artifacts, *found.annotations, *found.logs)
        buried = [row for row in rows if row.get("sha256")]
        if with_source:
            buried += [row for row in found.sources if row.get("sha256")]
        fields = {**lists(found), "state": LET_GO}

        def body(session: Session) -> None:
            for row in found.versions:
                self._withdraw(session, row["id"], note["reason"])
            self._bury(session, [row for row in buried if row["objectId"]], note)
            self._records(session, found, with_source=with_source)
            work.empty(self._opened, [row["id"] for row in found.tasks], session)
            with_id = {"_id": {"$in": found.cache}}
            self._mongo[CACHE].update_many(with_id, {"$unset": {"result": 1}}, session=session)
            self._mongo[META].update_one({"_id": note["_id"]}, {"$set": fields}, session=session)

        self._mongo.in_transaction(body)
        return {**note, **fields}

    def _withdraw(self, session: Session, version_id: str, reason: str) -> None:
        status = self._versions.get(version_id, session=session).status
        steps = {
            DatasetVersionStatus.AVAILABLE: ("dataset.deprecate", DatasetVersionStatus.DEPRECATED),
            DatasetVersionStatus.DEPRECATED: ("dataset.withdraw", DatasetVersionStatus.WITHDRAWN),
        }
        while status in steps:
            action, after = steps[status]
            expected = {"status": status.value}
            self._versions.change(version_id, {"status": after.value}, expected=expected, session=session)
            self._audited(session, action, "dataset_versions", version_id, expected, after.value, reason)
            status = after

    def _bury(self, session: Session, rows: list[dict[str, Any]], note: Raw) -> None:
        now = utc_now()
        for row in rows:
            name = name_of(row["objectId"], row["version"])
            gone = [f"{kind.value}:{name}" for kind in (Mark.RELEASE, Mark.QUARANTINE)]
            self._mongo[META].delete_many({"_id": {"$in": gone}}, session=session)
            said = {"why": f"forgotten: {note['reason']}", "by": note["by"], "releasedAt": now}
            said |= {"releasedBy": note["by"], "rule": "forgotten"}
            said |= {"sha256": row["sha256"], "size": row["size"]}
            marks.write(self._mongo, Mark.TOMBSTONE, name, self._scope.workspace_id, session, **said)

    def _records(self, session: Session, found: Survey, *, with_source: bool) -> None:
        annotations: Documents[Annotation] = Documents(self._mongo, self._scope, Annotation)
        for row in found.annotations:
            before = annotations.get(row["id"], session=session)
            if before.status.value == "rejected" and (row.get("sha256") or not before.payload):
                continue
            fields: dict[str, Any] = {"status": "rejected", "updatedAt": utc_now()}
            if not row.get("sha256"):
                fields["payload"] = {}
            annotations.change(row["id"], fields, session=session)
            said = {"status": before.status.value}
            self._audited(session, "annotation.reject", "annotations", row["id"], said, "rejected", None)
        assets: Documents[Asset] = Documents(self._mongo, self._scope, Asset)
        for row in found.sources if with_source else []:
            before = assets.get(row["id"], session=session)
            if before.status.value != "archived":
                assets.change(row["id"], {"status": "archived", "updatedAt": utc_now()}, session=session)
                said = {"status": before.status.value}
                self._audited(session, "asset.archive", "assets", row["id"], said, "archived", None)

    def _audited(
        self,
        session: Session,
        action: str,
        collection: str,
        id_: str,
        before: dict[str, Any],
        after: str,
        reason: str | None,
    ) -> None:
        said = {"status": after, **({"reason": reason} if reason else {})}
        audit.record(self._mongo, self._scope, session, action, collection, id_, before=before, after=said)

    def _say(self, note: Raw, gone: list[str], kept: list[str]) -> Raw:
        """The tombstone as it stays, and its hash in the audit log's chain."""
        sizes = {row["sha256"]: row["size"] for row in note["payloads"]}
        done = {
            "state": DESTROYED,
            "destroyedAt": utc_now(),
            "payloads": [
                *({"sha256": sha, "size": sizes[sha]} for sha in gone),
                *({"sha256": sha, "size": sizes[sha], "keptBy": "something else"} for sha in kept),
            ],
            "destroyed": {"payloads": len(gone), "bytes": sum(sizes[sha] for sha in gone)},
        }
        done["kept"] = kept_of({**note, **done})
        final = {**note, **done}
        final["digest"] = digest_of(final)
        told = {
            "forgotten": note["name"].rpartition(":")[2],
            "episodes": len(note["episodes"]),
            "versions": len(note["versions"]),
            "artifacts": len(note["artifacts"]),
            "tasks": len(note.get("tasks", ())),
            "payloads": len(gone),
            "tombstone": final["digest"],
            "reason": note["reason"],
        }

        def body(session: Session) -> None:
            expected = {"_id": note["_id"], "state": LET_GO}
            fields = {**done, "digest": final["digest"]}
            changed = self._mongo[META].update_one(expected, {"$set": fields}, session=session)
            if changed.modified_count:
                dataset = note["asked"]["datasetId"]
                audit.record(
                    self._mongo, self._scope, session, "dataset.forget", "datasets", dataset, after=told
                )

        self._mongo.in_transaction(body)
        return self._read(note["_id"])

    def _read(self, id_: str) -> Raw:
        with translated():
            found = self._mongo[META].find_one({"_id": id_})
        if found is None:
            raise NotFoundError(f"the tombstone {id_} is gone")
        return found
