"""What the server's log says: why it did not start, and that it never grows without bound."""

import json
import re
import signal
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.mongo.embedded.processes import Handle, Process

MAX_LOG_BYTES: Final = 16 * 1024 * 1024
TAIL_BYTES: Final = 256 * 1024
#: Lines that say that it failed, not why: the assertion's number, the banner, the signal.
NO_REASON: Final = frozenset({23089, 23090, 23091, 6384300, 31380, 31445, 31427})
#: Warnings of every healthy start.
ALWAYS_THERE: Final = frozenset({22120, 22138, 22184, 22178, 22181, 5123300})


def failure_reason(log: Path, offset: int = 0) -> str | None:
    """The first error, else the last warning, logged from byte ``offset`` on, as one line."""
    reasons: dict[str, list[str]] = {"EF": [], "W": []}
    for entry in _entries(log, offset):
        severity, number = entry.get("s"), entry.get("id")
        if number in NO_REASON or number in ALWAYS_THERE:
            continue
        for severities, lines in reasons.items():
            if isinstance(severity, str) and severity in severities:
                lines.append(_reason(entry))
    # The first error is the cause; what follows is the server falling over it.
    return reasons["EF"][0] if reasons["EF"] else reasons["W"][-1] if reasons["W"] else None


def log_size(log: Path) -> int:
    """Bytes in the log; 0 when there is none."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def bound_log(log: Path, server: Process | None = None, *, max_bytes: int = MAX_LOG_BYTES) -> bool:
    """Set the log aside as `mongod.log.1` once it is over ``max_bytes``; a running server begins a new one.

    Call it under the start lock.
    """
    if log_size(log) <= max_bytes:
        return False
    log.replace(log.with_name(log.name + ".1"))
    if server is not None:
        with Handle(server) as running:
            running.send(signal.SIGUSR1)  # `--logRotate reopen`: close the renamed file, open the name again
    return True


def _entries(log: Path, offset: int) -> list[dict[str, Any]]:
    try:
        with log.open("rb") as file:
            file.seek(max(offset, log.stat().st_size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def _reason(entry: dict[str, Any]) -> str:
    parts = [str(entry.get("msg", ""))]
    attributes = entry.get("attr")
    if isinstance(attributes, dict):
        for name in ("error", "errmsg", "message", "reason"):
            value = attributes.get(name)
            if isinstance(value, dict):
                value = value.get("errmsg") or " ".join(
                    str(value[key]) for key in ("msg", "error_str") if key in value
                )
            if isinstance(value, str) and value:
                parts.append(re.sub(r"\x1b\[[0-9;]*m", "", value))
    return ": ".join(part.strip() for part in parts if part.strip())[:500]
