"""What a policy asks of the data, and the statistics of pictures: parts of deliveries that need no files."""

import numpy as np  # noqa: TID253 - numbers are compared
import pytest

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.exports.lerobot_stats import PictureStats, sampled
from emboflow_dagster.formats.exports.training_config import check_features, places


def test_what_a_policy_needs_is_asked_of_the_data():
    vector = {"dtype": "float32", "shape": [3]}

    with pytest.raises(InvalidInputError) as caught:
        check_features({"action": vector, "observation.state": vector}, "act", ["observation.images.top"])
    assert caught.value.kind == ErrorKind.INPUT_MISSING
    assert [problem.path for problem in caught.value.problems] == [
        "observation.images.top",
        "observation.environment_state",
    ]
    assert "the dataset, which has action 3, observation.state 3" in str(caught.value.problems[0])
    with pytest.raises(InvalidInputError, match=r"observation\.state"):
        check_features({"action": vector, "observation.environment_state": vector}, "diffusion", [])
    both = {"observation.state": vector, "observation.environment_state": vector}
    check_features({"action": vector, **both}, "act", [])
    with pytest.raises(InvalidInputError, match="policy act needs it"):
        check_features({"action": vector, "observation.environment_state": vector}, "act", [])
    for wrong in ("5", "2-1", "x", ""):
        with pytest.raises(InvalidInputError, match="episodes: found"):
            places(wrong, 5)
    assert places("0-2, 4", 5) == [0, 1, 2, 4]


def test_picture_statistics_are_those_of_numpy():
    rng = np.random.default_rng(3)
    pictures = rng.integers(0, 256, (6, 20, 24, 3)).astype(np.uint8)
    one, two = PictureStats(), PictureStats()
    for number, found in enumerate(pictures):
        (one if number < 2 else two).add(found)
    one.merge(two)

    told = one.to_json()

    flat = pictures.reshape(-1, 3).astype(np.float64) / 255
    assert np.ravel(told["mean"]) == pytest.approx(flat.mean(axis=0), rel=1e-12)
    assert np.ravel(told["std"]) == pytest.approx(flat.std(axis=0), rel=1e-12)
    assert np.ravel(told["q10"]) == pytest.approx(np.quantile(flat, 0.1, axis=0), rel=1e-12)
    assert (told["count"], np.shape(told["min"])) == ([6], (3, 1, 1))
    assert sampled(5) == set(range(5))
    assert (min(sampled(10_000)), max(sampled(10_000)), len(sampled(10_000))) == (0, 9_999, 1_000)
