"""The asset check ``bytes_verified``: red when an asset's bytes are in quarantine, green when they are right.

Not one check definition an asset but one for every 256 (decision 0014): each costs a code location time.
No job of a workflow contains them. Executed from an asset's
page it reads the bytes then and there; otherwise its results come from the scrubber and from a sensor that
follows the quarantine, so that a failed read anywhere turns the asset red and a repair turns it green.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import dagster as dg

from emboflow_dagster.blobs.quarantine import described
from emboflow_dagster.errors import EmboflowError, NotFoundError
from emboflow_dagster.model.asset import AssetSourceType
from emboflow_dagster.model.storage import StorageRef, object_id_for
from emboflow_dagster.mongo.marks import name_of
from emboflow_dagster.orchestration import keys, steps
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.nodes import RESOURCE
from emboflow_dagster.project import sources
from emboflow_dagster.project.asset_files import check_in_place
from emboflow_dagster.project.catalog import asset_key_names
from emboflow_dagster.project.handle import EmboFlow

CHECK: Final = "bytes_verified"
_DESCRIPTION: Final = (
    "The stored bytes hash to what is recorded. Red: a version is in quarantine; the metadata says which, "
    "both digests, and how to repair it."
)
_OK: Final = "every byte is as recorded"
MAX_VERSIONS: Final = 100
CHECKS_EACH: Final = 256


class Payloads:
    """Which versions of blobs the assets of a project stand for now."""

    def __init__(self, ef: EmboFlow) -> None:
        self._ef = ef
        self._raw: dict[str, Any] | None = None

    def of(self, key: dg.AssetKey) -> list[StorageRef]:
        """The references behind an asset; of a dataset those of its newest 100 versions: all may be in use.

        Nothing for an asset that has no bytes (yet).
        """
        try:
            match list(key.path):
                case [_, _, keys.RAW, name]:
                    asset = self.raw(name)
                    return [asset.storage_ref] if asset else []
                case [_, _, keys.DATASETS, name]:
                    return [
                        version.manifest_ref
                        for version in self._ef.datasets.versions(name, limit=MAX_VERSIONS)
                    ]
                case [_, _, keys.ARTIFACTS, workflow, node]:
                    task = self._ef.runs.last_success(self._ef.workflows.get(workflow).id, node)
                    return [a.storage_ref for a in self._ef.artifacts.of_task(task)] if task else []
        except NotFoundError:
            pass
        return self._stored_by_io_manager(key)

    def _stored_by_io_manager(self, key: dg.AssetKey) -> list[StorageRef]:
        """The newest version of the blob that is named after a key."""
        try:
            blob = self._ef.blobs.get(object_id_for(*key.path))
        except NotFoundError:
            return []
        named = {"object_id": blob.object_id, "version": blob.version}
        return [blob.storage_ref.model_copy(update=named)] if blob.storage_ref else []

    def raw(self, name: str) -> Any:
        """The raw asset that a key's last part names, ``None`` when there is none (any more)."""
        if self._raw is None:
            assets = sources.candidates(self._ef.assets)
            names = asset_key_names(assets)
            self._raw = {names[asset.id]: asset for asset in assets}
        return self._raw.get(name)


def failed(key: dg.AssetKey, note: dict[str, Any]) -> dg.AssetCheckEvaluation:
    """Red: what a quarantine note says."""
    repair = f"emboflow blob repair {note['objectId']} --version {note['version']} --from FILE"
    metadata = {
        "object_id": note["objectId"],
        "version": note["version"],
        "damage": note["damage"],
        "recorded": f"sha256:{note['recordedSha256']}",
        "found": f"sha256:{note['foundSha256']}" if note["foundSha256"] else "nothing",
        "recorded_size": note["recordedSize"],
        "found_size": note["foundSize"],
        "part": note["part"],
        "seen_at": dg.MetadataValue.timestamp(note["seenAt"]),
        "seen_by": note["seenBy"],
        "repair": repair,
    }
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=CHECK,
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={name: value for name, value in metadata.items() if value is not None},
        description=f"{note['objectId']} version {note['version']}: {described(note)}",
    )


