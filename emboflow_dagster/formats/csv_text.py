"""How a table is written as text: encoding, line ends, separator, decimal point, comments, header."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 1 << 20
PIECE: Final = 1 << 20
#: Records that are looked at to learn how the table is written.
LOOKED_AT: Final = 50
MAX_NAMES: Final = 100_000
MAX_LINE: Final = 32 << 20
COMMENTS: Final = ("#", "%")
#: From the one that is least often part of a value.
_SEPARATORS: Final = ("\t", ";", "|", ",")
_NUMBER: Final = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\Z")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?\Z")
_NO_VALUE: Final = frozenset({"", "nan", "na", "n/a", "null", "none", "inf", "-inf", "+inf"})
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Dialect:
    r"""How one table is written.

    Attributes:
        encoding: Python's name of it.
        separator: Between two cells.
        decimal: ``.`` or ``,``.
        line_end: ``\n`` (also for ``\r\n``) or ``\r``.
        columns: Names; ``column_0`` and so on where there is no header.
        header: Whether the first line is one.
        comment: What comment lines begin with, empty where there are none.
        comments: Comment lines before the table.
        known_encoding: False where the text is in none of those that are known, and read as Latin-1.
        named: Whether a line (the header, or a comment) gives the names.
        padded: Names that were made up, since rows have more cells than the header.
    """

    encoding: str
    separator: str
    decimal: str
    line_end: str
    columns: tuple[str, ...]
    header: bool
    comment: str
    comments: int
    known_encoding: bool = True
    padded: int = 0
    named: bool = False


def encoding_of(head: bytes) -> tuple[str, bool]:
    r"""The encoding of a text, and whether it is known rather than taken.

    >>> encoding_of("é".encode("utf-16")), encoding_of(b"a,\xe9")
    (('utf-16', True), ('latin-1', False))
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, True
    # Without a mark: the high bytes of plain letters and digits are all nought.
    pairs = head[: len(head) // 2 * 2][:4096]
    if pairs and b"\0" in pairs:
        if not any(pairs[1::2]):
            return "utf-16-le", True
        if not any(pairs[0::2]):
            return "utf-16-be", True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "latin-1", False
    return "utf-8", True


def is_text(head: bytes) -> bool:
    """Whether bytes are text in an encoding that tables have."""
    if not head or head.startswith(b"version https://git-lfs"):
        return False
    return b"\0" not in head or encoding_of(head)[0].startswith("utf-")


def dialect_of(head: bytes, *, whole: bool, suffix: str = ".csv") -> Dialect:
    r"""Learn how a table is written from its first bytes.

    Args:
        head: They.
        whole: Whether they are all.
        suffix: Of the file's name.
    """
    encoding, known = encoding_of(head)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head, whole)
    line_end = "\r" if "\r" in text and "\n" not in text else "\n"
    if line_end == "\r":
        text = text.replace("\r", "\n")
    text = text.lstrip("\ufeff")
    if not whole and "\n" in text:
        text = text[: text.rfind("\n") + 1]
    before, text = _comments(text)
    comment = before[0][0] if before else ""
    separator = _separator(text, "\t" if suffix == ".tsv" else ",", comment)
    rows = [row for row in _records(text, separator, comment) if row]
    first = [cell.strip() for cell in rows[0]] if rows else []
    header = bool(first) and not _is_data(first)
    named = first if header else []
    # `numpy.savetxt` writes the names into a comment.
    last = before[-1].lstrip("#% ") if before else ""
    said = [cell.strip() for cell in next(csv.reader([last], delimiter=separator), [])]
    widths = Counter(len(row) for row in rows[1 if header else 0 :])
    width = max(widths, key=lambda size: (widths[size], -size), default=len(first))
    if not header and len(said) == width and width > 1 and not _is_data(said):
        named = said
    told = bool(named)
    width = max(width, len(named))
    padded = max(0, width - len(named)) if named else 0
    names = [*named, *(f"column_{number}" for number in range(len(named), width))]
    body = rows[1 if header else 0 :]
    return Dialect(
        encoding,
        separator,
        _decimal(body, separator),
        line_end,
        tuple(names[:MAX_NAMES]),
        header,
        comment,
        len(before),
        known,
        padded,
        told,
    )


