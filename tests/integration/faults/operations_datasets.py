"""Edits of datasets and forgetting as operations that can be interrupted anywhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from emboflow_dagster import BlobRef, Create
from emboflow_dagster.project.dataset_changes import Delete, Trim
from emboflow_dagster.project.handle import EmboFlow
from tests.integration.faults.operation import Ack, Counts, Operation


class WithDataset(Operation):
    """Two datasets that share an episode, and what was made of the one that has three."""

    threads: ClassVar[bool] = True

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        from tests.integration.project.versions_made import episode, made

        few = [episode(seed) for seed in (1, 2, 3)]
        first = made(ef, folder / "1", "reach", few)
        made(ef, folder / "2", "night", few[1:2])
        ef.blobs.put(b"a picture of it", object_id="preview")
        preview = {
            "type": "preview_bundle",
            "producerId": "ada",
            "storageRef": BlobRef(object_id="preview", version=0),
            "summary": {"datasetVersionId": first.id},
        }
        ef.cud([Create("artifacts", preview)])
        [mine] = [e for e in ef.datasets.episodes("reach") if e["episode"] == 1]
        (folder / "episode").write_text(mine["id"])


class EditDataset(WithDataset):
    name = "put-dataset-edit"
    adds: ClassVar[Counts] = {"dataset_versions": 1}
    audit: ClassVar[Counts] = {"dataset.edit": 1}

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        ack(ef.datasets.edit("reach", [Delete([0]), Trim(2, 1, 4)]).id)

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        there = {version.id for version in ef.datasets.versions("reach")}
        return [id_ for id_ in acked if id_ not in there]

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        if len(ef.datasets.versions("reach")) == 1:
            self.act(ef, folder, lambda _: None)


class Forget(WithDataset):
    """The successors, the withdrawals, the bytes and the word that they are gone."""

    name = "gc-forget"
    with_id: ClassVar[bool] = True

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        which: int | str = (folder / "episode").read_text() if self.with_id else 1
        ack(ef.datasets.forget("reach", [which], reason="a test")["id"])

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        done = {row["id"] for row in ef.datasets.forgotten() if row["state"] == "destroyed"}
        return [id_ for id_ in acked if id_ not in done]

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        done = [row for row in ef.datasets.forgotten() if row["state"] == "destroyed"]
        if self.with_id or not done:
            self.act(ef, folder, lambda _: None)

    def documents(self) -> Mapping[str, int]:
        rows = {"dataset.edit": 1, "dataset.deprecate": 2, "dataset.withdraw": 2, "dataset.forget": 1}
        return {"dataset_versions": 1, "audit_logs": sum(rows.values())}

    audit: ClassVar[Counts] = {
        "dataset.edit": 1,
        "dataset.deprecate": 2,
        "dataset.withdraw": 2,
        "dataset.forget": 1,
    }

    def wrong(self, ef: EmboFlow) -> list[str]:
        tags = {
            name: [f"{v.version_tag} {v.status.value}" for v in ef.datasets.versions(name)] for name in _ALL
        }
        left = [entry["source"]["ref"] for entry in ef.datasets.episodes("reach")]
        states = [row["state"] for row in ef.datasets.forgotten()]
        [told] = ef.datasets.forgotten()[:1] or [{"payloads": []}]
        there = {key.removeprefix("sha256/").replace("/", "") for key in ef.store.iter_keys()}
        back = [row["sha256"] for row in told["payloads"] if row["sha256"] in there]
        fine = (
            tags == {"reach": ["v2 available", "v1 withdrawn"], "night": ["v1 withdrawn"]}
            and left == ["data/demo_1", "data/demo_3"]
            and states == ["destroyed"]
            and not back
        )
        return [] if fine else [f"versions {tags}, episodes {left}, states {states}, still there {back}"]


class ForgetByPlace(Forget):
    """The same by the place of the episode, which is another one's when the successor is there."""

    name = "gc-forget-place"
    with_id = False


_ALL = ("reach", "night")
DATASETS: tuple[Operation, ...] = (EditDataset(), Forget(), ForgetByPlace())
