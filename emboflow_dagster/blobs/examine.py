"""What is really under a key, and what that says about the versions that need it.

Payloads are named by their hash, so a look at one needs no record: its bytes are those of its name or they
are not. Only then it is asked what the records say. That tells four damages apart: missing, truncated (or
too long), altered, and a record whose hash is wrong although the bytes are right.
"""

import json
from collections.abc import Iterator
from typing import Final, NamedTuple

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.entries import is_listing, payload_ref, read_listing
from emboflow_dagster.blobs.forgotten import is_forgotten
from emboflow_dagster.blobs.homes import Homes
from emboflow_dagster.errors import EmboflowError, ErrorKind, IntegrityError, NotFoundError
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.storage import LISTING_TYPE, MANIFEST_TYPE, StorageRef
from emboflow_dagster.mongo.client import Mongo, translated
from emboflow_dagster.object_storage.payload import PREFIX
from emboflow_dagster.object_storage.store import ObjectStore

CHUNK: Final = 1 << 20
#: A listing or manifest with sound bytes may still be no listing or manifest.
UNREADABLE: Final = (EmboflowError, ValueError, KeyError, TypeError, AttributeError)
_NO_HASH: Final = "0" * 64


class Content(NamedTuple):
    """Bytes that were read: their sha256 and their number."""

    sha256: str
    size: int


class Damage(NamedTuple):
    """What is wrong with a version: the code, the field that says otherwise, and both sides.

    ``key`` is the damaged payload; ``part`` the path of a file of a folder or dataset version.
    """

    code: ErrorKind
    field: str
    message: str
    recorded: Content
    found: Content | None = None
    key: str | None = None
    part: str | None = None


def address(key: str) -> str | None:
    """The hash that a key names, ``None`` for one that is not named by a hash."""
    shard, _, rest = key.removeprefix(f"{PREFIX}/").partition("/")
    digest = shard + rest
    return digest if len(digest) == len(_NO_HASH) and key == f"{PREFIX}/{digest[:2]}/{digest[2:]}" else None


def look(store: ObjectStore, key: str) -> Content | None:
    """Read a payload whole; ``None`` when there is none.

    Raises:
        UnavailableError: The store cannot be reached.
    """
    try:
        size = store.stat(key).size
        with store.open(key, sha256=address(key) or _NO_HASH, size=size) as stream:
            while stream.read(CHUNK):
                pass
    except NotFoundError:
        return None
    except IntegrityError as error:
        if error.found is None and error.kind is not ErrorKind.PAYLOAD_MISSING:
            raise
        return Content(*error.found) if error.found else None
    return Content(address(key) or _NO_HASH, size)


def judged(
    recorded: Content, found: Content | None, *, key: str, field: str = "storage_ref", part: str | None = None
) -> Damage | None:
    """Holds a record against what is there; ``None`` when they agree."""
    if found == recorded:
        return None
    text = f"{part}: {key}" if part else key
    if found is None:
        message = f"{text}: the payload is missing (sha256 {recorded.sha256})"
        return Damage(ErrorKind.PAYLOAD_MISSING, field, message, recorded, None, key, part)
    sides = (
        f"found {found.size} bytes with sha256 {found.sha256}, recorded are {recorded.size} with "
        f"{recorded.sha256}"
    )
    code = ErrorKind.HASH_MISMATCH if found.size == recorded.size else ErrorKind.SIZE_MISMATCH
    if found.sha256 == address(key):
        code = ErrorKind.HASH_RECORDED_WRONG if found.sha256 != recorded.sha256 else ErrorKind.REF_MISMATCH
        sides += "; the bytes are those of their name, the record is wrong"
        field = f"{field}.checksum" if code is ErrorKind.HASH_RECORDED_WRONG else f"{field}.size"
    return Damage(code, field, f"{text}: {sides}", recorded, found, key, part)


def of_version(blob: BlobObject, ref: StorageRef, found: Content | None) -> Iterator[Damage]:
    """What is wrong with a version whose payload ``ref`` was read, its parts left aside."""
    said = Content(ref.sha256, ref.size)
    damage = judged(said, found, key=ref.key)
    if damage is not None:
        yield damage
    if blob.data_sha256 != ref.sha256 and (found is None or blob.data_sha256 != found.sha256):
        text = f"recorded is sha256 {blob.data_sha256}, the payload {ref.key} has {ref.sha256}"
        recorded = Content(blob.sha256, blob.size)
        yield Damage(ErrorKind.HASH_RECORDED_WRONG, "data_sha256", text, recorded, found or said, ref.key)
    if blob.object_size_bytes != ref.size and (found is None or blob.object_size_bytes != found.size):
        text = f"recorded are {blob.object_size_bytes} bytes, the payload {ref.key} has {ref.size}"
        recorded = Content(blob.sha256, blob.size)
        yield Damage(ErrorKind.REF_MISMATCH, "object_size_bytes", text, recorded, found or said, ref.key)


