"""Which reader makes episodes of which format, and the rate that a recording has of its own."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import EmboflowError, ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from emboflow_dagster.formats.canonical.schema import Episode

#: Rows are not resampled; an `fps` that far from the recorded rate would falsify time.
RATE_TOLERANCE = 0.05
BAGS = ("rosbag", "mcap")
ARRAYS = "emboflow-episodes/1"
CANONICAL = "emboflow_canonical"


def rate_of(asset: Mapping[str, Any]) -> tuple[float | None, bool]:
    """The recording's own rate, and whether it is only what files of its kind have by convention.

    Never raises for a file that cannot be read: reading its episodes says what is wrong.
    """
    from emboflow_dagster.formats.canonical import (
        from_canonical,
        from_csv,
        from_hdf5,
        from_lerobot,
        from_npy,
        from_videos,
    )

    path, form = Path(asset["path"]), str(asset["format"])
    try:
        if form.startswith("hdf5"):
            recorded = from_hdf5.suggested_fps(path)
            return (recorded, False) if recorded else (from_hdf5.nominal_fps(path), True)
        if form.startswith("lerobot"):
            return from_lerobot.suggested_fps(path), False
        if form in ("video", "video_collection"):
            return from_videos.suggested_fps(path), False
        if form.startswith(("csv", "np")):
            return (from_csv if form == "csv" else from_npy).suggested_fps(path), False
        if form == CANONICAL:
            return from_canonical.suggested_fps(path), False
        if form.startswith("rlds"):
            return _delivered_fps(path), False
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001, S110 - reading the episodes says what is wrong
        pass
    return None, False


def _delivered_fps(path: Path) -> float | None:
    """The rate of a package of ours whose layout has no place for one."""
    told = path / "delivery.json"
    return float(json.loads(told.read_bytes())["dataset"]["fps"]) if told.is_file() else None


def read(
    asset: Mapping[str, Any], request: Mapping[str, Any], fps: float | None, skipped: list[dict[str, Any]]
) -> "Iterator[Episode]":
    """The episodes of one recording.

    Args:
        asset: ``id``, ``path``, ``format``.
        request: What the node was told; see :func:`emboflow_dagster.runtime.normalizing.normalize`.
        fps: The asked rate, else the recording's own.
        skipped: Gets what is left out.

    Raises:
        InvalidInputError: Nothing reads this format, its rate is not known or not the asked one, or its bytes
            are such as the library that reads them did not foresee (kind ``file-corrupt``).
    """
    try:
        yield from _read(asset, request, fps, skipped)
    except (EmboflowError, OSError, MemoryError):
        raise
    except Exception as error:
        # As a probe has it: damaged bytes cost the recording, with a reason, and not all others beside it.
        text = f"the {asset['format']} reader failed: {type(error).__name__}: {error}"
        raise InvalidInputError(text, kind=ErrorKind.FILE_CORRUPT) from error


def _read(
    asset: Mapping[str, Any], request: Mapping[str, Any], fps: float | None, skipped: list[dict[str, Any]]
) -> "Iterator[Episode]":
    from emboflow_dagster.formats.canonical import (
        from_arrays,
        from_bags,
        from_canonical,
        from_csv,
        from_hdf5,
        from_images,
        from_lerobot,
        from_npy,
        from_rlds,
        from_videos,
    )
    from emboflow_dagster.formats.canonical.splitting import Split
    from emboflow_dagster.formats.lerobot_info import INFO, read_info, why_not_read

    path, form, task = Path(asset["path"]), str(asset["format"]), request["task"]
    videos = request.get("videos", True)
    common: dict[str, Any] = {"asset_id": asset["id"], "skipped": skipped}
    told = request.get("split")
    split = Split(**told) if told else None
    if form in ("video", "video_collection"):
        # Several videos may have several rates; only an asked one is that of all of them.
        rate = request["fps"]
        return from_videos.episodes(path, fps=rate, task=task or "", videos=videos, split=split, **common)
    rows = ("hdf5", "lerobot", "rlds", "image_sequence", "csv", "np")
    if not form.startswith((*BAGS, *rows, ARRAYS, CANONICAL)):
        info = read_info(path / INFO)
        if info is not None and info.version is None and info.said_version:
            raise InvalidInputError(why_not_read(info), kind=ErrorKind.FORMAT_UNSUPPORTED)
        raise InvalidInputError(
            f"format {form} cannot be normalised; HDF5 demonstrations, LeRobot, RLDS, canonical folders, ROS "
            "bags, MCAP, videos, pictures, tables and numpy arrays can",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
        )
    if form.startswith("lerobot"):  # of several datasets in a folder each may have a rate of its own
        if fps is not None:
            _check_rate(from_lerobot.suggested_fps(path), fps)
        missing = request.get("onMissingVideo", "fail")
        return from_lerobot.episodes(
            path, fps=fps, task=task, videos=videos, on_missing_video=missing, **common
        )
    if fps is None:
        raise InvalidInputError("the frame rate is not known", hint="set `fps` in the node's config")
    if form.startswith(BAGS):
        return from_bags.episodes(
            path,
            fps=fps,
            topics=request["topics"] or None,
            rate_policy=request["ratePolicy"],
            task=task or "",
            split=split,
            videos=videos is not False,
            **common,
        )
    if form.startswith("hdf5"):
        _check_rate(from_hdf5.suggested_fps(path), fps)
        return from_hdf5.episodes(
            path, mapping=request["mapping"] or None, task=task, videos=videos is not False, **common
        )
    if form == CANONICAL:
        _check_rate(from_canonical.suggested_fps(path), fps)
        return from_canonical.episodes(path, task=task, videos=videos, **common)
    if form.startswith("rlds"):
        return from_rlds.episodes(path, task=task, videos=videos is not False, **common)
    if form.startswith("image_sequence"):
        return from_images.episodes(path, task=task or "", split=split, **common)
    if form.startswith(("csv", "np")):
        reader = from_csv if form == "csv" else from_npy
        _check_rate(reader.suggested_fps(path), fps)
        more = {} if form == "csv" else {"videos": videos is not False}
        return reader.episodes(path, mapping=request["mapping"] or None, task=task or "", **more, **common)
    return from_arrays.episodes(path, fps=fps, task=task or "", **common)


def _check_rate(recorded: float | None, fps: float) -> None:
    if recorded and abs(recorded - fps) > RATE_TOLERANCE * recorded:
        raise InvalidInputError(
            f"recorded at {recorded:g} Hz; {fps:g} fps falsifies its time, it is not resampled"
        )
