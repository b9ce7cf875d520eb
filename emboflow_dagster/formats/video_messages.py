"""Pictures out of topics that carry a video: one coded picture a message, most of them changes to another.

That is how ``CompressedVideo`` of Foxglove is defined: Annex B for H.264 and H.265, no B pictures, parameter
sets with each key picture. A recording often begins between two of those; what stands before the first has
no picture. Source: https://docs.foxglove.dev/docs/sdk/schemas/compressed-video
"""

from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import shown
from emboflow_dagster.formats.decoding import UndecodableError
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.messages import short_name

if TYPE_CHECKING:
    import numpy as np

VIDEO_TYPE: Final = "CompressedVideo"
MAX_PIXELS: Final = 64 * 1024 * 1024
_CODECS: Final = {"h264": "h264", "h265": "hevc", "hevc": "hevc", "vp9": "vp9", "av1": "libdav1d"}


def is_video_type(type_name: str) -> bool:
    """Whether messages of this type are pictures of a video."""
    return short_name(type_name) == VIDEO_TYPE


class Reel:
    """The pictures of one topic; every message must be given to it, in order.

    Raises:
        ConfigurationError: The library for videos is not installed.
    """

    def __init__(self) -> None:
        with needs_extra("video"):
            import av.error

        self._damage = (av.error.FFmpegError, ValueError)
        self._format = ""
        self._codec: Any = None
        self._begun = False

    def add(self, message: Any, data: bytes) -> Any | None:
        """Take a decoded message in, with its bytes; its picture, ``None`` before the first that is whole.

        Raises:
            UndecodableError: It is of a codec that is not read, damaged, or no single picture.
        """
        import av
        from av.video.frame import PictureType

        fields = message if isinstance(message, dict) else vars(message)
        name = str(fields.get("format", "")).lower()
        if self._codec is None or name != self._format:
            self._codec, self._format, self._begun = self._open(name), name, False
        try:
            frames = self._codec.decode(av.Packet(data))
        except self._damage as error:
            if self._begun:
                raise UndecodableError(f"a picture of the video is damaged: {error}") from error
            return None
        if not frames and not self._begun:
            return None
        if len(frames) != 1:
            raise UndecodableError(f"a message of the video holds {len(frames)} pictures, expected one")
        self._begun = True
        frame = frames[0]
        if frame.pict_type == PictureType.B:
            raise UndecodableError("the video has B pictures, which no message can show on its own")
        if not 0 < frame.width * frame.height <= MAX_PIXELS:
            raise UndecodableError(f"a picture of {frame.width}x{frame.height}")
        return frame

    def _open(self, name: str) -> Any:
        if name not in _CODECS:
            raise UndecodableError(f"the video is {shown(name)}; read are {', '.join(sorted(_CODECS))}")
        from av.codec.context import CodecContext, Flags

        codec = CodecContext.create(_CODECS[name], "r")
        codec.thread_count = 1  # more would hold pictures back
        codec.flags |= Flags.low_delay
        return codec


def rgb(frame: Any) -> "np.ndarray":
    """uint8 RGB ``(height, width, 3)`` of a picture that :meth:`Reel.add` gave."""
    return frame.to_ndarray(format="rgb24")


def png(frame: Any) -> bytes:
    """The picture as PNG."""
    from io import BytesIO

    target = BytesIO()
    frame.to_image().save(target, "PNG")
    return target.getvalue()
