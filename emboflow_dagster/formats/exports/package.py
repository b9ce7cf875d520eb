"""What makes a folder a package: README, `delivery.json`, lineage and checksums, always the same bytes."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError, NotFoundError
from emboflow_dagster.formats.canonical.writer import file_sha256, producer
from emboflow_dagster.formats.exports.identity import Identity

SCHEMA: Final = "emboflow-delivery/1"
README: Final = "README.md"
DELIVERY: Final = "delivery.json"
SUMS: Final = "SHA256SUMS"
EPISODES: Final = "lineage/episodes.jsonl"
#: What of an episode's line is told; the rest is in the version.
_TOLD: Final = ("episode", "id", "content", "length", "tasks", "source", "t0Ns", "success", "flags")


def write_lineage(out: Path, identity: Identity) -> None:
    """`lineage/episodes.jsonl`: which episode of which recording stands at which place."""
    path = out / EPISODES
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.writelines(
            json_line({key: row[key] for key in _TOLD if key in row}) for row in identity.episodes()
        )


def dataset_facts(
    identity: Identity, document: Mapping[str, Any], *, name: str | None, tag: str | None
) -> dict[str, Any]:
    """What `delivery.json` says of the version.

    Args:
        identity: Its hashes.
        document: Its manifest.
        name: The dataset's name, ``None`` for a package that no version was made of.
        tag: The version's tag, likewise.
    """
    return {
        "name": name,
        "versionTag": tag,
        "versionSha256": identity.version_sha256,
        "treeSha256": identity.tree_sha256,
        "episodes": document["episodes"],
        "frames": document["frames"],
        "fps": document["fps"],
        "robotType": document.get("robotType"),
        "sourceAssets": document.get("sourceAssets", []),
    }


def close_package(
    out: Path,
    *,
    format: str,  # noqa: A002 - the contract's word
    facts: Mapping[str, Any],
    readme: str,
    options: Mapping[str, Any],
    libraries: Sequence[str] = (),
) -> dict[str, Any]:
    """Write README, `delivery.json` and, last, `SHA256SUMS`.

    Args:
        out: The folder; everything else is in it.
        format: What its layout is called.
        facts: What `delivery.json` says besides.
        readme: Its README.
        options: What the writer was told.
        libraries: Distributions whose version the bytes depend on.

    Returns:
        What `delivery.json` says.
    """
    (out / README).write_text(readme, encoding="utf-8")
    document = {
        "schema": SCHEMA,
        "format": format,
        **facts,
        "options": dict(options),
        "producer": {**producer(options), "libraries": {name: metadata.version(name) for name in libraries}},
        "files": [
            {"path": name, "sha256": file_sha256(path), "size": path.stat().st_size}
            for name, path in files_of(out)
            if name not in (DELIVERY, SUMS)
        ],
    }
    payload = json_text(document).encode()
    (out / DELIVERY).write_bytes(payload)
    sums = {row["path"]: row["sha256"] for row in document["files"]}
    sums[DELIVERY] = hashlib.sha256(payload).hexdigest()
    text = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items()))
    (out / SUMS).write_text(text, encoding="utf-8")
    return document


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder by its path with ``/``, sorted."""
    found = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    yield from sorted(found)


def check_package(folder: Path) -> dict[str, Any]:
    """Hold every file of a package against its `SHA256SUMS`; what its `delivery.json` says.

    Raises:
        NotFoundError: It has no `SHA256SUMS`: no package, or half of one.
        IntegrityError: A file is missing, changed, or not named.
    """
    if not (folder / SUMS).is_file() or not (folder / DELIVERY).is_file():
        raise NotFoundError(f"{folder.name}: no {SUMS} and {DELIVERY}, so no package (or half of one)")
    told: dict[str, str] = {}
    for line in (folder / SUMS).read_text("utf-8").splitlines():
        sha256, _, name = line.partition("  ")
        told[name] = sha256
    found = {name: path for name, path in files_of(folder) if name != SUMS}
    if absent := sorted(set(told) - set(found)):
        raise IntegrityError(f"{absent[0]} is missing", kind=ErrorKind.PAYLOAD_MISSING)
    if unknown := sorted(set(found) - set(told)):
        raise IntegrityError(f"{unknown[0]} is not in {SUMS}", kind=ErrorKind.REF_MISMATCH)
    for name, path in found.items():
        if (sha256 := file_sha256(path)) != told[name]:
            text = f"{name} has sha256 {sha256}, recorded is {told[name]}"
            raise IntegrityError(text, kind=ErrorKind.HASH_MISMATCH)
    return json.loads((folder / DELIVERY).read_bytes())


def json_text(value: Any) -> str:
    """JSON for people to read, keys in order."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def json_line(value: Any) -> bytes:
    """One line of JSON, keys in order."""
    return (json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
