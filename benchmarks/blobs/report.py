"""The table: what was measured, on what, and where we are slower."""

import os
import platform
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from measure import STEPS, Findings, Plan, label
from peers import Peer

OURS: Final = "emboflow"
HEAD: Final = """\
# Blobs: what a put, a verified get and a new version cost beside others

Made by `make bench-blobs`; do not edit. {date}, {machine}.

Every side runs in a process and an environment of its own, on the same payloads (random bytes, never the
same twice), one after the other in interleaved rounds. Startup, imports and connections are not counted, and
the disk has nothing left to write when a side's clock starts. Milliseconds are medians; only ratios travel
between machines. In brackets: how many times as long as ours it takes (above 1: we are faster). Reads come
right after the write, from the page cache.
Memory is the most above idle of the side's own process in MiB, write / read. What mongod and moto's server
need is not counted, nor the payload itself where a side takes bytes and not a file.
{warning}
"""


def write(
    path: Path, found: dict[Peer, Findings], skipped: dict[str, str], plan: Plan, seconds: float
) -> str:
    """Write `RESULTS.md`; returns its text."""
    ours = next((f for p, f in found.items() if p.name == OURS), Findings())
    load = os.getloadavg()[0]
    busy = load > 2 * (os.cpu_count() or 1)
    warning = (
        f"\n**The machine was busy with other work (load {load:.0f}): read the ratios, and those with care.**"
        if busy
        else ""
    )
    parts = [HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}", machine=machine(), warning=warning)]
    parts.append(_properties(found))
    parts += [_size(size, found, ours) for size in plan.sizes if ours.median(size, "write")]
    if any(f.frame for f in found.values()):
        parts.append(_frames(found, plan))
    parts.append(_verdict(found))
    notes = [f"- {name}: skipped, {why}" for name, why in skipped.items()]
    notes += [f"- {peer.name}: {note}" for peer, f in found.items() for note in dict.fromkeys(f.notes)]
    if notes:
        parts.append("## Not measured\n\n" + "\n".join(notes) + "\n")
    rounds = ", ".join(f"{label(s)} x {_count(ours, s)}" for s in plan.sizes if _count(ours, s))
    parts.append(f"Rounds: {rounds}; all of it took {seconds / 60:.0f} minutes.\n")
    text = "\n".join(parts)
    path.write_text(text)
    return text


