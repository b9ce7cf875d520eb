"""What was made faster gives the numbers that it gave, to the last bit: they are in packages and reports."""

import numpy as np  # noqa: TID253 - the subject

from emboflow_dagster.formats.canonical.stats import feature_stats, merge_stats
from emboflow_dagster.formats.quality import video


def test_merging_all_dimensions_at_once_is_merging_each():
    random = np.random.default_rng(3)
    together = alone = None
    for rows in (1, 7, 50, 3):
        values = (random.normal(size=(rows, 5)) * 10.0 ** random.integers(-9, 9, 5)).astype(np.float32)
        absent = np.concatenate([values, np.full((rows, 1), np.nan, np.float32)], axis=1)
        part, other = feature_stats(values), feature_stats(absent)
        together = merge_stats([together, part] if together else [part])
        # A dimension without a number is merged dimension by dimension, and all others with it.
        alone = merge_stats([alone, other] if alone else [other])
    assert together is not None
    assert alone is not None
    assert together == {name: numbers[:5] for name, numbers in alone.items()}


def test_frames_compared_in_whole_numbers_are_compared_as_before():
    random = np.random.default_rng(4)
    for height, width in ((3, 5), (64, 64), (97, 131), (1, 9)):
        last, now = random.integers(0, 256, (2, height, width)).astype(np.int16)
        high, wide = max(1, height // video.TILES), max(1, width // video.TILES)
        rows, columns = height // high, width // wide
        tiles = np.abs(now - last)[: rows * high, : columns * wide].reshape(rows, high, columns, wide)
        assert video._change(last, now) == float(tiles.mean(axis=(1, 3)).max())
        for deviation in (0, 1.9, 2.1, 40):
            picture = random.normal(100, deviation, (height, width)).clip(0, 255).astype(np.int16)
            assert video._is_blank(picture) == (float(picture.std()) < video.BLANK_STD)
