"""Destroys payloads that nothing but forgotten episodes names: gc's rule and gc's care, without its grace."""

import json
from collections.abc import Mapping
from datetime import timedelta

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.trees import reading
from emboflow_dagster.model.dataset import Dataset
from emboflow_dagster.model.storage import MANIFEST_TYPE, StorageRef
from emboflow_dagster.mongo.client import Raw
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.object_storage.payload import key_of
from emboflow_dagster.project.forget.matching import Match, copies
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.gc.liveness import Liveness
from emboflow_dagster.project.gc.marking import Marking
from emboflow_dagster.project.gc.report import GcReport
from emboflow_dagster.project.gc.shards import Shards, digest_of
from emboflow_dagster.project.gc.sweep import Sweep, cutoff
from emboflow_dagster.project.opened import Opened

#: How many are taken away at once.
BATCH = 100


class _Needed(Marking):
    """Marks what is kept, as gc does, but not what versions of the project keep of forgotten episodes."""

    def forgetting(self, match: Match, dataset_ids: frozenset[str], old: frozenset[str]) -> None:
        """Say what is forgotten, of which datasets, and which manifests of the older layout have it."""
        self._match = match
        self._ours = dataset_ids
        self._old = old
        self._walked: set[tuple[bool, str]] = set()

    def _inside(self, raw: Raw) -> None:
        if raw.get("contentType") != MANIFEST_TYPE:
            super()._inside(raw)
            return
        digest = digest_of(raw["key"])
        if digest is None or digest in self._opened:
            return
        self._opened.add(digest)
        said = {name: value for name, value in raw.items() if name not in ("objectId", "version")}
        ref = StorageRef.model_validate(said)
        manifest = json.loads(self.blobs.read_ref(ref))
        ours = manifest.get("datasetId") in self._ours
        root = pages.root_of(manifest)
        if root is None and ours and raw["key"] in self._old:
            return  # one table has all episodes
        for row in manifest["files"]:
            self._keep(str(row["sha256"]))
        if root is not None:
            self._tree(ref, root, float(manifest["fps"]), ours=ours)

    def _tree(self, ref: StorageRef, root: pages.Page, fps: float, *, ours: bool) -> None:
        def skip(sha256: str) -> bool:
            if (ours, sha256) in self._walked:
                return True
            self._walked.add((ours, sha256))
            return False

        read = reading(self.blobs, ref)
        for page in pages.every_page(read, root):
            self._keep(page.sha256)
        for _, leaf in pages.episode_pages(read, root, skip=skip):
            for line in pages.lines(leaf, read(leaf.sha256, leaf.size)):
                entry = pages.parsed(line)
                if not (ours and self._match(entry, fps)):
                    for _, file in pages.files_of(entry):
                        self._keep(str(file["sha256"]))

    def _keep(self, sha256: str) -> None:
        digest = digest_of(key_of(sha256))
        if digest is not None:
            self.shards.keep(digest, EdgeKind.LISTING)


def destroy(
    opened: Opened, match: Match, payloads: Mapping[str, int], old: frozenset[str]
) -> tuple[list[str], list[str], list[str]]:
    """Take away what nothing else names: the sha256 of what is gone, what is kept, what is being written.

    Args:
        opened: The deployment and scope.
        match: The forgotten episodes.
        payloads: sha256 to size.
        old: Keys of manifests of the older layout that contain them.
    """
    mongo, store = opened.mongo, opened.store
    before = cutoff(store, mongo, 0)
    datasets: Documents[Dataset] = Documents(mongo, opened.scope, Dataset)
    ours = frozenset(one.id for one in datasets.find({}, limit=0))
    gone: list[str] = []
    kept: list[str] = []
    busy: list[str] = []
    with Shards(opened.settings.home / "work") as shards:
        marking = _Needed(mongo, opened.blobs, Liveness(mongo, mongo.server_time(), timedelta(0)), shards)
        known = match.knowing(copies(opened, {place.sha256 for place in match.places}))
        marking.forgetting(known, ours, old)
        for _ in marking.versions_of_all(archive=False):
            pass
        marking.records()
        shards.flush()
        sweep = Sweep(
            mongo,
            store,
            shards,
            before,
            lambda versions: versions,
            GcReport(dry_run=False, grace_s=0),
            (opened.scope.workspace_id, opened.scope.actor),
        )
        free: list[str] = []
        for sha256 in sorted(payloads):
            digest = digest_of(key_of(sha256))
            named = digest is None or digest in shards.kept(sha256[:2])
            (kept if named else free).append(sha256)
        for start in range(0, len(free), BATCH):
            batch = free[start : start + BATCH]
            there = {key_of(sha): payloads[sha] for sha in batch if sweep.spared(key_of(sha))}
            sweep.destroy(there)
            for sha in batch:
                (busy if store.exists(key_of(sha)) else gone).append(sha)
    return gone, kept, busy
