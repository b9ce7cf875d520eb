"""Damaged files of every format, treated as assets are: in child processes, hundreds in one child.

Small valid files (:mod:`tests.mutant_files`) have bytes flipped, cut off, put in, moved, and fields that look
like lengths changed. Each probe must end with a report in time: no crash, hang, exception or traceback.
Kinds of :data:`READ` are normalised too, where an error of our tree, with its code, is an answer. The
child that treated hundreds must hold no more memory, open files and processes than one that treated a few,
and leave nothing in its folder for temporary files.

Recordings are also damaged first and then packed, so that looking into archives meets them.

``make mutants`` treats 400 of each and prints the table; ``tests/integration/test_mutants.py`` a few.
"""

import json
import os
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import EmboflowError, ExecutionError, LimitError
from emboflow_dagster.runtime.child import run_child
from tests.mutant_files import WRITERS

SECONDS = 20.0
WARM = 30
#: What a child may hold more after all mutants than after the first thirty.
MAX_GROWTH_MB = 96
MAX_MORE_FILES = 2
#: Recordings that are damaged first and then packed: what looks inside an archive meets them whole.
INSIDE = (
    *("rosbag1", "rosbag2 sqlite3", "mcap", "hdf5", "lerobot parquet", "tfrecord", "mp4"),
    *("npy", "csv", "png", "urdf"),
)


def _zipped(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, f"robot/{path.relative_to(folder).as_posix()}")


def _tarred(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "robot")


def _twice(folder: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="emboflow-mutants-") as place:
        _tarred(folder, Path(place) / "inner.tar.gz")
        _zipped(Path(place), target)


PACKERS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "damaged in a zip": ("a.zip", _zipped),
    "damaged in a tar.gz": ("a.tar.gz", _tarred),
    "damaged in a tar.gz in a zip": ("a.zip", _twice),
}
#: Kinds that are normalised, too: every reader of recordings once.
READ: Final = {
    f"{kind}, normalised": kind
    for kind in (
        *("rosbag1", "rosbag2 sqlite3", "mcap", "hdf5", "hdf5 aloha", "hdf5 robosuite"),
        *("lerobot 2.0", "lerobot 3.0", "rlds", "canonical", "videos", "images of two cameras", "csv", "npy"),
    )
}
KINDS = (*WRITERS, *PACKERS, *READ)
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One damaged copy: bytes flipped, cut, put in, taken out, moved, or a length changed."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        if not found:
            break
        at = chance.randrange(len(found))
        kind = chance.randrange(7)
        if kind == 0:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[at:]
        elif kind == 2:
            found[at:at] = chance.randbytes(chance.choice((1, 4, 64)))
        elif kind == 3:
            del found[at : at + chance.choice((1, 4, 64))]
        elif kind == 4:
            size = chance.choice((1, 2, 4, 8))
            value = chance.choice(_EDGES) & ((1 << 8 * size) - 1)
            found[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))
        elif kind == 5:
            other = chance.randrange(len(found))
            size = chance.choice((4, 32, 256))
            found[at : at + size] = found[other : other + size]
        else:
            found[at] = chance.randrange(256)
    return bytes(found)


@dataclass(slots=True)
class Outcome:
    """What became of all mutants of one kind."""

    format: str
    mutants: int = 0
    unharmed: int = 0
    warned: int = 0
    unknown: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    growth_mb: float = 0.0
    more_files: int = 0
    left: int = 0
    """Temporary files and child processes that one mutant left behind, at most."""

    @property
    def is_fine(self) -> bool:
        """Whether nothing crashed, hung, raised or leaked."""
        within = self.growth_mb <= MAX_GROWTH_MB and self.more_files <= MAX_MORE_FILES
        return within and not self.faults and not self.left


def probe_all(paths: list[str], done: str) -> None:
    """In the child: probe each path; a line of JSON for each in ``done`` also says what the process holds."""
    _all(paths, done, _probed)


def normalize_all(paths: list[str], done: str) -> None:
    """In the child: normalise each path, as the node does for an asset that was never probed."""
    _all(paths, done, _normalized)


def _all(paths: list[str], done: str, treat: Callable[[Path], dict[str, Any]]) -> None:
    with Path(done).open("a", encoding="utf-8") as stream:
        for path in paths:
            # Not handled in Python: the alarm ends native code too.
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            begun = time.monotonic()
            try:
                said = treat(Path(path))
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                said = {"raised": f"{type(error).__name__}: {error}"}
            signal.setitimer(signal.ITIMER_REAL, 0)
            said |= {"seconds": time.monotonic() - begun, **held()}
            stream.write(json.dumps(said) + "\n")
            stream.flush()


