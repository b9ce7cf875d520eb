"""Raw assets: registered once, probed as often as one likes."""

import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from emboflow_dagster.blobs.forgotten_place import Place
from emboflow_dagster.errors import (
    AlreadyExistsError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    Problem,
    shown,
)
from emboflow_dagster.model.asset import Asset, AssetProbeReport, AssetSourceType, AssetStatus, AssetType
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.storage import PATH_BUCKET, StorageRef
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project import reimport
from emboflow_dagster.project.asset_files import Progress, Taken, take, view
from emboflow_dagster.project.lookup import by_id_or_name
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.prefix_files import prefix_view
from emboflow_dagster.project.prefixes import prefix_url, probe_prefix, take_prefix
from emboflow_dagster.project.selection import Selection
from emboflow_dagster.project.settings import full_path
from emboflow_dagster.runtime.child import run_child
from emboflow_dagster.runtime.forgotten import HOLDS, Forgotten
from emboflow_dagster.runtime.in_child import probe_safely
from emboflow_dagster.runtime.node import ChildCall
from emboflow_dagster.runtime.outputs import add_probe_report
from emboflow_dagster.runtime.probe_report import newest_report_ids, store_probe

PROBE_TIMEOUT_S = 900
PROBE_MEMORY_MB = 3072
RECOVER_TIMEOUT_S = 4 * 3600


