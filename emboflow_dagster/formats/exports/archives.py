"""One file of a folder, the same bytes every time: names in order, nobody's times, owners or modes."""

import gzip
import shutil
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from emboflow_dagster.formats.exports.package import files_of

#: Ending of a name to what is written. Longest first.
KINDS: Final = {".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar": "tar", ".zip": "zip"}
#: 1980-01-01, the first moment that every kind of archive can say.
MOMENT: Final = 315_532_800
MODE: Final = 0o644
_PIECE: Final = 1 << 20


def kind_of(name: str) -> str | None:
    """``tar``, ``tar.gz`` or ``zip`` by a name's ending; ``None`` for a folder's name."""
    return next((kind for ending, kind in KINDS.items() if name.lower().endswith(ending)), None)


def write_archive(folder: Path, path: Path, kind: str, *, top: str) -> None:
    """Write every file of ``folder`` into one archive, below the folder ``top``.

    What is in a package is compressed already: a zip stores it as it is. The bytes of a ``tar.gz`` depend on
    the zlib of this machine, those of the others on nothing.
    """
    if kind == "zip":
        _write_zip(folder, path, top)
        return
    with ExitStack() as stack:
        target: IO[bytes] | Any = stack.enter_context(path.open("wb"))
        if kind == "tar.gz":
            target = stack.enter_context(
                gzip.GzipFile("", "wb", compresslevel=6, fileobj=target, mtime=MOMENT)
            )
        archive = stack.enter_context(tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT))
        for name, file in files_of(folder):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mtime, entry.mode = file.stat().st_size, MOMENT, MODE
            with file.open("rb") as stream:
                archive.addfile(entry, stream)


def _write_zip(folder: Path, path: Path, top: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, file in files_of(folder):
            entry = zipfile.ZipInfo(f"{top}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.create_system = MODE << 16, 3
            entry.file_size = file.stat().st_size
            with file.open("rb") as stream, archive.open(entry, "w") as target:
                shutil.copyfileobj(stream, target, _PIECE)