def _probed(path: Path) -> dict[str, Any]:
    from emboflow_dagster.formats.probe import probe_path

    report = probe_path(path).to_json()
    json.dumps(report, allow_nan=False)
    return {
        "format": report["detectedFormatCandidates"][0]["format"],
        "codes": sorted({warning["code"] for warning in report["warnings"]}),
    }


def _normalized(path: Path) -> dict[str, Any]:
    from emboflow_dagster.formats.probe import format_of
    from emboflow_dagster.runtime.normalizing import normalize

    form = format_of(path)
    asset = {"id": "a", "name": path.name, "path": str(path), "format": form, "sha256": "0" * 64}
    own = form.startswith(("hdf5", "lerobot", "video"))  # these know their rate
    request = {"fps": None if own else 10, "robotType": None, "task": None, "topics": []}
    request |= {"videos": True, "onMissingVideo": "drop-episode", "split": None, "onMismatch": "separate"}
    request |= {"mapping": {}, "ratePolicy": "hold"}
    out = Path(tempfile.mkdtemp())
    try:
        made = normalize({**request, "assets": [asset], "out": str(out / "package")})
    except EmboflowError as error:
        return {"format": "refused", "codes": [error.kind.value]}
    finally:
        shutil.rmtree(out)  # as a task's folder is removed
    return {"format": "canonical", "codes": ["left-out"] if made["skippedCount"] else []}


def held() -> dict[str, int]:
    """What this process holds: memory, open files, child processes, and what it left in its folder."""
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    # Its folder is held by a lock, which stands in it.
    places = [path for path in Path(tempfile.gettempdir()).iterdir() if path.name != ".held"]
    return {
        "rss": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "left": sum(map(len, children)) + len(places),
    }


def run(name: str, count: int, *, seed: int = 20_251_126, target: str | None = None) -> Outcome:
    """Make and treat ``count`` mutants of one kind; the same seed makes the same ones.

    Args:
        name: Of :data:`KINDS`.
        count: How many.
        seed: Of the damage.
        target: What is called in the child; only a control has another one.
    """
    with tempfile.TemporaryDirectory(prefix="emboflow-mutants-") as place:
        paths = made(name, count, random.Random(f"{seed} {name}"), Path(place))
        called = target or f"tests.mutants:{'normalize' if name in READ else 'probe'}_all"
        return _judged(Outcome(name), paths, Path(place) / "done.jsonl", called)


def run_together(names: Collection[str], count: int, *, seed: int = 20_251_126) -> list[Outcome]:
    """The same of several kinds in one child, in turns; probed or normalised as the first of them is.

    Returns:
        The outcome of each kind; what the child held at its end is that of the first.
    """
    with tempfile.TemporaryDirectory(prefix="emboflow-mutants-") as place:
        turns: list[list[str]] = []
        for number, name in enumerate(names):
            below = Path(place) / f"kind-{number:02d}"
            below.mkdir()
            turns.append(made(name, count, random.Random(f"{seed} {name}"), below))
        # In turns: what a format's library takes when it is loaded is no leak.
        paths = [path for turn in zip(*turns, strict=True) for path in turn]
        target = f"tests.mutants:{'normalize' if next(iter(names)) in READ else 'probe'}_all"
        return _told(list(map(Outcome, names)), paths, Path(place) / "done.jsonl", target)


def made(name: str, count: int, chance: random.Random, place: Path) -> list[str]:
    """Damaged files or folders of a kind, below ``place``."""
    make = _make_packed if name in PACKERS else _make
    return make(READ.get(name, name), count, chance, place)


def _make(name: str, count: int, chance: random.Random, place: Path) -> list[str]:
    original = place / "original"
    original.mkdir()
    targets = WRITERS[name](original)
    paths: list[str] = []
    for number in range(count):
        folder = place / f"{number:04d}"
        shutil.copytree(original, folder)
        target = folder / chance.choice(targets)
        target.write_bytes(mutated(target.read_bytes(), chance))
        alone = len(list(original.rglob("*"))) == 1
        paths.append(str(target if alone else folder))
    return paths


