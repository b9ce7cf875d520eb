"""How much runs at once: a pool for each executor of nodes, and the runs of a workspace.

A step waits until its pool has a slot, wherever it is executed: Dagster keeps the slots beside its runs, so
the limit holds for all machines of a deployment together. Runs of a workspace are limited by the run queue,
by a tag.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model.text import check_slug
from emboflow_dagster.model.workflow import ExecutorType
from emboflow_dagster.orchestration.executors import METADATA_NODES

POOLS: Final = "EMBOFLOW_POOLS"
WORKSPACE_RUNS: Final = "EMBOFLOW_WORKSPACE_RUNS"
EVERY: Final = ""
MAX_SLOTS: Final = 1_000
_PREFIX: Final = "emboflow_"


def pool_name(executor: str) -> str:
    """The pool of the nodes with one executor: ``emboflow_python``."""
    return f"{_PREFIX}{executor}"


def pool_of(node: Mapping[str, Any]) -> str | None:
    """The pool of a node of the catalog; none for nodes that only write metadata: they would only wait."""
    return None if node["type"] in METADATA_NODES else pool_name(node["executor"])


def limits() -> dict[str, int]:
    """What ``EMBOFLOW_POOLS`` says: executor to the number of nodes at once, ``python=4,docker=1``.

    Raises:
        InvalidInputError: An executor that there is none of, or no number from 0 to 1000.
    """
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in os.environ.get(POOLS, "").split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in set(ExecutorType) or not number.isascii() or not number.isdigit():
            raise InvalidInputError(
                f"{POOLS}: found {part!r}; allowed is EXECUTOR=NUMBER, with {', '.join(ExecutorType)}"
            )
        if int(number) > MAX_SLOTS:
            raise InvalidInputError(f"{POOLS}: found {part!r}; at most {MAX_SLOTS} are allowed")
        found[name] = int(number)
    return found


def workspace_runs() -> dict[str, int]:
    """What ``EMBOFLOW_WORKSPACE_RUNS`` says: runs of a workspace at once, ``2,acme=1``; empty for no limit.

    Returns:
        Slug to number; :data:`EVERY` stands for all workspaces, and another one's number is a lower one.

    Raises:
        InvalidInputError: No slug, no number from 1 to 1000, or one above that of all.
    """
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in os.environ.get(WORKSPACE_RUNS, "").split(","))):
        slug, equals, number = (piece.strip() for piece in part.rpartition("="))
        if equals:
            check_slug(slug, WORKSPACE_RUNS)
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= MAX_SLOTS:
            raise InvalidInputError(f"{WORKSPACE_RUNS}: found {part!r}; allowed are 1 to {MAX_SLOTS}")
        found[slug if equals else EVERY] = int(number)
    wider = sorted(slug for slug, number in found.items() if number > found.get(EVERY, MAX_SLOTS))
    if wider:  # Dagster holds both
        raise InvalidInputError(
            f"{WORKSPACE_RUNS}: found {wider[0]}={found[wider[0]]}, which is above {found[EVERY]} for all",
            hint="a workspace's own limit is a lower one; without a number for all, name each workspace",
        )
    return found


def configure(instance: dg.DagsterInstance) -> dict[str, int]:
    """Give the pools the limits of the environment; returns those that were changed, by the name of the pool.

    A pool that is not named keeps the limit it has: that of Dagster's page, or none.
    """
    wanted = {pool_name(executor): number for executor, number in limits().items()}
    storage = instance.event_log_storage
    if not wanted or not storage.supports_global_concurrency_limits:
        return {}
    known = {pool.name: pool.limit for pool in storage.get_pool_limits() if not pool.from_default}
    changed = {name: number for name, number in wanted.items() if known.get(name) != number}
    for name, number in changed.items():
        storage.set_concurrency_slots(name, number)
    return changed
