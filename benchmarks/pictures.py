"""Pictures: normalised beside FFmpeg's own command, and a version looked at beside decoding it once.

- *encode*: a folder of JPEG files becomes a video. FFmpeg (``--ffmpeg``, else the one on the PATH, else that
  of the package imageio-ffmpeg; left out where there is none) gets our codec, preset, quality, key frames and
  one thread. Ours reads every header first, makes the tables and hashes the video, too.
- *quality*, *preview*: over a canonical dataset, beside PyAV decoding every frame of it and keeping none.

Each side is a process of its own, in turn; processor seconds, of ours without start and imports.

    python benchmarks/pictures.py [--pictures 600] [--episodes 50] [--rounds 3] [--ffmpeg FILE]
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from normalise import loaded, peak, wishes
from recordings.made import FPS, PICTURE, hdf5_cameras, pictures

from emboflow_dagster.formats.canonical.video_track import ENCODER


def main() -> int:
    """Print the table."""
    if sys.argv[1:2] == ["--side"]:
        return side(sys.argv[2], *map(Path, sys.argv[3:]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--episodes", type=int, default=50, help="of 200 frames and two cameras each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ffmpeg", default=_ffmpeg())
    options = parser.parse_args()
    print(f"{'what':10} {'beside':22} {'theirs s':>9} {'ours s':>8} {'ratio':>6} {'peak MiB':>9}")
    with tempfile.TemporaryDirectory(prefix="emboflow-bench-") as folder:
        place = Path(folder)
        pictures(place / "pictures", options.pictures * PICTURE)
        if options.ffmpeg:
            theirs = lambda out: ffmpeg(options.ffmpeg, place / "pictures", out)  # noqa: E731
            compare("encode", "ffmpeg", theirs, place / "pictures", options.rounds)
        else:
            print("encode     no ffmpeg was found")
        hdf5_cameras(place / "demos", options.episodes * 200 * 2 * PICTURE)
        run("normalise", place / "demos", place / "version")
        shutil.rmtree(place / "demos")
        version = place / "version/000"
        for what in ("quality", "preview"):
            theirs = lambda out: run("decode", version, out)  # noqa: E731
            compare(what, "PyAV, every frame once", theirs, version, options.rounds)
    return 0


def compare(what: str, beside: str, theirs: Callable[[Path], Any], source: Path, rounds: int) -> None:
    """Both sides in turn, and their row."""
    pairs = []
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            pair = (theirs(Path(folder) / "theirs"), run(what, source, Path(folder) / "ours"))
        if number:  # the first compiled, and read the files from the disk
            pairs.append(pair)
    cpu = [[one["cpu"] for one in sides] for sides in zip(*pairs, strict=True)]
    ratio = statistics.median(ours / other for other, ours in zip(*cpu, strict=True))
    most = max(ours["peak"] for _, ours in pairs)
    middle = [statistics.median(side) for side in cpu]
    print(f"{what:10} {beside:22} {middle[0]:9.2f} {middle[1]:8.2f} {ratio:6.2f} {most:9.0f}", flush=True)


def run(what: str, source: Path, out: Path) -> dict[str, float]:
    """One of our sides in a process of its own, with the environment of a node's child."""
    from emboflow_dagster.runtime.child import FRUGAL

    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, __file__, "--side", what, str(source), str(out)]
    env = {**FRUGAL, "PYTHONPATH": str(root), "PYTHONPYCACHEPREFIX": str(source.parent / "bytecode")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{what}: {done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ffmpeg(program: str, source: Path, out: Path) -> dict[str, float]:
    """The same pictures by FFmpeg's command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = [f"-{name}" if place == 0 else name for pair in ENCODER.items() for place, name in enumerate(pair)]
    read = ["-nostdin", "-v", "error", "-threads", "1", "-framerate", str(FPS), "-i"]
    made = ["-pix_fmt", "yuv420p", "-c:v", "libx264", *told, "-threads", "1", f"{out}.mp4"]
    subprocess.run([program, *read, f"{source}/frame_%06d.jpg", *made], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": used, "peak": 0}


def side(what: str, source: Path, out: Path) -> int:
    """Do it and say what it took."""
    loaded("normalise")
    import emboflow_dagster.formats.previews.bundle
    import emboflow_dagster.formats.quality.report  # noqa: F401

    start = time.process_time()
    SIDES[what](source, out)
    used = time.process_time() - start
    print(json.dumps({"cpu": used, "peak": peak()}))
    return 0


def encode(source: Path, out: Path) -> None:
    """A package of the pictures."""
    from emboflow_dagster.runtime.normalizing import normalize

    normalize(wishes("pictures", source, out))


def normalised(source: Path, out: Path) -> None:
    """A package of the demonstrations."""
    from emboflow_dagster.runtime.normalizing import normalize

    normalize(wishes("hdf5-cameras", source, out))


def decode(source: Path, _: Path) -> None:
    """Every frame, and nothing of it kept."""
    import av

    for file in sorted(source.rglob("*.mp4")):
        with av.open(str(file)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _frame in container.decode(video=0):
                pass


def quality(source: Path, out: Path) -> None:
    """The quality report, its evidence written down."""
    from emboflow_dagster.formats.quality.report import quality_report

    quality_report(canonical=source, evidence=out.with_suffix(".jsonl"))


def preview(source: Path, out: Path) -> None:
    """The preview bundle."""
    from emboflow_dagster.formats.previews.bundle import preview_bundle

    preview_bundle(source, out)


SIDES: dict[str, Callable[[Path, Path], None]] = {
    "encode": encode,
    "normalise": normalised,
    "decode": decode,
    "quality": quality,
    "preview": preview,
}


def _ffmpeg() -> str | None:
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return get_ffmpeg_exe()


if __name__ == "__main__":
    sys.exit(main())
