"""Reading from S3: gone on with where it broke off, hashed as it goes by, in several ranges at once."""

import hashlib
import queue
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from emboflow_dagster.errors import ConfigurationError, ErrorKind, IntegrityError, UnavailableError
from emboflow_dagster.object_storage.s3_bucket import IN_FLIGHT, PAUSE_S, Bucket
from emboflow_dagster.object_storage.s3_errors import MISSING, Refusal, is_broken
from emboflow_dagster.object_storage.s3_source import PART_BYTES
from emboflow_dagster.object_storage.verified import BUFFER_BYTES, HashingRaw, mismatch

#: How often one stream may break off: so often, and once more for every so many bytes of it.
BREAKS: Final = 5
BYTES_A_BREAK: Final = 64 << 20
RANGE_BYTES: Final = PART_BYTES
#: What is asked of the client at once: it copies that several times.
CHUNK_BYTES: Final = 256 << 10
_BEYOND: Final = frozenset({"InvalidRange", "416"})


class WrongSizeError(Exception):
    """The object has another size than the one recorded."""

    def __init__(self, found: int) -> None:
        super().__init__(found)
        self.found = found


class Body:
    """The bytes from ``start`` to ``end`` of an object of ``size`` bytes, through as many GETs as it takes.

    Raises:
        Refusal: There is no such object.
        WrongSizeError: It has another size.
        UnavailableError: It broke off too often.
    """

    def __init__(self, bucket: Bucket, name: str, start: int, end: int, size: int) -> None:
        self._bucket = bucket
        self._name = name
        self._at = start
        self._end = end
        self._size = size
        self._breaks_left = BREAKS + (end - start) // BYTES_A_BREAK
        self._stream: Any = None
        self._open()

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of ``view``, of at least a byte and at most what is left; never with nothing."""
        view = view[: min(self._end - self._at, CHUNK_BYTES)]
        while True:
            try:
                stream = self._stream or self._open()
                block = stream.read(len(view))  # older clients have no `readinto`
            except Exception as error:
                if not is_broken(error):
                    raise
                block = b""
            if block:
                view[: len(block)] = block
                self._at += len(block)
                return len(block)
            self._broke()

    def close(self) -> None:
        """Give the connection back."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _broke(self) -> None:
        self.close()
        if self._breaks_left == 0:
            raise UnavailableError(
                f"bucket {self._bucket.name}: {self._name} broke off again and again, "
                f"last at byte {self._at} of {self._size}",
                hint="is the network sound? nothing is lost, read it again later",
            )
        self._breaks_left -= 1
        time.sleep(PAUSE_S)

    def _open(self) -> Any:
        whole = (self._at, self._end) == (0, self._size)
        part = {} if whole else {"Range": f"bytes={self._at}-{self._end - 1}"}
        try:
            reply = self._bucket.ask("get_object", but=MISSING | _BEYOND, Key=self._name, **part)
        except Refusal as refusal:
            if refusal.code in _BEYOND:
                self._too_short()
            raise
        self._stream = reply["Body"]
        found = reply["ContentLength"]
        if not whole:
            span, _, total = str(reply.get("ContentRange", "")).partition("/")
            found = int(total) if total.isdecimal() else -1
            if found < 0 or (found == self._size and span != f"bytes {self._at}-{self._end - 1}"):
                self.close()
                raise ConfigurationError(
                    f"bucket {self._bucket.name}: the server gives other ranges than it is asked for",
                    kind=ErrorKind.STORE_REFUSED,
                )
        if found != self._size:
            self.close()
            raise WrongSizeError(found)
        return self._stream

    def _too_short(self) -> NoReturn:
        head = self._bucket.head(self._name)
        if head is None:
            raise Refusal("NoSuchKey")
        raise WrongSizeError(head["ContentLength"])


