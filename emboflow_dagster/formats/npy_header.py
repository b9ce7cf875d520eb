"""What the header of a numpy array says, read without unpickling anything.

Source: numpy.lib.format, versions 1.0 to 3.0.
"""

import ast
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

NPY_MAGIC: Final = b"\x93NUMPY"
#: A header that is longer is none: structures of a thousand columns have less.
MAX_HEADER: Final = 1 << 20
MAX_DIMENSIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Array:
    """One array as its header says, and how many of its bytes are there.

    Attributes:
        shape: Empty for a single value.
        dtype: As numpy reads it.
        fortran: Whether columns stand together in the file.
        offset: Where the values begin.
        there: Bytes of values that are there.
    """

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    fortran: bool
    offset: int
    there: int

    @property
    def pickled(self) -> bool:
        """Whether it holds Python objects, which are pickles."""
        return bool(self.dtype.hasobject)

    @property
    def size(self) -> int:
        """Bytes that the values take."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def truncated(self) -> bool:
        """Whether some are missing; of objects nobody knows."""
        return not self.pickled and self.there < self.size

    @property
    def rows(self) -> int:
        """How many rows can be read."""
        if not self.shape or self.pickled:
            return 0
        each = self.size // self.shape[0] if self.shape[0] else 0
        if not self.truncated:
            return self.shape[0]
        return 0 if self.fortran and len(self.shape) > 1 else self.there // max(1, each)

    def to_json(self) -> dict[str, Any]:
        """As a report has it."""
        name = self.dtype.str
        if self.dtype.names:
            parts = (f"{column} {self.dtype[column].base.str}" for column in list(self.dtype.names)[:50])
            name = f"structured({', '.join(parts)})"
        return {
            "shape": list(self.shape),
            "dtype": name,
            **({"fortranOrder": True} if self.fortran and len(self.shape) > 1 else {}),
        }


def array_of(stream: Any, size: int) -> Array | None:
    """The header at the beginning of a stream of `size` bytes; ``None`` for none."""
    head = stream.read(12)
    if len(head) < 10 or head[:6] != NPY_MAGIC:  # noqa: PLR2004 - magic, version, length
        return None
    wide = head[6] >= 2  # noqa: PLR2004 - version 2 widened the length field
    length = struct.unpack_from("<I" if wide else "<H", head.ljust(12, b"\0"), 8)[0]
    start = 12 if wide else 10
    if not 0 < length <= MAX_HEADER:
        return None
    text = head[start:] + stream.read(max(0, length - len(head[start:])))
    found = _read(text[:length], length)
    if found is None:
        return None
    shape, kind, fortran = found
    return Array(shape, kind, fortran, start + length, max(0, size - start - length))


def npy_header(head: bytes) -> dict[str, Any] | None:
    """``shape``, ``dtype`` and ``dataOffset`` from the first bytes of an ``.npy`` file, ``None`` for none."""
    import io

    found = array_of(io.BytesIO(head), len(head))
    return None if found is None else {**found.to_json(), "dataOffset": found.offset}


def _read(text: bytes, length: int) -> "tuple[tuple[int, ...], np.dtype[Any], bool] | None":
    import numpy as np

    if len(text) < length:
        return None
    try:
        header = ast.literal_eval(text.decode("utf-8" if b"\\" in text else "latin-1").strip())
        shape = tuple(int(side) for side in header["shape"])
        kind = np.lib.format.descr_to_dtype(header["descr"])
        fortran = bool(header["fortran_order"])
    except (ValueError, SyntaxError, KeyError, TypeError, IndexError, MemoryError, RecursionError):
        return None
    if len(shape) > MAX_DIMENSIONS or any(side < 0 for side in shape):
        return None
    return shape, kind, fortran
