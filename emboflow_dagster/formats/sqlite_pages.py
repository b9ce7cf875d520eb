"""The rows of a damaged SQLite file, read from the pages that are there.

SQLite refuses a file that was cut as a whole. Its tables are pages of rows, though, and what a recorder
appended stands in them in order: the pages of a table are found by its tree as far as that goes, and its
rows by looking at every page.

Source: https://www.sqlite.org/fileformat2.html
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

HEADER = b"SQLite format 3\x00"
LEAF, INTERIOR = 0x0D, 0x05
MAX_VALUE_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 20
MAX_COLUMNS = 64
#: Row numbers above are taken for damage: one bit is kept for each below.
MAX_ROWID = 1 << 30

Row = tuple[int, list[Any]]


class Pages:
    """A database file as pages; use it as a context manager.

    Args:
        file: A path, or an open file that can be sought; it is closed in the end.
        size: Its bytes; may be left out for a path.

    Raises:
        ValueError: The first 100 bytes are no header of a database.
    """

    def __init__(self, file: "Path | BinaryIO", size: int | None = None) -> None:
        self._file: BinaryIO = file.open("rb") if isinstance(file, Path) else file
        head = self._file.read(100)
        try:
            if len(head) < 100 or head[:16] != HEADER:  # noqa: PLR2004 - the header's length
                raise ValueError("not the header of a SQLite database")
            (declared,) = struct.unpack_from(">H", head, 16)
            self.page_size = 65_536 if declared == 1 else declared
            self._usable = self.page_size - head[20]
            if self.page_size < 512 or self.page_size & (self.page_size - 1) or self._usable < 480:  # noqa: PLR2004
                raise ValueError(f"pages of {self.page_size} bytes")
            if head[56:60] not in (b"\0\0\0\0", b"\0\0\0\1"):
                raise ValueError("text that is not UTF-8")
        except ValueError:
            self._file.close()
            raise
        self.size = self._file.seek(0, 2) if size is None else size
        self.count = -(-self.size // self.page_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tables(self) -> dict[str, int]:
        """Table name to the page its tree begins at."""
        found: dict[str, int] = {}
        for _, values in self.tree(1):
            if len(values) == 5 and values[0] == "table" and isinstance(values[3], int):  # noqa: PLR2004
                found[str(values[1])] = values[3]
        return found

    def tree(self, root: int) -> Iterator[Row]:
        """The rows of a table, as far as its tree is there."""
        seen: set[int] = set()
        pending = [(root, 0)]
        while pending:
            number, depth = pending.pop()
            if number in seen or depth > MAX_DEPTH:
                continue
            seen.add(number)
            page, start = self._page(number)
            if len(page) < start + 12:
                continue
            if page[start] == LEAF:
                yield from self._rows(page, start)
            elif page[start] == INTERIOR:
                places = [at for at in _cells(page, start, 12) if at + 4 <= len(page)]
                children = [struct.unpack_from(">I", page, at)[0] for at in places]
                children.append(struct.unpack_from(">I", page, start + 8)[0])
                pending.extend((child, depth + 1) for child in reversed(children))

    def end(self, root: int, *, last: bool, columns: int) -> Row | None:
        """The first or last row of a table and some of its columns, read from one page a level.

        ``None`` where the tree is not whole or the table is empty.
        """
        for _ in range(MAX_DEPTH):
            page, start = self._page(root)
            if len(page) < max(self.page_size, start + 12):
                return None
            if page[start] == INTERIOR:
                first = next(_cells(page, start, 12), None)
                right = start + 8 if last or first is None else first
                (root,) = struct.unpack_from(">I", page, right)
                continue
            cells = list(_cells(page, start, 8)) if page[start] == LEAF else []
            if not cells:
                return None
            _, at = _varint(page, cells[-1 if last else 0])
            row, at = _varint(page, at)
            return row, _values(page[at:], columns)
        return None

    def all_rows(self) -> Iterator[Row]:
        """The rows of every table of the file but the first page's, in the order of the pages."""
        for number in range(2, self.count + 1):
            page, start = self._page(number)
            if len(page) > 8 and page[start] == LEAF:  # noqa: PLR2004 - a leaf's header
                yield from self._rows(page, start)

    def _page(self, number: int) -> tuple[bytes, int]:
        """The bytes of a page (fewer where the file ends) and where its own header starts."""
        if not 1 <= number <= self.count:
            return b"", 0
        self._file.seek((number - 1) * self.page_size)
        return self._file.read(self.page_size), 100 if number == 1 else 0

    def _rows(self, page: bytes, start: int) -> Iterator[Row]:
        for place in _cells(page, start, 8):
            try:
                size, at = _varint(page, place)
                row, at = _varint(page, at)
                yield row, _values(self._payload(page, at, size))
            except (IndexError, ValueError, struct.error):
                continue  # cut off, or no row

    def _payload(self, page: bytes, at: int, size: int) -> bytes:
        """A row's bytes, gathered from its overflow pages.

        Raises:
            ValueError: They are not all there.
        """
        usable = self._usable
        most = usable - 35
        if size > MAX_VALUE_BYTES:
            raise ValueError(f"a row of {size} bytes")
        if size <= most:
            return _exactly(page, at, size)
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
        parts = [_exactly(page, at, local)]
        (following,) = struct.unpack_from(">I", page, at + local)
        left = size - local
        while left > 0:
            more, _ = self._page(following)
            (following,) = struct.unpack_from(">I", more, 0)
            taken = min(left, usable - 4)
            parts.append(_exactly(more, 4, taken))
            left -= taken
        return b"".join(parts)


