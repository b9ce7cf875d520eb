"""Two Celery workers under a real daemon, and everything that may happen to them: `make test-celery`."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

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

    def taken(self) -> dict[str, int]:
        return {one.name: one.taken() for one in self.workers}

    def is_clean(self) -> None:
        report = self.emboflow("verify")
        assert (report["ok"], report["problems"]) == (True, [])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with broker(folder) as at:
        limits = {"EMBOFLOW_POOLS": "python=3", "EMBOFLOW_WORKSPACE_RUNS": "2"}
        with serve(on_celery(Deployment.in_folder(folder), at, **limits)) as served:
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
    busy = [one for one in cluster.workers if one.taken() > before[one.name]]
    # The one whose newest step has not ended.
    victim = max(busy, key=lambda one: one.taken() - one.said("STEP_SUCCESS"))
    victim.kill()

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
    busy = [one for one in cluster.workers if one.taken() > before[one.name]]
    max(busy, key=lambda one: one.taken() - one.said("STEP_SUCCESS")).kill_parent_only()

    ended = cluster.ended(run)

    assert (ended["status"], cluster.statuses(run)) == ("success", {"take": "success", "long": "success"})
    (dagster_run,) = ended["dagsterRunIds"]
    assert cluster.served.ended(dagster_run, 300) == "SUCCESS"
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
