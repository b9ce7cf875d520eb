"""``emboflow/retention`` on an asset: how many of its versions are kept, said where the asset is defined.

.. code-block:: python

    @asset(metadata={"emboflow/retention": {"keep_last": 10, "keep_days": 30}})
    def report(): ...
"""

from collections.abc import Mapping
from typing import Any, Final

from emboflow_dagster.errors import InvalidInputError, shown
from emboflow_dagster.project.handle import EmboFlow

METADATA_RETENTION: Final = "emboflow/retention"
_KNOWN: Final = ("keep_last", "keep_days")


def rule_of(metadata: Mapping[str, Any] | None) -> dict[str, int] | None:
    """The rule in an asset's metadata, ``None`` where it has none.

    Raises:
        InvalidInputError: It is no mapping of ``keep_last`` and ``keep_days`` to whole numbers.
    """
    said: Any = (metadata or {}).get(METADATA_RETENTION)
    if said is None:
        return None
    value = getattr(said, "data", getattr(said, "value", said))
    if not isinstance(value, Mapping) or not value or not all(name in _KNOWN for name in value):
        raise InvalidInputError(
            f"{METADATA_RETENTION}: found {shown(value)}; allowed are keep_last and keep_days, one or both"
        )
    return dict(value)


def keep(ef: EmboFlow, object_id: str, metadata: Mapping[str, Any] | None) -> None:
    """Give a blob the rule of its asset, where that has one. A legal hold stays as it is.

    Raises:
        InvalidInputError: The rule is none.
    """
    rule = rule_of(metadata)
    if rule is None:
        return
    now = ef.blobs.retention(object_id)
    if (now.keep_last, now.keep_days) != (rule.get("keep_last"), rule.get("keep_days")):
        ef.blobs.retain(
            object_id,
            keep_last=rule.get("keep_last"),
            keep_days=rule.get("keep_days"),
            reason=f"the asset's {METADATA_RETENTION}",
        )
