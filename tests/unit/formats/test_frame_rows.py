"""Frames that wait for their row group: several groups from the same arrays, stamps that some lack."""

import numpy as np  # noqa: TID253 - compared with what is read back
import pyarrow.parquet as pq  # noqa: TID253

from emboflow_dagster.formats.canonical.frame_rows import FrameRows
from emboflow_dagster.formats.canonical.schema import Episode, FeatureSpec
from emboflow_dagster.formats.canonical.tables import ROWS_PER_GROUP, TableFile, frames_schema

SPECS = {"action": FeatureSpec(("a", "b"))}


def test_arrays_serve_several_row_groups(tmp_path):
    random = np.random.default_rng(1)
    lengths = [30_000, 40_000, 5, ROWS_PER_GROUP + 3, 7]
    values = [random.normal(size=(n, 2)).astype(np.float32) for n in lengths]
    kept = [array.copy() for array in values]
    stamps = [np.arange(n) if number % 2 else None for number, n in enumerate(lengths)]
    file = TableFile(tmp_path / "f.parquet", frames_schema(SPECS))
    rows = FrameRows(file, ["action"], 10)
    start = 0
    for number, array in enumerate(values):
        episode = Episode({}, {"action": array}, SPECS, source_timestamp_ns=stamps[number])
        rows.add(episode, number, start, number % 3)
        start += len(array)
    rows.flush()
    file.close()

    table = pq.read_table(tmp_path / "f.parquet")
    assert file.rows == table.num_rows == start
    found = np.array(table["action"].combine_chunks().flatten()).reshape(-1, 2)
    assert np.array_equal(found, np.concatenate(kept))
    assert all(np.array_equal(array, before) for array, before in zip(values, kept, strict=True))
    assert table["episode_index"].to_pylist() == np.repeat(range(5), lengths).tolist()
    assert table["task_index"].to_pylist() == np.repeat([0, 1, 2, 0, 1], lengths).tolist()
    assert table["index"].to_pylist() == list(range(start))
    assert table["timestamp"].to_pylist()[-1] == 0.6
    told = table["source_timestamp_ns"].to_pylist()
    assert told[:30_000] == [None] * 30_000
    assert told[30_000:70_000] == list(range(40_000))
