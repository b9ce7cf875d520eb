"""What goes into a multipart upload: a source that can be read twice, and the checksums of its parts.

The first reading gives the key and one checksum a part; the second one sends. Each part is held against its
checksum before it leaves, so that a source that changes in between never gets under a key not its own.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.object_storage.disk import naming_failures
from emboflow_dagster.object_storage.payload import Fill, from_stream
from emboflow_dagster.object_storage.pump import BUFFER_BYTES, new_buffer, pump
from emboflow_dagster.object_storage.s3_checksum import Checksum

#: A multiple of the pump's buffer, at least the 5 MiB that S3 asks for. Up to 80,000 MiB this is the part.
PART_BYTES: Final = 8 * BUFFER_BYTES
MAX_PARTS: Final = 10_000
#: Fills a buffer from an offset of the source; fewer bytes than fit only at its end.
ReadAt = Callable[[memoryview, int], int]


@dataclass(frozen=True)
class Parts:
    """A surveyed source: hex sha256 and size in bytes of the whole, checksums and size of the parts."""

    sha256: str
    size: int
    part_bytes: int
    checksums: list[bytes]
    checksum: Checksum
    read_at: ReadAt

    def length(self, number: int) -> int:
        """Bytes of a part; numbers begin at 1."""
        return min(self.part_bytes, self.size - (number - 1) * self.part_bytes)

    def read(self, number: int, buffer: bytearray) -> bytearray:
        """A part, in ``buffer`` where it fills that.

        Raises:
            InvalidInputError: It is not what was surveyed any more.
        """
        length = self.length(number)
        block = buffer if length == len(buffer) else bytearray(length)
        filled = self.read_at(memoryview(block), (number - 1) * self.part_bytes)
        if filled != length or self.checksum.of(block) != self.checksums[number - 1]:
            raise InvalidInputError(
                "the source changed while it was stored; nothing was stored under its hash",
                kind=ErrorKind.FILE_UNREADABLE,
                hint="store it again when nobody writes to it any more",
            )
        return block


def part_bytes_of(size: int) -> int:
    """The size of parts: the smallest allowed here of which 10,000 are enough."""
    least = -(-size // MAX_PARTS)
    return max(PART_BYTES, -(-least // BUFFER_BYTES) * BUFFER_BYTES)


def survey(
    fill: Fill, size: int, checksum: Checksum, read_at: ReadAt, write: Callable[[memoryview], None]
) -> Parts:
    """Read a source to its end once.

    Args:
        fill: Gives the source from its beginning.
        size: Its expected size in bytes; parts are made for it.
        checksum: What the server checks a part by.
        read_at: Reads it again.
        write: Is given every block besides.
    """
    part_bytes = part_bytes_of(size)
    checksums: list[bytes] = []
    digest, filled = checksum.new(), 0

    def take(block: memoryview) -> None:
        nonlocal digest, filled
        write(block)
        digest.update(block)  # beside the thread that hashes the whole
        filled += len(block)
        if filled == part_bytes:
            checksums.append(digest.digest())
            digest, filled = checksum.new(), 0

    first = new_buffer()
    found = pump(fill, take, first, fill(first))
    if filled:
        checksums.append(digest.digest())
    return Parts(found.sha256, found.size, part_bytes, checksums, checksum, read_at)


def of_file(file: IO[bytes] | Any, checksum: Checksum) -> Parts:
    """A file's parts; it is read from its beginning, whatever its position."""
    while True:
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        parts = survey(from_stream(file), size, checksum, _at(file.fileno()), lambda _block: None)
        if len(parts.checksums) <= MAX_PARTS:  # else it grew meanwhile
            return parts


def of_memory(content: memoryview, checksum: Checksum) -> Parts:
    """The parts of bytes that are in memory anyway."""

    def read_at(buffer: memoryview, offset: int) -> int:
        block = content[offset : offset + len(buffer)]
        buffer[: len(block)] = block
        return len(block)

    position = 0

    def fill(buffer: memoryview) -> int:
        nonlocal position
        count = read_at(buffer, position)
        position += count
        return count

    return survey(fill, len(content), checksum, read_at, lambda _block: None)


@contextmanager
def of_stream(fill: Fill, checksum: Checksum, folder: Path | None) -> Iterator[Parts]:
    """The parts of a stream, which is kept in a file without a name meanwhile.

    Args:
        fill: Gives the stream.
        checksum: What the server checks a part by.
        folder: Where the file is; by default where the system has temporary files.

    Raises:
        UnavailableError: Kind ``disk-full`` where there is no room.
    """
    place = folder or Path(tempfile.gettempdir())
    with naming_failures(place):
        place.mkdir(parents=True, exist_ok=True)
        spool = tempfile.TemporaryFile(dir=place, buffering=0)  # noqa: SIM115  a failing disk is named
    with spool:

        def keep(block: memoryview) -> None:
            with naming_failures(place):
                while block:
                    block = block[spool.write(block) or 0 :]

        parts = survey(fill, 0, checksum, _at(spool.fileno()), keep)
        # Its size is known now: a long one needs larger parts, and their checksums.
        yield parts if len(parts.checksums) <= MAX_PARTS else of_file(spool, checksum)


def _at(fd: int) -> ReadAt:
    def read_at(buffer: memoryview, offset: int) -> int:
        filled = 0
        while filled < len(buffer) and (count := os.preadv(fd, [buffer[filled:]], offset + filled)):
            filled += count
        return filled

    return read_at
