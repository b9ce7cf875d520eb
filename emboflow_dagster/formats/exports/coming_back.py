"""Which episodes a package says that it has: an export of ours that comes back as a recording.

Packages list them (`lineage/episodes.jsonl`), exported folders have their pages (`version/`), packages of
`normalize` their table alone. What has none of these is known by its numbers when it is made into episodes.
"""

import json
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.formats.canonical.schema import EPISODES_FILE, MANIFEST_FILE
from emboflow_dagster.formats.exports.package import DELIVERY, EPISODES

PAGES: Final = "version"
MAX_LINES: Final = 1_000_000
MAX_LINE: Final = 1 << 20
#: Of a list in an archive, in bytes.
MAX_LIST: Final = 256 << 20
_ARCHIVES: Final = {
    "zip": "zip",
    "tar": "tar",
    **{name: name for name in ("tar.gz", "tar.bz2", "tar.xz")},
    "tgz": "tar.gz",
}


def is_package(path: Path) -> bool:
    """Whether a folder or file may be one: only names are looked at."""
    if path.is_dir():
        return (path / EPISODES).is_file() or (path / MANIFEST_FILE).is_file()
    return _kind(path) is not None


def episodes(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The lines of its episodes, each with asset id to sha256 of the recordings that they came from.

    Of one that is damaged what can be read; nothing here is believed but what hashes and numbers tell.
    """
    if not path.is_dir():
        yield from _of_archive(path)
        return
    sources = _sources(path)
    place = 0
    if (path / EPISODES).is_file():
        with (path / EPISODES).open("rb") as stream:
            for entry in _lines(stream):
                yield {"episode": place, **entry}, sources
                place += 1
        return
    for page in sorted((path / PAGES).rglob("*")) if (path / PAGES).is_dir() else []:
        if page.is_file() and not page.is_symlink() and page.suffix != ".json":
            with page.open("rb") as stream:
                for entry in _lines(stream):
                    yield entry, sources
                    place += 1
    if not place and (path / EPISODES_FILE).is_file():
        yield from ((entry, sources) for entry in _table(path / EPISODES_FILE))


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for end, kind in _ARCHIVES.items() if name.endswith(f".{end}")), None)


def _of_archive(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    from emboflow_dagster.formats.archives.walk import members

    sources: dict[str, str] = {}
    try:
        for member, stream in members(path, _kind(path) or "zip"):
            if stream is None:
                continue
            if member.name.endswith(f"/{DELIVERY}"):  # it stands before the list: names are in order
                sources = _told(stream.read(MAX_LINE))
            elif member.name.endswith(f"/{EPISODES}"):
                entries = enumerate(_lines(stream))
                yield from (({"episode": place, **entry}, sources) for place, entry in entries)
                return
    except (EmboflowError, OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, tarfile.TarError):
        return  # whoever unpacks it says what is wrong with it


def _sources(folder: Path) -> dict[str, str]:
    for name in (MANIFEST_FILE, DELIVERY):
        if (folder / name).is_file():
            with (folder / name).open("rb") as stream:
                if found := _told(stream.read(MAX_LIST)):
                    return found
    return {}


def _told(data: bytes) -> dict[str, str]:
    try:
        said = json.loads(data)
        rows = said.get("sourceAssets") or said.get("dataset", {}).get("sourceAssets") or []
        return {str(row["assetId"]): str(row["sha256"]) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _lines(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Lines that are episodes; pages have others too."""
    left = MAX_LIST
    for _ in range(MAX_LINES):
        line = stream.readline(MAX_LINE)
        left -= len(line)
        if not line or left < 0:
            return
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("content"), str) and isinstance(row.get("id"), str):
            yield _whole(row)


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    source = row.get("source")
    source = source if isinstance(source, dict) else {}
    return {
        **row,
        "source": {name: source.get(name) for name in ("assetId", "path", "ref")},
        "length": row["length"] if isinstance(row.get("length"), int) else 0,
        "t0Ns": row["t0Ns"] if isinstance(row.get("t0Ns"), int) else None,
    }


def _table(path: Path) -> Iterable[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from emboflow_dagster.formats.canonical.stats import STAT_NAMES

    try:
        with path.open("rb") as stream:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    stats: dict[str, dict[str, Any]] = {}
                    for key, value in row.items():
                        _, _, rest = key.partition("stats/")
                        feature, _, name = rest.rpartition("/")
                        if feature and name in STAT_NAMES:
                            stats.setdefault(feature, {})[name] = value
                    source = {n: row.get(f"source_{k}") for n, k in _SOURCE}
                    told = {"episode": row.get("episode_index"), "id": "", "content": "", "stats": stats}
                    told |= {"source": source, "length": row.get("length"), "t0Ns": row.get("t0_ns")}
                    yield _whole(told)
    except (OSError, pa.ArrowException):
        return


_SOURCE: Final = (("assetId", "asset_id"), ("path", "path"), ("ref", "ref"))