def _make_packed(name: str, count: int, chance: random.Random, place: Path) -> list[str]:
    """Damaged recordings of :data:`INSIDE` in turn, each packed without a fault of the archive's own."""
    file, pack = PACKERS[name]
    paths: list[tuple[int, str]] = []
    for turn, inside in enumerate(INSIDE):
        below = place / f"of-{turn:02d}"
        below.mkdir()
        for number, path in enumerate(_make(inside, len(range(turn, count, len(INSIDE))), chance, below)):
            damaged = Path(path)
            target = place / f"{turn:02d}-{number:04d}" / file
            target.parent.mkdir()
            pack(damaged if damaged.is_dir() else damaged.parent, target)
            paths.append((number, str(target)))
        shutil.rmtree(below)
    return [path for _, path in sorted(paths)]  # mixed: what a format's library takes is no leak


def _judged(outcome: Outcome, paths: list[str], done: Path, target: str) -> Outcome:
    return _told([outcome], paths, done, target)[0]


def _told(outcomes: list[Outcome], paths: list[str], done: Path, target: str) -> list[Outcome]:
    """What became of the paths, which are of the kinds in turn."""
    shown: list[str] = []
    lines: list[dict[str, Any]] = []
    first = outcomes[0]
    done.touch()
    while len(lines) < len(paths):
        failure: ExecutionError | None = None
        left = paths[len(lines) :]
        try:
            run_child(target, left, str(done), timeout_s=3_600, on_stderr=shown.append)
        except ExecutionError as error:
            failure = error
        before = len(lines)
        lines = [json.loads(line) for line in done.read_text().splitlines()]
        _leaks(first, lines[before:])
        if failure is not None:
            kind = "hang" if isinstance(failure, LimitError) or "SIGALRM" in failure.message else "crash"
            number, turn = divmod(len(lines), len(outcomes))
            outcomes[turn].faults.append(f"{kind} at mutant {number}: {failure.message}")
            lines.append({"format": "none", "codes": [kind], "seconds": SECONDS})
            done.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for place, line in enumerate(lines):
        number, turn = divmod(place, len(outcomes))
        outcome = outcomes[turn]
        outcome.mutants += 1
        outcome.slowest_s = max(outcome.slowest_s, line["seconds"])
        if "raised" in line:
            outcome.faults.append(f"mutant {number} raised {line['raised']}")
            continue
        outcome.codes.update(line["codes"])
        outcome.unknown += line["format"] == "unknown"
        outcome.unharmed += not line["codes"]
        outcome.warned += bool(line["codes"])
    if any(text.startswith("Traceback") for text in shown):
        first.faults.append("a traceback on stderr: " + " | ".join(shown[-5:]))
    return outcomes


def _leaks(outcome: Outcome, lines: list[dict[str, Any]]) -> None:
    """How much more one child held at its end than after the first few, and what it left behind."""
    if len(lines) >= 3 * WARM:
        start, end = lines[WARM : 2 * WARM], lines[-WARM:]
        growth = min(line["rss"] for line in end) - max(line["rss"] for line in start)
        outcome.growth_mb = max(outcome.growth_mb, growth / 2**20)
    if len(lines) > 1:
        more = lines[-1]["files"] - min(line["files"] for line in lines[:WARM])
        outcome.more_files = max(outcome.more_files, more)
    outcome.left = max([outcome.left, *(line["left"] for line in lines)])


def table(outcomes: list[Outcome]) -> str:
    """The outcomes, one line a kind."""
    names = ("kind", "mutants", "unharmed", "warned", "unknown", "faults", "slowest s", "growth MiB")
    rows = ["| " + " | ".join((*names, "more files", "left behind")) + " |", "|---" * 10 + "|"]
    rows += [
        f"| {o.format} | {o.mutants} | {o.unharmed} | {o.warned} | {o.unknown} | {len(o.faults)} "
        f"| {o.slowest_s:.2f} | {o.growth_mb:.0f} | {o.more_files} | {o.left} |"
        for o in outcomes
    ]
    return "\n".join(rows)


def main() -> int:
    """400 mutants of each kind, or of those named; the count may be given as ``--count N``."""
    arguments = sys.argv[1:]
    count = 400
    if "--count" in arguments:
        at = arguments.index("--count")
        count = int(arguments[at + 1])
        del arguments[at : at + 2]
    outcomes = []
    for name in arguments or KINDS:
        outcome = run(name, count)
        outcomes.append(outcome)
        codes = ", ".join(f"{code} {number}" for code, number in outcome.codes.most_common(8))
        sys.stdout.write(f"{name}: {codes}\n")
        sys.stdout.writelines(f"  FAULT {fault}\n" for fault in outcome.faults[:20])
        sys.stdout.flush()
    sys.stdout.write(table(outcomes) + "\n")
    return 0 if all(outcome.is_fine for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
