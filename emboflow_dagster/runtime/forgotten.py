"""Episodes that were forgotten, as a run meets them: not made again, and not recorded again.

A recording is known by its bytes: registered again, under whatever name, it is the same one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.forgotten import reinstated, told, tombstones
from emboflow_dagster.blobs.forgotten_match import Match
from emboflow_dagster.blobs.listing import is_listing
from emboflow_dagster.errors import ErrorKind, ForbiddenError
from emboflow_dagster.formats.canonical.episode_files import OBJECTS
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import Mongo, Raw
from emboflow_dagster.mongo.documents import Documents

HINT: Final = (
    "take it out of what the run reads: `normalize` leaves it out by itself; "
    "or `emboflow dataset reinstate TOMBSTONE --reason TEXT`"
)
#: Path in a recording, ``None`` for any (it is one file), and place there.
Place = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class _Rule:
    note: Raw
    match: Match
    places: frozenset[tuple[str, str | None, str | None]]
    """sha256 of a recording, path in it (``None`` where it is one file), place there."""


class Forgotten:
    """What is forgotten in a project and was not reinstated since; read when it is asked for first."""

    def __init__(self, mongo: Mongo, scope: Scope) -> None:
        back = reinstated(mongo, scope.project_id)
        notes = [
            note
            for note in tombstones(mongo, scope.workspace_id, scope.project_id)
            if note["name"] not in back
        ]
        assets: Documents[Asset] = Documents(mongo, scope, Asset)
        sources = sorted({row["id"] for note in notes for row in note["sources"]})
        found = assets.find({"_id": {"$in": sources}}, limit=0) if sources else []
        folders = {asset.id for asset in found if is_listing(asset.storage_ref)}
        self._rules = [_rule(note, folders) for note in notes]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def places(self, asset: Asset) -> list[Place]:
        """Where in an asset forgotten episodes are."""
        sha256 = asset.storage_ref.sha256
        found = {(path, ref) for rule in self._rules for sha, path, ref in rule.places if sha == sha256}
        return sorted(found, key=str)

    def refuse(self, entries: Sequence[Mapping[str, Any]] | Any, sources: Mapping[str, str]) -> None:
        """Raise when one of the entries of a version is forgotten.

        Args:
            entries: Lines of its pages.
            sources: Asset id to the sha256 of its bytes.

        Raises:
            ForbiddenError: Kind `episode-forgotten`; names the episode, who forgot it and why.
        """
        if not self._rules:
            return
        for entry in entries:
            for rule in self._rules:
                if self._is(rule, entry, sources):
                    source = entry["source"]
                    place = ", ".join(str(source[name]) for name in ("path", "ref") if source[name])
                    tombstone = rule.note["name"].rpartition(":")[2]
                    raise ForbiddenError(
                        f"episode {entry['id']} ({place}) is one that may not be recorded again: "
                        f"{told(rule.note)}; tombstone {tombstone}",
                        kind=ErrorKind.EPISODE_FORGOTTEN,
                        hint=HINT,
                    )

    @staticmethod
    def _is(rule: _Rule, entry: Mapping[str, Any], sources: Mapping[str, str]) -> bool:
        if rule.match(dict(entry)):
            return True
        if entry["content"] in rule.match.spared:
            return False
        source = entry["source"]
        sha256 = sources.get(str(source["assetId"]))
        return sha256 is not None and bool(
            {(sha256, source["path"], source["ref"]), (sha256, None, source["ref"])} & rule.places
        )


def _rule(note: Raw, folders: Collection[str]) -> _Rule:
    """Of a tombstone; ``folders`` are the assets that are not one file."""
    match = Match.from_json(note["match"])
    bytes_of = {row["id"]: row["sha256"] for row in note["sources"] if row.get("sha256")}
    places = {
        (bytes_of[asset], path if asset in folders else None, ref)
        for asset, path, ref in match.sources
        if asset in bytes_of
    }
    return _Rule(note, match, frozenset(places))


def refuse_version(mongo: Mongo, scope: Scope, package: Path, manifest: Mapping[str, Any]) -> None:
    """Raise when the version in a folder has an episode that was forgotten; see :meth:`Forgotten.refuse`."""
    forgotten = Forgotten(mongo, scope)
    root = pages.root_of(manifest)
    if not forgotten or root is None:
        return

    def read(sha256: str, _size: int) -> bytes:
        return (package / OBJECTS / sha256).read_bytes()

    sources = {str(row["assetId"]): str(row["sha256"]) for row in manifest.get("sourceAssets") or ()}
    forgotten.refuse(
        (
            pages.parsed(line)
            for _, leaf in pages.episode_pages(read, root)
            for line in pages.lines(leaf, read(leaf.sha256, leaf.size))
        ),
        sources,
    )
