"""What `emboflow gc` would take away, counted for `emboflow verify` (I6): no problem, only a number."""

from collections import Counter
from datetime import timedelta
from typing import Final

from emboflow_dagster.errors import IntegrityError, NotFoundError
from emboflow_dagster.project.gc.liveness import Liveness
from emboflow_dagster.project.gc.marking import Marking
from emboflow_dagster.project.gc.shards import Shards
from emboflow_dagster.project.gc.sweep import cutoff, look
from emboflow_dagster.project.opened import Opened

GRACE: Final = timedelta(hours=24)


def leftovers(opened: Opened) -> Counter[str]:
    """Payloads that no document names and whose grace is over, and outboxes that a put left filled.

    Nothing is counted where a listing cannot be read: what it names is not known then.
    """
    before = cutoff(opened.store, opened.mongo, GRACE.total_seconds())
    liveness = Liveness(opened.mongo, opened.mongo.server_time(), GRACE)
    found: Counter[str] = Counter()
    with Shards(opened.settings.home / "work") as shards:
        marking = Marking(opened.mongo, opened.blobs, liveness, shards)
        try:
            for _ in marking.versions_of_all(archive=False):
                pass
            marking.records()
        except IntegrityError:
            return found
        shards.flush()
        found["unfinished outboxes"] = marking.tails
        for key, known in look(opened.store, shards):
            if not known:
                try:
                    found["unreferenced payloads"] += opened.store.stat(key).modified_at.timestamp() < before
                except NotFoundError:  # collected meanwhile
                    continue
    return found
