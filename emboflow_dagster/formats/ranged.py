"""A remote object as a file that is read in ranges: only blocks that are asked for cross the network."""

import io
import urllib.error
import urllib.request
from collections import OrderedDict
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from emboflow_dagster.formats.read_only import ReadOnly

BLOCK: Final = 128 * 1024
KEPT_BLOCKS: Final = 128
TIMEOUT_S: Final = 30


class BudgetError(OSError):
    """More of the object would have to be read than is allowed."""


class Ranged(ReadOnly):
    """An object behind an http(s) URL that allows ranges.

    Args:
        url: Where it is; a signature in it is its only credential.
        size: Its bytes.
        budget: How many bytes may be fetched.
        tag: The server's tag of it; ranges of an object that was replaced since are not given.
    """

    def __init__(self, url: str, size: int, *, budget: int, tag: str | None = None) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("no http or https URL")
        self._url = url
        self.size = size
        self.budget = budget
        self._wanted = {"If-Match": f'"{tag}"'} if tag else {}
        self.fetched = 0
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is fetched."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Fill from the blocks that are needed.

        Raises:
            BudgetError: They are too many.
            OSError: The server does not give them.
        """
        wanted = min(len(buffer), max(0, self.size - self._at))
        done = 0
        while done < wanted:
            number, start = divmod(self._at, BLOCK)
            piece = self._block(number)[start : start + wanted - done]
            if not piece:
                raise OSError("the object is shorter than was listed")
            buffer[done : done + len(piece)] = piece
            done += len(piece)
            self._at += len(piece)
        return done

    def _block(self, number: int) -> bytes:
        known = self._blocks.get(number)
        if known is not None:
            self._blocks.move_to_end(number)
            return known
        first = number * BLOCK
        last = min(first + BLOCK, self.size) - 1
        if self.fetched + last + 1 - first > self.budget:
            raise BudgetError(f"more than {self.budget} bytes of it would have to be read")
        headers = {"Range": f"bytes={first}-{last}", **self._wanted}
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 - checked above
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310 - checked above
                if reply.status != 206:  # noqa: PLR2004 - partial content
                    raise OSError("the server gives no ranges")
                data = reply.read(last + 1 - first)
        except urllib.error.URLError as error:
            code = getattr(error, "code", None)  # the URL is a credential: it is not shown
            if code == HTTPStatus.PRECONDITION_FAILED:
                raise OSError("the object was replaced while it was read") from None
            raise OSError(f"the server answered {code}" if code else "the server cannot be reached") from None
        self.fetched += len(data)
        self._blocks[number] = data
        if len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return data
