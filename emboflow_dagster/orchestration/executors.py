"""How steps become processes (decisions 7 and 23).

Who says so, the first that does: the workflow file (``steps``), ``EMBOFLOW_EXECUTOR`` of the deployment, and
else the kind of its nodes.
"""

import os
from collections.abc import Sequence
from enum import StrEnum
from importlib import import_module
from typing import Final

import dagster as dg

from emboflow_dagster.errors import ConfigurationError

EXECUTOR: Final = "EMBOFLOW_EXECUTOR"
# Nodes that only read and write metadata: a process each would cost a hundred times their work.
METADATA_NODES: Final = frozenset({"source", "filter", "set-union", "set-intersection", "set-difference"})
# Imported once in the fork server, inherited by every step.
PRELOADED: Final = ("dagster", "emboflow_dagster.orchestration.preload")

FORKED: Final[dg.ExecutorDefinition] = dg.multiprocess_executor.configured(
    {"start_method": {"forkserver": {"preload_modules": list(PRELOADED)}}}, name="emboflow_forkserver"
)


class Engine(StrEnum):
    """What executes the steps of a run."""

    AUTO = "auto"
    IN_PROCESS = "in-process"
    MULTIPROCESS = "multiprocess"
    CELERY = "celery"
    KUBERNETES = "kubernetes"


# Those that hand a step to another machine. Not everybody has the packages; importing them costs a second.
_DISTRIBUTED: Final = {
    Engine.CELERY: ("emboflow_dagster.orchestration.celery_executor", "emboflow_celery"),
    Engine.KUBERNETES: ("dagster_k8s", "k8s_job_executor"),
}


def engine() -> Engine:
    """What ``EMBOFLOW_EXECUTOR`` says; ``auto`` when it says nothing.

    Raises:
        ConfigurationError: It names nothing that there is.
    """
    said = os.environ.get(EXECUTOR, "").strip() or Engine.AUTO.value
    try:
        return Engine(said)
    except ValueError:
        raise ConfigurationError(
            f"{EXECUTOR}: found {said!r}; allowed are {', '.join(Engine)}",
            hint="docs/scale-out.md says what each of them needs",
        ) from None


def executor_for(node_types: Sequence[str], steps: str | None = None) -> dg.ExecutorDefinition:
    """The executor of one workflow's job.

    Args:
        node_types: The types of its nodes. Short ones alone stay in the process of the run, also where the
            others go to other machines: a message costs more than they do.
        steps: What its file says: ``in-process``, ``multiprocess`` or nothing.

    Raises:
        ConfigurationError: ``EMBOFLOW_EXECUTOR`` is wrong, or its package is not installed.
    """
    chosen = Engine(steps) if steps else engine()
    if chosen not in (Engine.IN_PROCESS, Engine.MULTIPROCESS) and METADATA_NODES.issuperset(node_types):
        return dg.in_process_executor
    return _executor(chosen)


def location_executor() -> dg.ExecutorDefinition:
    """The default of a code location, for Materialize: a selection of assets may be of any workflow."""
    return _executor(engine())


def any_version_executor() -> dg.ExecutorDefinition:
    """Of the job whose one step works a whole run: where steps are sent away, this one is too."""
    chosen = engine()
    return _executor(chosen) if chosen in _DISTRIBUTED else dg.in_process_executor


def _executor(chosen: Engine) -> dg.ExecutorDefinition:
    if chosen is Engine.IN_PROCESS:
        return dg.in_process_executor
    if chosen not in _DISTRIBUTED:
        return FORKED
    module, name = _DISTRIBUTED[chosen]
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{EXECUTOR}={chosen.value} needs the package {error.name}, which is not installed",
            hint=f"pip install 'emboflow-dagster[{chosen.value}]'",
        ) from None
