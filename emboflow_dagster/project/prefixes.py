"""Assets that are a prefix of an object store: registered by their listing, probed by ranged reads.

The listing (path, size and the server's tag of each object) is the asset's payload; the objects stay where
they are. Nodes that read an asset whole get them for as long as they run
(:mod:`~emboflow_dagster.project.prefix_files`).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.formats.remote import TELLS_FOLDER, Counts
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.model.asset import MAX_TOP_LEVEL_PATHS, Asset
from emboflow_dagster.object_storage.prefix import Listed, Prefix
from emboflow_dagster.project.asset_files import Progress, Taken
from emboflow_dagster.runtime.child import run_child
from emboflow_dagster.runtime.node import ChildCall

PREFIX_TYPE: Final = "application/vnd.emboflow.prefix+jsonl"
MAX_LOOKED_AT: Final = 200
#: Of documents that say what a folder is.
MAX_TOLD: Final = 50
#: What is looked into first: objects whose ends say what they hold.
TELLING: Final = (
    *(".mcap", ".bag", ".db3", ".zip", ".parquet", ".hdf5", ".h5"),
    *(".mp4", ".mkv", ".mov", ".npy", ".csv"),
)
_URL: Final = re.compile(r"s3:/+")
Make = Callable[[str], Prefix]


def prefix_url(path: Path | str) -> str | None:
    """The URL where ``path`` is one (a ``Path`` has lost one of its slashes), else ``None``."""
    text = str(path)
    found = _URL.match(text)
    return f"s3://{text[found.end() :]}" if found else None


def take_prefix(blobs: Blobs, url: str, *, make: Make = Prefix, progress: Progress | None = None) -> Taken:
    """List a prefix and store the listing.

    Raises:
        InvalidInputError: It is no such URL.
        UnavailableError, ConfigurationError: The object store does not answer, or refuses.
    """
    size = files = 0
    top: set[str] = set()

    def lines() -> Iterator[bytes]:
        nonlocal size, files
        for found in make(url).objects():
            size += found.size
            files += 1
            if len(top) < MAX_TOP_LEVEL_PATHS:
                top.add(found.path.split("/", 1)[0][:512])
            if progress and files % 1_000 == 0:
                progress(files, size)
            yield (json.dumps([found.path, found.size, found.etag], ensure_ascii=False) + "\n").encode()

    ref = blobs.put_payload(lines(), content_type=PREFIX_TYPE)
    return Taken(ref, size, files, sorted(top))


def probe_prefix(
    blobs: Blobs,
    asset: Asset,
    *,
    make: Make = Prefix,
    child: ChildCall = run_child,
    timeout_s: float,
    memory_mb: int,
) -> dict[str, Any]:
    """Look into a prefix in a child process that gets URLs of single objects, and no credentials.

    Objects that are gone or changed since they were listed are warnings. Both listings go by row by row; one
    that is replaced while it is looked into is a warning of its own.

    Returns:
        The JSON of a probe.
    """
    prefix = make(str((asset.summary or {}).get("sourcePath")))
    compared = _Compared(lambda path: (not prefix.is_single(path), path.encode()))
    chosen, counts = [], Counts()
    told: list[Listed] = []
    for found, now in compared.of(listed(blobs, asset), prefix.objects()):
        counts.add(found.path, found.size)
        if now is None:
            continue
        if now.path.endswith(TELLS_FOLDER):
            told += [now] if len(told) < MAX_TOLD else []
        elif len(chosen) < MAX_LOOKED_AT and now.path.lower().endswith(TELLING):
            chosen.append(now)
    report: dict[str, Any] = child(
        "emboflow_dagster.formats.remote:probe_json",
        prefix.url,
        counts.to_json(),
        [[found.path, found.size, prefix.lend(found.path), found.etag] for found in (*told, *chosen)],
        timeout_s=timeout_s,
        memory_mb=memory_mb,
    )
    return {**report, "warnings": [*compared.warnings(), *report["warnings"]]}


def listed(blobs: Blobs, asset: Asset) -> Iterator[Listed]:
    """What the prefix held when it was registered, in the order of the server; memory holds a row."""
    with blobs.open_ref(asset.storage_ref) as stream:
        for line in stream:
            yield Listed(*json.loads(line))


class _Compared:
    """A listing of then beside that of now, both in the order of their keys: what is gone, what changed.

    Args:
        order: Of a path in such a listing.
    """

    def __init__(self, order: Callable[[str], tuple[bool, bytes]]) -> None:
        self._order = order
        self.gone = self.changed = 0
        self.first_gone = self.first_changed = ""

    def of(self, then: Iterable[Listed], now: Iterable[Listed]) -> Iterator[tuple[Listed, Listed | None]]:
        """Every object of then, and what is there now under its name."""
        left = iter(now)
        current = next(left, None)
        for found in then:
            key = self._order(found.path)
            while current is not None and self._order(current.path) < key:
                current = next(left, None)
            there = current is not None and current.path == found.path
            if not there:
                self.gone += 1
                self.first_gone = self.first_gone or found.path
            elif current is not None and (current.etag, current.size) != (found.etag, found.size):
                self.changed += 1
                self.first_changed = self.first_changed or found.path
            yield found, current if there else None

    def warnings(self) -> list[dict[str, Any]]:
        """As a report has them."""
        notes = Probe()
        if self.gone:
            text = f"{self.gone} listed objects are not there any more"
            notes.warn("missing_parts", text, self.first_gone)
        if self.changed:
            text = f"{self.changed} objects changed since they were listed"
            notes.warn("metadata_mismatch", text, self.first_changed)
        return notes.to_json()["warnings"]
