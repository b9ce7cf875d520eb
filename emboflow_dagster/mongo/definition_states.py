"""States of code locations, for machines that share no folder: the catalogs that definitions are built from.

A state is found by its key and its version, which is the digest of its content: it is written once
and never changes.
"""

import gzip
from contextlib import suppress
from typing import Final

from emboflow_dagster.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.mongo.client import Mongo, translated

STATES: Final = "_emboflow_states"
#: MongoDB takes 16 MiB a document; compressed, that is a catalog of some hundred thousand nodes.
MAX_BYTES: Final = 15 << 20


def keep(mongo: Mongo, key: str, version: str, content: bytes) -> None:
    """Keep a state; one that is there is left as it is.

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
    row = {"key": key, "version": version, "body": body, "createdAt": utc_now()}
    # Another machine may write the same at the same time.
    with suppress(AlreadyExistsError), translated():
        mongo[STATES].update_one({"_id": f"{key}:{version}"}, {"$setOnInsert": row}, upsert=True)


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
