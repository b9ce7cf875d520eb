"""What somebody may have meant by a topic or dataset that is not there."""

import difflib
from collections.abc import Collection

from emboflow_dagster.errors import shown

#: Names that an error lists.
MAX_NAMED = 8


def instead(wanted: str, there: Collection[str]) -> str:
    """What follows the name of what is not there: the name that is most like it, and what there is.

    >>> instead("/joint_state", ["/joint_states", "/tf"])
    "; nearest is '/joint_states'; there are /joint_states, /tf"
    """
    near = nearest_name(wanted, there)
    hint = f"; nearest is {shown(near)}" if near else ""
    named = sorted(there)
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return hint + (f"; there are {', '.join(named[:MAX_NAMED])}{more}" if named else "; there is none")


def nearest_name(wanted: str, there: Collection[str]) -> str | None:
    """The name that ends as `wanted` does, else the one that is written most like it.

    >>> nearest_name("joint_states", ["/robot/joint_states", "/joint_state"])
    '/robot/joint_states'
    """
    last = wanted.strip("/")
    same_end = [
        name for name in sorted(there, key=len) if last and f"/{name.strip('/')}".endswith(f"/{last}")
    ]
    if same_end:
        return same_end[0]
    by_lower = {name.lower(): name for name in there}
    found = difflib.get_close_matches(wanted.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
