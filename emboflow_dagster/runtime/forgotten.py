"""Episodes that were forgotten, as a run meets them: not handed out, not made again, not recorded again.

A recording is known by its bytes: registered again, under whatever name, it is the same one.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.forgotten import reinstated, rules, told, tombstones
from emboflow_dagster.blobs.forgotten_match import Match
from emboflow_dagster.blobs.forgotten_place import Place, place_of
from emboflow_dagster.blobs.listing import is_listing
from emboflow_dagster.errors import ErrorKind, ForbiddenError
from emboflow_dagster.formats.canonical.episode_files import OBJECTS
from emboflow_dagster.model.artifact import NORMALIZED_DATASET_PACKAGE
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.mongo.client import Mongo, Raw, Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.runtime import derived
from emboflow_dagster.runtime.code_hook import given_to
from emboflow_dagster.runtime.node import NodeInput, NodeType

HINT: Final = (
    "take it out of what the run reads: `normalize` leaves it out by itself; "
    "or `emboflow dataset reinstate TOMBSTONE --reason TEXT`"
)
HOLDS: Final = "forgotten"
"""What in an asset's summary says that it was registered although it has forgotten episodes, and which."""
_NAMED: Final = 5
_LATER: Final = "say it again: it is done without the episode"


@dataclass(frozen=True, slots=True)
class _Rule:
    note: Raw
    match: Match


class Forgotten:
    """What is forgotten in a project and was not reinstated since.

    Args:
        mongo: The open database.
        scope: The project.
        session: Reads in its transaction.
    """

    def __init__(self, mongo: Mongo, scope: Scope, session: Session | None = None) -> None:
        notes = list(rules(mongo, scope.workspace_id, scope.project_id, session))
        back = reinstated(mongo, scope.project_id, session) if notes else {}
        notes = [note for note in notes if note["name"] not in back]
        found: list[Asset] = []
        if any("places" not in note["match"] for note in notes):  # of before they had places
            assets: Documents[Asset] = Documents(mongo, scope, Asset)
            sources = sorted({row["id"] for note in notes for row in note["sources"]})
            found = assets.find({"_id": {"$in": sources}}, limit=0, session=session)
        folders = {asset.id for asset in found if is_listing(asset.storage_ref)}
        self._rules = [_rule(note, folders) for note in notes]
        self.names = frozenset(note["name"] for note in notes)
        """Of the tombstones."""
        self.ids = frozenset(name.rpartition(":")[2] for name in self.names)
        self.finished = all(note["state"] == "destroyed" for note in notes)
        """Whether nobody is at it: every version that has such an episode is withdrawn."""

    def __bool__(self) -> bool:
        return bool(self._rules)

    def places(self, asset: Asset) -> list[Place]:
        """Where in an asset forgotten episodes are."""
        sha256 = asset.storage_ref.sha256
        found = {place for rule in self._rules for place in rule.match.places if place.sha256 == sha256}
        for row in (asset.summary or {}).get(HOLDS) or ():  # it was registered although it has some
            if row["tombstone"] in self.ids and row.get("ref"):
                found.add(Place(sha256, None, row["ref"]))
        return sorted(found, key=str)

    def traces(self) -> list[list[Any]]:
        """The numbers of forgotten episodes, as a child process is told them."""
        return [trace.to_json() for rule in self._rules for trace in rule.match.traces]

    def matches(self) -> list[Match]:
        """The rules, one a tombstone, in the order of :meth:`since`."""
        return [rule.match for rule in self._rules]

    def destroyed(self, mongo: Mongo, scope: Scope) -> dict[str, tuple[int, str]]:
        """sha256 of each payload that was destroyed to its size and the id of the tombstone."""
        return {
            payload["sha256"]: (int(payload["size"]), note["name"].rpartition(":")[2])
            for note in tombstones(mongo, scope.workspace_id, scope.project_id)
            if note["name"] in self.names
            for payload in note["payloads"]
            if not payload.get("keptBy")
        }

    def since(self, known: Collection[str]) -> list[tuple[Raw, set[str]]]:
        """The tombstones that are not known yet, each with the sha256 of the recordings that it is about."""
        return [
            (rule.note, {place.sha256 for place in rule.match.places})
            for rule in self._rules
            if rule.note["name"] not in known
        ]

    def refuse(
        self,
        entries: Iterable[Mapping[str, Any]],
        sources: Mapping[str, str],
        fps: float | None = None,
    ) -> None:
        """Raise when one of the entries of a version is forgotten.

        Args:
            entries: Lines of its pages.
            sources: Asset id to the sha256 of its bytes.
            fps: The rate of the version.

        Raises:
            ForbiddenError: Kind `episode-forgotten`; names the episode, who forgot it and why.
        """
        matches = [(rule, rule.match.knowing(sources)) for rule in self._rules]
        for entry in entries if matches else ():
            for rule, match in matches:
                if match(entry, fps):
                    source = entry["source"]
                    place = ", ".join(str(source[name]) for name in ("path", "ref") if source[name])
                    tombstone = rule.note["name"].rpartition(":")[2]
                    raise ForbiddenError(
                        f"episode {entry['id']} ({place}) is one that may not be recorded again: "
                        f"{told(rule.note)}; tombstone {tombstone}",
                        kind=ErrorKind.EPISODE_FORGOTTEN,
                        hint=HINT,
                    )

    def refuse_manifest(
        self,
        manifest: Mapping[str, Any],
        read: Callable[[str, int], bytes],
        *,
        skip: Callable[[str], bool] = lambda _sha256: False,
    ) -> None:
        """Raise when the version of a manifest has an episode that was forgotten; see :meth:`refuse`.

        Args:
            manifest: Of the version; one of the older layout has no tree and is not looked into.
            read: Gives the bytes of a page by its sha256 and size.
            skip: Whether a page is known to have none.
        """
        root = pages.root_of(manifest)
        if not self or root is None:
            return
        sources = {str(row["assetId"]): str(row["sha256"]) for row in manifest.get("sourceAssets") or ()}
        lines = (
            pages.parsed(line)
            for _, leaf in pages.episode_pages(read, root, skip=skip)
            for line in pages.lines(leaf, read(leaf.sha256, leaf.size))
        )
        self.refuse(lines, sources, float(manifest["fps"]))


