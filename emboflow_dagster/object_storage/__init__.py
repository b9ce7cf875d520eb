"""Where the bytes are: addressed by their sha256, written whole or not at all, verified as they are read."""

from emboflow_dagster.object_storage.local import LocalObjectStore
from emboflow_dagster.object_storage.payload import ObjectStat, Source, StaleUpload, StoredObject
from emboflow_dagster.object_storage.s3 import S3ObjectStore
from emboflow_dagster.object_storage.store import ObjectStore, open_store
from emboflow_dagster.object_storage.verified import VerifiedReader

__all__ = [
    "LocalObjectStore",
    "ObjectStat",
    "ObjectStore",
    "S3ObjectStore",
    "Source",
    "StaleUpload",
    "StoredObject",
    "VerifiedReader",
    "open_store",
]