def _comments(text: str) -> tuple[list[str], str]:
    found: list[str] = []
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        line = text[at : end if end >= 0 else len(text)].rstrip("\r")
        if line.strip() and not line.startswith(COMMENTS):
            break
        if line.strip():
            found.append(line)
        at = end + 1 if end >= 0 else len(text)
    return found, text[at:]


def _records(text: str, separator: str, comment: str) -> list[list[str]]:
    found: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text), delimiter=separator):
            if not (comment and row and row[0].startswith(comment)):
                found.append(row)
            if len(found) >= LOOKED_AT:
                break
    except csv.Error:
        pass  # a field without end: what stands before it is enough
    return found


def _separator(text: str, usual: str, comment: str) -> str:
    """The separator that gives most records the same number of cells, two at least."""
    best, chosen = 0.0, usual
    for separator in _SEPARATORS:
        rows = [row for row in _records(text[:65_536], separator, comment) if row]
        counts = Counter(len(row) for row in rows)
        width, count = counts.most_common(1)[0] if counts else (0, 0)
        alike = count / len(rows) if width > 1 else 0.0
        if alike > best + 0.05:
            best, chosen = alike, separator
    return chosen


def _decimal(rows: list[list[str]], separator: str) -> str:
    if separator == ",":
        return "."
    cells = [cell.strip() for row in rows for cell in row if _NUMBER.match(cell.strip())]
    return "," if any("," in cell for cell in cells) and not any("." in cell for cell in cells) else "."


def _is_data(cells: list[str]) -> bool:
    """Whether a row holds values and no names: numbers or moments, one at least."""
    known = [bool(_NUMBER.match(cell) or _MOMENT.match(cell)) for cell in cells]
    rest = [cell for cell, number in zip(cells, known, strict=True) if not number]
    return any(known) and (all(cell.lower() in _NO_VALUE for cell in rest) or sum(known) > len(rest))


class Lines(io.RawIOBase):
    r"""A table's text as UTF-8 with ``\n``, without comment lines, counted while it is read.

    Attributes:
        lines: Ends of lines met, as `wc -l` counts them; a last line without one is counted too.
        comments: Comment lines left out.
        quotes: Quotation marks met.
        replaced: Whether something was no text of the encoding.
    """

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self._file = path.open("rb")
        self._dialect = dialect
        self.lines = self.comments = self.quotes = 0
        self.replaced = False
        self._pieces = self._read()
        self._left = b""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Fill with what comes next."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _read(self) -> Iterator[bytes]:
        last, rest = b"\n", b""
        for piece in self._decoded():
            if self._dialect.line_end == "\r":
                piece = piece.replace(b"\r", b"\n")  # noqa: PLW2901 - the same text
            self.lines += piece.count(b"\n")
            self.quotes += piece.count(b'"')
            last = piece[-1:]
            if not self._dialect.comment:
                yield piece
                continue
            rest += piece
            at = rest.rfind(b"\n") + 1
            if not at and len(rest) > MAX_LINE:
                at = len(rest)
            if at:
                yield self._without_comments(rest[:at])
                rest = rest[at:]
        self.lines += last != b"\n"
        yield self._without_comments(rest)

    def _decoded(self) -> Iterator[bytes]:
        decode = codecs.getincrementaldecoder(self._dialect.encoding)("replace").decode
        ended = False
        while not ended:
            piece = self._file.read(PIECE)
            ended = not piece
            shown = decode(piece, ended)
            self.replaced |= "\ufffd" in shown
            if shown:
                yield shown.encode("utf-8", "replace")

    def _without_comments(self, text: bytes) -> bytes:
        mark = self._dialect.comment.encode()
        if not mark or (not text.startswith(mark) and b"\n" + mark not in text):
            return text
        kept = []
        for line in text.splitlines(keepends=True):
            if line.startswith(mark):
                self.comments += 1
            else:
                kept.append(line)
        return b"".join(kept)
