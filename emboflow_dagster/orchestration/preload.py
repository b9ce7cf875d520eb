"""What the fork server imports once for all steps of a run (decisions 7 and 35).

The packages' own names are loaded when they are used, and so are many of Dagster's: importing ``dagster`` and
our packages brings little of what a step needs, and each forked step would import the rest anew, for most of
its time. Here are the modules themselves. Importing them starts no thread and opens no connection; a test
holds that, and that a step finds (nearly) everything there.
"""

import gc
import os
from contextlib import suppress
from importlib import import_module
from typing import Final

from emboflow_dagster.orchestration import migrations

# Dagster's own, not public: what it imports while it opens its instance and executes a plan, in every step.
# One that a later Dagster has not is left to the step.
_DAGSTER: Final = (
    "dagster.components",
    "dagster._core.assets",
    "dagster._core.definitions.antlr_asset_selection.antlr_asset_selection",
    "dagster._core.definitions.external_asset",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.job_backfill",
    "dagster._core.execution.plan.resume_retry",
    "dagster._core.execution.stats",
    "dagster._core.execution.telemetry",
    "dagster._core.op_concurrency_limits_counter",
    "dagster._core.instance.factory",
    "dagster._core.secrets.env_file",
    "dagster._core.snap",
    "dagster._core.storage.migration",
    "dagster._core.system_config.composite_descent",
    "dagster._core.types.primitive_mapping",
    "dagster._core.types.transform_typing",
    "dagster._core.utility_ops",
    "dagster._core.workspace.load",
    "dagster._utils.container",
    "dagster._utils.test.definitions",
    "upath.implementations.local",
)
_OURS: Final = ("assembly", "component", "io_manager", "quality")
_HERE: Final = "emboflow_dagster.orchestration"


def _preload() -> None:
    for name in _DAGSTER:
        with suppress(ImportError):
            import_module(name)
    with suppress(Exception):  # a home that cannot be read is the step's to report
        _instance_classes()
    with suppress(ImportError, AttributeError):  # of a later Dagster or Alembic: then each step reads them
        migrations.read_all()
    for name in _OURS:
        import_module(f"{_HERE}.{name}")
    from emboflow_dagster.runtime.registry import node_types

    node_types()
    # What stays is not looked through, nor written to, by the collections of each step.
    gc.collect()
    gc.freeze()


def _instance_classes() -> None:
    """Where ``DAGSTER_HOME`` keeps runs, events and logs: SQLite, or what a team has put there."""
    from dagster._core.instance.ref import InstanceRef
    from dagster._serdes import ConfigurableClassData

    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return
    for part in InstanceRef.from_dir(home):
        if isinstance(part, ConfigurableClassData):
            with suppress(ImportError, AttributeError):
                getattr(import_module(part.module_name), part.class_name)


_preload()
