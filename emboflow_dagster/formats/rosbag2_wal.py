"""The last messages of a recorder that was killed: SQLite keeps them in a ``-wal`` file beside the database.

SQLite merges the two when the database is opened, and would write into the recording's own folder for that;
so a copy is opened. The database itself is linked where the file system can, its ``-wal`` copied.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

WAL = "-wal"


def wal_bytes(path: Path) -> int:
    """Bytes that were never merged into the database at ``path``."""
    wal = path.with_name(path.name + WAL)
    return wal.stat().st_size if wal.is_file() and not wal.is_symlink() else 0


@contextmanager
def with_wal(path: Path) -> Iterator[Path]:
    """A place from which the database can be read with what stands in its ``-wal``; gone afterwards.

    Raises:
        OSError: The copy cannot be made.
    """
    with TemporaryDirectory(prefix="emboflow-probe-") as folder:
        copy = Path(folder) / path.name
        try:
            os.link(path, copy)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, copy)
        shutil.copyfile(path.with_name(path.name + WAL), copy.with_name(copy.name + WAL))
        yield copy
