"""Steps that go to a Celery worker and wait for a slot: what `make test` shows of scaling out.

Two workers, one of them killed, is `make test-celery` (`test_celery_cluster.py`).
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.mongo import embedded
from emboflow_dagster.orchestration import instance as dagster_instance
from tests.acceptance.celery_machines import at_once, broker, hook, on_celery, slow, start_worker
from tests.acceptance.served import Deployment

DAGSTER = Path(sys.executable).with_name("dagster")
LOCATION = "emboflow_dagster.orchestration.code_location"


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment.in_folder(tmp_path)
    yield made
    embedded.stop(made.home)


def prepare(deployment: Deployment) -> None:
    """What `emboflow dev` does before it starts Dagster."""
    home = Path(deployment.environment.setdefault("DAGSTER_HOME", str(deployment.home / "dagster")))
    with dagster_instance.opened(home):
        pass
    table = deployment.folder / "joints.csv"
    table.write_text("time,joint\n0.1,1\n")
    deployment.emboflow("asset", "register", str(table), "--type", "raw_file")


def publish(deployment: Deployment, slug: str, nodes: list[dict[str, Any]], **more: Any) -> None:
    file = deployment.folder / f"{slug}.json"
    file.write_text(json.dumps({"workflow": slug, "nodes": nodes, **more}))
    deployment.emboflow("workflow", "publish", str(file))


def execute(deployment: Deployment, slug: str) -> dict[str, Any]:
    """Launch the workflow's job as Dagster's own command does, and stay until it is over."""
    job = f"acme__pick_place__{slug}"
    done = subprocess.run(
        [str(DAGSTER), "job", "execute", "-m", LOCATION, "-j", job],
        cwd=deployment.folder,
        env=deployment.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    newest = deployment.emboflow("run", "list")[0]
    return deployment.emboflow("run", "show", newest["_id"])


def test_steps_go_to_a_celery_worker_and_wait_there_for_the_slots_of_their_pool(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EMBOFLOW_POOLS", "python=2")
    with broker(deployment.folder) as at:
        deployment = on_celery(deployment, at)
        worker = start_worker(deployment, "left", slots=4)
        try:
            prepare(deployment)
            nodes = [{"id": "take", "type": "source"}, *(hook(f"n{i}", ["take"], slow(3)) for i in range(4))]
            publish(deployment, "wide", nodes)
            worker.wait_until_ready()

            run = execute(deployment, "wide")
        finally:
            worker.kill()

    assert (run["status"], [task["status"] for task in run["tasks"]]) == ("success", ["success"] * 5)
    assert worker.taken() == 5
    assert at_once([task for task in run["tasks"] if task["nodeId"] != "take"]) <= 2
    assert deployment.emboflow("verify")["ok"]
