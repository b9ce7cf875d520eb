"""Cameras out of a recording's image topics: when their pictures are now, the pictures when they are written.

The recording is read once for the stamps of all of them, and once more for each camera and episode; pictures
of a video are decoded from its beginning each time.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.canonical.bag_streams import Stamped
from emboflow_dagster.formats.canonical.schema import Camera
from emboflow_dagster.formats.canonical.splitting import Span
from emboflow_dagster.formats.decoding import Decoder, UndecodableError
from emboflow_dagster.formats.detect import Recorded, recording_parts
from emboflow_dagster.formats.pictures import is_image_type, packet_of, rgb_of
from emboflow_dagster.formats.recording import Connection, Facts, Message
from emboflow_dagster.formats.video_messages import Reel, is_video_type, rgb

if TYPE_CHECKING:
    import numpy as np

TAKE_IT = "holds pictures: name it in `topics` to take it as a camera"


@dataclass(frozen=True, slots=True)
class Track(Stamped):
    """The pictures of one topic.

    Attributes:
        path: The recording.
        topic: Its image topic.
        stamps: int64 ``(n,)`` ns, not decreasing.
        begin: How many of the topic's pictures stand before the first of them.
    """

    path: Recorded
    topic: str
    stamps: "np.ndarray"
    begin: int = 0

    def within(self, span: Span) -> "Track | None":
        """The pictures of a span, ``None`` where there are none."""
        rows = self.rows(span)
        if rows.start == rows.stop:
            return None
        return replace(self, stamps=self.stamps[rows], begin=self.begin + rows.start)

    def camera(self, places: "np.ndarray") -> Camera:
        """The camera whose frame ``i`` is picture ``places[i]``; places do not decrease.

        Raises:
            InvalidInputError: The first picture cannot be decoded.
        """
        wanted = (places + self.begin).tolist()
        try:
            picture = next(_pictures(self.path, self.topic, wanted[:1]), None)
        except UndecodableError as error:
            text = f"{self.topic}: {error.message}"
            raise InvalidInputError(text, kind=ErrorKind.FORMAT_UNSUPPORTED) from error
        if picture is None:
            raise InvalidInputError(f"{self.topic}: no picture", kind=ErrorKind.INPUT_MISSING)
        height, width = picture.shape[:2]
        return Camera((height, width, 3), lambda: _until_damage(self.path, self.topic, wanted), self.topic)


def image_topics(topics: Mapping[str, str]) -> list[str]:
    """Those of the topics (name to type) that are pictures."""
    return [topic for topic, type_name in topics.items() if is_image_type(type_name)]


def tracks_of(path: Recorded, topics: Sequence[str], leave_out: Callable[[str, str], None]) -> list[Track]:
    """The stamps of image topics, in the order asked for; one whose stamps run backwards is left out.

    A video begins at its first picture that can be decoded on its own.

    Raises:
        OSError: A file cannot be read.
    """
    import numpy as np

    stamps: dict[str, array[int]] = {topic: array("q") for topic in topics}
    before: dict[str, int] = {}
    reels: dict[str, _Videos] = {topic: _Videos() for topic in topics}
    for part, _, reader in recording_parts(path):
        for message in reader(part, Facts(), lambda said: said.topic in reels and is_video_type(said.type)):
            topic = message.connection.topic
            if (found := stamps.get(topic)) is None:
                continue
            if is_video_type(message.connection.type) and topic in reels:
                try:
                    whole = reels[topic].add(message) is not None
                except UndecodableError as error:
                    leave_out(topic, error.message)
                    del stamps[topic], reels[topic]
                    continue
                if not whole:
                    before[topic] = before.get(topic, 0) + 1
                    continue
                del reels[topic]
            found.append(message.stamp_ns)
    tracks: list[Track] = []
    for topic, found in stamps.items():
        when = np.frombuffer(found, dtype=np.int64)
        if not len(when):
            leave_out(topic, "no picture")
        elif (np.diff(when) < 0).any():
            leave_out(topic, "its pictures are not in the order of their stamps")
        else:
            tracks.append(Track(path, topic, when, before.get(topic, 0)))
    return tracks


def _until_damage(path: Recorded, topic: str, places: list[int]) -> "Iterator[np.ndarray]":
    """As :func:`_pictures`; an undecodable one ends them, and the writer sees that they are short."""
    try:
        yield from _pictures(path, topic, places)
    except UndecodableError:
        return


def _pictures(path: Recorded, topic: str, places: Sequence[int]) -> "Iterator[np.ndarray]":
    """uint8 RGB pictures ``(height, width, 3)`` of the topic, counted in the order of the recording.

    Raises:
        UndecodableError: A wanted one cannot be decoded.
    """
    wanted = iter(places)
    place = next(wanted, None)
    number = -1
    decoders: dict[Connection, Any] = {}
    videos = _Videos()
    for part, _, reader in recording_parts(path):
        for message in reader(part, Facts(), lambda connection: connection.topic == topic):
            if message.connection.topic != topic:
                continue
            number += 1
            frame = videos.add(message) if is_video_type(message.connection.type) else None
            if number != place:
                continue
            if message.data is None:
                raise UndecodableError(f"picture {number} is too large")
            decoder = decoders.get(message.connection)
            if decoder is None:
                decoder = decoders[message.connection] = Decoder(message.connection)
            picture = rgb(frame) if frame is not None else rgb_of(decoder(message.data))
            while place == number:
                yield picture
                place = next(wanted, None)
            if place is None:
                return


class _Videos:
    """The pictures of a topic whose messages are those of a video: every one is to be given, in order."""

    def __init__(self) -> None:
        self._reel: Reel | None = None
        self._decoders: dict[Connection, Decoder] = {}

    def add(self, message: Message) -> Any | None:
        """As :meth:`~emboflow_dagster.formats.video_messages.Reel.add`."""
        if message.data is None:
            raise UndecodableError("a picture of the video is too large")
        decoder = self._decoders.get(message.connection)
        if decoder is None:
            decoder = self._decoders[message.connection] = Decoder(message.connection)
        fields = decoder(message.data)
        self._reel = self._reel or Reel()
        return self._reel.add(fields, packet_of(fields))
