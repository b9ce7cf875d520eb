"""What read-only files of our own making have in common: a place in them."""

import io


class ReadOnly(io.RawIOBase):
    """Bytes that are read from any place; subclasses have `seek` and `readinto`, and move ``_at``."""

    _at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._at
