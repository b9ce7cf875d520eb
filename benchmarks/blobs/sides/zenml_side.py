"""ZenML: save_artifact and load_artifact with the local artifact store and its SQLite."""

import os
from pathlib import Path
from typing import Any


class Side:
    """The client of a local deployment."""

    takes = "bytes"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        del options
        os.environ.update(
            ZENML_CONFIG_PATH=str(folder / "config"),
            ZENML_LOCAL_STORES_PATH=str(folder / "stores"),
            ZENML_ANALYTICS_OPT_IN="false",
            ZENML_LOGGING_VERBOSITY="ERROR",
            ZENML_ENABLE_RICH_TRACEBACK="false",
            AUTO_OPEN_DASHBOARD="false",
        )
        os.chdir(folder)
        import zenml
        from zenml.client import Client

        self.zenml: Any = zenml
        self.client: Any = Client()
        self.client.active_stack  # noqa: B018 - makes the database

    def versions(self) -> str:
        return f"zenml {self.zenml.__version__}"

    def put(self, source: Any, name: str) -> list[str]:
        saved = self.zenml.save_artifact(
            source, name=name, extract_metadata=False, include_visualizations=False
        )
        return [name, str(saved.version)]

    def get(self, handle: list[str]) -> Any:
        return self.zenml.load_artifact(handle[0], version=handle[1])

    def newest(self, name: str) -> Any:
        return self.zenml.load_artifact(name)

    put_frame = put
    get_frame = get

    def clean(self, names: list[str]) -> None:
        for name in names:
            for row in self.client.list_artifact_versions(artifact=name, size=1000):
                self.client.delete_artifact_version(row.id, delete_from_artifact_store=True)
