"""Takes recordings apart into files of plain arrays, in a child: users' code opens none of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.blobs.forgotten_place import FORGOTTEN, Place
from emboflow_dagster.blobs.forgotten_trace import Trace
from emboflow_dagster.errors import EmboflowError, LimitError
from emboflow_dagster.runtime import child_main

if TYPE_CHECKING:
    from emboflow_dagster.formats.as_arrays import Part

INDEX: Final = "parts.jsonl"


def extract(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the parts of each recording into a folder of its own, ``<out>/000`` and on.

    Args:
        request: ``kind`` (``episode`` or ``streams``), ``recordings`` [{id, path, name, format}], ``out``,
            ``forgotten`` (optional): asset id to places of episodes that are left out; ``traces`` (optional):
            the numbers of such episodes.

    Returns:
        For each recording ``parts`` (how many) and ``reasons`` (what was left out).

    Raises:
        LimitError: A recording needs more memory than there is.
    """
    done: list[dict[str, Any]] = []
    traces = [Trace.of(row) for row in request.get("traces", ())]
    for number, recording in enumerate(request["recordings"]):
        folder = Path(request["out"], f"{number:03d}")
        folder.mkdir(parents=True)
        reasons: list[str] = []
        count = 0
        try:
            places = [Place.of(place) for place in request.get("forgotten", {}).get(recording.get("id"), ())]
            count = _write(folder, recording, request["kind"], reasons, (places, traces))
        except LimitError:
            raise
        except (EmboflowError, OSError) as error:
            reasons.append(error.message if isinstance(error, EmboflowError) else str(error))
        child_main.log(f"{recording['name']}: {count} read{'; ' if reasons else ''}{'; '.join(reasons[:5])}")
        done.append({"parts": count, "reasons": reasons[:20]})
    return done


def _write(
    folder: Path,
    recording: Mapping[str, Any],
    kind: Any,
    reasons: list[str],
    forgotten: tuple[Sequence[Place], Sequence[Trace]],
) -> int:
    from emboflow_dagster.formats.as_arrays import parts
    from emboflow_dagster.formats.canonical.forgotten import arrays_forgotten
    from emboflow_dagster.formats.canonical.from_arrays import save_arrays
    from emboflow_dagster.formats.probe import format_of

    count = 0
    places, traces = forgotten
    form = recording["format"]
    if form == "unknown":  # never probed, or made of a prefix
        form = format_of(Path(recording["path"]))
    with (folder / INDEX).open("w", encoding="utf-8") as index:
        for part in parts(Path(recording["path"]), form, kind, reasons):
            # The hook does not see it at all.
            if (places and _is_forgotten(part, places)) or (
                kind == "episode" and arrays_forgotten(part.arrays, traces)
            ):
                reasons.append(f"{part.ref}: {FORGOTTEN}")
                continue
            # Datasets may be called as no file may: in the archive they have numbers.
            arrays = {name: f"a{i}" for i, name in enumerate(part.arrays)}
            stamps = {name: f"t{i}" for i, name in enumerate(part.stamps)}
            file = f"{count:06d}.npz"
            save_arrays(
                folder / file,
                {arrays[name]: values for name, values in part.arrays.items()}
                | {stamps[name]: values for name, values in part.stamps.items()},
            )
            row = {"ref": part.ref, "file": file, "arrays": arrays, "stamps": stamps}
            index.write(json.dumps({**row, "names": dict(part.names), "told": dict(part.told)}) + "\n")
            count += 1
    return count


def _is_forgotten(part: "Part", places: Sequence[Place]) -> bool:
    """Whether a forgotten episode is in it: by its name, or by the time of its messages."""
    spans = [(int(t[0]), int(t[-1])) for t in part.stamps.values() if len(t)]
    t0 = min((start for start, _ in spans), default=None)
    seconds = (max(stop for _, stop in spans) - t0) / 1e9 if t0 is not None else 0.0
    # As frames of a microsecond: what counts is where they end.
    source = {"path": None, "ref": part.ref}
    return any(place.has(source, t0, max(1, int(seconds * 1e6)), 1e6) for place in places)


def parts_of(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """The parts that :func:`extract` wrote: what stands in the list, arrays by name, stamps by name.

    The file of a part is removed when the next one is asked for.
    """
    from emboflow_dagster.formats.canonical.from_arrays import load_arrays

    with (folder / INDEX).open(encoding="utf-8") as index:
        for line in index:
            row = json.loads(line)
            file = folder / row["file"]
            loaded = load_arrays(file)
            yield (
                row,
                {name: loaded[key] for name, key in row["arrays"].items()},
                {name: loaded[key] for name, key in row["stamps"].items()},
            )
            file.unlink(missing_ok=True)