def is_folder(content_type: str) -> bool:
    """Whether a payload of this type names others."""
    return content_type in (LISTING_TYPE, MANIFEST_TYPE)


def parts(
    store: ObjectStore, ref: StorageRef, *, skip: pages.Skip = lambda _: False
) -> Iterator[tuple[str, StorageRef]]:
    """The payloads that a listing or manifest names, with their paths; nothing for any other payload.

    Pages of a manifest's tree are among them, before what they name; those in ``skip`` are left out with what
    is below them.

    Raises:
        IntegrityError: It is damaged, or no listing.
        ValueError: It is no manifest.
    """
    if is_listing(ref):
        with store.open(ref.key, sha256=ref.sha256, size=ref.size) as stream:
            for entry in read_listing(stream):
                yield entry.path, payload_ref(ref, entry.sha256, entry.size)
    elif ref.content_type == MANIFEST_TYPE:
        text = store.read_all(ref.key, sha256=ref.sha256, size=ref.size)
        manifest = json.loads(text)
        root = pages.root_of(manifest)
        for row in manifest["files"]:
            if root is None or row["sha256"] != root.sha256:
                yield row["path"], payload_ref(ref, row["sha256"], row["size"])
        if root is not None:
            read = reading(store, ref)
            for path, sha256, size in pages.named(read, root, skip=skip, lenient=True):
                yield path, payload_ref(ref, sha256, size)


def reading(store: ObjectStore, ref: StorageRef) -> pages.Read:
    """Reads what a manifest at ``ref`` names."""

    def read(sha256: str, size: int) -> bytes:
        return store.read_all(payload_ref(ref, sha256, size).key, sha256=sha256, size=size)

    return read


def no_folder(ref: StorageRef, error: Exception) -> Damage:
    """The damage of a payload that is sound and yet no listing or manifest."""
    said = Content(ref.sha256, ref.size)
    return Damage(
        ErrorKind.FILE_CORRUPT, "storage_ref", f"is no {ref.content_type}: {error}", said, said, ref.key
    )


def elsewhere(homes: Homes, blob: BlobObject) -> Damage | None:
    """What is wrong with a version whose bytes are not in the object store: they belong to it alone."""
    try:
        with homes.open(blob) as stream:
            while stream.read(CHUNK):
                pass
    except EmboflowError as error:
        field = "grid_fs_file_id" if blob.grid_fs_file_id else "data"
        found = Content(*error.found) if isinstance(error, IntegrityError) and error.found else None
        kind = error.kind if isinstance(error, IntegrityError) else ErrorKind.UNAVAILABLE
        return Damage(kind, field, error.message, Content(blob.sha256, blob.size), found)
    return None


def damages(mongo: Mongo, store: ObjectStore, homes: Homes, blob: BlobObject) -> Iterator[Damage]:
    """Everything that is wrong with one version, its parts included.

    Raises:
        UnavailableError: The store cannot be reached.
    """
    if not blob.completed:
        return
    ref = blob.storage_ref
    if ref is None:
        damage = elsewhere(homes, blob)
        if damage is not None:
            yield damage
        return
    wrong = list(of_version(blob, ref, look(store, ref.key)))
    yield from wrong
    if wrong or not is_folder(ref.content_type) or kept_in_place(mongo, blob):
        return
    try:
        for path, inner in parts(store, ref):
            damage = judged(
                Content(inner.sha256, inner.size), look(store, inner.key), key=inner.key, part=path
            )
            if damage is None:
                continue
            if damage.code is ErrorKind.PAYLOAD_MISSING and is_forgotten(
                mongo, blob.workspace_id, inner.sha256
            ):
                continue
            yield damage
    except UNREADABLE as error:
        yield no_folder(ref, error)


def kept_in_place(mongo: Mongo, blob: BlobObject) -> bool:
    """Whether the files of a listing were left where they are: then they are not in the store."""
    if blob.owner_record != "assets" or blob.owner_record_id is None:
        return False
    with translated():
        asset = mongo["assets"].find_one({"_id": blob.owner_record_id}, {"sourceType": 1})
    return asset is not None and asset.get("sourceType") == "registered_path"
