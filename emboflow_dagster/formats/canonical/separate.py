"""Episodes of several kinds become several packages: one for each set of features, cameras and rate."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from emboflow_dagster.errors import ErrorKind, ExecutionError, InvalidInputError, LimitError, Problem
from emboflow_dagster.formats.canonical.schema import Episode, Manifest
from emboflow_dagster.formats.canonical.writer import Package

#: Packages that are open at once; more kinds than this are no set of demonstrations.
MAX_PACKAGES: Final = 64

Key = tuple[Any, ...]


class Written(NamedTuple):
    """One package of several."""

    folder: Path
    manifest: Manifest


def kind_of(episode: Episode, fps: float | None) -> Key:
    """What two episodes of one package have in common: rate, width of each feature, size of each picture."""
    rate = episode.fps or fps
    features = sorted((name, spec.dim) for name, spec in episode.specs.items())
    cameras = sorted((name, camera.shape) for name, camera in episode.cameras.items())
    return (None if rate is None else round(rate, 3), tuple(features), tuple(cameras))


def write_separate(
    episodes: Iterable[Episode],
    out_dir: Path,
    *,
    fps: float | None,
    robot_type: str | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    skipped: list[dict[str, Any]],
) -> list[Written]:
    """Write every episode into the package of its kind, ``out_dir/000`` and so on as the kinds first come.

    Args:
        episodes: Read once, in order.
        out_dir: Absent or empty; created.
        fps: The rate of episodes that have none of their own; ``None`` where all of them have.
        robot_type: For the manifests.
        sources: ``{"assetId", "sha256"}`` of every asset that may give episodes; a package names its own.
        config: What the producer was told.
        skipped: Episodes left out, filled while episodes are read. A package lists those of its own sources,
            and those of sources that gave no episode to any package.

    Raises:
        InvalidInputError: No episode, one that is wrong in itself, or one without a rate.
        LimitError: More than 64 kinds.
    """
    packages: dict[Key, Package] = {}
    given: dict[Key, dict[Any, None]] = {}
    with _closing(packages):
        for episode in episodes:
            key = kind_of(episode, fps)
            package = packages.get(key)
            if package is None:
                package = packages[key] = _open(out_dir, len(packages), episode.fps or fps)
            if problems := package.problems(episode):
                raise InvalidInputError.of(problems)
            try:
                package.add(episode)
            except (InvalidInputError, ExecutionError) as error:
                skipped.append({"source": dict(episode.source), "reason": error.message})
                continue
            given.setdefault(key, {})[episode.source.get("assetId")] = None
    if not given:
        reasons = "; ".join(sorted({str(item["reason"]) for item in skipped})[:5])
        text = f"no episode to write{': ' + reasons if reasons else ''}"
        raise InvalidInputError(text, kind=ErrorKind.INPUT_MISSING)
    everybody = {asset for found in given.values() for asset in found}
    written: list[Written] = []
    for key, own in given.items():
        package = packages[key]
        manifest = package.finish(
            robot_type=robot_type,
            source_assets=[source for source in sources if source["assetId"] in own],
            config=config,
            skipped=[
                item
                for item in skipped
                if item["source"].get("assetId") in own or item["source"].get("assetId") not in everybody
            ],
        )
        written.append(Written(package.out_dir, manifest))
    return written


def _open(out_dir: Path, number: int, fps: float | None) -> Package:
    if number >= MAX_PACKAGES:
        raise LimitError(
            f"episodes of more than {MAX_PACKAGES} kinds",
            kind=ErrorKind.LIMIT_SIZE,
            hint="choose fewer assets",
        )
    if fps is None:
        problem = Problem(ErrorKind.INPUT_MISSING, "fps", "the frame rate is not known")
        raise InvalidInputError.of([problem])
    return Package(out_dir / f"{number:03d}", fps)


@contextmanager
def _closing(packages: Mapping[Key, Package]) -> Iterator[None]:
    """Close every package, whatever happened."""
    try:
        yield
    finally:
        for package in packages.values():
            package.close()
