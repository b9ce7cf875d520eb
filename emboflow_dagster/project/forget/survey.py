"""All of a project that contains an episode: versions, artifacts, annotations, cached results, sources."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.listing import is_listing, read_listing
from emboflow_dagster.errors import IntegrityError
from emboflow_dagster.model.annotation import Annotation, AnnotationStatus
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.model.collections import CACHE
from emboflow_dagster.model.dataset import DatasetVersion
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.mongo.marks import name_of
from emboflow_dagster.project.annotation_places import HELD
from emboflow_dagster.project.dataset_content import Content, opened_content
from emboflow_dagster.project.forget import work
from emboflow_dagster.project.forget.matching import Match, copies
from emboflow_dagster.project.gc.tombstones import is_collected
from emboflow_dagster.project.opened import Opened

_SELECTS: Final = "episode"  # how the keys of a selector begin that name one


@dataclass(slots=True)
class Survey:
    """What was found; ``payloads`` are sha256 to size of all that has a byte of it."""

    versions: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    """Annotations of a version that name no episode: they stay, and are told."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    cache: list[str] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    """Blobs: the logs of the tasks, of every attempt."""
    dagster_runs: list[str] = field(default_factory=list)
    copies: list[dict[str, Any]] = field(default_factory=list)
    """Blobs of the workspace that a person put, with the same bytes: they stay, and are told."""
    payloads: dict[str, int] = field(default_factory=dict)
    entries: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)
    """Hash of the data to an entry that has it and its version's rate: pieces, and what was made again."""
    old_manifests: list[str] = field(default_factory=list)
    """sha256 of manifests of the older layout among the versions."""

    @property
    def version_ids(self) -> list[str]:
        """Of the versions."""
        return [row["id"] for row in self.versions]


def survey(opened: Opened, match: Match, *, with_source: bool) -> Survey:
    """Look through the whole project.

    Args:
        opened: The deployment and scope.
        match: Which episodes.
        with_source: Count the payloads of recordings that nothing else was made of, too.

    Raises:
        IntegrityError: A version cannot be read, so what it contains is not known.
    """
    found = Survey()
    match = match.knowing(copies(opened, {place.sha256 for place in match.places}))
    others = _versions(opened, match, found)
    assets = {one for row in found.versions for one in row["assets"]} | set(match.recordings)
    _artifacts(opened, found, assets)
    _annotations(opened, found)
    done = work.look(opened, assets, {row["by"] for row in found.artifacts if row["by"]})
    found.tasks, found.logs, found.dagster_runs = done.tasks, done.logs, done.dagster_runs
    found.payloads |= {row["sha256"]: row["size"] for row in done.logs}
    _cache(opened, found)
    _sources(opened, found, assets, others, with_source=with_source)
    _copies(opened, found)
    return found


def _versions(opened: Opened, match: Match, found: Survey) -> set[str]:
    """The versions that have it; returns the assets that other episodes come from."""
    versions: Documents[DatasetVersion] = Documents(opened.mongo, opened.scope, DatasetVersion)
    known: dict[tuple[float, str], tuple[list[tuple[int, dict[str, Any]]], set[str]]] = {}
    others: set[str] = set()
    for version in versions.find({}, limit=0):
        with opened_content(opened, version) as content:
            hits = []
            fps = float(content.manifest["fps"])
            for start, leaf in pages.episode_pages(content.read, content.root):
                if (fps, leaf.sha256) not in known:
                    known[fps, leaf.sha256] = _leaf(content, leaf, match, fps)
                mine, assets = known[fps, leaf.sha256]
                hits += [(start + place, entry) for place, entry in mine]
                others |= assets
            if not hits:
                continue
            files = [file for _, entry in hits for _, file in pages.files_of(entry)]
            found.entries |= {str(entry["content"]): (entry, fps) for _, entry in hits}
            if content.folder is not None:  # of the older layout: one table has them all
                found.old_manifests.append(version.manifest_ref.sha256)
                files = json.loads(opened.blobs.read_ref(version.manifest_ref))["files"]
            found.payloads |= {str(file["sha256"]): int(file["size"]) for file in files}
            found.versions.append(
                {
                    "id": version.id,
                    "datasetId": version.dataset_id,
                    "versionTag": version.version_tag,
                    "status": version.status.value,
                    "objectId": version.manifest_ref.object_id,
                    "episodes": [{"episode": place, "id": entry["id"]} for place, entry in hits],
                    "left": content.root.episodes - len(hits),
                    "assets": sorted({e["source"]["assetId"] for _, e in hits if e["source"]["assetId"]}),
                }
            )
    return others


