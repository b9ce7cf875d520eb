"""What is asked of a run beyond workflow, version and assets: checked before anything is written."""

from emboflow_dagster.errors import ErrorKind, shown
from emboflow_dagster.model.run import CachePolicy, RunConfig
from emboflow_dagster.model.text import check_name, refuse


def run_config(cache_policy: str | None, label: str | None) -> RunConfig | None:
    """What is asked of a run, checked; ``None`` for nothing.

    Raises:
        InvalidInputError: Another cache policy than ``use``, ``refresh`` and ``off``, or no label that can be
            shown.
    """
    if cache_policy is None and label is None:
        return None
    if cache_policy is not None and cache_policy not in list(CachePolicy):
        raise refuse(
            ErrorKind.INVALID_INPUT,
            "cachePolicy",
            f"found {shown(cache_policy)}; allowed are {', '.join(CachePolicy)}",
        )
    return RunConfig(
        cache_policy=CachePolicy(cache_policy) if cache_policy is not None else None,
        label=check_name(label, "label") if label is not None else None,
    )
