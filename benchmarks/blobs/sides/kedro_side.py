"""Kedro: a versioned pickle dataset, a versioned Parquet dataset for frames."""

import shutil
import time
from pathlib import Path
from typing import Any


class Side:
    """The datasets, saved and loaded as a pipeline does it."""

    takes = "bytes"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        import kedro
        from kedro.io import Version
        from kedro_datasets.pandas import ParquetDataset
        from kedro_datasets.pickle import PickleDataset

        del options
        self.kedro: Any = kedro
        self.folder = folder
        self.version: Any = Version
        self.kinds: dict[str, Any] = {"pickle": PickleDataset, "parquet": ParquetDataset}

    def versions(self) -> str:
        from importlib.metadata import version

        return f"kedro {version('kedro')}, kedro-datasets {version('kedro-datasets')}"

    def _dataset(self, kind: str, name: str, load: str | None) -> Any:
        path = str(self.folder / f"{name}.{kind}")
        return self.kinds[kind](filepath=path, version=self.version(load, None))

    def put(self, source: Any, name: str) -> list[str]:
        return self._put("pickle", source, name)

    def _put(self, kind: str, value: Any, name: str) -> list[str]:
        while True:
            dataset = self._dataset(kind, name, None)
            try:
                dataset.save(value)
            except Exception as error:
                if "must not exist" not in str(error):
                    raise
                time.sleep(0.001)  # a version is a millisecond: a second save within it is refused
                continue
            return [name, dataset.resolve_save_version()]

    def get(self, handle: list[str]) -> Any:
        return self._dataset("pickle", *handle).load()

    def newest(self, name: str) -> Any:
        return self._dataset("pickle", name, None).load()

    def put_frame(self, frame: Any, name: str) -> list[str]:
        return self._put("parquet", frame, name)

    def get_frame(self, handle: list[str]) -> Any:
        return self._dataset("parquet", *handle).load()

    def clean(self, names: list[str]) -> None:
        for name in names:
            shutil.rmtree(self.folder / f"{name}.pickle", ignore_errors=True)
