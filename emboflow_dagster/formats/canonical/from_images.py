"""One episode out of numbered pictures: a folder is a camera; several folders are several cameras."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.formats.canonical.names import camera_name
from emboflow_dagster.formats.canonical.schema import Camera, Episode
from emboflow_dagster.formats.detect import open_source
from emboflow_dagster.formats.image_sequence import missing_numbers, sequence_entries
from emboflow_dagster.formats.pictures import DEEP

if TYPE_CHECKING:
    import numpy as np

CAMERA = "images"


def episodes(
    path: Path,
    *,
    task: str = "",
    asset_id: str | None = None,
    skipped: list[dict[str, Any]] | None = None,
) -> Iterator[Episode]:
    """The pictures as one episode, in the order of their numbers.

    Args:
        path: The folder.
        task: What is shown.
        asset_id: For the source reference.
        skipped: Gets ``{"source", "reason"}`` of a folder whose pictures cannot be one camera.

    Raises:
        NotFoundError: No picture.
        InvalidInputError: The folders hold different numbers of pictures: they are no cameras of one episode.
    """
    source = open_source(path)
    folders: dict[str, list[Any]] = {}
    for entry in sequence_entries(source):
        folders.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    if not folders:
        raise NotFoundError(f"{path.name}: no picture", kind=ErrorKind.FILE_MAGIC)
    counts = {name: len(entries) for name, entries in folders.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name or '.'}: {count}" for name, count in list(counts.items())[:5])
        raise InvalidInputError(f"folders of one episode must hold equally many pictures; found {found}")
    where = {"assetId": asset_id, "path": path.name, "ref": ",".join(folders)[:1_000] or "/"}
    cameras: dict[str, Camera] = {}
    flags: list[str] = []
    for name, entries in folders.items():
        files = [source.file(entry) for entry in entries]
        shape, reason = _shape(files)
        if reason:
            if skipped is not None:
                skipped.append({"source": where, "reason": f"{name or '.'}: {reason}"})
            continue
        if missing_numbers(entries):
            flags.append("missing_pictures")
        cameras[camera_name(name, taken=cameras) if name else CAMERA] = Camera(
            shape, lambda files=files: map(_picture, files), name or path.name
        )
    if cameras:
        yield Episode(
            source=where,
            features={},
            specs={},
            task=task,
            flags=tuple(dict.fromkeys(flags)),
            cameras=cameras,
            frames=next(iter(counts.values())),
        )


def _shape(files: Sequence[Path]) -> tuple[tuple[int, int, int], str | None]:
    """Height and width of all pictures, or why they have none in common; headers are read only."""
    from PIL import Image, UnidentifiedImageError

    sizes: set[tuple[int, int]] = set()
    for file in files:
        try:
            with Image.open(file) as image:
                turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
                sizes.add((image.width, image.height) if turned else (image.height, image.width))
                if image.mode in DEEP:
                    return (0, 0, 3), f"{file.name} has more than 8 bits ({image.mode}): depth is no video"
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
            return (0, 0, 3), f"{file.name} is no readable picture: {error}"
    if len(sizes) > 1:
        return (0, 0, 3), f"pictures of {len(sizes)} sizes"
    height, width = sizes.pop()
    return (height, width, 3), None


#: EXIF: how a camera was held; from 5 on the sides change places.
_ORIENTATION = 0x0112
_TURNED = range(5, 9)


def _picture(file: Path) -> "np.ndarray":
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
