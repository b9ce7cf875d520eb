"""A version leaves the house: a folder, one archive, or a prefix of a bucket; whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import ConflictError, ErrorKind, InvalidInputError
from emboflow_dagster.formats.exports.archives import kind_of, write_archive
from emboflow_dagster.formats.exports.package import DELIVERY, SUMS, files_of
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.object_storage.disk import naming_failures, sync_folder
from emboflow_dagster.object_storage.s3_deliver import SCHEME, deliver_file, deliver_files
from emboflow_dagster.project import dataset_content
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.runtime.child import run_child
from emboflow_dagster.runtime.delivering import CANONICAL, FORMATS

MANIFEST: Final = "manifest.json"
#: Address space in MiB of the process that writes a layout.
MEMORY_MB: Final = 4_096
TRIES: Final = 3
SECONDS: Final = 24 * 3_600.0
Say = Callable[[str], None]


def deliver(
    opened: Opened,
    dataset: Dataset,
    version: DatasetVersion,
    output: str,
    *,
    form: str = CANONICAL,
    environment_state: str | None = None,
    say: Say = lambda _text: None,
) -> dict[str, Any]:
    """Write a version's package to a folder, an archive (by its name's ending) or `s3://bucket/prefix`.

    It is made beside the output and gets its name when it is whole and checked. What an interrupted export
    left is swept away by the next one to the same output.

    Args:
        opened: The deployment.
        dataset: The dataset.
        version: Its version.
        output: Where to.
        form: `lerobot-v3.0`, `canonical`, `rlds`, `mcap` or `rrd`.
        environment_state: As :func:`~emboflow_dagster.formats.exports.lerobot_v3.write_lerobot` has it.
        say: Told what is going on.

    Returns:
        What :func:`emboflow_dagster.runtime.delivering.deliver` returns, with ``output`` and ``kind``.

    Raises:
        InvalidInputError: An unknown format, a version that cannot have it, or an output with other things.
        ConflictError: Somebody else exports to the same output now.
        IntegrityError: A byte of the version is missing or differs.
    """
    if form not in FORMATS:
        raise InvalidInputError(f"format: found {form!r}; known are {', '.join(FORMATS)}")
    kind = kind_of(output)
    remote = output.startswith(SCHEME)
    name = f"{dataset.name}-{version.version_tag}"
    if not remote:
        _check_target(Path(output), kind)
    with _place(opened, output, remote=remote) as work:
        say(f"reading {dataset.name} {version.version_tag}")
        dataset_content.export(opened, version, work / "canonical")
        request = {
            "package": str(work / "canonical"),
            "out": str(work / "package"),
            "format": form,
            "name": dataset.name,
            "tag": version.version_tag,
            "environmentState": environment_state,
            "annotations": [],
        }
        made: dict[str, Any] = run_child(
            "emboflow_dagster.runtime.delivering:deliver",
            request,
            timeout_s=SECONDS,
            memory_mb=MEMORY_MB,
            on_log=lambda text: say(f"{form}: {text}"),
        )
        shutil.rmtree(work / "canonical")
        made |= {"output": output, "kind": kind or "folder", "archiveBytes": None}
        if kind is not None:
            say(f"packing {output}")
            with naming_failures(work):
                write_archive(work / "package", work / "archive", kind, top=name)
            made["archiveBytes"] = (work / "archive").stat().st_size
        if remote:
            _send(work, output, kind, say)
        else:
            _name(work, Path(output), kind)
    return made


def _check_target(path: Path, kind: str | None) -> None:
    """Whether the output may be written: absent, empty, or an earlier export."""
    if kind is not None:
        good = not path.is_dir()
    elif path.is_dir():
        good = (path / MANIFEST).is_file() or (path / DELIVERY).is_file() or not any(path.iterdir())
    else:
        good = not path.exists()
    if not good:
        raise InvalidInputError(
            f"{path} is there and is no export of a dataset; nothing was written",
            kind=ErrorKind.DUPLICATE,
            hint="name another output, or remove it first",
        )


@contextmanager
def _place(opened: Opened, output: str, *, remote: bool) -> Iterator[Path]:
    """A folder for what is on its way: on the disk of the output, so that renaming is all that is left."""
    if remote:
        with dataset_content.workdir(opened) as folder:
            yield folder
        return
    target = Path(output).absolute()
    work = target.parent / f".{target.name}.partial"
    fd = _locked(work)
    if fd is None:
        raise ConflictError(f"another export to {output} is going on; nothing was written")
    try:
        _empty(work)
        yield work
    finally:
        # A killed export leaves it, without the lock, to the next one.
        shutil.rmtree(work, ignore_errors=True)
        os.close(fd)


def _locked(work: Path) -> int | None:
    """The folder, made where needed and locked; ``None`` when somebody else has it."""
    for _ in range(TRIES):
        with naming_failures(work.parent):
            work.mkdir(parents=True, exist_ok=True)
            fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if work.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass  # somebody has it, or had it and removed it a moment ago
        os.close(fd)
    return None


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _name(work: Path, target: Path, kind: str | None) -> None:
    """Give what was made its final name; an earlier export goes away when the new one is there."""
    made = work / ("package" if kind is None else "archive")
    with naming_failures(target.parent):
        if kind is None:
            if target.exists():
                target.rename(work / "replaced")
            made.rename(target)
        else:
            with made.open("rb") as stream:
                os.fsync(stream.fileno())
            made.replace(target)
        sync_folder(target.parent if target.parent != Path() else Path.cwd())


def _send(work: Path, output: str, kind: str | None, say: Say) -> None:
    if kind is not None:
        say(f"sending {output}")
        deliver_file(output, work / "archive")
        return
    files = [(name, path) for name, path in files_of(work / "package") if name != SUMS]
    files.append((SUMS, work / "package" / SUMS))
    deliver_files(output, files, tick=lambda sent, of: say(f"sending {output}: {sent * 100 // max(1, of)} %"))
