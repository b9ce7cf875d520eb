"""Fields of the blob type: what callers put there, what is stored there, what goes with it.

A caller names a version of a blob; the document keeps what its model wants: a :class:`StorageRef` with the
blob's name in it, or ``{"ref": {"objectId", "version"}}`` where the field is a free-form dict that may be a
blob when it is large (R-108, ``annotations.payload``).

Source: requirements R-422, R-423 (a blob field is a reference), R-424.
"""

from collections.abc import Mapping
from typing import Any, Final

from emboflow_dagster.errors import EmboflowError, ErrorKind, shown
from emboflow_dagster.model.blob import BlobObject, StorageType
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.storage import LISTING_TYPE, BlobRef, StorageRef, check_storage_ref
from emboflow_dagster.model.text import check_object_id, check_version, refuse

#: Dicts of which some are kept in a blob; the others are in the document itself.
OFTEN_INLINE: Final = frozenset({("asset_probe_reports", "rawReport"), ("annotations", "payload")})
_PAIR: Final = frozenset({"objectId", "version"})
_PLACES: Final = frozenset({"bucket", "key", "uri"})


def check_owner(owner: object) -> tuple[str, str]:
    """A record type and field that can own a blob, as a pair.

    Raises:
        InvalidInputError: It is no pair, or as :func:`check_field`.
    """
    if not isinstance(owner, tuple | list) or len(owner) != 2:  # noqa: PLR2004 - a pair
        raise refuse(ErrorKind.BLOB_FIELD, "", f"found {shown(owner)}; an owner is (collection, field)")
    collection, field = owner
    check_field(collection, field)
    return str(collection), str(field)


def check_field(collection: object, field: object) -> None:
    """Whether a record type and field can own a blob; the texts are Voedger's (P-33).

    Raises:
        InvalidInputError: There is no such collection or field, or it is not of the blob type.
    """
    row = COLLECTIONS.get(str(collection))
    if row is None:
        raise refuse(ErrorKind.BLOB_FIELD, "", f"blob owner {collection} is unknown")
    if not isinstance(field, str) or field not in row.fields:
        raise refuse(
            ErrorKind.BLOB_FIELD, "", f"blob owner field {field} does not exist in blob owner {collection}"
        )
    if field not in row.blobs:
        raise refuse(ErrorKind.BLOB_FIELD, "", f"blob owner {collection}.{field} must be of blob type")


def as_blob_ref(value: object) -> BlobRef | None:
    """The version of a blob that a value names, ``None`` when it names none.

    Raises:
        InvalidInputError: It is meant to name one and does not.
    """
    if isinstance(value, BlobRef):
        return value
    if not isinstance(value, Mapping):
        return None
    if set(value) == {"ref"}:
        return as_blob_ref(value["ref"])
    if set(value) != _PAIR:
        return None
    return BlobRef(
        object_id=check_object_id(value["objectId"], "objectId"), version=check_version(value["version"])
    )


def refuse_as_ref(value: object) -> EmboflowError:
    """Why a value that names no version of a blob cannot be in a field that is always one.

    A reference to bytes is looked at first: what is wrong with it says more than that it is one.
    """
    if not isinstance(value, Mapping | StorageRef):
        return refuse(
            ErrorKind.REF_TYPE, "", f"found {shown(value)}; a BlobRef(object_id, version) is needed"
        )
    try:
        if isinstance(value, Mapping) and _PLACES & set(value):
            check_storage_ref(dict(value))
    except EmboflowError as error:
        return error
    return refuse(ErrorKind.BLOB_FIELD, "", f"found {shown(value)}; a BlobRef(object_id, version) is needed")


def stored_ref(value: object) -> BlobRef | None:
    """The version of a blob that a stored field refers to."""
    if not isinstance(value, Mapping):
        return None
    inner = value.get("ref") if "objectId" not in value else value
    if not isinstance(inner, Mapping) or inner.get("objectId") is None or inner.get("version") is None:
        return None
    try:
        return BlobRef(object_id=inner["objectId"], version=inner["version"])
    except (EmboflowError, ValueError):  # somebody's own data under the same names
        return None


def values_of(collection: str, field: str, blob: BlobObject) -> dict[str, Any]:
    """What a record keeps when ``field`` names ``blob``: the reference, and what follows from the bytes.

    Raises:
        InvalidInputError: The field cannot hold a blob of this home or content.
    """
    name = f"blob {blob.object_id} version {blob.version}"
    if (collection, field) in OFTEN_INLINE:
        return {field: {"ref": {"objectId": blob.object_id, "version": blob.version}}}
    if blob.storage_ref is None:
        raise refuse(
            ErrorKind.BLOB_FIELD,
            "",
            f"{name} has the home {blob.storage_type}; {collection}.{field} takes {StorageType.OBJECT_STORE}",
        )
    ref = blob.storage_ref.model_copy(update={"object_id": blob.object_id, "version": blob.version})
    values: dict[str, Any] = {field: ref.to_mongo()}
    if collection == "assets":
        if ref.content_type == LISTING_TYPE:
            raise refuse(
                ErrorKind.BLOB_FIELD,
                "",
                f"{name} is a folder; folders are registered with ef.assets.register",
            )
        # Other bytes have not been looked into.
        values |= {"sizeBytes": ref.size, "fileCount": 1, "status": "registered", "detectedFormats": []}
    return values
