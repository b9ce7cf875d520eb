"""What lets a folder of payloads be collected beside its writers; see decision 13.

::

    <root>/tmp/flight-...          one a writer that is about to refer to what it puts: as old as its
                                   beginning, locked while its process lives; see `flights`
    <root>/condemned/ab/cdef...    taken out of reach for a moment: removed next, or put back

A payload is collected when it was last put before everything that is still in flight began. Taken aside
first, its time is looked at once more: a writer either touched it before, and it is put back, or finds it
missing and writes it anew. A reader that misses it puts it back too.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from emboflow_dagster.model.storage import check_key
from emboflow_dagster.object_storage.disk import names, naming_failures
from emboflow_dagster.object_storage.flights import FLIGHT, Flights
from emboflow_dagster.object_storage.payload import PREFIX, STALE_AFTER_S, StaleUpload

TEMP: Final = "tmp"
CONDEMNED: Final = "condemned"
# Made, but not yet locked: a flight this young counts as alive.
_TAKE_OFF_S: Final = 60


class Collecting:
    """The part of a local store that gc uses; the store has ``root`` and ``flights``."""

    root: Path
    flights: Flights

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Whatever is put inside the block is not collected before the block ends, however long it takes."""
        with naming_failures(self.root):
            flight = self.flights.begin()
        try:
            yield
        finally:
            self.flights.end(flight)

    def safe_before(self, grace_s: float) -> float:
        """Payloads last put before this time (seconds, of the file system's clock) may be collected."""
        folder = self.root / TEMP
        with naming_failures(self.root):
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f"clock-{os.getpid()}-{secrets.token_hex(8)}"
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink()
        limit = now - grace_s
        for name in names(folder):
            if name.startswith(FLIGHT):
                limit = min(limit, self._began(folder / name, now, limit))
        return limit

    @staticmethod
    def _began(path: Path, now: float, nobody: float) -> float:
        """When a flight began; ``nobody`` when who began it is no more."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return nobody
        began = os.fstat(fd).st_mtime
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # locked by its writer, or no lock can be had here: alive
            return began
        finally:
            os.close(fd)
        return began if 0 <= now - began <= _TAKE_OFF_S else nobody

    def condemn(self, key: str, before: float) -> bool:
        """Take a payload out of reach; ``False``, and it stays, when it was put at or after ``before``."""
        path, aside = self.root / check_key(key), self._aside(key)
        with naming_failures(self.root):
            try:
                if path.stat().st_mtime >= before:
                    return False
                aside.parent.mkdir(parents=True, exist_ok=True)
                path.rename(aside)
                if aside.stat().st_mtime < before:
                    return True
            except (FileNotFoundError, NotADirectoryError):  # somebody else was first
                return False
        self.spare(key)
        return False

    def spare(self, key: str) -> bool:
        """Put back what was condemned; whether there was something."""
        aside, path = self._aside(key), self.root / check_key(key)
        with naming_failures(self.root):
            try:
                # Not a rename: what somebody wrote anew meanwhile is at least as good.
                with suppress(FileExistsError):
                    path.hardlink_to(aside)
                aside.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def destroy(self, key: str) -> bool:
        """Remove what was condemned; whether it was there."""
        with naming_failures(self.root):
            try:
                self._aside(key).unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def condemned(self, shard: str) -> list[str]:
        """The keys that were condemned in one shard (two hex digits) and neither removed nor put back."""
        return [f"{PREFIX}/{shard}/{name}" for name in names(self.root / CONDEMNED / shard)]

    def stale_uploads(self, *, older_than_s: float = STALE_AFTER_S) -> list[StaleUpload]:
        """Files of puts that never ended: not written to for ``older_than_s`` seconds."""
        limit = time.time() - older_than_s
        stale: list[StaleUpload] = []
        for name in names(self.root / TEMP):
            with suppress(FileNotFoundError):
                found = (self.root / TEMP / name).stat()
                if (found.st_mtime < limit or name.startswith(FLIGHT)) and not self._flies(name):
                    at = datetime.fromtimestamp(found.st_mtime, UTC)
                    stale.append(StaleUpload(name, at, found.st_size))
        return stale

    def abort_upload(self, stale: StaleUpload) -> None:
        """Remove what an upload left; nothing happens when it has ended since."""
        with naming_failures(self.root):
            (self.root / TEMP / check_key(stale.name)).unlink(missing_ok=True)

    def _flies(self, name: str) -> bool:
        return name.startswith(FLIGHT) and self._began(self.root / TEMP / name, time.time(), -1.0) >= 0

    def _aside(self, key: str) -> Path:
        return self.root / CONDEMNED / check_key(key).removeprefix(f"{PREFIX}/")
