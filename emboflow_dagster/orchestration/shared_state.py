"""The state of the code location, for machines that share no folder: in MongoDB, with a copy on each machine.

In ``dagster.yaml``::

    defs_state_storage:
      module: emboflow_dagster.orchestration.shared_state
      class: SharedDefsState

A state never changes: the copy is as good as the original, and a location still loads while MongoDB is down.
Which version is the newest is noted where Dagster's runs are.
"""

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.storage.defs_state import UPathDefsStateStorage
from dagster._serdes.config_class import ConfigurableClassData

from emboflow_dagster.mongo import definition_states
from emboflow_dagster.project.handle import open_database
from emboflow_dagster.project.settings import Settings


class SharedDefsState(UPathDefsStateStorage):
    """Dagster's storage in a folder, with MongoDB behind it."""

    def __init__(
        self, folder: Path, settings: Settings, inst_data: ConfigurableClassData | None = None
    ) -> None:
        # A plain path does all that the folder is asked for.
        super().__init__(folder, inst_data)  # pyright: ignore[reportArgumentType]  see above
        self._settings = settings

    @classmethod
    def config_type(cls) -> Any:
        return dg.Shape(
            {
                "mongo_uri": dg.Field(
                    dg.StringSource, is_required=False, description="Empty: EMBOFLOW_MONGO_URI."
                ),
                "database": dg.Field(
                    dg.StringSource, is_required=False, description="Empty: EMBOFLOW_DATABASE."
                ),
                "folder": dg.Field(
                    dg.StringSource, is_required=False, description="Of the copies. Empty: in EMBOFLOW_HOME."
                ),
            }
        )

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        settings = Settings.from_env(
            mongo_uri=config_value.get("mongo_uri"), database=config_value.get("database")
        )
        folder = Path(config_value.get("folder") or settings.home / "states")
        return cls(folder, settings, inst_data)

    def upload_state_from_path(self, key: str, version: str, path: Path) -> None:
        """Keep a state in MongoDB, then here, then as the newest."""
        with closing(open_database(self._settings)) as mongo:
            definition_states.keep(mongo, key, version, path.read_bytes())
        super().upload_state_from_path(key, version, path)

    def download_state_to_path(self, key: str, version: str, path: Path) -> None:
        """A state, from here or from MongoDB.

        Raises:
            NotFoundError: Nobody kept it.
            UnavailableError: It is not here, and the database cannot be reached.
        """
        mine = Path(str(self._get_state_path(key, version)))
        if not mine.exists():
            with closing(open_database(self._settings)) as mongo:
                content = definition_states.read(mongo, key, version)
            mine.parent.mkdir(parents=True, exist_ok=True)
            # Another process may fetch it at the same time: both write the same, and never half of it.
            part = mine.with_name(f".{version}.{os.getpid()}.part")
            part.write_bytes(content)
            part.replace(mine)
        super().download_state_to_path(key, version, path)
