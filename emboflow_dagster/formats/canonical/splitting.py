"""Where a recording is cut into episodes: at gaps, at the messages or values of a topic, or by file."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from emboflow_dagster.errors import ErrorKind, InvalidInputError, LimitError, shown
from emboflow_dagster.formats.detect import Recorded
from emboflow_dagster.formats.messages import decoded_messages, topics_of
from emboflow_dagster.formats.nearest import instead

if TYPE_CHECKING:
    import numpy as np

#: The value that stands for "whenever it changes".
CHANGE: Final = "change"
MAX_SPANS: Final = 100_000
_NS: Final = 1_000_000_000
_END: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Split:
    """How a recording is cut.

    Attributes:
        by: ``gap``, ``topic``, ``file``, ``name`` (files whose names say the same episode are one) or ``one``
            (the whole asset, however many recordings it holds).
        seconds: A gap: so long without a message of any topic that is taken.
        topic: Whose messages are the boundaries.
        value: ``None``: each message begins an episode. ``"change"``: each change of value does. Anything
            else: an episode lasts while the topic has that value, and what is between is left out.
        pattern: By name: see :class:`~emboflow_dagster.formats.path_pattern.PathPattern`.
    """

    by: Literal["gap", "topic", "file", "name", "one"]
    seconds: float | None = None
    topic: str | None = None
    value: bool | float | str | None = None
    pattern: str | None = None


class Span(NamedTuple):
    """From the first ns up to, not with, the second."""

    start: int
    end: int


def spans_of(split: Split, path: Recorded, stamps: "Iterable[np.ndarray]") -> list[Span]:
    """The spans of a recording, in time order; a span may turn out to hold nothing.

    Args:
        split: By gap or by topic.
        path: The recording, read again for the boundary topic.
        stamps: int64 ns of each topic that is taken.

    Raises:
        InvalidInputError: The boundary topic has no message, or never that value.
        LimitError: More than 100,000 spans.
    """
    found = _gaps(stamps, split.seconds or 0.0) if split.by == "gap" else _boundaries(split, path)
    if len(found) > MAX_SPANS:
        raise LimitError(
            f"{len(found)} episodes in one recording, at most {MAX_SPANS}", kind=ErrorKind.LIMIT_SIZE
        )
    return found


def _gaps(stamps: "Iterable[np.ndarray]", seconds: float) -> list[Span]:
    import numpy as np

    merged = np.sort(np.concatenate(list(stamps) or [np.zeros(0, np.int64)]))
    if not len(merged):
        return []
    behind = np.flatnonzero(np.diff(merged) > seconds * _NS) + 1
    starts = [int(merged[0]), *merged[behind].tolist()]
    return [Span(start, end) for start, end in zip(starts, [*starts[1:], _END], strict=True)]


def _boundaries(split: Split, path: Recorded) -> list[Span]:
    topic = split.topic or ""
    seen = [
        (message.stamp_ns, value_of(decoded))
        for message, decoded in decoded_messages(path, frozenset({topic}), frozenset(), None)
    ]
    seen.sort(key=lambda item: item[0])
    if not seen:
        there = topics_of(path)
        more = "" if topic in there else instead(topic, there)
        raise InvalidInputError(
            f"no message of {shown(topic)} to split by{more}", kind=ErrorKind.INPUT_MISSING
        )
    if split.value is not None and split.value != CHANGE:
        ends = [stamp for stamp, _ in seen[1:]] + [_END]
        return _joined(
            Span(stamp, end)
            for (stamp, value), end in zip(seen, ends, strict=True)
            if _same(value, split.value)
        ) or _none(topic, split.value)
    cuts = [stamp for stamp, _ in seen]
    if split.value == CHANGE:
        cuts = [
            stamp
            for (stamp, value), (_, before) in zip(seen[1:], seen, strict=False)
            if not _same(value, before)
        ]
    return [Span(start, end) for start, end in zip([0, *cuts], [*cuts, _END], strict=True) if end > start]


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Spans that touch become one."""
    found: list[Span] = []
    for span in spans:
        if found and found[-1].end == span.start:
            found[-1] = Span(found[-1].start, span.end)
        else:
            found.append(span)
    return found


def _none(topic: str, value: Any) -> list[Span]:
    raise InvalidInputError(
        f"{shown(topic)} never has the value {shown(value)}", kind=ErrorKind.INPUT_MISSING
    )


def _same(first: Any, second: Any) -> bool:
    return first == second


def value_of(message: Any) -> bool | float | str | None:
    """What a message says, of one that says one thing: its ``data``, else its first number or word.

    >>> value_of({"data": "start"}), value_of({"header": {"x": 1}, "mode": 3}), value_of({})
    ('start', 3, None)
    """
    fields = message if isinstance(message, dict) else getattr(message, "__dict__", {})
    if not isinstance(message, dict) and hasattr(message, "__dataclass_fields__"):
        fields = {name: getattr(message, name, None) for name in message.__dataclass_fields__}
    ordered = [fields["data"]] if "data" in fields else list(fields.values())
    return next((value for value in ordered if isinstance(value, (bool, int, float, str))), None)
