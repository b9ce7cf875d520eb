"""Our checks beside three others over the same LeRobot trees: lerobot-doctor, robovet, robot-data-audit.

Each is executed as its users do, in a virtual environment of its own (``.peer-venvs``, made by
``make compare-quality``), offline. A dash means that a tool does not look at something, ``crash`` that it
ended without a report. Prints the table of docs/quality.md.

    python benchmarks/quality/compare.py FOLDER... [--venvs .peer-venvs]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from emboflow_dagster.formats.probe import format_of
from emboflow_dagster.formats.quality import quality_report

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


def main() -> None:
    """Run everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--venvs", type=Path, default=Path(".peer-venvs"))
    options = parser.parse_args()
    peers = {"lerobot-doctor": doctor, "robovet": robovet, "robot-data-audit": audit}
    print(f"| tree | what | ours | {' | '.join(peers)} |")
    print("|---|---|---|" + "---|" * len(peers))
    agreed = differ = 0
    for folder in options.folders:
        form = format_of(folder)
        if not form.startswith("lerobot"):  # the others would judge what they cannot read
            print(f"{folder.name} is {form}: left out", file=sys.stderr)
            continue
        checks = {check["check"]: check for check in quality_report(folder)["checks"]}
        found = {name: run(options.venvs / name / "bin", folder) for name, run in peers.items()}
        for row, (ours, patterns) in ROWS.items():
            mine = worst(_severity(checks[name]) for name in ours if name in checks)
            theirs = {name: _of(found[name], patterns.get(name)) for name in peers}
            looked = [value for value in theirs.values() if value not in ("-", "crash")]
            agreed += sum(_is_bad(value) == _is_bad(mine) for value in looked)
            differ += sum(_is_bad(value) != _is_bad(mine) for value in looked)
            if _is_bad(mine) or any(map(_is_bad, looked)):
                print(f"| {folder.name} | {row} | {mine} | {' | '.join(theirs.values())} |")
    print(f"\n{agreed} verdicts agree on whether there is something to look at, {differ} differ.")


def _severity(check: dict[str, Any]) -> str:
    return check["severity"] if check["coverage"]["resolved"] else "unresolved"


def worst(severities: Any) -> str:
    """The worst of several; a dash for none."""
    return max(severities, key=RANK.__getitem__, default="-")


def _of(found: Findings | None, pattern: str | None) -> str:
    if pattern is None:
        return "-"
    if found is None:
        return "crash"
    severities = [severity for text, severity in found if re.search(pattern, text)]
    return worst(severities) if severities else "pass"


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


if __name__ == "__main__":
    main()
