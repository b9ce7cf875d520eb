"""The episodes of a dataset version as a Merkle tree of pages (decision 25).

A page is a payload of JSON Lines: a head, then one line an entry. A page of level 0 has the episodes, one
of a level above has pages. Every line names what is below it by sha256, so the hash of the first page is
that of all of it. A page ends where the hash of a line says so, not after so many lines: when an episode is
dropped or comes in between, the pages around it stay as they are, and the same episodes always make the same
tree.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, IntegrityError
from emboflow_dagster.model.text import check_sha256

SCHEMA: Final = "emboflow-pages/1"
#: Key of a manifest that names the first page.
TREE: Final = "tree"
#: Where the pages are in an exported folder.
FOLDER: Final = "version/pages"
#: One line in so many ends its page ...
_ONE_IN: Final = 8
#: ... and no page has more.
_MOST: Final = 32
_DEEPEST: Final = 32
_SUMS: Final = ("episodes", "frames", "files", "bytes")
_NUMBERS: Final = ("size", "level", *_SUMS)

Read = Callable[[str, int], bytes]
"""Gives the verified payload of a sha256 and a size in bytes."""
Skip = Callable[[str], bool]
"""Whether what is below the page of a sha256 can be left out."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page, and what is below it in all: episodes, frames, files and their bytes."""

    sha256: str
    size: int
    level: int
    episodes: int
    frames: int
    files: int
    bytes: int

    @property
    def path(self) -> str:
        """Its place in an exported folder."""
        return f"{FOLDER}/{self.sha256}.jsonl"

    def to_json(self) -> dict[str, Any]:
        """The line of the page above, or the manifest's ``tree``."""
        return {name: getattr(self, name) for name in ("sha256", *_NUMBERS)}

    @classmethod
    def from_json(cls, row: Any) -> "Page":
        """A page as somebody wrote it down.

        Raises:
            IntegrityError: It is none.
        """
        try:
            check_sha256(row["sha256"])
            values = {name: row[name] for name in ("sha256", *_NUMBERS)}
            if any(type(values[name]) is not int or values[name] < 0 for name in _NUMBERS):
                raise TypeError("numbers are needed")
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise _no_page(f"a reference to a page is none: {error}") from None


@dataclass(frozen=True, slots=True)
class Located:
    """One episode: its place from 0, its line as it is hashed, and what the line says."""

    index: int
    line: bytes

    @property
    def entry(self) -> dict[str, Any]:
        """The line's content."""
        return parsed(self.line)


