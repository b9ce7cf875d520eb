"""Assets that are a prefix of an object store: registered by their listing, probed by ranged reads.

The listing (path, size and the server's tag of each object) is the asset's payload; the objects stay where
they are and are never downloaded whole.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs.store import Blobs
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.model.asset import MAX_TOP_LEVEL_PATHS, Asset
from emboflow_dagster.object_storage.prefix import Listed, Prefix
from emboflow_dagster.project.asset_files import Progress, Taken
from emboflow_dagster.runtime.child import run_child

PREFIX_TYPE: Final = "application/vnd.emboflow.prefix+jsonl"
MAX_LOOKED_AT: Final = 200
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
    blobs: Blobs, asset: Asset, *, make: Make = Prefix, timeout_s: float, memory_mb: int
) -> dict[str, Any]:
    """Look into a prefix in a child process that gets URLs of single objects, and no credentials.

    Objects that are gone or changed since they were listed are warnings.

    Returns:
        The JSON of a probe.
    """
    prefix = make(str((asset.summary or {}).get("sourcePath")))
    then, now = _read(blobs, asset), {found.path: found for found in prefix.objects()}
    chosen = _chosen(then)
    rows = [[found.path, found.size, prefix.lend(found.path)] for found in chosen if found.path in now]
    counts = _counts(then)
    report: dict[str, Any] = run_child(
        "emboflow_dagster.formats.remote:probe_json",
        prefix.url,
        counts,
        rows,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
    )
    notes = Probe()
    gone = [found.path for found in then if found.path not in now]
    changed = [f.path for f in then if f.path in now and now[f.path].etag != f.etag]
    if gone:
        notes.warn("missing_parts", f"{len(gone)} listed objects are not there any more", gone[0])
    if changed:
        notes.warn("metadata_mismatch", f"{len(changed)} objects changed since they were listed", changed[0])
    return {**report, "warnings": [*notes.to_json()["warnings"], *report["warnings"]]}


def _read(blobs: Blobs, asset: Asset) -> list[Listed]:
    with blobs.open_ref(asset.storage_ref) as stream:
        return [Listed(*json.loads(line)) for line in stream.read().splitlines()]


def _chosen(listing: Iterable[Listed]) -> list[Listed]:
    """The objects that are looked into: telling ones first, otherwise in the order of the listing."""
    telling = [found for found in listing if found.path.lower().endswith(TELLING)]
    return telling[:MAX_LOOKED_AT]


def _counts(listing: list[Listed]) -> dict[str, Any]:
    from emboflow_dagster.formats.remote import counted

    return counted([(found.path, found.size) for found in listing])
