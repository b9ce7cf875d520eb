"""What to do when there is no such blob: the error's text is Flowcept's own, the hint is for people."""

import difflib
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from emboflow_dagster.errors import EmboflowError, ObjectNotFoundError

if TYPE_CHECKING:
    from emboflow_dagster.project.handle import EmboFlow

_SAID: Final = re.compile(r"object_id=(?P<id>[^,]+?)(, version=(?P<version>\d+))?\.$")
_TEMPORARY: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_NEAR: Final = 3


def hint_for(ef: "EmboFlow", message: str) -> str | None:
    """The versions that a blob has, the blobs with a name like that, or where to look.

    Args:
        ef: The open project.
        message: The error's, which names the blob, and the version where one was asked for.
    """
    said = _SAID.search(message)
    if said is None:
        return None
    object_id = said["id"]
    with suppress(EmboflowError):
        if said["version"] is not None:
            with suppress(ObjectNotFoundError):
                newest = ef.blobs.get(object_id).version
                return f"the newest is version {newest}: `emboflow blob history {object_id}`"
        if _TEMPORARY.fullmatch(object_id):
            return "the id of a temporary blob is read with `emboflow blob get ID --temporary`"
        names = [blob.object_id for blob in ef.blobs.list_objects(limit=1000)]
        if not names:
            workspace = ef.scope.workspace_slug
            return f"there is no blob in workspace {workspace} yet: `emboflow blob put FILE` stores one"
        if near := difflib.get_close_matches(object_id, names, n=_NEAR, cutoff=0.6):
            return f"did you mean {', '.join(near)}?"
    return "`emboflow blob list` shows what there is"