def _rule(note: Raw, folders: Collection[str]) -> _Rule:
    """Of a tombstone; ``folders`` are the assets that are not one file."""
    match = Match.from_json(note["match"])
    if "places" in note["match"]:
        return _Rule(note, match)
    bytes_of = {row["id"]: row["sha256"] for row in note["sources"] if row.get("sha256")}
    places = frozenset(
        place_of(bytes_of[asset], None if asset in folders else path, {"source": {"path": path, "ref": ref}})
        for asset, path, ref in match.sources
        if asset in bytes_of
    )
    return _Rule(note, replace(match, places=places))


def refuse_version(mongo: Mongo, scope: Scope, package: Path, manifest: Mapping[str, Any]) -> None:
    """Raise when the version in a folder has an episode that was forgotten; see :meth:`Forgotten.refuse`."""

    def read(sha256: str, _size: int) -> bytes:
        return (package / OBJECTS / sha256).read_bytes()

    Forgotten(mongo, scope).refuse_manifest(manifest, read)


def refuse_new(
    mongo: Mongo,
    scope: Scope,
    session: Session,
    known: Collection[str],
    shas: Callable[[], Collection[str]] = lambda: (),
) -> None:
    """Raise when something was forgotten since a work began, that it may have read before.

    Who forgets touches all that is at work (:mod:`emboflow_dagster.project.forget.fence`), so a transaction
    that did not see the tombstone is made again, and sees it here.

    Args:
        mongo: The open database.
        scope: The project.
        session: The transaction that records the work.
        known: Names of the tombstones that it heeded.
        shas: The sha256 of the recordings that it is about; of none: of any.

    Raises:
        ForbiddenError: Kind `episode-forgotten`; nothing is recorded, and to do it again is enough.
    """
    for note, of in Forgotten(mongo, scope, session).since(known):
        mine = set(shas())
        if not mine or not of or mine & of:
            text = f"{told(note)}, while this was on its way; nothing was recorded"
            raise ForbiddenError(text, kind=ErrorKind.EPISODE_FORGOTTEN, hint=_LATER)


def leaves_out(node_type: NodeType, task: RunTask) -> bool:
    """Whether a task leaves forgotten episodes out by itself, where it is told their places."""
    hook = task.code_hook_spec
    if node_type.code_hook and hook is not None:
        return given_to(hook.source, hook.entrypoint) != "inputs"
    return node_type.makes_episodes


def held_back(node_type: NodeType, task: RunTask, forgotten: Collection[str]) -> frozenset[str]:
    """Assets with forgotten episodes that a task is not handed as they are: its node cannot leave them out.

    A node that reads no bytes is given none; a report of what is in a recording is no copy of it.
    """
    if not node_type.needs_bytes or node_type.reports or leaves_out(node_type, task):
        return frozenset()
    return frozenset(forgotten)


def reads_on(node_type: NodeType, inputs: Mapping[str, NodeInput]) -> bool:
    """Whether there is something to do for a node none of whose assets it is handed."""
    artifacts = [artifact for given in inputs.values() for artifact in given.artifacts]
    if node_type.code_hook or node_type.produces is None:
        return bool(artifacts)
    return any(a.type == NORMALIZED_DATASET_PACKAGE or derived.is_bundle(a) for a in artifacts)


def told_back(names: Sequence[str]) -> str:
    """The line of a task's log about assets that it was not handed."""
    more = len(names) - _NAMED
    some = ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (
        f"left out (episode-forgotten): {some}: an episode in it was forgotten, and this node cannot leave "
        "that one out; `emboflow dataset forgotten` says by whom and why"
    )
