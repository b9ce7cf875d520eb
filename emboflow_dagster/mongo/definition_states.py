"""States of code locations, for machines that share no folder: the catalogs that definitions are built from.

A state is found by its key and its version, which is the digest of its content: it is written once
and never changes.
"""

import gzip
from contextlib import suppress
from datetime import timedelta
from typing import Final

from emboflow_dagster.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.mongo.client import Mongo, translated

STATES: Final = "_emboflow_states"
#: MongoDB takes 16 MiB a document; compressed, that is a catalog of some hundred thousand nodes.
MAX_BYTES: Final = 15 << 20
#: A state that was replaced so long ago is asked for by nobody: whoever starts now loads the newest one.
REPLACED_FOR: Final = timedelta(days=30)


def keep(mongo: Mongo, key: str, version: str, content: bytes) -> None:
    """Keep a state, the newest of its location; those that were replaced long ago go.

    Raises:
        InvalidInputError: It is larger than a document may be, compressed.
        UnavailableError: The database cannot be reached.
    """
    body = gzip.compress(content, mtime=0)
    if len(body) > MAX_BYTES:
        raise InvalidInputError(
            f"the state of the code location {key} has {len(body)} bytes compressed; "
            f"at most {MAX_BYTES} are kept",
            hint="show fewer projects in one code location",
        )
    now = utc_now()
    id_ = f"{key}:{version}"
    row = {"key": key, "version": version, "body": body, "createdAt": now}
    # Another machine may write the same at the same time.
    with suppress(AlreadyExistsError), translated():
        mongo[STATES].update_one({"_id": id_}, {"$setOnInsert": row, "$set": {"keptAt": now}}, upsert=True)
    others = {"_id": {"$gt": f"{key}:", "$lt": f"{key};", "$ne": id_}, "key": key}
    before = {"$lt": now - REPLACED_FOR}
    with translated():
        mongo[STATES].delete_many({**others, "createdAt": before, "keptAt": before})


def read(mongo: Mongo, key: str, version: str) -> bytes:
    """The content of a state.

    Raises:
        NotFoundError: It was never kept here.
        UnavailableError: The database cannot be reached.
    """
    with translated():
        row = mongo[STATES].find_one({"_id": f"{key}:{version}"})
    if row is None:
        raise NotFoundError(f"there is no state {version} of the code location {key}")
    return gzip.decompress(row["body"])
