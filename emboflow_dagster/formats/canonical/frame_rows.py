"""The frames of episodes that wait for their row group, in arrays that are made once and used again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from emboflow_dagster.formats.canonical import columns
from emboflow_dagster.formats.canonical.schema import Episode
from emboflow_dagster.formats.canonical.tables import BYTES_PER_GROUP, ROWS_PER_GROUP, TableFile

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class FrameRows:
    """Rows of `frames.parquet`, written when a row group is full.

    An Arrow table of each episode, and one of all, cost more than their numbers, and twice the memory.

    Args:
        file: Where to.
        features: The vectors, in the order of their columns.
        fps: Frames per second of the grid.
    """

    def __init__(self, file: TableFile, features: Sequence[str], fps: float) -> None:
        self._file = file
        self._fps = fps
        self._vectors: dict[str, _Grown] = {name: _Grown() for name in features}
        self._lengths: list[int] = []
        self._tasks: list[int | np.ndarray] = []
        self._stamps: list[np.ndarray | None] = []
        self._valid: list[np.ndarray | None] = []
        self._first = (0, 0)
        self._rows = self._bytes = 0

    def add(self, episode: Episode, number: int, start: int, task: "int | np.ndarray") -> None:
        """Append an episode.

        Args:
            episode: One that fits.
            number: Its number in the dataset.
            start: The frames before it.
            task: The index of its task, or of each frame's.
        """
        import numpy as np

        if not self._lengths:
            self._first = (number, start)
        frames, stamps, valid = episode.length, episode.source_timestamp_ns, episode.valid
        self._lengths.append(frames)
        self._tasks.append(task)
        self._stamps.append(None if stamps is None else np.asarray(stamps, np.int64))
        self._valid.append(None if valid is None else np.asarray(valid, np.bool_))
        # As Arrow counts it for the table of one episode: where row groups end is part of a package's bytes.
        bits = -(-frames // 8)
        self._bytes += 48 * frames + bits + (bits if stamps is None else 0)
        for name, rows in self._vectors.items():
            values = np.asarray(episode.features[name], np.float32)
            rows.extend(values)
            self._bytes += 4 * (frames + 1) + values.nbytes
        self._rows += frames
        if self._rows >= ROWS_PER_GROUP or self._bytes >= BYTES_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        import pyarrow as pa

        if self._lengths:
            self._file.write(self._table())
            # The C library keeps what large arrays leave free between small ones: more with each row group.
            pa.default_memory_pool().release_unused()
        for waiting in (self._lengths, self._tasks, self._stamps, self._valid, *self._vectors.values()):
            waiting.clear()
        self._rows = self._bytes = 0

    def _table(self) -> "pa.Table":
        import numpy as np
        import pyarrow as pa

        lengths = np.array(self._lengths, np.int64)
        rows, (number, start) = self._rows, self._first
        place = np.arange(rows, dtype=np.int64)
        frame = place - np.repeat(np.cumsum(lengths) - lengths, lengths)
        made = [
            columns.numbers(np.repeat(np.arange(number, number + len(lengths), dtype=np.int64), lengths)),
            columns.numbers(frame),
            columns.numbers(place + start),
            columns.numbers(frame / self._fps),
            self._stamped(rows),
            columns.numbers(self._joined(self._tasks, np.int64)),
            *(columns.vectors(vectors.values()) for vectors in self._vectors.values()),
            columns.numbers(self._joined([True if bits is None else bits for bits in self._valid], np.bool_)),
        ]
        return pa.table(made, schema=self._file.schema)

    def _stamped(self, rows: int) -> "pa.Array":
        import numpy as np
        import pyarrow as pa

        if all(stamps is None for stamps in self._stamps):
            return columns.absent(pa.int64(), rows)
        values = self._joined([0 if stamps is None else stamps for stamps in self._stamps], np.int64)
        if not any(stamps is None for stamps in self._stamps):
            return columns.numbers(values)
        return columns.numbers(
            values, self._joined([stamps is not None for stamps in self._stamps], np.bool_)
        )

    def _joined(self, parts: "Sequence[int | np.ndarray]", kind: Any) -> "np.ndarray":
        """One number for each frame: a part is that of all frames of its episode, or one of each."""
        import numpy as np

        found = np.empty(self._rows, kind)
        at = 0
        for part, length in zip(parts, self._lengths, strict=True):
            found[at : at + length] = part
            at += length
        return found


class _Grown:
    """Rows one below the other: what was taken for a row group serves the next one."""

    def __init__(self) -> None:
        self._own: np.ndarray | None = None
        self._whole: np.ndarray | None = None
        self._count = 0

    def extend(self, values: "np.ndarray") -> None:
        import numpy as np

        if not self._count and len(values) >= ROWS_PER_GROUP:
            self._whole, self._count = values, len(values)  # it is written at once: not copied
            return
        end = self._count + len(values)
        if self._own is None or end > len(self._own):
            grown = np.empty((max(end, min(2 * end, ROWS_PER_GROUP)), values.shape[1]), np.float32)
            if self._own is not None:
                grown[: self._count] = self._own[: self._count]
            self._own = grown
        self._own[self._count : end] = values
        self._count = end

    def values(self) -> "np.ndarray":
        """Float32 ``(rows, dim)``; no rows but those that were given."""
        import numpy as np

        if self._whole is not None:
            return self._whole
        return np.empty((0, 0), np.float32) if self._own is None else self._own[: self._count]

    def clear(self) -> None:
        """Forget the rows, not the array."""
        self._whole, self._count = None, 0
