"""Pictures of one camera and episode as one constant-rate mp4."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from emboflow_dagster.errors import ErrorKind, ExecutionError

if TYPE_CHECKING:
    import numpy as np

#: Every second picture is a key frame: training reads single frames at random places.
KEY_FRAME_EVERY = 2
# Equal pictures must give equal bytes. x264's macroblock tree breaks that even with one thread (in some
# processes 2 to 9 of 100 encodings of the same pictures differed); without it none of 2,880 did.
ENCODER = {
    "crf": "18",
    "preset": "veryfast",
    "g": str(KEY_FRAME_EVERY),
    "bf": "0",
    "x264-params": "mbtree=0:rc-lookahead=0",
}

#: Videos that are encoded at a time: each holds an encoder of its own.
AT_ONCE = 4

Frames = Callable[[], "Iterable[np.ndarray]"]


def write_videos(wanted: Sequence[tuple[Path, Frames]], *, fps: float) -> list[int]:
    """Encode the cameras of an episode side by side, each as :func:`write_video` does it: equal bytes.

    Args:
        wanted: Where to, and what gives the pictures; called once, in a thread if there are several.
        fps: Frames per second of all.

    Returns:
        Frames written of each.

    Raises:
        ExecutionError: The first camera that fails; those behind it may not have been begun.
    """
    workers = min(len(wanted), AT_ONCE)
    # Asked for an episode with cameras only: the system's answer takes longer than a short one's numbers.
    if workers < 2 or (workers := min(workers, os.cpu_count() or 1)) < 2:  # noqa: PLR2004 - one gains nothing
        return [write_video(path, frames(), fps=fps) for path, frames in wanted]
    with ThreadPoolExecutor(workers, thread_name_prefix="camera") as pool:
        begun = [
            pool.submit(lambda p, f: write_video(p, f(), fps=fps), path, frames) for path, frames in wanted
        ]
        try:
            return [task.result() for task in begun]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_video(path: Path, frames: Iterable["np.ndarray"], *, fps: float) -> int:
    """Encode uint8 RGB pictures ``(height, width, 3)`` as H.264; one thread: equal input, equal bytes.

    Returns:
        Frames written.

    Raises:
        ExecutionError: The encoder refused the pictures, or there were none.
    """
    import av
    from av.error import FFmpegError

    rate = Fraction(fps).limit_denominator(1_001_000)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            stream = None
            for picture in frames:
                if stream is None:
                    height, width = int(picture.shape[0]), int(picture.shape[1])
                    stream = container.add_stream("libx264", rate=rate)
                    stream.width, stream.height = width, height
                    # 4:2:0 needs even sides; an odd picture stays whole in 4:4:4.
                    stream.pix_fmt = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
                    stream.options = dict(ENCODER)
                    stream.codec_context.thread_count = 1
                    stream.codec_context.time_base = 1 / rate
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = count
                frame.time_base = 1 / rate
                container.mux(stream.encode(frame))
                count += 1
            if stream is not None:
                container.mux(stream.encode())
    except (FFmpegError, ValueError) as error:
        raise ExecutionError(f"{path.name}: the video could not be encoded: {error}") from error
    if count == 0:
        raise ExecutionError(f"{path.name}: the camera has no pictures", kind=ErrorKind.FILE_EMPTY)
    return count
