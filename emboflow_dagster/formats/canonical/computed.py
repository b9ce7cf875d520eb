"""What code that computes episodes returned, looked at and kept: features by name, as many rows each."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ExecutionError, shown
from emboflow_dagster.formats.canonical.from_arrays import STAMPS, EpisodeFolder, legal_name

if TYPE_CHECKING:
    import numpy as np

NS = 1_000_000_000


def keep(
    value: object,
    out: EpisodeFolder,
    row: Mapping[str, Any],
    clock: "np.ndarray | None",
    length: int | None,
) -> int:
    """Append one episode.

    Args:
        value: Feature name to what becomes an array; ``t`` (seconds) or ``timestamp_ns`` are its stamps.
        out: Where to.
        row: What it was made of: ``ref``, ``arrays`` (its names are topics or datasets), ``names``, ``told``.
        clock: The stamps of what it was made of; they are the episode's where it has as many frames.
        length: The frames of what it was made of.

    Returns:
        The frames.

    Raises:
        ExecutionError: It is no episode; says why.
        InvalidInputError: A name that no feature may have, or no numbers.
    """
    import numpy as np

    ref = row["ref"]
    if not isinstance(value, Mapping) or not value:
        text = f"{ref}: the hook returned {shown(value)}; a mapping of feature names to arrays is needed"
        raise ExecutionError(text)
    features: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    stamps = None
    for name, item in value.items():
        try:
            array = np.asarray(item)
            if name in (STAMPS, "t"):
                seconds = name == "t"
                stamps = np.round(array.astype(np.float64) * NS).astype(np.int64) if seconds else array
                continue
        except (TypeError, ValueError) as error:
            raise ExecutionError(f"{ref}: {shown(name)}: no array: {error}") from None
        feature = legal_name(str(name), list(row["arrays"]))
        if feature in features:
            raise ExecutionError(f"{ref}: two features would be called {feature!r}")
        features[feature] = array
        if name in row["arrays"]:
            sources[feature] = str(name)
    arrays = features if stamps is None else {**features, STAMPS: stamps}
    frames = {name: len(values) if values.ndim else 0 for name, values in arrays.items()}
    if not features or len(set(frames.values())) != 1 or 0 in frames.values():
        found = ", ".join(f"{name}: {rows}" for name, rows in frames.items())
        raise ExecutionError(f"{ref}: features need as many rows each, and at least one; found {found}")
    count = next(iter(frames.values()))
    same = count == length
    if stamps is None and same and clock is not None:
        arrays = {**features, STAMPS: clock}
    names = {
        feature: row["names"][topic]
        for feature, topic in sources.items()
        if topic in row["names"] and features[feature].shape[1:] == (len(row["names"][topic]),)
    }
    told = {**row["told"], "fps": row["told"].get("fps") if same else None}
    out.add(ref, arrays, **told, names=names or None, sources=sources or None)
    return count
