"""New versions a second, a thousand writers of one object, and whether a million versions slow anything down.

Writers are threads of one process, or processes of their own; each put is 1 KiB. Growth inserts rows as put
leaves them, then asks for the latest version, an old one and pages of the history, at both sizes in turn.

    python benchmarks/versions.py [--seconds 3] [--processes 64] [--versions 1000000] [--home object_store]
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from emboflow_dagster.mongo import embedded
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings

WRITERS = 1000
THREADS = 64
SMALL = 10_000
BATCH = 5_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3, help="of each rate")
    parser.add_argument("--processes", type=int, default=64, help="writers of one object; 0: left out")
    parser.add_argument("--versions", type=int, default=1_000_000, help="of the large object; 0: left out")
    parser.add_argument("--home", default="object_store", help="or in_object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emboflow-bench-") as folder:
        home = Path(folder) / "home"
        settings = Settings.from_env(home=home)
        try:
            with EmboFlow.open(settings) as ef:
                rates(ef, options.seconds, options.home)
                crowd(ef, options.home)
                if options.versions:
                    growth(ef, options.versions)
            if options.processes:
                processes(settings, options.processes, options.home)
        finally:
            embedded.stop(home)


def rates(ef: EmboFlow, seconds: float, home: str) -> None:
    """Versions a second: one object, new objects, eight objects with a thread each."""

    def put(object_id: str | None) -> None:
        ef.blobs.put(os.urandom(1024), object_id=object_id, home=home)

    rows: dict[str, Callable[[], float]] = {
        "new versions of one object, one writer": lambda: rate(lambda: put("one"), seconds),
        "new objects, one writer": lambda: rate(lambda: put(None), seconds),
        "8 objects, 8 threads": lambda: together(8, lambda n: rate(lambda: put(f"of-eight-{n}"), seconds)),
        f"one object, {THREADS} threads": lambda: together(
            THREADS, lambda _: rate(lambda: put("hot"), seconds)
        ),
    }
    print(f"puts of 1 KiB a second ({home}); aimed at: 300 on one object, 800 over 8")
    for name, measure in rows.items():
        print(f"  {name:40} {measure():8.0f}")


def rate(action: Callable[[], object], seconds: float) -> float:
    """How often a second it can be done."""
    began, count = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        action()
        count += 1
    return count / (now - began)


def together(threads: int, work: Callable[[int], float]) -> float:
    """The sum over threads at once."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def crowd(ef: EmboFlow, home: str) -> None:
    """1,000 writers of one object: every one acknowledged, no number twice, none left out."""
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(
            lambda _: ef.blobs.put(os.urandom(1024), object_id="crowd", home=home).version, range(WRITERS)
        )
        numbers = sorted(found)
    took = time.perf_counter() - began
    verdict = "gapless" if numbers == list(range(WRITERS)) else "NOT gapless"
    print(
        f"{WRITERS} writers in {THREADS} threads: {len(numbers)} acknowledged, {verdict}, "
        f"{took:.1f} s (aimed at: under 10)"
    )


def processes(settings: Settings, count: int, home: str) -> None:
    """As many processes, each with a connection of its own, on one object."""
    each = WRITERS // count + 1
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["emboflow_dagster.project.handle", "emboflow_dagster.mongo.embedded"])
    with context.Pool(count, _open, (settings,)) as pool:
        pool.map(_put, [("warm", home)] * count * 2, chunksize=1)
        began = time.perf_counter()
        numbers = sorted(pool.map(_put, [("among-processes", home)] * count * each, chunksize=1))
        took = time.perf_counter() - began
    verdict = "gapless" if numbers == list(range(count * each)) else "NOT gapless"
    print(f"{count * each} puts of {count} processes: {len(numbers)} acknowledged, {verdict}, {took:.1f} s")


_opened: list[EmboFlow] = []


def _open(settings: Settings) -> None:
    _opened.append(EmboFlow.open(settings))


def _put(what: tuple[str, str]) -> int:
    object_id, home = what
    return _opened[0].blobs.put(os.urandom(1024), object_id=object_id, home=home).version


def growth(ef: EmboFlow, versions: int) -> None:
    """The same questions to an object of 10,000 versions and to one of many more."""
    for name, count in (("small", SMALL), ("large", versions)):
        began = time.perf_counter()
        fill(ef, name, count)
        print(f"{count} versions of {name!r} inserted in {time.perf_counter() - began:.0f} s")
    rows: dict[str, Callable[[str, int], object]] = {
        "latest version": lambda name, _: ef.blobs.get(name),
        "a version in the middle": lambda name, count: ef.blobs.get(name, count // 2),
        "first page of 50": lambda name, _: ef.blobs.history(name, limit=50),
        "a page of 50 in the middle": lambda name, count: ef.blobs.history(name, below=count // 2, limit=50),
        "put of a new version": lambda name, _: ef.blobs.put(os.urandom(1024), object_id=name),
    }
    print(f"{'median ms':28} {SMALL:>10} {versions:>10} {'ratio':>7}  (aimed at: 2)")
    for what, ask in rows.items():
        times: dict[str, list[float]] = {"small": [], "large": []}
        for _ in range(60):
            for name, count in (("small", SMALL), ("large", versions)):
                began = time.perf_counter()
                ask(name, count)
                times[name].append((time.perf_counter() - began) * 1e3)
        small, large = statistics.median(times["small"]), statistics.median(times["large"])
        print(f"{what:28} {small:10.2f} {large:10.2f} {large / small:7.2f}")
    history = ef.mongo["object_history"]
    plan = (
        history.find(
            {"object_id": "large", "workspace_id": ef.scope.workspace_id, "version": {"$lt": versions}}
        )
        .sort("version", -1)
        .limit(50)
        .explain()
    )
    stages = sorted(set(stages_of(plan["queryPlanner"]["winningPlan"])))
    examined = plan["executionStats"]["totalDocsExamined"]
    print(f"first page: {', '.join(stages)}; {examined} documents examined for 50")
    if "IXSCAN" not in stages or "COLLSCAN" in stages or "SORT" in stages:
        raise SystemExit("the history is not read from its index")


def fill(ef: EmboFlow, name: str, versions: int) -> None:
    """An object with so many versions, as puts would have left it."""
    head = ef.blobs.put(b"first", object_id=name)
    row = ef.mongo["objects"].find_one({"_id": name}) or {}
    for field in ("tail", "request_ids", "put_id"):
        row.pop(field, None)

    def rows(numbers: range) -> Iterator[dict[str, Any]]:
        for number in numbers:
            yield {
                **row,
                "_id": f"{name}.v{number}",
                "version": number,
                "prev_version": number - 1 if number else None,
                "updated_at": head.updated_at + timedelta(milliseconds=number),
            }

    for start in range(0, versions - 1, BATCH):
        numbers = range(start, min(start + BATCH, versions - 1))
        ef.mongo["object_history"].insert_many(rows(numbers), ordered=False)
    last = {"version": versions - 1, "prev_version": versions - 2}
    ef.mongo["objects"].update_one({"_id": name}, {"$set": last})


def stages_of(plan: Any) -> Iterator[str]:
    """The names of a plan's stages, at any depth."""
    if isinstance(plan, Mapping):
        if isinstance(plan.get("stage"), str):
            yield plan["stage"]
        for inner in plan.values():
            yield from stages_of(inner)
    elif isinstance(plan, list):
        for inner in plan:
            yield from stages_of(inner)


if __name__ == "__main__":
    main()
