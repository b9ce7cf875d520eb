"""TFRecord framing: records by their length fields, each length checked against its own checksum.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord (uint64 length, masked crc32c of the length,
data, masked crc32c of the data; little endian).
"""

import struct
from collections.abc import Iterator
from pathlib import Path

MAX_RECORD_BYTES = 1024 * 1024 * 1024
_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8


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
    """Whether a file begins with a plausible record: its length matches the checksum behind it."""
    if len(head) < 12:  # noqa: PLR2004 - a length and its checksum
        return False
    length, crc = struct.unpack_from("<QI", head)
    return 0 < length <= MAX_RECORD_BYTES and masked_crc32c(head[:8]) == crc


def records(path: Path) -> Iterator[bytes]:
    """The payload of each record, one at a time.

    Raises:
        BrokenRecordError: At the place where the file is damaged; records before it were given.
    """
    with path.open("rb") as stream:
        index = 0
        while header := stream.read(12):
            if len(header) < 12:  # noqa: PLR2004 - a length and its checksum
                raise BrokenRecordError(f"the file ends within the header of record {index}")
            length, crc = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != crc or length > MAX_RECORD_BYTES:
                raise BrokenRecordError(f"the length of record {index} does not match its checksum")
            data = stream.read(length)
            if len(data) < length or len(stream.read(4)) < 4:  # noqa: PLR2004 - the checksum
                raise BrokenRecordError(f"the file ends within record {index}")
            yield data
            index += 1
