"""Brings recordings to canonical packages; runs in a child process, JSON in and out."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.blobs.forgotten_place import FORGOTTEN, Place
from emboflow_dagster.blobs.forgotten_trace import Trace
from emboflow_dagster.errors import EmboflowError, InvalidInputError, LimitError
from emboflow_dagster.runtime import child_main
from emboflow_dagster.runtime.normalize_readers import rate_of, read

if TYPE_CHECKING:
    from emboflow_dagster.formats.canonical.schema import Episode, Manifest

MAX_SKIPPED = 200
_NOT_CONFIG = ("assets", "forgotten", "traces", "out")


def normalize(request: dict[str, Any]) -> dict[str, Any]:
    """Write the episodes of all recordings, in their order, below ``request["out"]``.

    Args:
        request: ``assets`` [{id, name, path, format, sha256}], ``out``, ``fps`` (or null), ``robotType``,
            ``task`` (or null), ``topics``, ``mapping``, ``ratePolicy``, ``videos``, ``onMissingVideo``,
            ``split`` (or null), ``onMismatch``: ``separate`` gives a package in ``out/000``, ``out/001`` and
            so on for each set of features and rate, ``raise`` and ``skip`` one in ``out`` itself.
            ``forgotten`` (optional): asset id to places of episodes that are left out; ``traces`` (optional):
            the numbers of such episodes.

    Returns:
        ``packages`` [{folder, fps, episodes, frames, features, files, assets, sync}], ``robotType``,
        ``assets`` [{id, name, episodes, frames, reasons}], ``skipped`` (at most 200 of {source, reason}),
        ``skippedCount``.

    Raises:
        InvalidInputError: No episode at all, features that differ, no frame rate, or a missing video.
    """
    from emboflow_dagster.formats.canonical.separate import Written, write_separate
    from emboflow_dagster.formats.canonical.writer import write_canonical

    request = {**request, "assets": [_known(asset) for asset in request["assets"]]}
    separate, out = request["onMismatch"] == "separate", Path(request["out"])
    work = _Work(request, request["fps"] if separate else _frame_rate(request))
    config = {
        key: value for key, value in request.items() if key not in ("assets", "forgotten", "traces", "out")
    }
    if separate:
        written = write_separate(
            work.episodes(),
            out,
            fps=work.fps,
            robot_type=request["robotType"],
            sources=work.sources,
            config=config,
            skipped=work.skipped,
        )
    else:
        manifest = write_canonical(
            work.episodes(),
            out,
            fps=work.fps or 0,
            robot_type=request["robotType"],
            source_assets=work.sources,
            config=config,
            on_mismatch=request["onMismatch"],
            skipped=work.skipped,
        )
        written = [Written(out, manifest)]
    return {
        "packages": [_package(folder, manifest) for folder, manifest in written],
        "robotType": request["robotType"],
        "assets": work.rows,
        "skipped": work.skipped[:MAX_SKIPPED],
        "skippedCount": len(work.skipped),
    }


def _known(asset: Mapping[str, Any]) -> dict[str, Any]:
    """A recording with its format: one that was never probed is looked at here."""
    from emboflow_dagster.formats.probe import format_of

    form = asset["format"] if asset["format"] != "unknown" else format_of(Path(asset["path"]))
    return {**asset, "format": form}


def _package(folder: Path, manifest: "Manifest") -> dict[str, Any]:
    from emboflow_dagster.formats.canonical.sync import sync_error

    return {
        "folder": str(folder),
        "fps": manifest.document["fps"],
        "episodes": manifest.episodes,
        "frames": manifest.frames,
        "features": manifest.features,
        "files": manifest.files,
        "assets": [source["assetId"] for source in manifest.document["sourceAssets"]],
        "sync": sync_error(folder),
    }


class _Work:
    """The recordings one after the other, and what became of each."""

    def __init__(self, request: Mapping[str, Any], fps: float | None) -> None:
        self.request = request
        self.fps = fps
        self.skipped: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []
        """Filled while episodes are written: an asset that gave none is no source."""
        self.traces = [Trace.of(row) for row in request.get("traces", ())]
        self.rows: list[dict[str, Any]] = []

    def episodes(self) -> "Iterator[Episode]":
        """Every episode; a source that cannot be read becomes a reason, not an end."""
        from emboflow_dagster.formats.canonical.from_lerobot import MissingVideoError

        for asset in self.request["assets"]:
            row = {"id": asset["id"], "name": asset["name"], "episodes": 0, "frames": 0, "reasons": []}
            self.rows.append(row)
            before = len(self.skipped)
            try:
                yield from self._counted(asset, row)
            except MissingVideoError as error:
                text = f"{asset['name']}: {error.message}"
                raise InvalidInputError(text, kind=error.kind, hint=error.hint) from error
            except LimitError:
                raise
            except (EmboflowError, OSError) as error:
                reason = _reason(error)
                self.skipped.append({"source": {"assetId": asset["id"]}, "reason": reason})
            row["reasons"] = list(dict.fromkeys(str(item["reason"]) for item in self.skipped[before:]))[:20]
            child_main.log(f"{asset['name']}: {row['episodes']} episodes, {row['frames']} frames")

    def _counted(self, asset: Mapping[str, Any], row: dict[str, Any]) -> "Iterator[Episode]":
        from emboflow_dagster.formats.canonical.forgotten import looks_forgotten

        known, by_convention = rate_of(asset) if self.fps is None else (None, False)
        flags = ("nominal_rate",) if by_convention else ()
        # An episode of all that a folder holds is called as the folder: then any file of it may be meant.
        whole = Path(asset["path"]).name
        places = [
            replace(found, path=None) if found.path == whole else found
            for found in map(Place.of, self.request.get("forgotten", {}).get(asset["id"], ()))
        ]
        for episode in read(asset, self.request, self.fps or known, self.skipped):
            rate = episode.fps or known or self.fps
            path = None if episode.source.get("path") == whole else episode.source.get("path")
            where = {**episode.source, "path": path}
            if any(
                place.has(where, episode.t0_ns, episode.length, rate) for place in places
            ) or looks_forgotten(episode.length, episode.features, self.traces):
                self.skipped.append({"source": dict(episode.source), "reason": FORGOTTEN})
                continue
            # The writer may refuse it: then it is in `skipped` when we are asked for the next one.
            left_out = len(self.skipped)
            yield (
                replace(episode, fps=episode.fps or known, flags=(*episode.flags, *flags))
                if known
                else episode
            )
            if len(self.skipped) > left_out:
                continue
            if not any(source["assetId"] == asset["id"] for source in self.sources):
                self.sources.append({"assetId": asset["id"], "sha256": asset["sha256"]})
            row["episodes"] += 1
            row["frames"] += episode.length


def _reason(error: EmboflowError | OSError) -> str:
    if not isinstance(error, EmboflowError):
        return str(error)
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _frame_rate(request: Mapping[str, Any]) -> float:
    """The asked rate, else the one that all sources that have one agree on."""
    if request["fps"]:
        return float(request["fps"])
    found: dict[float, str] = {}
    for asset in request["assets"]:
        rate, _ = rate_of(asset)
        if rate:
            found.setdefault(round(rate, 3), asset["name"])
    if len(found) == 1:
        return next(iter(found))
    rates = ", ".join(f"{name}: {rate:g} Hz" for rate, name in found.items())
    raise InvalidInputError(
        f"the frame rate is not known ({rates or 'no source gives one'})",
        hint="set `fps` in the node's config",
    )
