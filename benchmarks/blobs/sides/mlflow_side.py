"""MLflow: log_artifact into one run of a local file store, the same name again for a new version."""

import os
import shutil
from pathlib import Path
from typing import Any


class Side:
    """The client, with one run open for all."""

    takes = "file"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import mlflow

        del options
        self.mlflow: Any = mlflow
        self.client: Any = mlflow.MlflowClient(tracking_uri=folder.as_uri())
        experiment = self.client.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
        self.run = self.client.create_run(experiment).info.run_id
        self.artifacts = folder / "artifacts" / self.run / "artifacts"

    def versions(self) -> str:
        return f"mlflow {self.mlflow.__version__}"

    def put(self, source: Path, name: str) -> str:
        self.client.log_artifact(self.run, str(source), artifact_path=name)
        return f"{name}/{source.name}"

    def get(self, handle: str) -> Path:
        return Path(self.client.download_artifacts(self.run, handle))

    def clean(self, names: list[str]) -> None:
        for name in names:
            shutil.rmtree(self.artifacts / name, ignore_errors=True)