def passed(key: dg.AssetKey, refs: Sequence[StorageRef] = ()) -> dg.AssetCheckEvaluation:
    """Green: the bytes of an asset were read and are right, or were repaired."""
    metadata: dict[str, Any] = {"payloads": len(refs)} if refs else {}
    if refs:
        metadata |= {"checksum": refs[0].checksum, "size": refs[0].size}
    return dg.AssetCheckEvaluation(
        asset_key=key, check_name=CHECK, passed=True, metadata=metadata, description=_OK
    )


def bytes_checks(place: Place, assets: Iterable[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """The checks of a project's assets."""
    ordered = sorted(assets)
    return [
        _checks_of(place, number, ordered[start : start + CHECKS_EACH])
        for number, start in enumerate(range(0, len(ordered), CHECKS_EACH))
    ]


def _checks_of(place: Place, number: int, assets: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    specs = {
        f"check_{index}": dg.AssetCheckSpec(CHECK, asset=key, description=_DESCRIPTION)
        for index, key in enumerate(assets)
    }

    def compute(context: dg.OpExecutionContext, _inputs: Any) -> Iterator[dg.AssetCheckResult]:
        wanted = sorted({check.asset_key for check in context.selected_asset_check_keys})
        try:
            with context.resources.emboflow.open(place.workspace, place.project) as ef:
                for key in wanted:
                    found = evaluate(ef, key)
                    yield dg.AssetCheckResult(
                        asset_key=found.asset_key,
                        check_name=found.check_name,
                        passed=found.passed,
                        severity=found.severity,
                        metadata=found.metadata,
                        description=found.description,
                    )
        except EmboflowError as error:
            raise steps.failure(error) from error

    op = dg.OpDefinition(
        compute_fn=compute,
        name=keys.place_name(place, f"{CHECK}_{number}"),
        outs={name: dg.Out(dg.Nothing, is_required=False) for name in specs},
        required_resource_keys={RESOURCE},
        description=f"Reads the bytes of assets of `{place.workspace}/{place.project}` and hashes them.",
    )
    # Its own class: of any other Dagster makes a copy for each check.
    return dg.AssetChecksDefinition.create(
        node_def=op, keys_by_input_name={}, check_specs_by_output_name=specs, can_subset=True
    )


def evaluate(ef: EmboFlow, key: dg.AssetKey) -> dg.AssetCheckEvaluation:
    """Read the bytes of one asset now; damage is set aside."""
    payloads = Payloads(ef)
    refs = payloads.of(key)
    for ref in refs:
        if ref.object_id is None or ref.version is None:
            continue
        blob = ef.blobs.get(ref.object_id, ref.version)
        for damage in ef.blobs.repairs.examine(blob):
            ef.blobs.quarantine.note(blob, damage)
        note = ef.blobs.quarantine.of(ref.object_id, ref.version)
        if note is not None:
            return failed(key, note)
    if key.path[2:3] == [keys.RAW]:
        asset = payloads.raw(key.path[-1])
        if asset is not None and asset.source_type == AssetSourceType.REGISTERED_PATH:
            for error in check_in_place(ef.blobs, asset):
                return changed(key, error.message)
    return passed(key, refs)


def changed(key: dg.AssetKey, message: str) -> dg.AssetCheckEvaluation:
    """Red: a file that was registered in place is not what it was. There is no copy to set aside."""
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=CHECK,
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"repair": "bring the file back, or register it again without --in-place"},
        description=message,
    )


def reds(ef: EmboFlow, assets: Iterable[dg.AssetKey]) -> dict[dg.AssetKey, dict[str, Any]]:
    """The assets with a version in quarantine, each with the note."""
    notes = {row["name"]: row for row in ef.blobs.quarantine.notes()}
    if not notes:
        return {}
    payloads = Payloads(ef)
    found: dict[dg.AssetKey, dict[str, Any]] = {}
    for key in assets:
        for ref in payloads.of(key):
            note = notes.get(_name(ref))
            if note is not None:
                found[key] = note
                break
    return found


def _name(ref: StorageRef) -> str:
    return "" if ref.object_id is None or ref.version is None else name_of(ref.object_id, ref.version)
