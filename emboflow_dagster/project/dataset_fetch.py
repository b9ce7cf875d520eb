"""A published version on disk, for a node that asks for one by name."""

from collections.abc import Mapping
from pathlib import Path

from emboflow_dagster.project import dataset_content
from emboflow_dagster.project.datasets import Datasets
from emboflow_dagster.project.opened import Opened


def fetch_version(opened: Opened, dataset: str, tag: str | None, out: Path) -> Mapping[str, str]:
    """Write a published version as the documented folder; the dataset's ``name`` and the ``tag``.

    Raises:
        NotFoundError: There is no such dataset or version.
        IntegrityError: A byte is missing or differs.
    """
    datasets = Datasets(opened)
    version = datasets.version(dataset, tag)
    dataset_content.export(opened, version, out)
    return {"name": datasets.get(version.dataset_id).name, "tag": version.version_tag}
