"""Start one `mongod` on one place, and make it the primary of its one-member replica set."""

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import ConfigurationError, EmboflowError, ErrorKind
from emboflow_dagster.mongo.away import FULL_BYTES
from emboflow_dagster.mongo.embedded.binary import version_pair
from emboflow_dagster.mongo.embedded.log import bound_log, failure_reason, log_size
from emboflow_dagster.mongo.embedded.place import Instance, Place
from emboflow_dagster.mongo.embedded.wire import run_command

START_TIMEOUT_S: Final = 60.0
PORTS_TRIED: Final = 8
PORTS_DRAWN: Final = 16
OWN_PORTS: Final = range(20_000, 32_000)
CACHE_VARIABLE: Final = "EMBOFLOW_MONGOD_CACHE_GB"
DEFAULT_CACHE_GB: Final = 0.25
TRANSACTION_LIFETIME_S: Final = 5
OPLOG_MB: Final = 256
ELECTION_TIMEOUT_MS: Final = 1_000
SLOW_MS: Final = 5_000
EXIT_LISTEN: Final = 48
EXIT_DATA_TOO_OLD_OR_NEW: Final = 62
CODE_NOT_INITIALIZED: Final = 94
#: All that the server sees of our environment: it outlives us, and secrets have no business in it.
PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "GLIBC_TUNABLES")


class PortTakenError(Exception):
    """Somebody listens on that port already."""


