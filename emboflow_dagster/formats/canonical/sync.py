"""How far the features of a package are from being simultaneous: the ages of held samples."""

from pathlib import Path

from emboflow_dagster.formats.canonical.schema import EPISODES_FILE


def sync_error(package: Path) -> dict[str, dict[str, float]]:
    """Per feature ``maxAgeNs`` and ``meanAgeNs`` (by frames) over the episodes that were sampled."""
    import pyarrow.parquet as pq

    columns = ["length", "sync_max_age_ns", "sync_mean_age_ns"]
    found: dict[str, tuple[int, float, int]] = {}
    with (package / EPISODES_FILE).open("rb") as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=columns, batch_size=1_024):
            for row in batch.to_pylist():
                means = dict(row["sync_mean_age_ns"] or ())
                for name, age in row["sync_max_age_ns"] or ():
                    highest, total, frames = found.get(name, (0, 0.0, 0))
                    total += means.get(name, 0.0) * row["length"]
                    found[name] = (max(highest, age), total, frames + row["length"])
    return {
        name: {"maxAgeNs": highest, "meanAgeNs": total / frames}
        for name, (highest, total, frames) in found.items()
    }