def _leaf(
    content: Content, leaf: pages.Page, match: Match, fps: float
) -> tuple[list[tuple[int, dict[str, Any]]], set[str]]:
    mine, others = [], set()
    for place, line in enumerate(pages.lines(leaf, content.read(leaf.sha256, leaf.size))):
        entry = pages.parsed(line)
        if match(entry, fps):
            mine.append((place, entry))
        elif entry["source"]["assetId"]:
            others.add(entry["source"]["assetId"])
    return mine, others


def _artifacts(opened: Opened, found: Survey, assets: set[str]) -> None:
    """What was made of the recordings, of one of the versions or of such an artifact, or has the bytes."""
    artifacts: Documents[Artifact] = Documents(opened.mongo, opened.scope, Artifact)
    versions, made = set(found.version_ids), set()
    shas = set(found.payloads)
    for artifact in sorted(artifacts.find({}, limit=0), key=lambda one: (one.created_at, one.id)):
        lineage, ref = artifact.lineage, artifact.storage_ref
        gone = collected(opened, ref)
        inner = {} if gone else dict(_inside(opened, ref))
        said = json.dumps(artifact.summary or {}, default=str)
        if not (
            assets & set(lineage.asset_ids)
            or made & set(lineage.input_artifact_ids)
            or any(version in said for version in versions)
            or shas & {ref.sha256, *inner}
        ):
            continue
        made.add(artifact.id)
        if gone:
            continue
        found.artifacts.append(
            {"id": artifact.id, "type": artifact.type, "by": artifact.producer_id, **blob_of(ref)}
        )
        found.payloads |= {ref.sha256: ref.size, **inner}


def _inside(opened: Opened, ref: StorageRef) -> Iterator[tuple[str, int]]:
    """The files of a folder; of a damaged one nothing is known."""
    if is_listing(ref):
        try:
            with opened.blobs.open_ref(ref) as stream:
                yield from ((entry.sha256, entry.size) for entry in read_listing(stream))
        except IntegrityError:
            return


def _annotations(opened: Opened, found: Survey) -> None:
    annotations: Documents[Annotation] = Documents(opened.mongo, opened.scope, Annotation)
    places = {
        row["id"]: {value for one in row["episodes"] for value in (one["episode"], one["id"])}
        for row in found.versions
    }
    everywhere = {one["id"] for row in found.versions for one in row["episodes"]}
    targets = [*places, *(row["id"] for row in found.artifacts)]
    confirmed = {f"targetRef.selector.{HELD}.versionId": {"$in": targets}}
    for annotation in annotations.find({"$or": [{"targetRef.id": {"$in": targets}}, confirmed]}, limit=0):
        target, selector = annotation.target_ref.id, annotation.target_ref.selector or {}
        held = [(row.get("versionId"), row) for row in selector.get(HELD) or () if isinstance(row, dict)]
        if not any(_named(said) & places.get(at, everywhere) for at, said in ((target, selector), *held)):
            if not _named(selector) and annotation.status is not AnnotationStatus.REJECTED:
                found.whole.append(annotation.id)
            continue
        raw = annotation.payload.get("ref", annotation.payload)
        row: dict[str, Any] = {"id": annotation.id, "targetId": target, "objectId": None}
        if isinstance(raw, dict) and raw.get("objectId"):
            # A large payload is a blob of the annotation's, named by id and version.
            blob = opened.blobs.get(str(raw["objectId"]), raw.get("version"))
            if not is_collected(opened.mongo, [name_of(blob.object_id, blob.version)]):
                row |= {"objectId": blob.object_id, "version": blob.version}
                row |= {"sha256": blob.sha256, "size": blob.size}
                found.payloads[blob.sha256] = blob.size
        found.annotations.append(row)


