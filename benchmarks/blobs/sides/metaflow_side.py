"""Metaflow: artifacts of tasks in the local datastore, content-addressed and compressed."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any


class Side:
    """The datastore as a task uses it: each put is the artifact of one task."""

    takes = "bytes"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        from metaflow.datastore import FlowDataStore
        from metaflow.plugins.datastores.local_storage import LocalStorage

        del options
        self.folder = folder
        self.store: Any = FlowDataStore("Bench", None, storage_impl=LocalStorage, ds_root=str(folder))
        self._lock = threading.Lock()
        self._tasks = 0

    def versions(self) -> str:
        from importlib.metadata import version

        return f"metaflow {version('metaflow')}"

    def put(self, source: Any, name: str) -> list[str]:
        with self._lock:
            self._tasks += 1
            task = f"{os.getpid()}{self._tasks:06}"  # unique, as its metadata service makes them
        datastore = self.store.get_task_datastore("1", "start", task, attempt=0, mode="w")
        datastore.init_task()
        datastore.save_artifacts([(name.replace("-", "_"), source)])
        datastore.done()
        return [task, name.replace("-", "_")]

    def get(self, handle: list[str]) -> Any:
        datastore = self.store.get_task_datastore("1", "start", handle[0], attempt=0, mode="r")
        return dict(datastore.load_artifacts([handle[1]]))[handle[1]]

    put_frame = put
    get_frame = get

    def clean(self, names: list[str]) -> None:
        del names
        shutil.rmtree(self.folder / "Bench" / "data", ignore_errors=True)