class Seen:
    """Row numbers that were met, one bit each: damage shows rows twice, and rows there never were."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, row: int) -> bool:
        """Whether the number is new and possible."""
        if not 0 <= row < MAX_ROWID:
            return False
        byte, bit = row >> 3, 1 << (row & 7)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        return True


def _cells(page: bytes, start: int, header: int) -> Iterator[int]:
    """Where the cells of a page are, in the order of their rows; ``header`` is 8 for a leaf, else 12."""
    if len(page) < start + header:
        return
    (count,) = struct.unpack_from(">H", page, start + 3)
    for index in range(count):
        at = start + header + 2 * index
        if at + 2 > len(page):
            return
        (place,) = struct.unpack_from(">H", page, at)
        if place >= start + header:
            yield place


def _exactly(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ValueError("the file ends within a row")
    return data[at : at + size]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, seven bits each but for the ninth, and where it ends."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | data[place] & 0x7F
        if data[place] < 0x80:  # noqa: PLR2004 - the last byte of the number
            return value, place + 1
    value = value << 8 | data[at + 8]
    return (value - (1 << 64) if value >> 63 else value), at + 9


def _values(payload: bytes, most: int = MAX_COLUMNS) -> list[Any]:
    """The columns of a row, or the first of them: integers, floats, text, bytes, ``None``."""
    end, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
        if len(kinds) > MAX_COLUMNS:
            raise ValueError("too many columns")
    values: list[Any] = []
    at = end
    for kind in kinds[:most]:
        value, at = _value(payload, at, kind)
        values.append(value)
    return values


_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _value(payload: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (0, 8, 9):
        return (None if kind == 0 else kind - 8), at
    if kind in _INTEGERS:
        size = _INTEGERS[kind]
        return int.from_bytes(_exactly(payload, at, size), "big", signed=True), at + size
    if kind == 7:  # noqa: PLR2004 - a float
        return struct.unpack(">d", _exactly(payload, at, 8))[0], at + 8
    if kind < 12:  # noqa: PLR2004 - kept for SQLite's own use
        raise ValueError(f"a column of kind {kind}")
    size = (kind - 12) // 2
    data = _exactly(payload, at, size)
    return (data.decode("utf-8", "backslashreplace") if kind & 1 else data), at + size
