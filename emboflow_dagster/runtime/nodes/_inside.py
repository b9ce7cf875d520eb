"""What code that is not ours left in its folder: looked at before it is kept."""

import os
from pathlib import Path

from emboflow_dagster.errors import ExecutionError


def inside(path: Path, workdir: Path) -> Path:
    """The path, if it is a file or folder inside the workdir without links that lead elsewhere.

    Raises:
        ExecutionError: It is not.
    """
    root, found = workdir.resolve(), path.resolve()
    if not found.is_relative_to(root) or found == root:
        raise ExecutionError(f"the hook returned {str(path)!r}, which is not inside ctx.workdir")
    if not (found.is_file() or found.is_dir()):
        raise ExecutionError(f"the hook returned {str(path)!r}, which is no file or folder")
    for folder, names, files in os.walk(found):
        for name in (*names, *files):
            entry = Path(folder, name)
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                where = entry.relative_to(found)
                raise ExecutionError(
                    f"the hook returned a folder with {str(where)!r}, a link or special file"
                )
    return found
