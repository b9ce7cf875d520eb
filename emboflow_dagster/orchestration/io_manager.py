"""``BlobIOManager``: what assets return becomes versioned, hashed blobs.

The blob of an asset is named after its key, never after the run: a materialisation with other bytes is
the next version, one with the same bytes is no new version and keeps everything downstream fresh.
"""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Final

import dagster as dg
from pydantic import Field

from emboflow_dagster.errors import EmboflowError, IntegrityError, InvalidInputError, NotFoundError
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.storage import StorageRef, object_id_for
from emboflow_dagster.model.text import check_version
from emboflow_dagster.orchestration import checks, keys, page, payloads, retention, steps, wiped
from emboflow_dagster.orchestration.resources import EmboFlowResource, MongoResource, ObjectStoreResource
from emboflow_dagster.project.handle import EmboFlow


class BlobIOManager(dg.ConfigurableIOManagerFactory):
    """Stores what assets and ops return as blobs of a project, and loads them again.

    Stored are DataFrames (Parquet), dicts, lists and numbers (JSON), text, bytes, and files (``Path``).
    An input reads the newest version, or the one it is pinned to: in code by
    ``AssetIn(metadata={"emboflow/version": 3})``, in the launchpad by ``pins``.
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
        default_factory=dict, description="Asset key, parts joined by '/', to the version to load."
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
        )


class BlobIO(dg.IOManager):
    """The IO manager itself; see :class:`BlobIOManager`."""

    def __init__(
        self,
        opener: Any,
        *,
        workspace: str | None = None,
        project: str | None = None,
        pins: Mapping[str, int] | None = None,
    ) -> None:
        self._opener: Final = opener
        self._workspace: Final = workspace
        self._project: Final = project
        self._pins: Final = dict(pins or {})
        self._loaded: Path | None = None

    # ---------------------------------------------------------------------------------------- output

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store a value as the next version of its blob.

        Raises:
            Failure: Its type is not known, or it could not be stored.
        """
        if obj is None:
            return  # a step that stored what it made itself, or nothing
        try:
            payload = payloads.dump(obj)
            with self._open(context) as ef:
                blob = ef.blobs.put(
                    payload.source,
                    object_id=object_id_of(context),
                    type="dagster_asset" if context.has_asset_key else "dagster_output",
                    content_type=payload.content_type,
                    serializer=payload.serializer,
                    custom_metadata={
                        "dagsterRunId": context.run_id,
                        "step": context.step_key,
                        **wiped.described(context),
                    },
                )
                retention.keep(ef, blob.object_id, context.definition_metadata)
        except EmboflowError as error:
            raise steps.failure(error) from error
        context.add_output_metadata(blob_metadata(blob) | page.page_metadata(payload.facts))
        if context.has_asset_key:
            set_data_version(context, blob.sha256)

    # ----------------------------------------------------------------------------------------- input

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the pinned or newest version, verified; partitions as a dict by partition key.

        Raises:
            Failure: There is no such version, or its bytes are damaged.
        """
        expected = expected_type(context)
        try:
            with self._open(context) as ef:
                if context.has_asset_partitions and len(context.asset_partition_keys) > 1:
                    return {
                        key: self._load(ef, context, expected, key) for key in context.asset_partition_keys
                    }
                return self._load(ef, context, expected, None)
        except EmboflowError as error:
            if isinstance(error, IntegrityError) and context.has_asset_key:
                self._tell(context)
            raise steps.failure(error) from error

    def _tell(self, context: dg.InputContext) -> None:
        """Turn the check of the asset red at once, rather than at the next tick of the sensor."""
        with suppress(EmboflowError), self._open(context) as ef:
            for key, note in checks.reds(ef, [context.asset_key]).items():
                context.step_context.instance.report_runless_asset_event(checks.failed(key, note))

    def _load(self, ef: EmboFlow, context: dg.InputContext, expected: object, partition: str | None) -> Any:
        pin = self._pin(context)
        recorded = recorded_ref(ef, context.asset_key, pin) if context.has_asset_key else None
        if recorded is None:
            object_id = object_id_of(context, partition)
            ref = ef.blobs.ref(ef.blobs.get(object_id, pin))
            name = f"{object_id}.{ref.version}"
        else:
            ref, name = recorded, recorded.sha256
        handler = payloads.loader(ref.content_type, expected)
        with ef.blobs.open_ref(ref) as stream:
            return handler.load(stream, self._scratch() / name)

    def _pin(self, context: dg.InputContext) -> int | None:
        pin: Any = (context.definition_metadata or {}).get(keys.METADATA_VERSION)
        if pin is None and context.has_asset_key:
            pin = self._pins.get(context.asset_key.to_user_string())
        if pin is None:
            return None
        value = getattr(pin, "value", pin)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInputError(f"{keys.METADATA_VERSION}: found {value!r}; a version is an int")
        return check_version(value, keys.METADATA_VERSION)

    def _open(self, context: dg.InputContext | dg.OutputContext) -> AbstractContextManager[EmboFlow]:
        place = keys.place_of(context.asset_key) if context.has_asset_key else None
        if place is not None:
            return self._opener.open(place.workspace, place.project)
        return self._opener.open(self._workspace, self._project)

    def _scratch(self) -> Path:
        """A folder for loaded files; it goes when the process of the step ends."""
        if self._loaded is None:
            self._loaded = Path(tempfile.mkdtemp(prefix="emboflow-input-"))
            atexit.register(shutil.rmtree, self._loaded, ignore_errors=True)
        return self._loaded


def object_id_of(context: dg.InputContext | dg.OutputContext, partition: str | None = None) -> str:
    """The blob of an asset (and partition), or of an op's output."""
    if not context.has_asset_key:
        source = context.upstream_output if isinstance(context, dg.InputContext) else context
        if source is None:
            raise InvalidInputError("an input without an upstream output cannot be loaded from a blob")
        return object_id_for("outputs", *source.get_identifier())
    parts = list(context.asset_key.path)
    if partition is None and context.has_asset_partitions:
        partition = context.asset_partition_key
    return object_id_for(*parts, *([partition] if partition else []))


