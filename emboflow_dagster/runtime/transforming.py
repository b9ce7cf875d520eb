"""Repairs LeRobot trees and looks into what it wrote; runs in a child process, JSON in and out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import EmboflowError, ErrorKind, ExecutionError, InvalidInputError
from emboflow_dagster.runtime import child_main

FORMATS: Final = ("lerobot_v2.0", "lerobot_v2.1")
MADE: Final = "lerobot_v2.1"
#: What writing a tree anew repairs in any case: counts, statistics and paths are those of the data.
_ALWAYS: Final = (
    "declared_count_mismatch",
    "missing_episode_meta",
    "missing_stats",
    "path_template_mismatch",
)


def transform(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Write a repaired tree of each recording to ``<out>/<number>`` and probe it.

    Args:
        request: ``recordings`` [{id, name, path, format, warnings}], ``out``, ``repair``: the fields of
            :class:`~emboflow_dagster.formats.canonical.lerobot_repair.Repair`.

    Returns:
        Per recording ``path`` (in ``out``), ``episodes``, ``frames``, ``videos``, ``unknown``, ``repaired``
        and ``left``: warning codes that are gone, and those that the new tree has.

    Raises:
        InvalidInputError: A recording is no LeRobot 2.0 or 2.1 tree, or cannot be read.
        ExecutionError: A warning that was to be repaired is still there.
    """
    from emboflow_dagster.formats.canonical.lerobot_repair import Repair, repair
    from emboflow_dagster.formats.probe import probe_path

    wishes = Repair(**request["repair"])
    out = Path(request["out"])
    found: list[dict[str, Any]] = []
    for number, recording in enumerate(request["recordings"]):
        name, place = recording["name"], f"{number:03d}"
        if recording["format"] not in FORMATS:
            raise InvalidInputError(
                f"{name}: format {recording['format']} is not repaired; {' and '.join(FORMATS)} are",
                kind=ErrorKind.FORMAT_UNSUPPORTED,
                hint="choose the assets with a filter before this node",
            )
        try:
            made = repair(Path(recording["path"]), out / place, wishes)
        except EmboflowError as error:
            raise InvalidInputError(f"{name}: {error.message}", kind=error.kind, hint=error.hint) from error
        warnings = probe_path(out / place).to_json()["warnings"]
        still = [warning for warning in warnings if _meant(warning, request["repair"])]
        if still:
            text = "; ".join(f"{warning['code']}: {warning['message']}" for warning in still[:5])
            raise ExecutionError(f"{name}: {len(still)} warnings are still there: {text}")
        left = _codes(warnings)
        repaired = sorted(set(recording["warnings"]) - set(left))
        child_main.log(
            f"{name}: {made['episodes']} episodes, {made['frames']} frames, {made['videos']} videos; "
            f"repaired {', '.join(repaired) or 'nothing that was warned of'}"
        )
        found.append({"path": place, **made, "repaired": repaired, "left": left})
    return found


def _codes(warnings: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({warning["code"] for warning in warnings})


def _meant(warning: Mapping[str, Any], wishes: Mapping[str, Any]) -> bool:
    """Whether this warning is one of those that the options stand for."""
    code, path = warning["code"], warning.get("path")
    renamed = wishes["rename"]
    features = {
        "declared_feature_without_data": wishes["drop"],
        "missing_videos": wishes["drop"],
        "missing_column": wishes["add"],
        "dtype_mismatch": [renamed.get(name, name) for name in wishes["cast"]],
    }
    if code in features:
        return path in features[code]
    if code in ("timestamps_not_from_zero", "time_not_monotonic"):
        return bool(wishes["grid_timestamps"])
    return code in _ALWAYS
