"""Handles that stay open: for sensors that tick every few seconds, for steps and what they load and store."""

import atexit
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from emboflow_dagster.errors import UnavailableError
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.resources import EmboFlowResource, OpenHandle
from emboflow_dagster.project.handle import EmboFlow


@dataclass(slots=True)
class _Kept:
    handle: EmboFlow
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)


#: For steps, which may compute for hours between two uses: the server may have moved meanwhile.
MAX_IDLE_S: Final = 20.0

_lock: Final = threading.Lock()
_open: Final[dict[tuple[str, str, Place], _Kept]] = {}


@contextmanager
def kept_open(
    resource: EmboFlowResource | OpenHandle, place: Place, *, max_idle_s: float | None = None
) -> Iterator[EmboFlow]:
    """A handle on a project that outlives the block, and is opened anew after a lost connection.

    Args:
        resource: What opens it.
        place: The project.
        max_idle_s: Open it anew when nobody has used it for so long: a step may compute for hours between
            its inputs and its outputs, and the server may have moved meanwhile.

    Raises:
        UnavailableError: The database cannot be reached.
    """
    if isinstance(resource, OpenHandle):
        with resource.open(place.workspace, place.project) as handle:
            yield handle
        return
    settings = resource.settings(place.workspace, place.project)
    key = (repr(settings), resource.object_store.fingerprint(), place)
    with _lock:
        kept = _open.get(key)
        if kept and not kept.users and max_idle_s is not None and _idle(kept) > max_idle_s:
            _open.pop(key).handle.close()
            kept = None
        if kept is None:
            kept = _open[key] = _Kept(resource.connect(settings))
        kept.users += 1
    try:
        yield kept.handle
    except Exception as error:
        # A step says why it failed in Dagster's words, with ours behind them.
        if not isinstance(error, UnavailableError) and not isinstance(error.__cause__, UnavailableError):
            raise
        with _lock:
            if _open.get(key) is kept:
                del _open[key]
        kept.handle.close()
        raise
    finally:
        with _lock:
            kept.users -= 1
            kept.used_at = time.monotonic()


def close_all() -> None:
    """Give every kept connection back."""
    with _lock:
        while _open:
            _open.popitem()[1].handle.close()


def _idle(kept: _Kept) -> float:
    return time.monotonic() - kept.used_at


atexit.register(close_all)
