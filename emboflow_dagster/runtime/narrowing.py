"""Which assets a node really works on, after the set operations before it.

Source: spec/requirements.md, R-351 and R-366; spec/state-machines.md, ``upstream_success``.
"""

from collections.abc import Sequence

from emboflow_dagster.runtime.node import Narrowing


def effective(
    narrowing: Narrowing | None, upstream_sets: Sequence[Sequence[str]], bound: Sequence[str]
) -> list[str]:
    """The effective asset ids of a node that is about to be queued.

    Args:
        narrowing: The set operation of the node's type; ``None`` for ordinary nodes, which work on
            the union of what their upstream nodes pass on.
        upstream_sets: The effective ids of each direct upstream node, in the order of ``after``.
        bound: The run's asset ids, in their order.

    Returns:
        A subset of ``bound``, in its order, without duplicates; empty when there is no upstream.
        A difference is the first upstream less all the others.
    """
    if not upstream_sets:
        return []
    first, *rest = (frozenset(ids) for ids in upstream_sets)
    if narrowing is Narrowing.INTERSECTION:
        kept = first.intersection(*rest)
    elif narrowing is Narrowing.DIFFERENCE:
        kept = first.difference(*rest)
    else:
        kept = first.union(*rest)
    return [asset_id for asset_id in dict.fromkeys(bound) if asset_id in kept]
