"""TFRecord framing: records by their length fields, each length checked against its own checksum.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord (uint64 length, masked crc32c of the length,
data, masked crc32c of the data; little endian). TensorFlow may pack the whole file with gzip.
"""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

MAX_RECORD_BYTES = 1024 * 1024 * 1024
_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
_GZIP = b"\x1f\x8b"
_HEADER = 12


class BrokenRecordError(ValueError):
    """A length field does not match its checksum, or the file ends within a record."""


def masked_crc32c(data: bytes) -> int:
    """crc32c (Castagnoli) as TFRecord stores it; for the eight bytes of a length, not for payloads.

    >>> hex(masked_crc32c(bytes(8)))
    '0x7980329'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def starts_with_record(head: bytes) -> bool:
    """Whether a file begins with a plausible record: its length matches the checksum behind it.

    Also of a file that is packed as a whole, with gzip.
    """
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _HEADER)
        except zlib.error:
            return False
    if len(head) < _HEADER:
        return False
    length, crc = struct.unpack_from("<QI", head)
    return 0 < length <= MAX_RECORD_BYTES and masked_crc32c(head[:8]) == crc


def records(path: Path, damaged: Callable[[int], None] | None = None) -> Iterator[tuple[int, bytes]]:
    """The number and payload of each record, one at a time; a file packed with gzip is unpacked on the way.

    Args:
        path: The file.
        damaged: Called with the number of a record whose payload does not match its checksum; it is not
            given. A checksum of zero was never computed: the record is given.

    Raises:
        BrokenRecordError: At the place where the file is damaged; records before it were given.
    """
    checksum = _checksum()
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        index = 0
        while header := _read(stream, _HEADER, index):
            if len(header) < _HEADER:
                raise BrokenRecordError(f"the file ends within the header of record {index}")
            length, crc = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != crc or length > MAX_RECORD_BYTES:
                raise BrokenRecordError(f"the length of record {index} does not match its checksum")
            data, tail = _read(stream, length, index), _read(stream, 4, index)
            if len(data) < length or len(tail) < 4:  # noqa: PLR2004 - the checksum
                raise BrokenRecordError(f"the file ends within record {index}")
            if any(tail) and checksum is not None and checksum(data) != tail:
                if damaged is not None:
                    damaged(index)
            else:
                yield index, data
            index += 1


def _read(stream: BinaryIO | gzip.GzipFile, size: int, index: int) -> bytes:
    try:
        return stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BrokenRecordError(f"the file ends within record {index}: {error}") from error


def _checksum() -> Callable[[bytes], bytes] | None:
    """The checksum of payloads as it is stored: that of the library that reads them, which is fast."""
    try:
        from tfrecord.writer import TFRecordWriter
    except ImportError:
        return None
    return TFRecordWriter.masked_crc