def line_of(row: dict[str, Any]) -> bytes:
    """The one way in which a row is written, without its line end."""
    return json.dumps(
        row, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def files_of(entry: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The payloads of an episode by what they are: ``frames``, ``raw``, ``videos/<camera>``."""
    yield from sorted(entry["files"].items())


@dataclass(slots=True)
class _Level:
    lines: list[bytes] = field(default_factory=list)
    sums: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    pages: int = 0


class Builder:
    """Makes the tree of episodes that come one by one; memory holds one page a level.

    Args:
        put: Takes the bytes of each page, the pages below first.
    """

    def __init__(self, put: Callable[[bytes], object]) -> None:
        self._put = put
        self._levels: list[_Level] = []

    def add(self, line: bytes, entry: dict[str, Any] | None = None) -> None:
        """Append an episode, as :func:`line_of` writes it; ``entry`` saves parsing it."""
        row = json.loads(line) if entry is None else entry
        sizes = [int(file["size"]) for _, file in files_of(row)]
        self._add(0, line, (1, int(row["length"]), len(sizes), sum(sizes)))

    def close(self) -> Page | None:
        """The first page; ``None`` without an episode."""
        number = 0
        while number < len(self._levels):
            level = self._levels[number]
            if level.pages == 0:  # all that there is on this level: the top
                if number and len(level.lines) == 1:
                    return Page.from_json(json.loads(level.lines[0]))
                return self._page(number) if level.lines else None
            if level.lines:
                self._flush(number)
            number += 1
        return None

    def _add(self, number: int, line: bytes, sums: tuple[int, ...]) -> None:
        if number == len(self._levels):
            self._levels.append(_Level())
        level = self._levels[number]
        level.lines.append(line)
        level.sums = [have + more for have, more in zip(level.sums, sums, strict=True)]
        if len(level.lines) == _MOST or hashlib.sha256(line).digest()[-1] % _ONE_IN == 0:
            self._flush(number)

    def _flush(self, number: int) -> None:
        page = self._page(number)
        self._levels[number].pages += 1
        self._add(number + 1, line_of(page.to_json()), (page.episodes, page.frames, page.files, page.bytes))

    def _page(self, number: int) -> Page:
        level = self._levels[number]
        head = line_of({"schema": SCHEMA, "level": number, "entries": len(level.lines)})
        payload = b"\n".join([head, *level.lines, b""])
        self._put(payload)
        page = Page(hashlib.sha256(payload).hexdigest(), len(payload), number, *level.sums)
        level.lines, level.sums = [], [0, 0, 0, 0]
        return page


def root_of(manifest: Any) -> Page | None:
    """The first page that a manifest names; ``None`` for a version of the older layout.

    Raises:
        IntegrityError: It names something else.
    """
    return Page.from_json(manifest[TREE]) if isinstance(manifest, dict) and TREE in manifest else None


def lines(page: Page, payload: bytes) -> list[bytes]:
    """The entries of a page that was read.

    Raises:
        IntegrityError: It is no page, or not the one that was named.
    """
    try:
        head, *rest = payload.split(b"\n")
        told = json.loads(head)
        fine = (
            told["schema"] == SCHEMA
            and (told["level"], told["entries"]) == (page.level, len(rest) - 1)
            and rest[-1] == b""
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _no_page(f"page {page.sha256} is none: {type(error).__name__}") from None
    if not fine:
        raise _no_page(f"page {page.sha256} is not what was named: {told}")
    return rest[:-1]


def below(page: Page, payload: bytes) -> list[Page]:
    """The pages that a page above level 0 names.

    Raises:
        IntegrityError: Their sums are not those of the page.
    """
    found = [Page.from_json(parsed(line)) for line in lines(page, payload)]
    sums = [sum(getattr(inner, name) for inner in found) for name in _SUMS]
    if sums != [getattr(page, name) for name in _SUMS] or any(
        inner.level != page.level - 1 for inner in found
    ):
        raise _no_page(f"page {page.sha256}: what it names is not what it says")
    return found


def episode_pages(read: Read, page: Page, *, skip: Skip = lambda _: False) -> Iterator[tuple[int, Page]]:
    """The pages of level 0 in order, each with the place of its first episode; they are not read."""
    if page.level > _DEEPEST:
        raise _no_page(f"page {page.sha256}: level {page.level}")
    yield from _leaves(read, page, 0, skip)


def _leaves(read: Read, page: Page, start: int, skip: Skip) -> Iterator[tuple[int, Page]]:
    if skip(page.sha256):
        return
    if page.level == 0:
        yield start, page
        return
    for inner in below(page, read(page.sha256, page.size)):
        yield from _leaves(read, inner, start, skip)
        start += inner.episodes


def every_page(read: Read, page: Page) -> Iterator[Page]:
    """Every page, each before those that it names; those of level 0 are not read."""
    yield page
    if page.level:
        for inner in below(page, read(page.sha256, page.size)):
            yield from every_page(read, inner)


def episodes(read: Read, page: Page, *, skip: Skip = lambda _: False) -> Iterator[Located]:
    """Every episode in order.

    Raises:
        IntegrityError: A page is missing or damaged.
    """
    for start, leaf in episode_pages(read, page, skip=skip):
        for place, line in enumerate(lines(leaf, read(leaf.sha256, leaf.size)), start):
            yield Located(place, line)


def named(
    read: Read, page: Page, *, skip: Skip = lambda _: False, lenient: bool = False
) -> Iterator[tuple[str, str, int]]:
    """Path, sha256 and size of every page and every file below, each page before what it names.

    Args:
        read: Gives payloads.
        page: The first page.
        skip: Pages that are left out with what is below them.
        lenient: A page whose bytes are missing or damaged is named, and what is below it is left out: for who
            reads all that is named, and so finds the damage.

    Raises:
        IntegrityError: A page cannot be read, so what it names is not known.
    """
    if page.level > _DEEPEST:
        raise _no_page(f"page {page.sha256}: level {page.level}")
    yield from _named(read, page, 0, skip, lenient)


def _named(
    read: Read,
    page: Page,
    start: int,
    skip: Skip,
    lenient: bool,  # noqa: FBT001 - named by its caller
) -> Iterator[tuple[str, str, int]]:
    if skip(page.sha256):
        return
    yield page.path, page.sha256, page.size
    try:
        payload = read(page.sha256, page.size)
    except IntegrityError:
        if lenient:
            return
        raise
    if page.level:
        for inner in below(page, payload):
            yield from _named(read, inner, start, skip, lenient)
            start += inner.episodes
        return
    for place, line in enumerate(lines(page, payload), start):
        for kind, file in files_of(parsed(line)):
            yield f"episodes/{place:06d}/{kind}", check_sha256(file["sha256"]), int(file["size"])


def parsed(line: bytes) -> Any:
    """What a line says.

    Raises:
        IntegrityError: It is no JSON.
    """
    try:
        return json.loads(line)
    except ValueError:
        raise _no_page("a line of a page is no JSON") from None


def _no_page(text: str) -> IntegrityError:
    return IntegrityError(text, kind=ErrorKind.FILE_CORRUPT)
