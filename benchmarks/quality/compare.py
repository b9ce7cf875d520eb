"""Our checks beside three others over the same LeRobot trees: lerobot-doctor, robovet, robot-data-audit.

Each is executed as its users do, in a virtual environment of its own (``.peer-venvs``, made by
``make compare-quality``), offline. A dash means that a tool did not look at something, ``crash`` that it
ended without a report. Prints a table of what any of them found; with ``--page`` that and the reason of each
disagreement become docs/quality-peers.md. A disagreement without a reason, or a reason of what is none any
more, fails there.

    python benchmarks/quality/compare.py FOLDER... [--venvs .peer-venvs] [--page docs/quality-peers.md]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.probe import format_of
from emboflow_dagster.formats.quality.report import quality_report

SECONDS = 900
RANK = {"-": -2, "pass": 0, "info": 0, "unresolved": 1, "warn": 2, "fail": 3}
#: What is compared: our check names by row, and what the others call it (a pattern over name and message).
ROWS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "counts": (
        ("declared_counts",),
        {
            "lerobot-doctor": r"Metadata.*(count|total_)",
            "robovet": r"STRUCT-006|STRUCT-007|STRUCT-008|DATA-106|DATA-101",
        },
    ),
    "time order": (
        ("time_monotonic", "gaps"),
        {
            "lerobot-doctor": r"Temporal",
            "robovet": r"TIME-20[24-9]",
            "robot-data-audit": r"timestamp_validity",
        },
    ),
    "time grid": (("timestamp_grid",), {"robovet": r"TIME-203"}),
    "indices": (
        ("index_integrity",),
        {"lerobot-doctor": r"Temporal.*ind(ex|ices)", "robovet": r"DATA-10[2345]"},
    ),
    "NaN": (
        ("nan_inf",),
        {
            "lerobot-doctor": r"NaN/Inf in|NaN or Inf",
            "robovet": r"DATA-107",
            "robot-data-audit": r"invalid_values",
        },
    ),
    "action range": (("action_range",), {"lerobot-doctor": r"of values at (min|max)imum"}),
    "zero variance": (
        ("zero_variance",),
        {"lerobot-doctor": r"zero (variance|std)", "robovet": r"DATA-108"},
    ),
    "jumps": (
        ("jumps",),
        {
            "lerobot-doctor": r"Action Quality.*jump|extreme outlier",
            "robot-data-audit": r"action_discontinuity",
        },
    ),
    "lengths": (("length_outlier",), {"lerobot-doctor": r"Episode Health"}),
    "statistics": (
        ("stats_recompute",),
        {"lerobot-doctor": r"(mean|std|min|max) mismatch|computed vs stored", "robovet": r"STATS-30[2-9]"},
    ),
    "videos there": (
        ("video_exists",),
        {
            "lerobot-doctor": r"ideo files? missing",
            "robovet": r"VIDEO-401|STRUCT-009",
            "robot-data-audit": r"video_stream_presence",
        },
    ),
    "video freeze": (("video_freeze",), {"robot-data-audit": r"video_freeze"}),
    "frames and rows": (
        ("frame_count", "duration_drift"),
        {
            "lerobot-doctor": r"frame count|fps mismatch",
            "robovet": r"VIDEO-40[2-9]",
            "robot-data-audit": r"visual_timestamp|video_timestamp",
        },
    ),
    "idle": (("idle_ratio",), {"robot-data-audit": r"idle"}),
}
Findings = list[tuple[str, str]]
#: These list what passed, too: without a result of a check they have not looked.
LISTS_PASSES = ("robovet", "robot-data-audit")
SWITCH = "those dimensions have two values, a hand that is open or closed: we do not call a switch saturated"
IDLE = (
    "a speed below its limit is idle, which slow demonstrations are for two thirds of their time; we "
    "count steps in which nothing moves by a thousandth of its range (`thresholds` asks for another line)"
)
ONE_PATH = "the path template resolves for one episode of five: it reads that one, we the files there are"
NO_DATA = "there is no data: what could not be measured is `unresolved` with us, a warning with it"
#: Tree, row and the tools that say something else than we: why.
REASONS: dict[tuple[str, str], dict[tuple[str, ...], str]] = {
    ("g1_bottle_v21_partial", "counts"): {
        (
            "lerobot-doctor",
            "robovet",
        ): "`total_videos` says 100, two are there: it compares episodes and frames"
    },
    ("g1_bottle_v21_partial", "jumps"): {
        ("lerobot-doctor",): "it takes the mean over all dimensions, beyond 8 std; we look at each of them"
    },
    ("g1_bottle_v21_partial", "statistics"): {
        ("lerobot-doctor",): "version 2.1 keeps them by episode, and it looks for `stats.json`"
    },
    ("g1_bottle_v21_partial", "idle"): {("robot-data-audit",): IDLE},
    ("gr00t_picknplace_v20", "counts"): {("lerobot-doctor",): "it compares the number of episodes alone"},
    ("gr00t_picknplace_v20", "action range"): {("lerobot-doctor",): SWITCH},
    ("gr00t_picknplace_v20", "zero variance"): {
        ("robovet",): "it names the same dimensions, as information: normalising by them would divide by zero"
    },
    ("gr00t_picknplace_v20", "statistics"): {("robovet",): ONE_PATH},
    ("gr00t_picknplace_v20", "idle"): {("robot-data-audit",): IDLE},
    ("ioai_invalid_v3_missing_episodes_parquet", "time order"): {("lerobot-doctor",): NO_DATA},
    ("ioai_invalid_v3_missing_episodes_parquet", "lengths"): {("lerobot-doctor",): NO_DATA},
    ("ioai_lerobotv2", "frames and rows"): {
        ("robot-data-audit",): "it compares the stamps of three frames with their rows, we counts and ends"
    },
    ("ioai_lerobotv2_image", "videos there"): {
        ("robovet",): "its pictures stand in the Parquet files; it takes them for missing videos"
    },
}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at in one tree: our verdict and the others' by tool."""

    tree: str
    row: str
    ours: str
    theirs: dict[str, str]

    @property
    def looked(self) -> dict[str, str]:
        """What those say that looked."""
        return {name: said for name, said in self.theirs.items() if said not in ("-", "crash")}

    @property
    def differ(self) -> list[str]:
        """The tools that found something where we did not, or the other way round."""
        return [name for name, said in self.looked.items() if _is_bad(said) != _is_bad(self.ours)]

    @property
    def found(self) -> bool:
        """Whether anybody found something."""
        return _is_bad(self.ours) or any(map(_is_bad, self.looked.values()))

    def reason(self, peer: str) -> str | None:
        """Why ``peer`` says something else; ``None`` where nobody wrote it down."""
        known = REASONS.get((self.tree, self.row), {})
        return next((why for peers, why in known.items() if peer in peers), None)


