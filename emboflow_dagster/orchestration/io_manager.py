"""``BlobIOManager``: what assets return becomes versioned, hashed blobs.

The blob of an asset is named after its key, never after the run: a materialisation with other bytes is
the next version, one with the same bytes is no new version and keeps everything downstream fresh.
"""

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import dagster as dg
from pydantic import Field

from emboflow_dagster.blobs import listing
from emboflow_dagster.errors import EmboflowError, IntegrityError, InvalidInputError, NotFoundError, shown
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.model.storage import LISTING_TYPE, StorageRef
from emboflow_dagster.orchestration import (
    checks,
    handles,
    io_lineage,
    io_names,
    io_page,
    io_partitions,
    keys,
    retention,
    steps,
)
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.payloads.handler import Draft, Stored
from emboflow_dagster.orchestration.payloads.routing import Handlers
from emboflow_dagster.orchestration.payloads.values import admits_none, plain_of
from emboflow_dagster.orchestration.resources import (
    EmboFlowResource,
    MongoResource,
    ObjectStoreResource,
    OpenHandle,
)
from emboflow_dagster.project.handle import EmboFlow

_SHOWN_MISSING: Final = 5


class BlobIOManager(dg.ConfigurableIOManagerFactory):
    """Stores what assets and ops return as blobs of a project, and loads them again.

    Stored are pandas, Arrow and polars tables, numpy arrays and dicts of them, dicts, lists, numbers, models
    and dataclasses (JSON), text, bytes, files and folders (``Path``), open binary files, and the types of
    ``handlers``.
    An input reads the newest version, or the one it is pinned to: in code by
    ``AssetIn(metadata={"emboflow/version": 3})``, in the launchpad by ``pins``. See ``docs/io-manager.md``.
    """

    mongo: MongoResource
    object_store: ObjectStoreResource
    workspace: str | None = Field(
        default=None, description="Workspace of assets whose key names none. Empty: EMBOFLOW_WORKSPACE."
    )
    project: str | None = Field(
        default=None, description="Project of assets whose key names none. Empty: EMBOFLOW_PROJECT."
    )
    pins: dict[str, int] = Field(
        default_factory=dict,
        description="Asset key, parts joined by '/', or key@partition, to the version to load.",
    )
    format: str = Field(default="parquet", description="What tables are written as: parquet or arrow.")
    home: str = Field(
        default=StorageType.OBJECT_STORE.value,
        description="Where payloads go: object_store, in_object (at most 256 KiB) or gridfs (where allowed).",
    )
    preview_rows: int = Field(
        default=10, description="Rows that the asset page shows. 0: no values in Dagster's event log."
    )
    handlers: list[str] = Field(
        default_factory=list,
        description="Handlers for types of your own, as module:name; asked before the built-in ones.",
    )
    allow_pickle: list[str] = Field(
        default_factory=list,
        description="Globals, as module.name, that a pickle may hold. Empty: nothing is pickled.",
    )

    def __init__(self, **values: Any) -> None:
        # Dagster takes no default for a nested resource.
        super().__init__(**{"mongo": MongoResource(), "object_store": ObjectStoreResource(), **values})

    def create_io_manager(self, context: object) -> "BlobIO":
        """The manager that Dagster calls."""
        del context
        return BlobIO(
            EmboFlowResource(mongo=self.mongo, object_store=self.object_store),
            workspace=self.workspace,
            project=self.project,
            pins=self.pins,
            handlers=Handlers.configured(self.handlers, self.allow_pickle),
            format=self.format,
            home=self.home,
            preview_rows=self.preview_rows,
        )


class _Put(NamedTuple):
    blob: BlobObject
    unchanged: bool
    metadata: dict[str, Any]


