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

        self.mlflow: Any = mlflow
        self.client: Any = mlflow.MlflowClient(tracking_uri=folder.as_uri())
        if options.get("joins"):
            experiment = self.client.get_experiment_by_name("bench").experiment_id
        else:
            place = (folder / "artifacts").as_uri()
            experiment = self.client.create_experiment("bench", artifact_location=place)
        self.experiment = experiment
        self.run_each = options.get("run_each", False)
        self.run = self.client.create_run(experiment).info.run_id
        self.artifacts = folder / "artifacts" / self.run / "artifacts"

    def versions(self) -> str:
        return f"mlflow {self.mlflow.__version__}"

    def put(self, source: Path, name: str) -> list[str]:
        run = self.client.create_run(self.experiment).info.run_id if self.run_each else self.run
        self.client.log_artifact(run, str(source), artifact_path=name)
        return [run, f"{name}/{source.name}"]

    def get(self, handle: list[str]) -> Path:
        return Path(self.client.download_artifacts(*handle))

    def clean(self, names: list[str]) -> None:
        for name in names:
            shutil.rmtree(self.artifacts / name, ignore_errors=True)
