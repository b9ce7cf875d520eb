"""Edits of datasets: always the next version, never a change of one that is there (decision 25).

An edit reads the pages of the latest version, writes the pages and files that differ, and commits a version
whose parent is the one that was edited. Nothing is taken away, so undoing is committing what the version
before held: a manifest, and no other byte.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.pages import Builder, line_of
from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.canonical.episode_files import OBJECTS, put_bytes
from emboflow_dagster.formats.canonical.pieces import of_one_task, piece
from emboflow_dagster.formats.canonical.stats import merge_stats
from emboflow_dagster.formats.canonical.writer import producer
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.project import dataset_changes as wanted
from emboflow_dagster.project.dataset_changes import Change, Delete, Merge, Relabel, Split, Success, Trim
from emboflow_dagster.project.dataset_commit import commit
from emboflow_dagster.project.dataset_content import Content, opened_content, workdir
from emboflow_dagster.project.dataset_undo import kept
from emboflow_dagster.project.opened import Opened

TASKS_SHOWN: Final = 20


def edit(
    opened: Opened,
    dataset: Dataset,
    base: DatasetVersion,
    changes: Sequence[Change],
    merged: Sequence[DatasetVersion],
    *,
    reason: str | None,
    tag: str | None,
) -> DatasetVersion:
    """Commit the version that ``changes`` make of ``base``.

    Args:
        opened: The deployment and scope.
        dataset: Whose versions.
        base: Its latest version.
        changes: Checked ones.
        merged: The version that each ``Merge`` among them means, in their order.
        reason: Why, for the version and the audit log.
        tag: The new version's tag.

    Raises:
        InvalidInputError: An episode is named that is not there, or no episode is left; nothing was written.
        ConflictError: Another version came meanwhile.
    """
    with ExitStack() as stack:
        out = stack.enter_context(workdir(opened))
        (out / OBJECTS).mkdir()
        content = stack.enter_context(opened_content(opened, base))
        others = [stack.enter_context(opened_content(opened, version)) for version in merged]
        for other, version in zip(others, merged, strict=True):
            _require_alike(content, other, version)
        work = _Work(content, changes, others, out)
        manifest = work.manifest(producer({"edit": [wanted.told(change) for change in changes]}))
        told = {
            "kind": "edit",
            "changes": [wanted.told(change) for change in changes[:TASKS_SHOWN]],
            "reason": reason,
            "episodes": {"from": content.root.episodes, "to": manifest[pages.TREE]["episodes"]},
        }
        folders = [one.folder for one in (content, *others) if one.folder is not None]
        for folder in folders:  # of the older layout: its episodes are in no store yet
            for path in (folder / OBJECTS).iterdir():
                if not (out / OBJECTS / path.name).exists():
                    path.rename(out / OBJECTS / path.name)
        return commit(
            opened,
            dataset,
            base,
            manifest,
            action="dataset.edit",
            told={"edit": told},
            summary={**kept(base), "tasks": work.tasks, "sourceAssetCount": work.sources, "edit": told},
            folder=out,
            tag=tag,
        )


def _require_alike(ours: Content, theirs: Content, version: DatasetVersion) -> None:
    differ = [name for name in ("fps", "robotType") if ours.manifest.get(name) != theirs.manifest.get(name)]

    def shapes(content: Content) -> dict[str, Any]:
        features = content.manifest["features"].items()
        return {
            name: [spec.get(key) for key in ("dtype", "shape", "names", "unit")] for name, spec in features
        }

    differ += ["features"] if shapes(ours) != shapes(theirs) else []
    if differ:
        raise InvalidInputError(
            f"merge: version {version.version_tag} differs in {', '.join(differ)}; only alike ones are merged"
        )


class _Work:
    """One pass over the episodes, from the old tree to the new one."""

    def __init__(
        self, content: Content, changes: Sequence[Change], merged: Sequence[Content], out: Path
    ) -> None:
        self._content = content
        self._out = out
        self._merged = list(merged)
        self._fps = float(content.manifest["fps"])
        self._by: dict[wanted.Which, list[Change]] = {}
        self._fresh = any(isinstance(change, Split | Merge) for change in changes)
        for change in changes:
            if isinstance(change, Delete | Relabel):
                for which in change.episodes:
                    self._by.setdefault(which, []).append(change)
            elif isinstance(change, Trim | Split):
                self._by.setdefault(change.episode, []).append(change)
        self._order = {id(change): number for number, change in enumerate(changes)}
        self._stats: dict[str, dict[str, list[Any]]] = {}
        self._assets: Counter[str] = Counter()
        self._ids: set[str] = set()
        self._tasks_all: set[str] = set()
        self.tasks: list[str] = []
        """The first of their tasks, for the summary."""

    @property
    def sources(self) -> int:
        """Assets that the episodes come from."""
        return len(self._assets)

    def manifest(self, made_by: dict[str, Any]) -> dict[str, Any]:
        """Do it; the new version's manifest.

        Raises:
            InvalidInputError: An episode is not there, or none is left.
        """
        there = {page.sha256 for c in self._stored for page in pages.every_page(c.read, c.root)}
        builder = Builder(lambda page: self._put(page, there))
        for line, entry in self._lines():
            self._note(entry)
            builder.add(line, entry)
        root = builder.close()
        if root is None:
            raise InvalidInputError("no episode would be left: a version has at least one")
        if root == self._content.root:
            raise InvalidInputError("nothing would change: the episodes are so already")
        old = self._content.manifest
        known = {a["assetId"]: a for c in (self._content, *self._merged) for a in c.manifest["sourceAssets"]}
        # Assets that no episode names (hooks may name none at all) stay.
        said = set(self._assets)
        sources = [a for name, a in known.items() if name in said] if said else list(known.values())
        page = {"path": root.path, "sha256": root.sha256, "size": root.size, "rows": root.episodes}
        others = [file for file in old["files"] if not file["path"].startswith("version/")]
        return {
            **old,
            "episodes": root.episodes,
            "frames": root.frames,
            "tasks": len(self._tasks_all),
            "stats": self._stats,
            "sourceAssets": sources,
            "producer": made_by,
            "quality": None,
            pages.TREE: root.to_json(),
            "files": [page, *others],
        }

    @property
    def _stored(self) -> list[Content]:
        return [content for content in (self._content, *self._merged) if content.folder is None]

    def _put(self, page: bytes, there: set[str]) -> None:
        if hashlib.sha256(page).hexdigest() not in there:
            put_bytes(self._out, page)

    def _note(self, entry: dict[str, Any]) -> None:
        for name, part in entry["stats"].items():
            self._stats[name] = merge_stats([self._stats[name], part] if name in self._stats else [part])
        if entry["source"]["assetId"]:
            self._assets[entry["source"]["assetId"]] += 1
        for task in entry["tasks"]:
            if task not in self._tasks_all:
                self._tasks_all.add(task)
                if len(self.tasks) < TASKS_SHOWN:
                    self.tasks.append(task)

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        left = set(self._by)
        if self._fresh:
            self._ids = {one.entry["id"] for one in self._content.episodes()}
        for one in self._content.episodes():
            entry = one.entry
            mine = [c for which in (one.index, entry["id"]) for c in self._by.get(which, ())]
            left -= {one.index, entry["id"]}
            if not mine:
                yield one.line, entry
                continue
            for changed in self._changed(entry, mine):
                yield line_of(changed), changed
        if left:
            names = ", ".join(str(which) for which in sorted(left, key=str)[:5])
            raise InvalidInputError(
                f"episode {names}: there is none; there are 0 to {self._content.root.episodes - 1}"
            )
        for other in self._merged:
            for one in other.episodes():
                entry = {**one.entry, "id": self._new_id(one.entry["id"])}
                yield line_of(entry), entry

    def _changed(self, entry: dict[str, Any], changes: list[Change]) -> list[dict[str, Any]]:
        """What becomes of one episode, its changes in the order in which they were given."""
        parts = [entry]
        for change in sorted(changes, key=lambda change: self._order[id(change)]):
            if isinstance(change, Delete):
                return []
            if len(parts) > 1 and not isinstance(change, Relabel):
                raise InvalidInputError(f"episode {entry['id']}: is split, and changed otherwise too")
            if isinstance(change, Relabel):
                parts = [self._relabelled(part, change) for part in parts]
            elif isinstance(change, Trim):
                stop = entry["length"] if change.stop is None else change.stop
                parts = [self._piece(parts[0], change.start, stop)]
            elif isinstance(change, Split):
                ends = [0, *change.at, parts[0]["length"]]
                cut = [self._piece(parts[0], *ends[i : i + 2]) for i in range(len(ends) - 1)]
                parts = [cut[0], *({**part, "id": self._new_id(entry["id"])} for part in cut[1:])]
        return parts

    def _piece(self, entry: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
        return piece(entry, start, stop, fps=self._fps, fetch=self._fetch, out=self._out)

    def _fetch(self, file: Any, path: Path) -> Path:
        """A payload of the version, or one that this edit made."""
        made = self._out / OBJECTS / file["sha256"]
        if made.exists():
            return Path(shutil.copyfile(made, path))
        return self._content.fetch(file, path)

    def _relabelled(self, entry: dict[str, Any], change: Relabel) -> dict[str, Any]:
        entry = dict(entry)
        if change.task is not None:
            if len(entry["tasks"]) > 1:
                entry = of_one_task(entry, fetch=self._fetch, out=self._out)
            entry["tasks"] = [change.task]
        if change.success is not None:
            entry["success"] = Success(change.success).stored
        flags = [flag for flag in entry["flags"] if flag not in set(change.remove_flags)]
        entry["flags"] = list(dict.fromkeys([*flags, *change.add_flags]))
        return entry

    def _new_id(self, like: str) -> str:
        """An id of its own for a part or a copy of an episode."""
        number, id_ = 1, like
        while id_ in self._ids:
            number += 1
            id_ = f"{like}-{number}"
        self._ids.add(id_)
        return id_