def machine(cpu: str = "unknown CPU") -> str:
    """Cores, CPU, memory, kernel, in one line."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} cores of {cpu}, {memory} GiB, Linux {platform.release()}"


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _properties(found: dict[Peer, Findings]) -> str:
    rows = []
    for peer, f in found.items():
        if not peer.max_bytes:
            continue
        synced = peer.syncs or ("not checked" if f.syncs is None else f"{f.syncs} calls" if f.syncs else "no")
        keeps = {True: "yes", False: "no", None: "not checked"}[f.keeps]
        rate = [f"{f.rates[n]:.0f}" if n in f.rates else "-" for n in (1, 8)]
        rows.append([peer.name, f.versions, peer.hashes, synced, keeps, f.damage, *rate])
    head = (
        "side",
        "version",
        "hash",
        "synced before it returns",
        "old version readable",
        "a flipped byte is",
        "new versions/s",
        "over 8 objects",
    )
    return (
        "## What each side does\n\n"
        "Synced: counted with strace in the side's process. Old versions, flipped bytes: tried on 64 KiB.\n"
        "Versions: of 1 KiB, one writer on one object, and 8 threads on 8.\n\n" + _rows(head, rows)
    )


def _size(size: int, found: dict[Peer, Findings], ours: Findings) -> str:
    rows = []
    for peer, f in found.items():
        if f.median(size, "write") is None:
            continue
        mine = peer.name == OURS
        cells = [peer.name, *(_cell(f.median(size, s), ours.median(size, s), mine=mine) for s in STEPS)]
        peaks = f.peaks.get(size, {})
        cells.append(f"{max(peaks['write'], peaks['version']) / 2**20:.0f} / {peaks['read'] / 2**20:.0f}")
        rows.append(cells)
    return f"## {label(size)}\n\n" + _rows(("side", "write", "read", "new version", "memory"), rows)


def _cell(seconds: float | None, mine_seconds: float | None, *, mine: bool) -> str:
    if seconds is None:
        return "-"
    text = f"{seconds * 1e3:.1f}" if seconds < 1 else f"{seconds * 1e3:.0f}"
    if mine or not mine_seconds:
        return f"**{text}**" if mine else text
    return f"{text} ({seconds / mine_seconds:.2f})"


def _frames(found: dict[Peer, Findings], plan: Plan) -> str:
    rows = []
    ours = next((f.frame for p, f in found.items() if p.name == OURS), {})
    for peer, f in found.items():
        if not f.frame:
            continue
        cells = [peer.name.replace("raw file", "to_parquet + fsync")]
        for step in ("write", "read"):
            mine = statistics.median(ours[step]) if ours else None
            cells.append(_cell(statistics.median(f.frame[step]), mine, mine=peer.name == OURS))
        rows.append([*cells, f"{f.frame_peak / 2**20:.0f}"])
    title = f"## DataFrame {plan.frame_rows:,} x 10\n\n"
    homes = "`emboflow` stores it as Parquet, `emboflow arrow` as Arrow IPC.\n\n"
    return title + homes + _rows(("side", "write", "read", "memory"), rows)


def _verdict(found: dict[Peer, Findings]) -> str:
    """Where a peer is faster, said plainly, row by row, beside what it leaves out."""
    named = {peer.name: f for peer, f in found.items()}
    others = {peer: f for peer, f in found.items() if not peer.ours}
    careful = {
        peer: f for peer, f in others.items() if peer.syncs is not None or f.syncs or peer.hashes != "no"
    }
    rows = []
    for size in sorted({size for f in others.values() for size in f.times}):
        for step in STEPS:
            behind: dict[bool, list[str]] = {True: [], False: []}
            counts = {True: 0, False: 0}
            for peer, f in others.items():
                theirs = f.median(size, step)
                mine = named.get(peer.beside, Findings()).median(size, step)
                if theirs is None or mine is None:
                    continue
                most = 1 if peer in careful else 1.5
                counts[peer in careful] += 1
                if mine > most * theirs:
                    behind[peer in careful].append(f"{peer.name} {mine / theirs:.1f}")
            cells = [f"{label(size)} {step}"]
            for kind in (True, False):
                held = counts[kind] - len(behind[kind])
                cells.append(f"{held} of {counts[kind]}")
                cells.append(", ".join(behind[kind]) or "-")
            rows.append(cells)
    why = "\n".join(
        f"- {peer.name} {_why(peer, f)}; a flipped byte is {f.damage}" for peer, f in others.items()
    )
    return (
        "## Where we are slower\n\n"
        "Aimed at: ahead of every side that hashes or syncs, on every row; within 1.5 of files neither\n"
        "hashed nor synced. Neither holds on every row: beside each row is who it does not hold for, and\n"
        "how many times as long ours takes. Two syncs and a majority write stand in every put of ours into\n"
        "the object store; below 1 MiB they are nearly all of it, and a side that lacks one of them is\n"
        "faster by that. The home inside the document is held against Flowcept's, the object store against\n"
        "all others.\n\n"
        + _rows(
            (
                "row",
                "hashed or synced: ahead of",
                "not of",
                "neither: within 1.5 of",
                "not of",
            ),
            rows,
        )
        + "\n"
        + why
        + "\n"
    )


def _why(peer: Peer, f: Findings) -> str:
    if peer.syncs:
        return f"is made durable by {peer.syncs}" if "memory" not in peer.syncs else "keeps it in memory"
    hashes = "hashes nothing" if peer.hashes == "no" else f"hashes ({peer.hashes})"
    synced = "is not checked for syncs" if f.syncs is None else "syncs" if f.syncs else "syncs nothing"
    return f"{hashes} and {synced}"


def _count(f: Findings, size: int) -> int:
    return len(f.times.get(size, {}).get("write", []))