def main() -> int:
    """Run everything and print one table; 1 where a page would have a disagreement without its reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--venvs", type=Path, default=Path(".peer-venvs"))
    parser.add_argument("--page", type=Path, help="write the table and the reasons there")
    options = parser.parse_args()
    if not options.folders:
        parser.error("no trees: set EMBOFLOW_SAMPLES, or name folders (make compare-quality TREES='a b')")
    lines = list(compared(options.folders, options.venvs))
    print("\n".join(table(lines)), summary(lines), sep="\n\n")
    if options.page is None:
        return 0
    options.page.write_text(page(lines), encoding="utf-8")
    wrong = unexplained(lines)
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


def compared(folders: list[Path], venvs: Path) -> Iterator[Line]:
    """Every row of every LeRobot tree, as ours and the others judge it."""
    for folder in folders:
        form = format_of(folder)
        if not form.startswith("lerobot"):  # the others would judge what they cannot read
            print(f"{folder.name} is {form}: left out", file=sys.stderr)
            continue
        checks = {check["check"]: check for check in quality_report(folder)["checks"]}
        found: dict[str, Findings | None] = {}
        for name, run in PEERS.items():
            print(f"{folder.name}: {name}", file=sys.stderr)
            found[name] = run(venvs / name / "bin", folder)
        for row, (ours, patterns) in ROWS.items():
            mine = worst(_severity(checks[name]) for name in ours if name in checks)
            theirs = {name: _of(name, found[name], patterns.get(name)) for name in PEERS}
            yield Line(folder.name, row, mine, theirs)


def table(lines: list[Line]) -> Iterator[str]:
    """A line for each thing in which anybody found something."""
    yield f"| tree | what | ours | {' | '.join(PEERS)} |"
    yield "|---|---|---|" + "---|" * len(PEERS)
    for line in lines:
        if line.found:
            yield f"| {line.tree} | {line.row} | {line.ours} | {' | '.join(line.theirs.values())} |"


def summary(lines: list[Line]) -> str:
    """How many verdicts of others agree with ours."""
    differ = sum(len(line.differ) for line in lines)
    agreed = sum(len(line.looked) for line in lines) - differ
    return f"{agreed} verdicts agree on whether there is something to look at, {differ} differ."


def unexplained(lines: list[Line]) -> list[str]:
    """Disagreements without a reason, and reasons of what is no disagreement."""
    differ = {(line.tree, line.row, peer) for line in lines for peer in line.differ}
    known = {(*key, peer) for key, reasons in REASONS.items() for peers in reasons for peer in peers}
    missing = [f"no reason: {', '.join(key)}" for key in sorted(differ - known)]
    return missing + [f"a reason of no disagreement: {', '.join(key)}" for key in sorted(known - differ)]


def page(lines: list[Line]) -> str:
    """``docs/quality-peers.md``."""
    return "\n".join(_paragraphs(lines)) + "\n"


def _paragraphs(lines: list[Line]) -> Iterator[str]:
    trees = len({line.tree for line in lines})
    yield "# Our quality checks beside three other tools"
    yield ""
    yield (
        "`make compare-quality` wrote this: lerobot-doctor, robovet and robot-data-audit, each in a virtual "
        f"environment of its own, over {trees} public LeRobot trees. {summary(lines)} A dash: not looked at. "
        "`crash`: ended without a report (index columns of type DOUBLE are a TypeError to lerobot-doctor; we "
        "read them as the whole numbers that they are). Where anybody found something:"
    )
    yield ""
    yield from table(lines)
    yield ""
    yield "## Why they differ"
    yield ""
    yield "| tree | what | who | ours | theirs | why |"
    yield "|---|---|---|---|---|---|"
    for line in lines:
        for peer in line.differ:
            cells = (line.tree, line.row, peer, line.ours, line.theirs[peer], line.reason(peer) or "?")
            yield f"| {' | '.join(cells)} |"


def _severity(check: dict[str, Any]) -> str:
    return check["severity"] if check["coverage"]["resolved"] else "unresolved"


def worst(severities: Any) -> str:
    """The worst of several; a dash for none."""
    return max(severities, key=RANK.__getitem__, default="-")


def _of(peer: str, found: Findings | None, pattern: str | None) -> str:
    if pattern is None:
        return "-"
    if found is None:
        return "crash"
    severities = [severity for text, severity in found if re.search(pattern, text)]
    return worst(severities) if severities else "-" if peer in LISTS_PASSES else "pass"


def _is_bad(verdict: str) -> bool:
    return verdict in ("warn", "fail")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def doctor(programs: Path, folder: Path) -> Findings | None:
    """lerobot-doctor's messages, each with its check's name before it."""
    said = _run([str(programs / "lerobot-doctor"), str(folder), "--json"]).stdout
    try:
        report = json.loads(said[said.index("{") :])
    except ValueError:
        return None
    return [
        (f"{check['name']}: {message['message']}", message["severity"].lower())
        for check in report["checks"]
        for message in check["messages"]
    ]


def robovet(programs: Path, folder: Path) -> Findings | None:
    """robovet's results by their ids."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "report.json"
        _run([str(programs / "robovet"), "doctor", str(folder), "--json", str(out)])
        if not out.is_file():
            return None
        results = json.loads(out.read_text())["results"]
    return [(f"{one['check_id']}: {one['summary']}", one["severity"].lower()) for one in results]


def audit(programs: Path, folder: Path) -> Findings | None:
    """robot-data-audit's metrics: those that exclude an episode fail, those with a finding warn."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "report.json"
        _run([str(programs / "rda"), "audit", str(folder), "--format", "json", "--output", str(out)])
        if not out.is_file():
            return None
        episodes = json.loads(out.read_text())["episodes"]
    found: Findings = []
    for episode in episodes:
        for name, metric in (episode.get("metrics") or {}).items():
            if metric.get("availability") != "available":
                continue
            bad = "fail" if metric.get("passed") is False else "warn" if metric.get("has_finding") else "pass"
            found.append((name, bad))
    return found


PEERS = {"lerobot-doctor": doctor, "robovet": robovet, "robot-data-audit": audit}

if __name__ == "__main__":
    sys.exit(main())