def recorded_ref(ef: EmboFlow, key: dg.AssetKey, pin: int | None) -> StorageRef | None:
    """Where the bytes of a key are that a workflow produces; ``None`` for a key of somebody else's.

    A dataset's bytes are the manifest of its newest version (pinned: of version ``v<pin>``), a node's
    those of the first artifact of its newest success.

    Raises:
        NotFoundError: The dataset has no such version.
        InvalidInputError: A node's artifact is pinned: only blobs and datasets have numbered versions.
    """
    match list(key.path):
        case [_, _, keys.DATASETS, name]:
            return ef.datasets.version(name, None if pin is None else f"v{pin}").manifest_ref
        case [_, _, keys.ARTIFACTS, workflow, node]:
            try:
                task = ef.runs.last_success(ef.workflows.get(workflow).id, node)
            except NotFoundError:
                return None
            artifacts = ef.artifacts.of_task(task) if task else []
            if artifacts and pin is not None:
                raise InvalidInputError(
                    f"{key.to_user_string()} cannot be pinned to version {pin}: artifacts have no numbers",
                    hint="pin the dataset that the workflow publishes",
                )
            return artifacts[0].storage_ref if artifacts else None
    return None


def expected_type(context: dg.InputContext) -> object:
    """The annotation of an input, or ``None`` when there is none that says anything."""
    kind = context.dagster_type.typing_type if context.dagster_type is not None else None
    return None if kind in (None, Any, type(None)) else kind


def blob_metadata(blob: BlobObject) -> dict[str, Any]:
    """What the asset page shows of a stored version."""
    result: dict[str, Any] = {
        "object_id": blob.object_id,
        "version": blob.version,
        "checksum": f"sha256:{blob.sha256}",
        "size": blob.size,
        "content_type": blob.content_type,
    }
    if blob.storage_ref is not None:
        result["uri"] = dg.MetadataValue.url(blob.storage_ref.uri)
    return result


def set_data_version(context: dg.OutputContext, sha256: str) -> None:
    """The data version of the asset being stored.

    Dagster has no public way to set it from an IO manager (its issue 15584): this is the one place, and
    one test, that know how.
    """
    context.step_context.set_data_version(context.asset_key, dg.DataVersion(sha256))