class Assets:
    """The raw assets of one project."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.documents: Documents[Asset] = Documents(opened.mongo, opened.scope, Asset)
        self._reports: Documents[AssetProbeReport] = Documents(opened.mongo, opened.scope, AssetProbeReport)

    def register(
        self,
        path: Path | str,
        *,
        type: str,  # noqa: A002 - the contract's word
        name: str | None = None,
        in_place: bool = False,
        without_forgotten: bool = False,
        progress: Progress | None = None,
    ) -> Asset:
        """Take a file or folder in as an asset.

        Args:
            path: A file or a folder; ``s3://bucket/prefix`` with the type ``object_storage_prefix``, whose
                objects stay where they are.
            type: One of the eight asset types.
            name: Display name; the file's own when omitted.
            in_place: Leave the bytes where they are; they are hashed now and checked whenever used.
            without_forgotten: Take it although it has episodes that were forgotten: no run makes them of it.
            progress: Called with files and bytes done.

        Returns:
            The asset; the existing one when the same content has that name already.

        Raises:
            InvalidInputError: Unknown type, bad name, something that cannot be read, or a folder with links
                or EMBOFLOW_HOME in it.
            NotFoundError: Nothing at ``path``.
            AlreadyExistsError: ``name`` is taken by other content.
            ForbiddenError: It has episodes that were forgotten (kind ``episode-forgotten``).
        """
        kind = _type(type)
        url = prefix_url(path)
        if url is not None and kind is AssetType.OBJECT_STORAGE_PREFIX:
            with self._opened.blobs.writing():
                taken = take_prefix(self._opened.blobs, url, progress=progress)
                return self._record(taken, kind, url, name, of=AssetSourceType.OBJECT_STORAGE)
        source = full_path(path)
        self._refuse_home(source)
        known = reimport.look(self._opened, source)
        if known and not without_forgotten:
            reimport.refuse(self._opened, source, known)
        with self._opened.blobs.writing():  # from the first file on to the asset that names it
            taken = take(self._opened.blobs, source, in_place=in_place, progress=progress)
            of = AssetSourceType.REGISTERED_PATH if in_place else AssetSourceType.UPLOAD
            return self._record(taken, kind, source, name, of=of, forgotten=reimport.summary(known))

    def _record(
        self,
        taken: Taken,
        kind: AssetType,
        source: Path | str,
        name: str | None,
        *,
        of: AssetSourceType,
        forgotten: Sequence[dict[str, Any]] = (),
    ) -> Asset:
        wanted = name or PurePosixPath(source).name
        draft = {
            "workspace_id": self._opened.scope.workspace_id,
            "project_id": self._opened.scope.project_id,
            "type": kind,
            "source_type": of,
            "size_bytes": taken.size,
            "file_count": taken.files,
            "top_level_paths": taken.top_level,
            "summary": {"sourcePath": str(source), **({HOLDS: list(forgotten)} if forgotten else {})},
            "created_by": self._opened.scope.actor,
        }

        def body(session: Session) -> Asset:
            # Looked up in the transaction: every registration also writes the audit log's head, so of two
            # at once the later one conflicts there, starts over, and finds the other's asset.
            known = self._known(wanted, kind, source, taken.ref, session, chosen=name is not None)
            if known is not None:
                return known
            now = utc_now()
            asset = Asset.checked(
                **draft,
                id=new_id("ast"),
                display_name=wanted if name is not None else self._free(wanted, session),
                storage_ref=taken.ref,
                created_at=now,
                updated_at=now,
            )
            return self._insert(asset, session)

        return self._opened.mongo.in_transaction(body)

    def _refuse_home(self, source: Path) -> None:
        home = self._opened.settings.home
        if home.resolve().is_relative_to(os.path.realpath(source)):  # Path.resolve raises on a link to itself
            raise InvalidInputError(
                f"{source}: EMBOFLOW_HOME ({home}) is in it, where everything registered is kept",
                kind=ErrorKind.PATH_RESERVED,
                hint="register the folder of the recordings alone",
            )

    def _known(
        self,
        name: str,
        kind: AssetType,
        source: Path | str,
        ref: StorageRef,
        session: Session,
        *,
        chosen: bool,
    ) -> Asset | None:
        same = {"storageRef.checksum": ref.checksum}
        twin = self.documents.find_one({"displayName": name, **same, "type": kind.value}, session=session)
        if twin is not None:
            return twin
        if self.documents.find_one({"displayName": name}, session=session) is None:
            return None
        if chosen:
            raise AlreadyExistsError(
                f"asset {shown(name)}: other content has that name", hint="choose another --name"
            )
        return self.documents.find_one({"summary.sourcePath": str(source), **same}, session=session)

    def _insert(self, asset: Asset, session: Session) -> Asset:
        opened, ref = self._opened, asset.storage_ref
        if ref.bucket != PATH_BUCKET:
            ref = opened.blobs.record_owned(
                ref, session, type="input_file", record="assets", field="storageRef", record_id=asset.id
            )
            asset = asset.model_copy(update={"storage_ref": ref})
        self.documents.insert(asset, session=session)
        after = {"name": asset.display_name, "type": asset.type.value, "checksum": ref.checksum}
        if held := (asset.summary or {}).get(HOLDS):
            after[HOLDS] = held
        audit.record(opened.mongo, opened.scope, session, "asset.register", "assets", asset.id, after=after)
        return asset

    def _free(self, name: str, session: Session) -> str:
        for number in range(1, 10_000):
            candidate = name if number == 1 else f"{name} ({number})"
            if self.documents.find_one({"displayName": candidate}, session=session) is None:
                return candidate
        raise AlreadyExistsError(f"asset {shown(name)}: ten thousand have that name", hint="choose a --name")

    def get(self, asset: str) -> Asset:
        """An asset by id or name.

        Raises:
            NotFoundError: There is none in this project.
        """
        return by_id_or_name(self.documents, asset, "displayName", what="asset")

    def reports(self, asset: str, *, limit: int = 100) -> list[AssetProbeReport]:
        """An asset's probe reports, newest first."""
        found = self.get(asset)
        return self._reports.find({"assetId": found.id}, sort=[("reportVersion", -1)], limit=limit)

    def latest_report(self, asset: Asset) -> AssetProbeReport | None:
        """The newest probe report, or ``None``."""
        rows = self._reports.find({"assetId": asset.id}, sort=[("reportVersion", -1)], limit=1)
        return rows[0] if rows else None

    def latest_reports(self, asset_ids: Sequence[str]) -> dict[str, AssetProbeReport]:
        """Asset id to its newest probe report; assets without one are left out."""
        ids = newest_report_ids(self._opened.mongo, asset_ids)
        found = self._reports.find({"_id": {"$in": list(ids.values())}}, limit=0)
        return {report.asset_id: report for report in found}

    @contextmanager
    def path(self, asset: Asset, *, say: Callable[[str], None] = lambda _text: None) -> Iterator[Path]:
        """The asset's verified bytes as a read-only path, for the time of the block.

        The objects of a prefix are brought from where they are, each as it was when it was listed.

        Args:
            asset: Which.
            say: Takes a text now and then: how many of a prefix have come.

        Raises:
            IntegrityError: A byte is missing or differs; an object changed (kind ``object-changed``).
            LimitError: A prefix is larger than ``EMBOFLOW_PREFIX_MAX_BYTES``.
        """
        blobs, settings = self._opened.blobs, self._opened.settings
        scratch = settings.home / "work"
        if asset.source_type == AssetSourceType.OBJECT_STORAGE:
            how = {"max_bytes": settings.prefix_max_bytes, "say": say}
            with prefix_view(blobs, asset, scratch, **how) as path:
                yield path
            return
        with view(blobs, asset, scratch) as path:
            yield path

    def forgotten(
        self, assets: Sequence[Asset]
    ) -> tuple[dict[str, list[Place]], list[list[Any]], frozenset[str]]:
        """Where in some assets episodes are that were forgotten, their numbers, and the tombstones.

        Assets without any are left out; numbers and tombstones are all of the project.
        """
        found = Forgotten(self._opened.mongo, self._opened.scope)
        places = {asset.id: places for asset in assets if (places := found.places(asset))} if found else {}
        return places, found.traces(), found.names

    def probe_there(
        self, asset: Asset, child: ChildCall, *, timeout_s: float, memory_mb: int | None = None
    ) -> dict[str, Any]:
        """What :func:`~emboflow_dagster.project.prefixes.probe_prefix` says of a prefix, as JSON."""
        return probe_prefix(
            self._opened.blobs,
            asset,
            child=child,
            timeout_s=timeout_s,
            memory_mb=PROBE_MEMORY_MB if memory_mb is None else memory_mb,
        )

    def probe(self, asset: str, *, progress: Callable[[str], None] | None = None) -> AssetProbeReport:
        """Look into an asset and append what was found.

        The parser runs in a child process with limits: a file that breaks it gives a report with a
        warning, never an error of ours. Interrupted, it ends the child and leaves nothing behind.

        Args:
            asset: Its id or name.
            progress: Takes a text about every second: how much was read.

        Raises:
            NotFoundError: There is no such asset.
            IntegrityError: Its bytes are gone or changed.
        """
        found = self.get(asset)
        # The status moves with the report only: nobody would take a `probing` back that a kill left.
        try:
            if found.source_type == AssetSourceType.OBJECT_STORAGE:
                return self._reported(found, self.probe_there(found, run_child, timeout_s=PROBE_TIMEOUT_S))
            with self.path(found) as path:
                probe = probe_safely(
                    functools.partial(run_child, on_log=progress),
                    path,
                    found.type.value,
                    timeout_s=PROBE_TIMEOUT_S,
                    memory_mb=PROBE_MEMORY_MB,
                    tell_every=None if progress is None else 1.0,
                )
        except (IntegrityError, InvalidInputError):
            self.documents.change(found.id, {"status": AssetStatus.FAILED.value, "updatedAt": utc_now()})
            raise
        return self._reported(found, probe)

    def _reported(self, found: Asset, probe: dict[str, Any]) -> AssetProbeReport:
        opened = self._opened
        kept = store_probe(opened.blobs, probe)

        def body(session: Session) -> AssetProbeReport:
            report = add_probe_report(opened.mongo, opened.scope, session, found.id, kept)
            after = {"reportVersion": report.report_version, "format": report.format}
            audit.record(opened.mongo, opened.scope, session, "asset.probe", "assets", found.id, after=after)
            return report

        return opened.mongo.in_transaction(body)

    def recover(
        self, asset: str, output: Path | str, *, progress: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Write all that can be read of a damaged recording to a new file (or folder, where it is one).

        Done in a child process, which reads its output again and compares every message.

        Args:
            asset: Its id or name.
            output: Where the whole recording goes; nothing may be there. Nothing is left of a failure.
            progress: Takes a text now and then.

        Returns:
            As :func:`emboflow_dagster.formats.recover.recover_recording`; ``path`` is where it was written,
            or ``None`` where the recording is whole and nothing was written.

        Raises:
            NotFoundError: There is no such asset, or no folder for the output.
            AlreadyExistsError: Something is at ``output``.
            InvalidInputError: It is no recording, or nothing in it can be read.
            IntegrityError: The copy does not hold what was read.
        """
        found, target = self.get(asset), full_path(output)
        if os.path.lexists(target):
            raise AlreadyExistsError(f"{target}: something is there", hint="choose another output")
        if not target.parent.is_dir():
            raise NotFoundError(f"{target.parent}: there is no such folder")
        with (
            self.path(found) as path,
            tempfile.TemporaryDirectory(prefix=".emboflow-recover-", dir=target.parent) as folder,
        ):
            result = run_child(
                "emboflow_dagster.runtime.in_child:recover",
                str(path),
                folder,
                timeout_s=RECOVER_TIMEOUT_S,
                memory_mb=PROBE_MEMORY_MB,
                on_log=progress,
            )
            if result["path"] is not None:
                Path(folder, result["path"]).rename(target)
        return {**result, "path": None if result["path"] is None else str(target)}

    def named(self, entries: Sequence[str]) -> list[Asset]:
        """The assets that names, ids and selectors stand for, each once, in the order named.

        Args:
            entries: They; ``type=rosbag,status=registered`` is a selector.

        Raises:
            NotFoundError: A name that no asset has, or a selector that no asset matches.
            InvalidInputError: A selector that is none (kind ``selector``).
        """
        ids = Selection(self._opened).named(entries, at=utc_now())
        return [self.get(asset_id) for asset_id in ids]

    def list(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the contract's word
        status: str | None = None,
        limit: int = 100,
    ) -> list[Asset]:
        """Assets, newest first."""
        filter_: dict[str, Any] = {}
        if type is not None:
            filter_["type"] = _type(type).value
        if status is not None:
            filter_["status"] = status
        return self.documents.find(filter_, limit=limit)


def _type(text: str) -> AssetType:
    try:
        return AssetType(text)
    except ValueError:
        allowed = ", ".join(t.value for t in AssetType)
        raise InvalidInputError.of(
            [Problem(ErrorKind.INVALID_INPUT, "type", f"found {shown(text)}; allowed are {allowed}")]
        ) from None
