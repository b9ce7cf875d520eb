"""Episodes out of numbered pictures: a sequence is a camera; which are of one episode, their names say."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from emboflow_dagster.errors import ErrorKind, ExecutionError, InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical.names import camera_name
from emboflow_dagster.formats.canonical.schema import Camera, Episode
from emboflow_dagster.formats.canonical.splitting import Split
from emboflow_dagster.formats.detect import Entry, Source, open_source, read_head
from emboflow_dagster.formats.image_sequence import sequence_entries
from emboflow_dagster.formats.picture_file import ends_early, picture_kind
from emboflow_dagster.formats.picture_names import episodes_of, missing_numbers, sequences_of
from emboflow_dagster.formats.pictures import DEEP

if TYPE_CHECKING:
    import numpy as np

CAMERA = "images"
#: Letters that the names of an episode's sequences may have.
MAX_NAMES = 1_000


def episodes(
    path: Path,
    *,
    task: str = "",
    asset_id: str | None = None,
    split: Split | None = None,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """The pictures as episodes, each in the order of its numbers.

    A picture that is cut or damaged leaves its place, which holds the one before it and is not ``valid``.

    Args:
        path: The folder, or a TIFF of many pages.
        task: What is shown.
        asset_id: For the source reference.
        split: By ``file`` (a sequence is an episode), ``one`` or ``name``: how to tell sequences apart,
            instead of by the rules of :mod:`~emboflow_dagster.formats.picture_names`.
        skipped: Gets ``{"source", "reason"}`` of what cannot be a camera or an episode.

    Raises:
        NotFoundError: No picture.
        InvalidInputError: The sequences of the only episode hold different numbers of pictures: they are no
            cameras of it; or nothing fits a pattern.
    """
    source = open_source(path)
    sequences = sequences_of(sequence_entries(source))
    if not sequences:
        raise NotFoundError(f"{path.name}: no picture", kind=ErrorKind.FILE_MAGIC)
    left_out = skipped if skipped is not None else []
    by = split.by if split is not None and split.by in ("file", "one", "name") else "name"
    division = episodes_of(sequences, by, split.pattern if split is not None else None)
    for name in division.left_out:
        where = {"assetId": asset_id, "path": path.name, "ref": name}
        left_out.append({"source": where, "reason": f"its name does not fit {division.pattern}"})
    for cameras in division.episodes.values():
        ref = ",".join(cameras.values())[:MAX_NAMES] or "/"
        where = {"assetId": asset_id, "path": path.name, "ref": ref}
        try:
            found = _episode(source, sequences, cameras, where, task, left_out)
        except InvalidInputError as error:
            if len(division.episodes) == 1:
                raise
            left_out.append({"source": where, "reason": error.message})
            continue
        if found is not None:
            yield found


class _Frame(NamedTuple):
    """One picture: a file, or a page of one; ``whole`` is false where it is cut or damaged."""

    file: Path
    page: int
    whole: bool


def _episode(
    source: Source,
    sequences: Mapping[str, Sequence[Entry]],
    names: Mapping[str, str],
    where: Mapping[str, Any],
    task: str,
    left_out: list[dict[str, Any]],
) -> Episode | None:
    import numpy as np

    cameras: dict[str, Camera] = {}
    flags: dict[str, None] = {}
    counts: dict[str, int] = {}
    missing: list[int] = []
    for said, name in names.items():
        entries = sequences[name]
        files = [source.file(entry) if source.is_folder else source.path for entry in entries]
        shape, frames, reason = _look(files)
        if reason:
            left_out.append({"source": where, "reason": f"{name or '.'}: {reason}"})
            counts[name] = len(files)
            continue
        if missing_numbers(entries):
            flags["missing_pictures"] = None
        counts[name] = len(frames)
        missing += [place for place, frame in enumerate(frames) if not frame.whole]
        key = camera_name(said, taken=cameras) if said else CAMERA
        cameras[key] = Camera(shape, partial(_pictures, frames), name or source.path.name)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name or '.'}: {count}" for name, count in list(counts.items())[:5])
        raise InvalidInputError(f"folders of one episode must hold equally many pictures; found {found}")
    if not cameras:
        return None
    length = next(iter(counts.values()))
    valid = None
    if missing:
        flags["damaged_pictures"] = None
        valid = np.ones(length, dtype=bool)
        valid[missing] = False
    return Episode(
        source=where,
        features={},
        specs={},
        task=task,
        flags=tuple(flags),
        valid=valid,
        cameras=cameras,
        frames=length,
    )


def _look(files: Sequence[Path]) -> tuple[tuple[int, int, int], list[_Frame], str | None]:
    """Height and width of all pictures, the pictures, or why they have no size in common.

    Headers and last bytes alone are read.
    """
    from PIL import Image, UnidentifiedImageError

    sizes: set[tuple[int, int]] = set()
    frames: list[_Frame] = []
    problem = ""
    for file in files:
        pages, whole = 1, False
        try:
            kind = picture_kind(read_head(file))
            whole = kind is not None and ends_early(file, kind) is None
            with Image.open(file) as image:
                turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
                sizes.add((image.width, image.height) if turned else (image.height, image.width))
                if image.mode in DEEP:
                    text = f"{file.name} has more than 8 bits ({image.mode}): depth is no video"
                    return (0, 0, 3), [], text
                pages = getattr(image, "n_frames", 1) if kind == "tiff" else 1
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
            whole = False
            problem = problem or f"{file.name} is no readable picture: {error}"
        frames += [_Frame(file, page, whole) for page in range(pages)]
    if len(sizes) > 1:
        return (0, 0, 3), [], f"pictures of {len(sizes)} sizes"
    if not any(frame.whole for frame in frames):
        return (0, 0, 3), [], problem or "no picture is whole"
    height, width = sizes.pop()
    return (height, width, 3), frames, None


#: EXIF: how a camera was held; from 5 on the sides change places.
_ORIENTATION = 0x0112
_TURNED = range(5, 9)


def _pictures(frames: Sequence[_Frame]) -> "Iterator[np.ndarray]":
    """Upright uint8 RGB pictures; one that is not whole is the one before it, the first ones the next.

    Raises:
        ExecutionError: A picture that seemed whole cannot be decoded.
    """
    held = next(_picture(frame) for frame in frames if frame.whole)
    for frame in frames:
        if frame.whole:
            held = _picture(frame)
        yield held


def _picture(frame: _Frame) -> "np.ndarray":
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(frame.file) as image:
            if frame.page:
                image.seek(frame.page)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise whatever the bytes lead them to
        if isinstance(error, MemoryError):
            raise
        raise ExecutionError(
            f"{frame.file.name} cannot be decoded: {error}", kind=ErrorKind.FILE_CORRUPT
        ) from error
