"""Two Celery workers under a real daemon, and everything that may happen to them: `make test-celery`."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests import docker_engine
from tests.acceptance.celery_machines import (
    QUICK,
    Broker,
    Worker,
    at_once,
    broker,
    hook,
    on_celery,
    slow,
    start_worker,
)
from tests.acceptance.served import Deployment, Served, serve, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(os.environ.get("EMBOFLOW_FAULTS") != "all", reason="`make test-celery`"),
]


class Cluster:
    """A deployment with its broker and its workers."""

    def __init__(self, served: Served, at: Broker) -> None:
        self.served, self.broker = served, at
        self.deployment = served.deployment
        self.workers: list[Worker] = []

    def emboflow(self, *words: str) -> Any:
        return self.deployment.emboflow(*words)

    def staff(self, slots: int = 1) -> list[Worker]:
        """Two living workers, new ones where the last test killed them."""
        self.workers = [one for one in self.workers if one.process.poll() is None]
        fresh = [
            start_worker(self.deployment, f"w{time.monotonic_ns()}", slots=slots)
            for _ in range(2 - len(self.workers))
        ]
        for one in fresh:
            one.wait_until_ready()
        self.workers += fresh
        return self.workers

    def publish(self, slug: str, nodes: list[dict[str, Any]]) -> None:
        file = self.deployment.folder / f"{slug}.json"
        file.write_text(json.dumps({"workflow": slug, "nodes": [{"id": "take", "type": "source"}, *nodes]}))
        self.emboflow("workflow", "publish", str(file))
        self.emboflow("sync")

    def request(self, slug: str, *words: str) -> str:
        return self.emboflow("workflow", "run", slug, *(words or ("--asset", "joints.csv")))["_id"]

    def statuses(self, run: str) -> dict[str, str]:
        return {task["nodeId"]: task["status"] for task in self.emboflow("task", "list", run)}

    def reaches(self, run: str, node: str, status: str) -> None:
        until(lambda: self.statuses(run)[node] == status or None, 300)

    def ended(self, run: str) -> dict[str, Any]:
        until(lambda: self.emboflow("run", "show", run)["finishedAt"], 400)
        return self.emboflow("run", "show", run)

    def at_work(self, before: dict[str, int]) -> Worker:
        """The worker that has taken a step since."""
        return until(lambda: next((w for w in self.workers if w.taken() > before[w.name]), None), 300)

    def busiest(self, before: dict[str, int]) -> Worker:
        """The one of those that have taken a step since whose newest step has not ended."""
        busy = [one for one in self.workers if one.taken() > before[one.name]]
        return max(busy, key=lambda one: one.taken() - one.said("STEP_SUCCESS"))

    def taken(self) -> dict[str, int]:
        return {one.name: one.taken() for one in self.workers}

    def is_clean(self) -> None:
        report = self.emboflow("verify")
        assert (report["ok"], report["problems"]) == (True, [])


@pytest.fixture(scope="module")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """A daemon with an image, for one of the tests; nothing where none can run."""
    import docker

    try:
        with ExitStack() as stack:
            address = stack.enter_context(docker_engine.daemon(tmp_path_factory.mktemp("docker")))
            with closing(docker.DockerClient(base_url=address)) as client:
                docker_engine.make_images(client)
            yield address
    except pytest.skip.Exception:
        yield None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, docker_host: str | None) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with broker(folder) as at:
        said = {"EMBOFLOW_POOLS": "python=3", "EMBOFLOW_WORKSPACE_RUNS": "2"}
        said |= {"DOCKER_HOST": docker_host} if docker_host else {}
        with serve(on_celery(Deployment.in_folder(folder), at, **said)) as served:
            made = Cluster(served, at)
            table = folder / "joints.csv"
            table.write_text("time,joint\n0.1,1\n")
            made.emboflow("asset", "register", str(table), "--type", "raw_file")
            try:
                yield made
            finally:
                for one in made.workers:
                    one.kill()


def test_the_demo_workflow_runs_on_two_workers_and_one_is_killed_in_the_middle(cluster: Cluster):
    cluster.staff()
    demo = cluster.emboflow("demo")
    cluster.emboflow("sync")
    old = cluster.emboflow("run", "list")[0]
    assets = [word for asset in old["assetIds"] for word in ("--asset", asset)]
    slug = old["runtimeSnapshot"]["workflowSlug"]
    # As it should be: every node on one of the two.
    before = cluster.taken()
    whole = cluster.ended(cluster.request(slug, *assets))
    assert whole["status"] == "success", whole["tasks"]
    assert sum(cluster.taken().values()) - sum(before.values()) == len(whole["tasks"])
    assert all(now > before[name] for name, now in cluster.taken().items())
    # And with one killed while it has a step.
    before = cluster.taken()
    run = cluster.request(slug, *assets)
    cluster.at_work(before).kill()
    broken = cluster.ended(run)
    if broken["status"] == "failed":
        failed = [task["nodeId"] for task in broken["tasks"] if task["status"] == "failed"]
        assert len(failed) == 1, broken["tasks"]
        cluster.emboflow("task", "retry", f"{run}:{failed[0]}")
        until(lambda: cluster.emboflow("run", "show", run)["status"] == "success" or None, 400)

    done = cluster.emboflow("run", "show", run)
    assert {task["status"] for task in done["tasks"]} == {"success"}
    # The dataset's version is that of the demo: published once, found unchanged ever since.
    (dataset,) = cluster.emboflow("dataset", "list")
    assert len(cluster.emboflow("dataset", "versions", dataset["name"])) == 1
    assert demo["ok"] is not False
    cluster.is_clean()


def test_a_killed_workers_task_fails_by_its_lease_its_branch_waits_and_the_others_end(cluster: Cluster):
    cluster.staff()
    nodes = [
        hook("long", ["take"], slow(600)),
        hook("other", ["take"], QUICK),
        hook("below", ["long"], QUICK),
    ]
    cluster.publish("killed", nodes)
    before = cluster.taken()
    run = cluster.request("killed")
    cluster.reaches(run, "long", "running")
    cluster.reaches(run, "other", "success")
    cluster.busiest(before).kill()

    ended = cluster.ended(run)

    assert (ended["status"], cluster.statuses(run)) == (
        "failed",
        {"take": "success", "long": "failed", "other": "success", "below": "pending"},
    )
    (long,) = [task for task in ended["tasks"] if task["nodeId"] == "long"]
    assert "not heard of for 30 s" in long["errorMessage"]
    cluster.is_clean()


def test_a_worker_that_dies_before_it_took_its_task_does_not_hold_the_run(cluster: Cluster):
    cluster.staff()
    cluster.publish("early", [hook("count", ["take"], QUICK)])
    before = cluster.taken()
    run = cluster.request("early")
    cluster.at_work(before).kill()

    ended = cluster.ended(run)

    if ended["status"] == "failed":
        failed = [task["nodeId"] for task in ended["tasks"] if task["status"] == "failed"]
        cluster.emboflow("task", "retry", f"{run}:{failed[0]}")
        until(lambda: cluster.emboflow("run", "show", run)["status"] == "success" or None, 400)
    cluster.is_clean()


def test_a_step_that_outlives_its_worker_ends_its_run_well(cluster: Cluster):
    for one in cluster.workers:
        one.kill()
    cluster.staff()
    cluster.publish("orphan", [hook("long", ["take"], slow(15))])
    before = cluster.taken()
    run = cluster.request("orphan")
    cluster.reaches(run, "long", "running")
    cluster.busiest(before).kill_parent_only()

    ended = cluster.ended(run)

    assert (ended["status"], cluster.statuses(run)) == ("success", {"take": "success", "long": "success"})
    (dagster_run,) = ended["dagsterRunIds"]
    assert cluster.served.ended(dagster_run, 300) == "SUCCESS"
    cluster.is_clean()


def test_a_step_that_outlives_its_worker_hears_that_its_run_is_cancelled(cluster: Cluster):
    cluster.staff()
    mark = cluster.deployment.folder / "orphan.pid"
    source = f"import os\nfrom pathlib import Path\n{slow(600)}".replace(
        "    time.sleep", f"    Path({str(mark)!r}).write_text(str(os.getpid()))\n    time.sleep"
    )
    cluster.publish("orphan-stopped", [hook("long", ["take"], source)])
    before = cluster.taken()
    run = cluster.request("orphan-stopped")
    until(lambda: mark.exists() or None, 300)
    cluster.busiest(before).kill_parent_only()

    begun = time.monotonic()
    cluster.emboflow("run", "cancel", run)
    ended = cluster.ended(run)

    assert time.monotonic() - begun < 60
    assert (ended["status"], cluster.statuses(run)) == ("cancelled", {"take": "success", "long": "cancelled"})
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert cluster.served.ended(ended["dagsterRunIds"][-1], 300) == "CANCELED"
    cluster.is_clean()


def test_a_broker_that_forgot_everything_costs_no_run(cluster: Cluster):
    cluster.staff()
    cluster.publish("forgetful", [hook("long", ["take"], slow(20)), hook("below", ["long"], QUICK)])
    run = cluster.request("forgetful")
    cluster.reaches(run, "long", "running")
    cluster.broker.kill()
    cluster.broker.start()

    ended = cluster.ended(run)

    assert (ended["status"], set(cluster.statuses(run).values())) == ("success", {"success"})
    cluster.is_clean()


def test_a_cancelled_run_stops_the_step_on_its_worker_and_the_worker_works_on(cluster: Cluster):
    workers = cluster.staff()
    cluster.publish("stopped", [hook("long", ["take"], slow(600)), hook("below", ["long"], QUICK)])
    run = cluster.request("stopped")
    cluster.reaches(run, "long", "running")
    cluster.emboflow("run", "cancel", run)

    ended = cluster.ended(run)

    assert (ended["status"], cluster.statuses(run)) == (
        "cancelled",
        {"take": "success", "long": "cancelled", "below": "cancelled"},
    )
    assert cluster.served.ended(ended["dagsterRunIds"][-1], 300) == "CANCELED"
    cluster.publish("after", [hook("a", ["take"], QUICK), hook("b", ["take"], QUICK)])
    assert cluster.ended(cluster.request("after"))["status"] == "success"
    assert [one.process.poll() for one in workers] == [None, None]
    cluster.is_clean()


def test_an_annotation_waits_for_people_and_holds_no_worker(cluster: Cluster):
    cluster.staff()
    label = {"id": "label", "type": "annotation", "after": ["count"], "config": {"labelType": "segment"}}
    cluster.publish("labelled", [hook("count", ["take"], QUICK), label, hook("below", ["label"], QUICK)])
    run = cluster.request("labelled")

    (asked,) = until(lambda: cluster.emboflow("annotation", "list", "--run", run) or None, 300)
    (first,) = cluster.emboflow("run", "show", run)["dagsterRunIds"]
    assert cluster.served.ended(first, 300) == "SUCCESS"
    waiting = {"take": "success", "count": "success", "label": "queued", "below": "pending"}
    assert cluster.statuses(run) == waiting
    # Nobody holds a slot for it: another run goes through.
    cluster.publish("meanwhile", [hook("a", ["take"], QUICK)])
    assert cluster.ended(cluster.request("meanwhile"))["status"] == "success"

    labels = cluster.deployment.folder / "labels.json"
    labels.write_text(json.dumps({"from": 0, "to": 1, "label": "grasp"}))
    cluster.emboflow("annotation", "add", asked["_id"], str(labels))
    cluster.emboflow("annotation", "submit", asked["_id"])
    cluster.emboflow("annotation", "approve", asked["_id"], "--comment", "fine")
    ended = cluster.ended(run)

    assert (ended["status"], set(cluster.statuses(run).values())) == ("success", {"success"})
    assert ended["dagsterRunIds"][0] == first
    cluster.is_clean()


def test_a_container_runs_on_its_worker_and_ends_with_its_run(cluster: Cluster, docker_host: str | None):
    import docker

    if docker_host is None:
        pytest.skip("no docker daemon can run here")
    workers = cluster.staff()
    image = docker_engine.BASE

    def node(name: str, script: str) -> dict[str, Any]:
        config = {"image": image, "command": ["/bin/sh", "-c", script]}
        return {"id": name, "type": "container", "after": ["take"], "config": config}

    cluster.publish("contained", [node("say", "echo '{\"well\": true}' > /out/report.json")])
    ended = cluster.ended(cluster.request("contained"))
    assert ended["status"] == "success", [task["errorMessage"] for task in ended["tasks"]]

    cluster.publish("endless", [node("wait", "sleep 600")])
    run = cluster.request("endless")
    with closing(docker.DockerClient(base_url=docker_host)) as client:
        until(lambda: client.containers.list() or None, 300)
        cluster.emboflow("run", "cancel", run)
        assert cluster.ended(run)["status"] == "cancelled"
        until(lambda: client.containers.list(all=True) == [] or None, 60)
    assert cluster.statuses(run) == {"take": "success", "wait": "cancelled"}
    assert [one.process.poll() for one in workers] == [None, None]
    cluster.is_clean()


def test_pools_hold_over_all_workers_and_a_wider_one_lets_more_through(cluster: Cluster):
    for one in cluster.workers:
        one.kill()
    cluster.staff(slots=3)
    cluster.publish("wide", [hook(f"n{i}", ["take"], slow(6)) for i in range(6)])
    runs = [cluster.request("wide") for _ in range(3)]
    ended = [cluster.ended(run) for run in runs]

    tasks = [task for run in ended for task in run["tasks"] if task["nodeId"] != "take"]
    assert {run["status"] for run in ended} == {"success"}
    # Three slots in the pool, six on the workers.
    assert at_once(tasks) == 3
    # Two runs of the workspace at once, as its limit says, and not one after the other.
    assert at_once(ended) == 2
    cluster.is_clean()
