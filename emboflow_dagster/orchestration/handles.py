"""Handles that stay open: sensors and schedules tick every few seconds in one long-lived process."""

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from emboflow_dagster.errors import UnavailableError
from emboflow_dagster.orchestration.catalog import Place
from emboflow_dagster.orchestration.resources import EmboFlowResource, OpenHandle
from emboflow_dagster.project.handle import EmboFlow

_lock: Final = threading.Lock()
_open: Final[dict[tuple[str, str, Place], EmboFlow]] = {}


@contextmanager
def kept_open(resource: EmboFlowResource | OpenHandle, place: Place) -> Iterator[EmboFlow]:
    """A handle on a project that outlives the block, and is opened anew after a lost connection.

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
        handle = _open.get(key)
        if handle is None:
            handle = _open[key] = resource.connect(settings)
    try:
        yield handle
    except UnavailableError:
        with _lock:
            if _open.get(key) is handle:
                del _open[key]
        handle.close()
        raise


def close_all() -> None:
    """Give every kept connection back."""
    with _lock:
        while _open:
            _open.popitem()[1].close()


atexit.register(close_all)
