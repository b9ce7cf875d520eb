"""Where the server of one home lives, and what may be there.

::

    <home>/mongo/
      instance.json   which data this is: a random id, the version that last opened it; written first
      data/           `mongod --dbpath`
      log/            mongod.log, mongod.log.1
      state.json      the running server: pid, start time, port; a hint, checked against the kernel
      start.lock      held while somebody starts or stops the server
      users.lock      shared by every process that uses the server
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ConfigurationError, ErrorKind, shown
from emboflow_dagster.mongo.embedded.processes import Process

LOCK_NAMES = frozenset({"start.lock", "users.lock"})


@dataclass(frozen=True)
class Instance:
    """What is known about the data folder without opening it."""

    id: str  # 12 hex digits; in the replica set's name, so a URI of one home never reaches another's data
    server_version: str | None = None
    ready: bool = False  # a primary was seen once: from then on there may be data

    @property
    def set_name(self) -> str:
        """The replica set's name."""
        return f"emboflow-{self.id}"


@dataclass(frozen=True)
class State:
    """The server that was started last."""

    pid: int
    started: str
    port: int
    instance: str

    @property
    def process(self) -> Process:
        """The incarnation that was started."""
        return Process(self.pid, self.started)


class Place:
    """The folders and files of one home's server."""

    def __init__(self, home: Path) -> None:
        # Resolved: the data folder's path is how a process is recognised, so it has one spelling.
        self.home = home.resolve()
        self.root = self.home / "mongo"
        self.data = self.root / "data"
        self.log = self.root / "log" / "mongod.log"
        self.start_lock = self.root / "start.lock"
        self.users_lock = self.root / "users.lock"
        self._instance = self.root / "instance.json"
        self._state = self.root / "state.json"

    def make(self) -> None:
        """Create the folder that holds it all.

        Raises:
            ConfigurationError: It cannot be created or written, or belongs to another user.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            owner = self.root.stat().st_uid
        except OSError as error:
            raise _refused(f"cannot create {self.root}: {error.strerror}") from error
        if owner != os.geteuid():
            raise _refused(
                f"{self.root} belongs to user {owner}, this process is user {os.geteuid()}",
                hint="run as the owner, or set EMBOFLOW_HOME to a folder of your own",
            )
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise _refused(f"{self.root} cannot be written by this process")

    def instance(self) -> Instance | None:
        """The data folder's identity, or ``None`` before the first start.

        Raises:
            ConfigurationError: The file is there but is not one of ours.
        """
        try:
            raw = json.loads(self._instance.read_text())
            return Instance(**raw)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise _refused(f"{self._instance} cannot be read: {error}") from error

    def claim(self) -> Instance:
        """The identity; made now if the place is empty, refused if it holds what we did not make.

        Raises:
            ConfigurationError: There are files that no embedded server of ours wrote.
        """
        known = self.instance()
        if known is None:
            strangers = sorted(entry.name for entry in self.root.iterdir() if entry.name not in LOCK_NAMES)
            if strangers:
                raise _refused(
                    f"{self.root} has no instance.json but holds {shown(', '.join(strangers))}: "
                    "not made by an embedded server of EmboFlow"
                )
            known = Instance(secrets.token_hex(6))
            self.write_instance(known)
        if not known.ready and self.data.exists():
            # Its first start was cut short, so nobody was ever given a URI to write to.
            shutil.rmtree(self.data)
        if known.ready and not (self.data / "WiredTiger").exists():
            raise _refused(
                f"{self.data} is not what {self._instance.name} describes: its WiredTiger file is missing",
                hint="put the data folder back; to start empty, remove the mongo folder of the home",
            )
        for folder in (self.data, self.log.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        return known

    def opened_by(self, version: str, known: Instance) -> None:
        """Remember which server version has opened the data."""
        if (version, True) != (known.server_version, known.ready):
            self.write_instance(replace(known, server_version=version, ready=True))

    def write_instance(self, instance: Instance) -> None:
        """Replace the identity file, durably."""
        _write_json(self._instance, asdict(instance))

    def state(self) -> State | None:
        """The server that was started last, which may be gone; ``None`` when nothing readable says."""
        try:
            return State(**json.loads(self._state.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_state(self, state: State) -> None:
        """Say which server runs."""
        _write_json(self._state, asdict(state))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with temporary.open("w") as file:
        file.write(json.dumps(content) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refused(message: str, *, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(
        message,
        kind=ErrorKind.DATA_FOLDER,
        hint=hint or "set EMBOFLOW_HOME to another folder, or EMBOFLOW_MONGO_URI to a server of your own",
    )
