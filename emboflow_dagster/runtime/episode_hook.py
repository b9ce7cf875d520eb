"""The child's side of hooks that take episodes or streams: one call each, arrays in and out.

``process(episode, context)`` is given a demonstration as a mapping of dataset names to arrays,
``process(streams, context)`` a recording as a mapping of topics to ``{"t": seconds, "v": (n, dim)}``. Either
returns a mapping of feature names to arrays with as many rows each, ``t`` (seconds) or ``timestamp_ns``
(int64) among them where the frames have a time; ``None`` leaves the episode out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.runtime import child_main, hook_main
from emboflow_dagster.runtime.episode_reading import parts_of
from emboflow_dagster.runtime.hook_main import HookAsset

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class EpisodeContext:
    """The second argument of such a hook: ``ref`` is what the episode is called in its recording."""

    node_id: str
    workflow: str
    config: dict[str, Any]
    workdir: Path
    asset: HookAsset
    ref: str
    names: Mapping[str, list[str]]
    """Topic or dataset to the names of its columns, where they are known."""
    timestamp_ns: Any
    """The stamps of a demonstration's frames, int64, or ``None``."""
    task: str | None
    log: Callable[[str], None] = field(default=lambda text: child_main.log(str(text)))


def run_episodes(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Call the hook for every part of every recording and keep what it returns as `emboflow-episodes/1`.

    Args:
        request: ``source``, ``entrypoint``, ``kind``, ``nodeId``, ``workflow``, ``workdir``, ``config``,
            ``recordings`` [{id, name, type, format, path, report}], ``parts`` and ``out``: folders with an
            entry ``000`` and on for each recording.

    Returns:
        For each recording ``episodes``, ``frames`` and ``reasons``.

    Raises:
        ExecutionError: The code raised, or returned what is no episode; the message says where.
    """
    try:
        function = hook_main.load(request["source"], request["entrypoint"])
    except (EmboflowError, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too: the hook failed
        raise hook_main.told(error) from None
    return [_recording(function, request, number) for number in range(len(request["recordings"]))]


def _recording(function: Callable[..., Any], request: Mapping[str, Any], number: int) -> dict[str, Any]:
    from emboflow_dagster.formats.canonical.computed import keep
    from emboflow_dagster.formats.canonical.from_arrays import EpisodeFolder

    given = request["recordings"][number]
    asset = HookAsset(**{**given, "path": Path(given["path"])})
    out = EpisodeFolder(Path(request["out"], f"{number:03d}"))
    made: dict[str, Any] = {"episodes": 0, "frames": 0, "reasons": []}
    for row, arrays, stamps in parts_of(Path(request["parts"], f"{number:03d}")):
        context = EpisodeContext(
            node_id=request["nodeId"],
            workflow=request["workflow"],
            config=request["config"],
            workdir=Path(request["workdir"]),
            asset=asset,
            ref=row["ref"],
            names=row["names"],
            timestamp_ns=stamps.get(""),
            task=row["told"].get("task"),
        )
        argument: dict[str, Any] = arrays
        if request["kind"] == "streams":
            argument = {topic: {"t": stamps[topic] / NS, "v": values} for topic, values in arrays.items()}
        rows = {len(values) for values in arrays.values()}
        length = rows.pop() if len(rows) == 1 else None
        try:
            value = function(argument, context)
        except (EmboflowError, MemoryError):
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            raise hook_main.told(error, f"{asset.name}, {row['ref']}: ") from None
        if value is None:
            made["reasons"].append(f"{row['ref']}: the hook returned None")
            continue
        frames = keep(value, out, row, stamps.get(""), length)
        made["episodes"] += 1
        made["frames"] += frames
    child_main.log(f"{asset.name}: {made['episodes']} episodes, {made['frames']} frames")
    return made
