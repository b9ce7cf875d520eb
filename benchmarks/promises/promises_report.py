"""The table of both trials."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from peers import Peer
from report import machine
from trials import EACH, WRITERS, Killed, Together

HEAD: Final = """\
# Promises: what an acknowledged put is worth

Made by `python benchmarks/promises`; do not edit. {date}, {machine}.

*Together*: {writers} processes put {each} versions each of one object, 64 KiB, all at once. *Killed*: a
process that puts versions of 16 MiB (256 KiB where a document takes no more) is killed with -9 at a
random moment, {kills} times. *Acknowledged*: the put returned. *Readable*: a fresh process reads
exactly its bytes by the handle that the put gave (Flowcept's gives none: by any of the versions that it
lists). *Torn*: after the kill the newest version gives bytes that nobody had put. A put that is refused
with an error is no loss, only work. MLflow stores each version in a run of its own. DVC's writers share
one work tree, and ArcticDB's documentation says that writers of one symbol must not meet; both say
nothing when they do. Dagster's IO managers keep one version at a name.

"""
ONE_VERSION: Final = ("dagster_files", "dagster_s3")
COLUMNS: Final = (
    "side",
    "together: acknowledged",
    "readable",
    "refused",
    "killed: acknowledged",
    "readable",
    "newest torn",
    "newest unreadable",
)


def write(
    path: Path, found: dict[Peer, tuple[str, Together, Killed]], skipped: dict[str, str], kills: int
) -> str:
    """Write `PROMISES.md`; returns its text."""
    text = HEAD.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}", machine=machine(), writers=WRITERS, each=EACH, kills=kills
    )
    text += "| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS) + "\n"
    for peer, (versions, race, death) in found.items():
        shown = peer.name if peer.ours else f"{peer.name} ({versions.split(',')[0].split()[-1]})"
        cells = [
            shown,
            f"{race.acknowledged} of {WRITERS * EACH}",
            _share(peer, race.readable, race.acknowledged),
            _errors(race.refused),
            str(death.acknowledged),
            _share(peer, death.readable, death.acknowledged),
            f"{death.torn} of {kills}",
            _errors(death.unreadable),
        ]
        text += "| " + " | ".join(cells) + " |\n"
    text += "".join(f"\n{name}: skipped, {why}" for name, why in skipped.items())
    path.write_text(text)
    return text


def _share(peer: Peer, part: int, whole: int) -> str:
    if part < whole and peer.side in ONE_VERSION:
        return f"{part}, one version at a name"
    return f"**{part}**" if part == whole else f"{part}: **{whole - part} lost**"


def _errors(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(errors.items())) or "-"
