"""Which folders of an asset are LeRobot datasets, and which files belong to which of them.

People register the folder above a dataset, a folder of several, or a clone with its ``.git`` and ``.cache``:
a file belongs to the innermost dataset above it, and to none below a hidden folder.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.detect import Source, open_source
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.lerobot_info import INFO, read_info

#: Datasets of one folder that are looked at.
MAX_ROOTS = 100


def all_roots(source: Source) -> list[str]:
    """Every dataset as its path below the source, ``""`` for the source itself, in natural order."""
    if not source.is_folder:
        return []
    found: list[str] = []
    for entry in source.entries:
        root = f"/{entry.path}".removesuffix(f"/{INFO}")
        if root == f"/{entry.path}" or _hidden(entry.path):
            continue
        info = read_info(source.file(entry))
        # `meta/info.json` is a common name: below the top it counts where it is of a dataset.
        if info is not None and (not root or info.said_version is not None):
            found.append(root.removeprefix("/"))
    return sorted(found, key=natural_key)[:MAX_ROOTS]


def roots(source: Source) -> list[str]:
    """The outermost datasets: those that are not inside of another one."""
    return outermost(all_roots(source))


def outermost(found: Sequence[str]) -> list[str]:
    """Those of several datasets that are not inside of another one."""
    return [root for root in found if not any(_below(root, other) for other in found)]


def own(source: Source, root: str = "", every: Sequence[str] | None = None) -> Source:
    """The source as if the dataset stood alone: its folder, and the files that are its own.

    Args:
        source: What the dataset is in.
        root: Its path there.
        every: :func:`all_roots` of the source, where they are known.
    """
    inner = [other for other in (all_roots(source) if every is None else every) if _below(other, root)]
    prefix = f"{root}/" if root else ""
    entries = tuple(
        replace(entry, path=entry.path.removeprefix(prefix))
        for entry in source.entries
        if entry.path.startswith(prefix)
        and not _hidden(entry.path.removeprefix(prefix))
        and not any(entry.path.startswith(f"{other}/") for other in inner)
    )
    path = source.path / root if root else source.path
    return Source(path, True, b"", sum(entry.size for entry in entries), entries, source.complete)


def datasets(path: Path) -> list[Path]:
    """The folders of the datasets of an asset; the asset itself where none is found."""
    return [path / root if root else path for root in roots(open_source(path))] or [path]


def the_dataset(path: Path) -> Path:
    """The folder of the one dataset of an asset.

    Raises:
        InvalidInputError: There are several.
    """
    found = datasets(path)
    if len(found) > 1:
        names = ", ".join(folder.relative_to(path).as_posix() for folder in found[:5])
        raise InvalidInputError(
            f"{path.name}: {len(found)} LeRobot datasets ({names})",
            kind=ErrorKind.FORMAT_UNSUPPORTED,
            hint="register each of them by itself",
        )
    return found[0]


def _below(root: str, other: str) -> bool:
    return root != other and (not other or root.startswith(f"{other}/"))


def _hidden(path: str) -> bool:
    folder = path.rpartition("/")[0]
    return folder.startswith(".") or "/." in folder
