"""Numpy arrays: an ``.npy``, an ``.npz``, and what a folder of them holds.

Headers alone are read, and nothing is ever unpickled: an array of objects is a program that runs when it is
opened.
"""

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from emboflow_dagster.formats.detect import Format, Source
from emboflow_dagster.formats.hdf5_proposal import feature_of
from emboflow_dagster.formats.npy_header import NPY_MAGIC, Array, array_of
from emboflow_dagster.formats.report import Candidate, Probe

MAX_SHOWN: Final = 500
MAX_MEMBERS: Final = 10_000
_NUMBER: Final = re.compile(r"\d+")


def matches(source: Source) -> Candidate | None:
    """A file with numpy's signature, or a zip with the suffix ``.npz``."""
    if source.is_folder:
        return None
    if source.head.startswith(NPY_MAGIC):
        return Candidate("npy", 0.95, ("numpy signature",))
    if source.path.suffix.lower() == ".npz" and source.head.startswith(b"PK"):
        # Surer than that it is a zip, which it is as well.
        return Candidate("npz", 0.98, ("a zip with the suffix of numpy's",))
    return None


def probe(source: Source, report: Probe) -> None:
    """Read the headers."""
    describe(arrays_of(source.path, "", report), report)
    report.recommend("preview")


def arrays_of(path: Path, name: str, report: Probe) -> list[tuple[str, Array]]:
    """The arrays of one file by name; what is wrong with them becomes warnings.

    Args:
        path: An ``.npy`` or ``.npz``.
        name: What it is called in the report, empty where it is the asset.
        report: Gets the warnings.
    """
    if path.suffix.lower() != ".npz":
        with path.open("rb") as stream:
            found = array_of(stream, path.stat().st_size)
        if found is None:
            report.warn("corrupt", "not a readable numpy header", name or None)
            return []
        _check(found, name, report)
        return [(name or path.name, found)]
    arrays: list[tuple[str, Array]] = []
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            for info in infos[:MAX_MEMBERS]:
                member = info.filename.removesuffix(".npy")
                place = f"{name}:{member}" if name else member
                if info.is_dir():
                    continue
                try:
                    with archive.open(info) as stream:
                        found = array_of(stream, info.file_size)
                except (
                    OSError,
                    RuntimeError,
                    NotImplementedError,
                    EOFError,
                    zlib.error,
                    zipfile.BadZipFile,
                ) as error:
                    report.warn("corrupt", f"not readable: {error}", place)
                    continue
                if found is None:
                    report.warn("corrupt", "not a readable numpy header", place)
                    continue
                _check(found, place, report)
                arrays.append((place, found))
            if len(infos) > MAX_MEMBERS:
                report.warn(
                    "listing_truncated", f"{len(infos)} arrays; {MAX_MEMBERS} were looked at", name or None
                )
    except zipfile.BadZipFile as error:
        # The list of its members stands at a zip's end.
        report.warn("truncated", f"the list of arrays at its end is not there: {error}", name or None)
    except (OSError, ValueError, NotImplementedError) as error:
        report.warn("corrupt", f"not readable as .npz: {error}", name or None)
    return arrays


def _check(found: Array, name: str, report: Probe) -> None:
    place = name or None
    if found.pickled:
        report.warn("pickled_array", "object arrays are pickles: they are never opened", place)
    elif found.truncated:
        text = f"{found.there} bytes of {found.size} declared: {found.rows} of {found.shape[:1]} rows"
        report.warn("truncated", text, place)


def describe(arrays: Sequence[tuple[str, Array]], report: Probe) -> None:
    """Write what was found into the report.

    ``arrays`` {name: ``shape``, ``dtype``, ``fortranOrder`` where it is so}, at most 500; ``arrayCount``.
    """
    report.structure["arrays"] = {name: found.to_json() for name, found in arrays[:MAX_SHOWN]}
    report.structure["arrayCount"] = len(arrays)
    usable = [
        (name, found)
        for name, found in arrays
        if found.shape and found.dtype.kind in "biufV" and not found.pickled
    ]
    for place, group in groups(usable).items():
        rows = Counter(found.shape[0] for _, found in group)
        if len(rows) > 1:
            each = ", ".join(f"{name} {found.shape[0]}" for name, found in group[:8])
            text = f"arrays that stand together have different numbers of rows: {each}"
            report.warn("dimension_mismatch", text, place or None)
    if usable and any(found.shape[0] > 1 for _, found in usable):
        report.recommend("normalize")


def groups(arrays: Sequence[tuple[str, Array]]) -> dict[str, list[tuple[str, Array]]]:
    """Arrays that belong to one episode, by its name.

    These are the members of an ``.npz`` and the files of a folder; files that are named alike but for a
    number (``episode_0.npy``, ``episode_1.npy``) are an episode each.
    """
    found: dict[str, list[tuple[str, Array]]] = {}
    for name, array in arrays:
        file, colon, _ = name.partition(":")
        place = file if colon else file.rpartition("/")[0]
        found.setdefault(place, []).append((name, array))
    split: dict[str, list[tuple[str, Array]]] = {}
    for place, group in found.items():
        if len(group) > 1 and all(name.endswith(".npy") for name, _ in group) and _alike(group):
            split |= {name: [(name, array)] for name, array in group}
        else:
            split[place] = group
    return split


def _alike(group: Sequence[tuple[str, Array]]) -> bool:
    names = [name.rpartition("/")[2] for name, _ in group]
    known = {feature_of(name.removesuffix(".npy")) for name in names} - {None}
    return len({_NUMBER.sub("#", name) for name in names}) == 1 and len(known) < 2  # noqa: PLR2004


FORMAT = Format(names=("npy", "npz"), matches=matches, probe=probe)