def _named(selector: dict[str, Any]) -> set[int | str]:
    return {
        value
        for key, said in selector.items()
        if key.lower().startswith(_SELECTS)
        for value in (said if isinstance(said, list) else [said])
        if isinstance(value, int | str)
    }


def _cache(opened: Opened, found: Survey) -> None:
    kept = {
        "_id": {"$regex": f"^{opened.scope.project_id}:"},
        "$or": [
            {"result.datasetVersionId": {"$in": found.version_ids}},
            {"result.artifactIds": {"$in": [row["id"] for row in found.artifacts]}},
            {"result.taskId": {"$in": [row["id"] for row in found.tasks]}},
        ],
    }
    with translated():
        found.cache = sorted(row["_id"] for row in opened.mongo[CACHE].find(kept, {"_id": 1}))


def _sources(opened: Opened, found: Survey, names: set[str], others: set[str], *, with_source: bool) -> None:
    assets: Documents[Asset] = Documents(opened.mongo, opened.scope, Asset)
    needed = {asset.storage_ref.sha256 for asset in assets.find({"_id": {"$in": sorted(others)}}, limit=0)}
    for asset in assets.find({"_id": {"$in": sorted(names)}}, limit=0):
        ref = asset.storage_ref
        in_place = asset.source_type.value == "registered_path"
        row = {
            "id": asset.id,
            "name": asset.display_name,
            "alone": asset.id not in others and ref.sha256 not in needed,
            "inPlace": in_place,
        }
        row |= blob_of(ref)
        found.sources.append(row)
        if with_source and row["alone"] and not in_place and not collected(opened, ref):
            found.payloads |= {ref.sha256: ref.size, **dict(_inside(opened, ref))}


def _copies(opened: Opened, found: Survey) -> None:
    ours = {
        (row["objectId"], row["version"])
        for row in (*found.artifacts, *found.annotations, *found.logs, *found.sources)
        if row.get("sha256")
    }
    shas = {"$in": sorted(found.payloads)}
    mine = {"workspace_id": opened.scope.workspace_id}
    same = {**mine, "data_sha256": shas, "owner_record_id": None}
    rows: set[tuple[str, int, str]] = set()
    for name in ("objects", "object_history"):
        with translated():
            for raw in opened.mongo[name].find(same, {"object_id": 1, "version": 1, "data_sha256": 1}):
                rows.add(
                    (str(raw.get("object_id") or raw["_id"]), int(raw["version"]), str(raw["data_sha256"]))
                )
    # A version on its way to history is in the tail of its head (decision 38).
    with translated():
        fields = {f"tail.{name}": 1 for name in ("version", "data_sha256", "owner_record_id")}
        for raw in opened.mongo["objects"].find({**mine, "tail.data_sha256": shas}, fields):
            rows |= {
                (str(raw["_id"]), int(row["version"]), str(row["data_sha256"]))
                for row in raw["tail"]
                if row.get("data_sha256") in found.payloads and row.get("owner_record_id") is None
            }
    found.copies = [
        {"objectId": object_id, "version": version, "sha256": sha256}
        for object_id, version, sha256 in sorted(rows)
        if (object_id, version) not in ours
    ]


def blob_of(ref: StorageRef) -> dict[str, Any]:
    """The blob that a reference names, as plans and tombstones say it."""
    return {"objectId": ref.object_id, "version": ref.version, "sha256": ref.sha256, "size": ref.size}


def collected(opened: Opened, ref: StorageRef) -> bool:
    """Whether its bytes are gone already."""
    if ref.object_id is None or ref.version is None:
        return False
    return bool(is_collected(opened.mongo, [name_of(ref.object_id, ref.version)]))