class BlobIO(dg.IOManager):
    """The IO manager itself; see :class:`BlobIOManager`."""

    def __init__(
        self,
        opener: EmboFlowResource | OpenHandle,
        *,
        workspace: str | None = None,
        project: str | None = None,
        pins: Mapping[str, int] | None = None,
        handlers: Handlers | None = None,
        format: str = "parquet",  # noqa: A002 - the word of the configuration
        home: str = StorageType.OBJECT_STORE.value,
        preview_rows: int = 10,
    ) -> None:
        self._opener: Final = opener
        self._workspace: Final = workspace
        self._project: Final = project
        self._pins: Final = dict(pins or {})
        self._handlers: Final = handlers or Handlers()
        self._defaults: Final = {
            io_names.FORMAT: format,
            io_names.HOME: home,
            io_names.PREVIEW_ROWS: preview_rows,
        }
        self._folder: Path | None = None

    # ---------------------------------------------------------------------------------------- output

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store a value as the next version of its blob; a dict by partition key where there are several.

        Raises:
            Failure: Its type is not known, or it could not be stored.
        """
        partitions = io_partitions.partitions_of(context)
        try:
            if obj is None and context.has_asset_key:
                # The step stored what it made itself, or made nothing.
                context.add_output_metadata({"stored": io_partitions.NOTHING})
                return
            with self._open(context) as ef:
                if partitions is not None and len(partitions) > 1:
                    self._store_each(ef, context, obj, partitions)
                    return
                put = self._store(ef, context, obj, partitions[0] if partitions else None)
        except EmboflowError as error:
            raise steps.failure(error) from error
        context.add_output_metadata(put.metadata)
        if context.has_asset_key:
            set_data_version(context, put.blob.sha256)

    def _store(self, ef: EmboFlow, context: dg.OutputContext, obj: object, partition: str | None) -> _Put:
        """The one place where a value becomes a version: what is to happen with each belongs here."""
        options = {**self._defaults, **io_names.metadata_of(context)}
        object_id = io_names.object_id_of(context, _place(ef), partition)
        lineage = io_lineage.lineage_of(context, partition)
        if context.has_asset_key:
            io_lineage.check_same_place(_newest(ef, object_id), lineage)

        def put_folder(folder: Path) -> bytes:
            return listing.write_listing(listing.put_folder(ef.blobs, folder))

        draft = Draft(
            format=str(options[io_names.FORMAT]),
            preview_rows=_count(options[io_names.PREVIEW_ROWS]),
            put_folder=put_folder,
        )
        with draft, ef.blobs.writing():  # from the first file of a folder on to the version that names it
            payload = self._handlers.dump(obj, draft)
            # The files of a folder are in the object store, and their listing says so by being there too.
            folder = payload.content_type == LISTING_TYPE
            blob = ef.blobs.put(
                payload.source,
                object_id=object_id,
                type="dagster_asset" if context.has_asset_key else "dagster_output",
                content_type=payload.content_type,
                serializer=payload.serializer,
                home=StorageType.OBJECT_STORE if folder else str(options[io_names.HOME]),
                custom_metadata={"lineage": lineage} | ({"name": payload.name} if payload.name else {}),
                by_content=True,
            )
        retention.keep(ef, blob.object_id, context.definition_metadata)
        # Equal bytes leave the version as it was made first, by another run or attempt.
        unchanged = blob.custom_metadata.get("lineage") != lineage
        metadata = io_page.output_metadata(
            blob,
            payload.facts,
            io_lineage.upstream_of(context),
            unchanged=unchanged,
            declared=options,
            given=context.output_metadata or {},
        )
        if version := lineage["code_version"]:
            metadata["code_version"] = version
        return _Put(blob, unchanged, metadata)

    def _store_each(
        self, ef: EmboFlow, context: dg.OutputContext, obj: object, partitions: Sequence[str]
    ) -> None:
        """One run over several partitions returns a dict by partition key; each is a blob of its own."""
        values = io_partitions.by_partition(context, obj, partitions)
        puts = {key: self._store(ef, context, values[key], key) for key in partitions if key in values}
        for key, put in puts.items():
            context.step_context.add_asset_metadata(put.metadata, context.asset_key, key)
        blobs = {key: put.blob for key, put in puts.items()}
        context.add_output_metadata(
            {"partitions": io_page.partitions_table(blobs, {key: put.unchanged for key, put in puts.items()})}
        )
        # Dagster gives all partitions of one output one data version.
        whole = "".join(f"{key}\0{blob.sha256}\n" for key, blob in sorted(blobs.items()))
        set_data_version(context, hashlib.sha256(whole.encode()).hexdigest())

    # ----------------------------------------------------------------------------------------- input

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the pinned or newest version, verified; several partitions as a dict by partition key.

        Raises:
            Failure: There is no such version, or its bytes are damaged.
        """
        annotation = io_names.expected_type(context)
        partitions = io_partitions.partitions_of(context)
        try:
            with self._open(context) as ef:
                if partitions is None:
                    return self._load(ef, context, annotation, None)
                if io_partitions.comes_as_dict(context, partitions):
                    return self._load_each(ef, context, io_partitions.value_type(annotation), partitions)
                return self._load(ef, context, annotation, partitions[0])
        except EmboflowError as error:
            if isinstance(error, IntegrityError) and context.has_asset_key:
                self._tell(context)
            raise steps.failure(error) from error

    def _tell(self, context: dg.InputContext) -> None:
        """Turn the check of the asset red at once, rather than at the next tick of the sensor."""
        with suppress(EmboflowError), self._open(context) as ef:
            for key, note in checks.reds(ef, [context.asset_key]).items():
                context.step_context.instance.report_runless_asset_event(checks.failed(key, note))

    def _load_each(
        self, ef: EmboFlow, context: dg.InputContext, annotation: Any, partitions: Sequence[str]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        missing: list[str] = []
        for key in partitions:
            try:
                result[key] = self._load(ef, context, annotation, key)
            except NotFoundError:
                missing.append(key)
        if missing and not io_partitions.may_be_missing(context):
            names = ", ".join(missing[:_SHOWN_MISSING]) + (", ..." if len(missing) > _SHOWN_MISSING else "")
            raise NotFoundError(
                f"{context.asset_key.to_user_string()}: {len(missing)} of {len(partitions)} partitions have "
                f"nothing stored: {names}",
                hint=f'materialize them, or AssetIn(metadata={{"{io_partitions.ALLOW_MISSING}": True}})',
            )
        return result

    def _load(self, ef: EmboFlow, context: dg.InputContext, annotation: Any, partition: str | None) -> Any:
        pin = io_names.pin_of(context, self._pins, partition)
        ref = io_names.recorded_ref(ef, context.asset_key, pin) if context.has_asset_key else None
        blob: BlobObject | None = None
        if ref is None:
            object_id = io_names.object_id_of(context, _place(ef), partition)
            try:
                blob = ef.blobs.get(object_id, pin)
            except NotFoundError as error:
                if pin is None and (admits_none(annotation) or io_partitions.was_none(context, partition)):
                    return None
                told = f", partition {partition}" if partition is not None else ""
                raise NotFoundError(f"{error.message}{told}", hint=error.hint, kind=error.kind) from error
        stored = self._stored(ef, annotation, blob=blob, ref=ref)
        value = self._handlers.load(stored)
        io_lineage.remember(
            context,
            io_lineage.Loaded(
                input=context.name if context.has_input_name else "",
                asset=context.asset_key.to_user_string() if context.has_asset_key else None,
                partition=partition,
                object_id=blob.object_id if blob else ref.object_id if ref else None,
                version=blob.version if blob else ref.version if ref else None,
                sha256=blob.sha256 if blob else ref.sha256 if ref else "",
                pinned=pin is not None,
            ),
        )
        return value

    def _stored(
        self, ef: EmboFlow, annotation: Any, *, blob: BlobObject | None, ref: StorageRef | None
    ) -> Stored:
        if blob is not None:
            ref = blob.storage_ref
        local = ef.blobs.local_path(ref) if ref is not None else None

        def opener() -> Any:
            if blob is not None:
                return ef.blobs.open_blob(blob)
            return ef.blobs.open_ref(ref)  # pyright: ignore[reportArgumentType] - one of the two is there

        def restore(target: Path) -> Path:
            if ref is None:
                raise InvalidInputError("the listing of a folder is in the object store, with its files")
            return listing.restore(ef.blobs, ref, target)

        name = blob.custom_metadata.get("name") if blob else None
        return Stored(
            content_type=blob.content_type if blob else ref.content_type if ref else "",
            serializer=blob.serializer if blob else None,
            size=blob.size if blob else ref.size if ref else 0,
            annotation=plain_of(annotation),
            name=name if isinstance(name, str) else None,
            opener=opener,
            scratch=self._scratch,
            local=local,
            restore=restore,
        )

    # ------------------------------------------------------------------------------------------ both

    @contextmanager
    def _open(self, context: dg.InputContext | dg.OutputContext) -> Iterator[EmboFlow]:
        """The project that an asset's key names, else the configured one; its connection stays open."""
        place = keys.place_of(context.asset_key) if context.has_asset_key else None
        workspace, project = (place.workspace, place.project) if place else (self._workspace, self._project)
        if isinstance(self._opener, OpenHandle):
            with self._opener.open(workspace, project) as handle:
                yield handle
            return
        settings = self._opener.settings(workspace, project)
        place = Place(settings.workspace, settings.project)
        with handles.kept_open(self._opener, place, max_idle_s=handles.MAX_IDLE_S) as handle:
            yield handle

    def _scratch(self) -> Path:
        """A fresh folder for a loaded file; it goes when the process of the step ends."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="emboflow-input-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=self._folder))


def _place(ef: EmboFlow) -> Place:
    return Place(ef.scope.workspace_slug, ef.scope.project_slug)


def _newest(ef: EmboFlow, object_id: str) -> BlobObject | None:
    try:
        return ef.blobs.get(object_id)
    except NotFoundError:
        return None


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInputError(f"{io_names.PREVIEW_ROWS}: found {shown(value)}; a number of rows, or 0")
    return min(value, 100)


def set_data_version(context: dg.OutputContext, sha256: str) -> None:
    """The data version of the asset being stored.

    Dagster has no public way to set it from an IO manager (its issue 15584): this is the one place, and
    one test, that know how.
    """
    context.step_context.set_data_version(context.asset_key, dg.DataVersion(sha256))
