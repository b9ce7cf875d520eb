"""Brings assets to one canonical package; runs in a child process, JSON in and out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import EmboflowError, ErrorKind, InvalidInputError, LimitError
from emboflow_dagster.runtime import child_main

if TYPE_CHECKING:
    from emboflow_dagster.formats.canonical.schema import Episode

MAX_SKIPPED = 200
#: HDF5 rows are not resampled; an `fps` that far from the recorded rate would falsify time.
RATE_TOLERANCE = 0.05
BAGS = ("rosbag", "mcap")


def normalize(request: dict[str, Any]) -> dict[str, Any]:
    """Write the episodes of all assets, in their order, into ``request["out"]``.

    Args:
        request: ``assets`` [{id, name, path, format, sha256}], ``out``, ``fps`` (or null), ``robotType``,
            ``task`` (or null), ``topics``, ``mapping``, ``ratePolicy``, ``videos``, ``onMismatch`` (raise or
            skip).

    Returns:
        ``fps``, ``episodes``, ``frames``, ``features``, ``files``, ``robotType``, ``assets`` [{id, name,
        episodes, frames, reasons}], ``skipped`` (at most 200 of {source, reason}), ``skippedCount``.

    Raises:
        InvalidInputError: No episode at all, features that differ, or no frame rate.
    """
    from emboflow_dagster.formats.canonical.writer import write_canonical

    work = _Work(request, _frame_rate(request))
    manifest = write_canonical(
        work.episodes(),
        Path(request["out"]),
        fps=work.fps,
        robot_type=request["robotType"],
        source_assets=work.sources,
        config={key: value for key, value in request.items() if key not in ("assets", "out")},
        on_mismatch=request["onMismatch"],
        skipped=work.skipped,
    )
    return {
        "fps": work.fps,
        "robotType": request["robotType"],
        "episodes": manifest.episodes,
        "frames": manifest.frames,
        "features": manifest.features,
        "files": manifest.files,
        "assets": work.rows,
        "skipped": work.skipped[:MAX_SKIPPED],
        "skippedCount": len(work.skipped),
    }


class _Work:
    """The assets one after the other, and what became of each."""

    def __init__(self, request: Mapping[str, Any], fps: float) -> None:
        self.request = request
        self.fps = fps
        self.skipped: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []
        """Filled while episodes are written: an asset that gave none is no source."""
        self.rows: list[dict[str, Any]] = []

    def episodes(self) -> "Iterator[Episode]":
        """Every episode; a source that cannot be read becomes a reason, not an end."""
        for asset in self.request["assets"]:
            row = {"id": asset["id"], "name": asset["name"], "episodes": 0, "frames": 0, "reasons": []}
            self.rows.append(row)
            before = len(self.skipped)
            try:
                yield from self._counted(asset, row)
            except LimitError:
                raise
            except (EmboflowError, OSError) as error:
                reason = error.message if isinstance(error, EmboflowError) else str(error)
                self.skipped.append({"source": {"assetId": asset["id"]}, "reason": reason})
            row["reasons"] = list(dict.fromkeys(str(item["reason"]) for item in self.skipped[before:]))[:20]
            child_main.log(f"{asset['name']}: {row['episodes']} episodes, {row['frames']} frames")

    def _counted(self, asset: Mapping[str, Any], row: dict[str, Any]) -> "Iterator[Episode]":
        for episode in self._read(asset):
            # The writer may refuse it: then it is in `skipped` when we are asked for the next one.
            left_out = len(self.skipped)
            yield episode
            if len(self.skipped) > left_out:
                continue
            if not row["episodes"]:
                self.sources.append({"assetId": asset["id"], "sha256": asset["sha256"]})
            row["episodes"] += 1
            row["frames"] += episode.length

    def _read(self, asset: Mapping[str, Any]) -> "Iterator[Episode]":
        from emboflow_dagster.formats.canonical import from_bags, from_hdf5

        path, form, request = Path(asset["path"]), str(asset["format"]), self.request
        if form.startswith(BAGS):
            return from_bags.episodes(
                path,
                fps=self.fps,
                topics=request["topics"] or None,
                rate_policy=request["ratePolicy"],
                task=request["task"] or "",
                asset_id=asset["id"],
                skipped=self.skipped,
            )
        if form.startswith("hdf5"):
            recorded = from_hdf5.suggested_fps(path)
            if recorded and abs(recorded - self.fps) > RATE_TOLERANCE * recorded:
                raise InvalidInputError(
                    f"recorded at {recorded:g} Hz; {self.fps:g} fps falsifies its time, it is not resampled"
                )
            return from_hdf5.episodes(
                path,
                mapping=request["mapping"] or None,
                task=request["task"],
                asset_id=asset["id"],
                videos=request["videos"],
                skipped=self.skipped,
            )
        raise InvalidInputError(
            f"format {form} cannot be normalised; HDF5 demonstrations, ROS bags and MCAP can",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
        )


def _frame_rate(request: Mapping[str, Any]) -> float:
    """The asked rate, else the one that all HDF5 sources agree on."""
    if request["fps"]:
        return float(request["fps"])
    from emboflow_dagster.formats.canonical.from_hdf5 import suggested_fps

    found: dict[float, str] = {}
    for asset in request["assets"]:
        if str(asset["format"]).startswith("hdf5"):
            try:
                rate = suggested_fps(Path(asset["path"]))
            except (EmboflowError, OSError, RuntimeError, ValueError):
                continue  # reading its episodes says what is wrong
            if rate:
                found.setdefault(round(rate, 1), asset["name"])
    if len(found) == 1:
        return next(iter(found))
    rates = ", ".join(f"{name}: {rate:g} Hz" for rate, name in found.items())
    raise InvalidInputError(
        f"the frame rate is not known ({rates or 'no source gives one'})",
        hint="set `fps` in the node's config",
    )
