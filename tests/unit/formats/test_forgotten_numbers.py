"""An episode is told by its numbers, and from one that only has some of them."""

import json

import numpy as np  # noqa: TID253 - episodes are numbers

from emboflow_dagster.blobs.forgotten_trace import Trace, trace_of, traced
from emboflow_dagster.formats.canonical.forgotten import arrays_forgotten, looks_forgotten
from emboflow_dagster.formats.canonical.stats import episode_stats


def arrays(seed: int, length: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
    }


def trace(features: dict[str, np.ndarray]) -> Trace | None:
    return trace_of(len(next(iter(features.values()))), episode_stats(features))


def known(features: dict[str, np.ndarray]) -> Trace:
    found = trace(features)
    assert found is not None
    return found


def test_it_is_the_same_under_other_names_and_in_more_bits() -> None:
    mine = arrays(1)
    of_it = [known(mine)]
    renamed = {f"x.{name}": values.astype(np.float64) for name, values in mine.items()}
    still = {**renamed, "still": np.zeros((20, 4))}
    for same in (renamed, still, {"only": mine["action"]}):
        assert looks_forgotten(20, same, of_it)
        assert arrays_forgotten({**same, "rgb": np.zeros((20, 4, 4, 3), np.uint8)}, of_it)
    replayed = {"state": arrays(2)["observation.state"], "action": mine["action"]}
    shorter = {name: values[:-1] for name, values in mine.items()}
    scaled = {name: values * 2 for name, values in mine.items()}
    for other in (arrays(2), replayed, shorter, scaled):
        assert not looks_forgotten(len(next(iter(other.values()))), other, of_it)


def test_it_is_kept_without_its_numbers() -> None:
    mine = arrays(1)
    mine["action"][3] = 7341.28125
    kept = json.dumps(known(mine).to_json())
    assert "7341" not in kept
    assert Trace.of(json.loads(kept)) == known(mine)
    assert traced(trace(mine), [known(mine)])


def test_what_tells_nothing_has_none() -> None:
    names = ("min", "max", "mean", "std", "q10", "q50", "q90")
    assert trace({"action": np.ones((20, 2), np.float32)}) is None
    assert trace(arrays(1, length=3)) is None
    assert trace_of(20, None) is None
    assert trace_of(20, {"action": {name: [None] for name in names}}) is None
    assert (
        trace_of(20, {"action": {name: [1e300] for name in names} | {"min": [0.0]}}) is None
    )  # not of 32 bits
    assert not traced(None, [known(arrays(1))])