class HashingObject(HashingRaw):
    """A payload of S3 under :class:`~emboflow_dagster.object_storage.verified.VerifiedReader`.

    Raises:
        IntegrityError: It is missing or not of the recorded size; from a read: its digest was wrong twice.
    """

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        key: str,
        sha256: str,
        size: int,
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        super().__init__(key, sha256, size, offset, length)
        self._bucket = bucket
        self._name = name
        self._before = self._digest.copy()
        self._body: Body | None = None
        self._body = _opened(bucket, name, key, sha256, size, offset, offset + self._left)
        if self._whole and size == 0:
            self._passed(memoryview(b""))

    def readall(self) -> bytes:
        """All that is left, judged as one block: nothing of it was handed out yet."""
        content = memoryview(bytearray(self._left))
        if content:
            self._take(content)
            self._passed(content)
        return bytes(content)

    def _take(self, view: memoryview) -> int:
        # As much as fits: a short payload is judged before any of it is handed out.
        self._before, filled = self._digest.copy(), 0
        with there(self._key, self._expected):
            try:
                while self._body and filled < len(view):
                    filled += self._body.readinto(view[filled:])
            except WrongSizeError as wrong:  # replaced while it was read
                raise mismatch(self._key, "?", wrong.found, self._expected, self._size) from None
        return filled

    def _settle(self, last: memoryview) -> None:
        if self._digest.hexdigest() == self._expected:
            return
        # A bit may have flipped on the way or in the store: only a second reading tells.
        given = self._size - len(last)
        digest = hashlib.sha256()
        same = False
        body = _opened(self._bucket, self._name, self._key, self._expected, self._size, 0, self._size)
        buffer = memoryview(bytearray(BUFFER_BYTES))
        position = 0
        try:
            while body and position < self._size:
                until = given if position < given else self._size
                view = buffer if position < given else last[position - given :]
                count = body.readinto(view[: until - position])
                digest.update(view[:count])
                position += count
                if position == given:
                    same = digest.digest() == self._before.digest()
        finally:
            if body:
                body.close()
        if digest.hexdigest() != self._expected:
            raise mismatch(self._key, self._digest.hexdigest(), self._size, self._expected, self._size)
        if given and not same:
            raise UnavailableError(
                f"{self._key}: arrived altered; what is stored is right (sha256 {self._expected})",
                hint="read it again; when this comes back, something between here and the store alters bytes",
            )

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed and self._body:
            self._body.close()
        super().close()


def ranges(bucket: Bucket, name: str, size: int) -> Iterator[memoryview]:
    """All bytes of an object in order, several ranges of it on the way at once.

    Each block is valid until the next one is asked for. Memory: ``IN_FLIGHT`` times ``RANGE_BYTES``.

    Raises:
        Refusal: There is no such object.
        WrongSizeError: It has another size.
        UnavailableError: It cannot be read.
    """
    free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    count = min(IN_FLIGHT, -(-size // RANGE_BYTES))
    for _ in range(count):
        free.put(memoryview(bytearray(RANGE_BYTES)))  # from where the buffers of puts come from: not mapped

    def get(start: int) -> tuple[memoryview, int]:
        buffer, length = free.get(), min(RANGE_BYTES, size - start)
        body = Body(bucket, name, start, start + length, size)
        try:
            filled = 0
            while filled < length:
                filled += body.readinto(buffer[filled:length])
        finally:
            body.close()
        return buffer, length

    with ThreadPoolExecutor(max(1, count), thread_name_prefix="s3-get") as pool:
        ahead: deque[Future[tuple[memoryview, int]]] = deque()
        starts = iter(range(0, size, RANGE_BYTES))
        try:
            while True:
                while len(ahead) < count and (start := next(starts, None)) is not None:
                    ahead.append(pool.submit(get, start))
                if not ahead:
                    return
                buffer, length = ahead.popleft().result()
                yield buffer[:length]
                free.put(buffer)
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def there(key: str, sha256: str) -> Iterator[None]:
    """A payload that is not there as the error that readers know."""
    try:
        yield
    except Refusal:
        raise IntegrityError(
            f"{key}: the payload is missing (sha256 {sha256})", kind=ErrorKind.PAYLOAD_MISSING
        ) from None


def wrong_size(bucket: Bucket, name: str, key: str, found: int, sha256: str, size: int) -> IntegrityError:
    """The error for a payload of another size; reads it all, to name both digests."""
    digest = hashlib.sha256()
    for block in ranges(bucket, name, found):
        digest.update(block)
    return mismatch(key, digest.hexdigest(), found, sha256, size)


def _opened(bucket: Bucket, name: str, key: str, sha256: str, size: int, start: int, end: int) -> Body | None:
    """A body; ``None`` for no bytes of a payload that is there."""
    found = -1
    for _ in range(2):  # a proxy on the way may have cut it
        with there(key, sha256):
            try:
                if start < end:
                    return Body(bucket, name, start, end, size)
                head = bucket.head(name)
                if head is None:
                    raise Refusal("NoSuchKey")
                if (found := head["ContentLength"]) == size:
                    return None
            except WrongSizeError as wrong:
                found = wrong.found
    with there(key, sha256):
        raise wrong_size(bucket, name, key, found, sha256, size)
