"""A run that is executed in this process and is cancelled elsewhere: nobody can signal it, so it asks.

A run worker is signalled by its code server. A terminal that executes a run itself, and ``emboflow worker``,
are known to nobody; what they execute ends as ctrl-c ends it, within two seconds.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from emboflow_dagster.model.run import RunStatus
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.runtime.record import Recorder

ASK_EVERY_S: Final = 1.0


def is_draining(recorder: Recorder, run_id: str) -> bool:
    """Whether a run was cancelled and a task of it still runs.

    One that ctrl-c ends here is never seen so: its task and the run are settled at once.

    Raises:
        UnavailableError: The database cannot be reached.
    """
    draining = {"_id": run_id, "status": RunStatus.CANCELLED.value, "finishedAt": None}
    with translated():
        return recorder.runs.raw.find_one(recorder.runs.scoped(draining), {"_id": 1}) is not None


@contextmanager
def interrupted_when(asked: Callable[[], bool], *, every_s: float = ASK_EVERY_S) -> Iterator[None]:
    """Interrupt the block once ``asked`` says so, by SIGTERM; where nothing answers that, it is as ctrl-c.

    Such a ``KeyboardInterrupt`` ends here; that of a person passes. Signals are answered by the main thread:
    in another one nobody is asked.

    Args:
        asked: Whether the block is to end. Called in a thread of its own; an error is no answer.
        every_s: Seconds between two questions.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main, done, told = threading.get_ident(), threading.Event(), threading.Event()

    def look() -> None:
        while not done.wait(every_s):
            with suppress(Exception):  # an outage is no answer
                if asked() and not done.is_set():
                    told.set()
                    # Not SIGINT: whoever listens for a person's ctrl-c is not to hear of this.
                    signal.pthread_kill(main, signal.SIGTERM)
                    return

    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    thread = threading.Thread(target=look, name="cancelled elsewhere?", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if not told.is_set():
            raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # too late: the block is over
        done.set()
        thread.join()
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