def command_line(binary: Path, place: Place, instance: Instance, port: int) -> list[str]:
    """The arguments of the server, every one with its reason.

    Raises:
        ConfigurationError: `EMBOFLOW_MONGOD_CACHE_GB` is not a number from 0.25 to 1024.
    """
    return [
        str(binary),
        "--fork",  # detached from terminal and starter; returns once it listens, or with the exit code
        *("--dbpath", str(place.data)),
        *("--port", str(port)),
        *("--bind_ip", "127.0.0.1"),
        "--nounixsocket",
        *("--replSet", instance.set_name),
        *("--oplogSize", str(OPLOG_MB)),  # the default is 5 % of the disk; nobody replicates from us
        *("--wiredTigerCacheSizeGB", f"{cache_gb():g}"),
        "--noscripting",
        *("--setParameter", f"transactionLifetimeLimitSeconds={TRANSACTION_LIFETIME_S}"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        *("--logpath", str(place.log)),
        "--logappend",
        *("--logRotate", "reopen"),
        "--quiet",
        *("--slowms", str(SLOW_MS)),
    ]


def cache_gb() -> float:
    """Size of the storage engine's cache in GB.

    Raises:
        ConfigurationError: `EMBOFLOW_MONGOD_CACHE_GB` is not a number from 0.25 to 1024.
    """
    text = os.environ.get(CACHE_VARIABLE)
    try:
        value = float(text) if text else DEFAULT_CACHE_GB
    except ValueError:
        value = 0.0
    if not DEFAULT_CACHE_GB <= value <= 1024:  # noqa: PLR2004 - MongoDB's own least, and more than any machine's
        raise ConfigurationError(
            f"{CACHE_VARIABLE} is {text!r}; a number from {DEFAULT_CACHE_GB} to 1024 is allowed"
        )
    return value


def refuse_other_versions(instance: Instance, version: str, place: Place) -> None:
    """Refuse data of a newer server, and data too old to be upgraded in one step.

    Raises:
        ConfigurationError: With both versions.
    """
    if instance.server_version is None:
        return
    data, ours = version_pair(instance.server_version), version_pair(version)
    if data > ours:
        raise ConfigurationError(
            f"{place.data} was opened by MongoDB {instance.server_version}, this mongod is older: {version}",
            kind=ErrorKind.DATA_FOLDER,
            hint="set EMBOFLOW_MONGOD to a mongod at least as new as the data",
        )
    if ours[0] > data[0] + 1:
        raise ConfigurationError(
            f"{place.data} was last opened by MongoDB {instance.server_version}; {version} opens data of the "
            f"release series {ours[0] - 1} and {ours[0]} only",
            kind=ErrorKind.DATA_FOLDER,
            hint="open it with every release series in between first, or use an older mongod",
        )


def launch(
    binary: Path, place: Place, instance: Instance, preferred: int | None, extra: Sequence[str]
) -> int:
    """Start the server and return its port: ``preferred`` if it is free, else another.

    Raises:
        ConfigurationError: It does not start; the message carries its own reason.
    """
    for attempt in range(PORTS_TRIED):
        port = _free_port(preferred if attempt == 0 else None)
        try:
            _launch_on(port, binary, place, instance, extra)
        except PortTakenError:
            continue
        return port
    raise ConfigurationError(
        f"{PORTS_TRIED} free ports in a row on 127.0.0.1 were taken before mongod could listen on them",
        kind=ErrorKind.MONGOD_START,
    )


def _free_port(preferred: int | None) -> int:
    # Below the range that the kernel gives to outgoing connections, so nobody gets it by chance while we
    # are down: a server whose port changed first asks the old address whether that is itself, up to 30 s.
    drawn = random.SystemRandom().sample(OWN_PORTS, PORTS_DRAWN)
    for port in (*([preferred] if preferred else []), *drawn, 0):
        with socket.socket() as probe:
            # As mongod does: the closed connections of its predecessor do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigurationError("no free port on 127.0.0.1", kind=ErrorKind.MONGOD_START)


def _launch_on(port: int, binary: Path, place: Place, instance: Instance, extra: Sequence[str]) -> None:
    bound_log(place.log)
    offset = log_size(place.log)
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        ran = subprocess.run(
            [*command_line(binary, place, instance, port), *extra],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=START_TIMEOUT_S,
            start_new_session=True,  # Ctrl-C while it starts is for us, not for it
            cwd=place.root,
            env={**environment, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise start_failed(place, offset, f"mongod does not listen after {START_TIMEOUT_S:.0f} s") from None
    if ran.returncode == 0:
        return
    if ran.returncode == EXIT_LISTEN:
        raise PortTakenError
    said = [line for line in ran.stdout.splitlines() if line.strip() and "--fork" not in line]
    what = f"mongod ended with {ran.returncode}"
    if failure_reason(place.log, offset) is None and said:
        what += f": {said[-1].strip()[:300]}"
    kind = ErrorKind.DATA_FOLDER if ran.returncode == EXIT_DATA_TOO_OLD_OR_NEW else ErrorKind.MONGOD_START
    raise start_failed(place, offset, what, kind=kind)


def start_failed(
    place: Place, offset: int, what: str, *, kind: ErrorKind = ErrorKind.MONGOD_START
) -> EmboflowError:
    """The error for a start that failed, with the reason that the log gives."""
    reason = failure_reason(place.log, offset)
    free = shutil.disk_usage(place.root).free
    if free < FULL_BYTES:  # then the log may hold nothing, either
        reason = f"No space left on the device of {place.root}: {free} bytes are free"
    if reason and ("No space left" in reason or "ENOSPC" in reason):
        kind = ErrorKind.DISK_FULL
    return ConfigurationError(
        f"the embedded database did not start: {what}" + (f": {reason}" if reason else ""),
        kind=kind,
        hint=f"the whole story is in {place.log}",
    )


def make_primary(port: int, instance: Instance, *, deadline: float) -> str | None:
    """Configure the replica set as far as needed and wait for the primary; returns its version.

    Safe to repeat from any state that a killed starter left behind. ``None``: not before ``deadline``
    (of ``time.monotonic``), or the server went away.

    Raises:
        ConfigurationError: The data belongs to another replica set.
    """
    host = f"127.0.0.1:{port}"
    while time.monotonic() < deadline:
        try:
            hello = run_command(port, {"hello": 1})
            if hello.get("isWritablePrimary") and hello.get("me") == host:
                return str(run_command(port, {"buildInfo": 1})["version"])
            if not hello.get("secondary"):
                _configure(port, host, instance)
        except OSError:
            time.sleep(0.05)
        time.sleep(0.01)
    return None


def _configure(port: int, host: str, instance: Instance) -> None:
    reply = run_command(port, {"replSetGetConfig": 1})
    member = {"_id": 0, "host": host}
    if reply.get("code") == CODE_NOT_INITIALIZED:
        settings = {"electionTimeoutMillis": ELECTION_TIMEOUT_MS}
        first = {"_id": instance.set_name, "version": 1, "members": [member], "settings": settings}
        run_command(port, {"replSetInitiate": first}, timeout_s=START_TIMEOUT_S)
        return
    config: dict[str, Any] = reply.get("config") or {}
    if config and config.get("_id") != instance.set_name:
        raise ConfigurationError(
            f"the data belongs to the replica set {config.get('_id')!r}, not to {instance.set_name!r}",
            kind=ErrorKind.DATA_FOLDER,
            hint="put back the data folder and the instance.json that belong together",
        )
    hosts = [str(known.get("host")) for known in config.get("members", [])]
    if config and hosts != [host]:
        # The port is another one than last time; a member that does not find itself never becomes primary.
        config["members"] = [{**config["members"][0], **member}]
        config["version"] = int(config["version"]) + 1
        run_command(port, {"replSetReconfig": config, "force": True}, timeout_s=START_TIMEOUT_S)
