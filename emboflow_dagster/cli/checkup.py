"""The checks of `emboflow doctor`. Each stands alone: what one finds broken keeps no other from looking."""

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.cli import figures
from emboflow_dagster.cli.deployment import settings
from emboflow_dagster.cli.failures import redacted
from emboflow_dagster.errors import EmboflowError

if TYPE_CHECKING:
    from emboflow_dagster.project.settings import Settings

PACKAGE: Final = "emboflow-dagster"
SUPPORTED: Final = ((3, 11), (3, 13))
LOW_DISK_BYTES: Final = 5 << 30
NO_DISK_BYTES: Final = 200 << 20
#: Versions of Dagster's integration libraries are Dagster's own with 16 added to the minor number.
INTEGRATION_OFFSET: Final = 16
_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9._-]+)[^;]*;.*extra\s*==\s*['\"]([a-z0-9]+)['\"]")
_COLLECTIVE: Final = frozenset({"all", "dev"})


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. ``status`` is ``pass``, ``warn`` or ``fail``."""

    name: str
    status: str
    found: str
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row for ``--json``."""
        return asdict(self)


def checkup() -> list[Check]:
    """Every check, in the order a newcomer would fix them."""
    rows = [*_guarded("python", _python), *_guarded("packages", _packages), *_guarded("extras", _extras)]
    try:
        found = settings()
    except EmboflowError as error:
        return [*rows, _failed("settings", error)]
    rows.append(Check("settings", "pass", f"home {found.home}, scope {found.workspace}/{found.project}"))
    for name, look in (
        ("mongod", _mongod),
        ("database", _database),
        ("object store", _object_store),
        ("dagster home", _dagster_home),
    ):
        rows += _guarded(name, lambda look=look: look(found))
    return rows


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    rows: list[Check] = []
    try:
        rows.extend(look())
    except EmboflowError as error:
        rows.append(_failed(name, error))
    except Exception as error:  # noqa: BLE001 - the doctor tells of anything and goes on
        rows.append(Check(name, "fail", redacted(f"{type(error).__name__}: {error}")))
    return rows


def _failed(name: str, error: EmboflowError) -> Check:
    return Check(
        name, "fail", redacted(f"{error.kind.value}: {error.message}"), error.hint and redacted(error.hint)
    )


def _python() -> Iterator[Check]:
    lowest, above = SUPPORTED
    version = ".".join(str(part) for part in sys.version_info[:3])
    fine = lowest <= sys.version_info[:2] < above
    hint = None if fine else f"use Python {lowest[0]}.{lowest[1]} or newer, below {above[0]}.{above[1]}"
    yield Check("python", "pass" if fine else "fail", f"{version} ({sys.executable})", hint)


def _packages() -> Iterator[Check]:
    names = (PACKAGE, "dagster", "dagster-webserver", "dagster-graphql", "dagster-aws", "pymongo", "pydantic")
    versions = {name: _version(name) for name in names}
    missing = [name for name, version in versions.items() if version is None]
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if missing:
        hint = f"pip install {PACKAGE}"
        yield Check("packages", "fail", f"not installed: {', '.join(missing)}", hint)
    else:
        yield Check("packages", "pass", text)
    own = versions["dagster"]
    if own is not None:
        odd = [n for n in names if n.startswith("dagster-") and versions[n] not in (None, _sibling(n, own))]
        found = f"dagster {own}" + "".join(f", {n} {versions[n]}" for n in odd)
        hint = f"pip install {' '.join(f'{n}=={_sibling(n, own)}' for n in odd)}" if odd else None
        yield Check("dagster versions", "fail" if odd else "pass", found if odd else f"all of {own}", hint)


def _sibling(name: str, dagster: str) -> str:
    if name != "dagster-aws":
        return dagster
    _, minor, *rest = dagster.split(".")
    return ".".join(("0", str(int(minor) + INTEGRATION_OFFSET), *rest))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extras() -> Iterator[Check]:
    extras: dict[str, list[str]] = {}
    for line in importlib.metadata.requires(PACKAGE) or ():
        if (found := _REQUIREMENT.match(line)) and found[2] not in _COLLECTIVE:
            extras.setdefault(found[2], []).append(found[1])
    absent = {extra: [n for n in names if _version(n) is None] for extra, names in sorted(extras.items())}
    lacking = [extra for extra, names in absent.items() if names]
    there = [extra for extra, names in absent.items() if not names]
    if not lacking:
        yield Check("extras", "pass", ", ".join(there))
        return
    text = "; ".join(f"{extra} lacks {', '.join(absent[extra])}" for extra in lacking)
    hint = f"pip install '{PACKAGE}[{','.join(lacking)}]' to read those formats too"
    yield Check("extras", "warn", text, hint)


def _mongod(found: "Settings") -> Iterator[Check]:
    from emboflow_dagster.mongo import embedded

    if found.mongo_uri is not None:
        yield Check("mongod", "pass", "not needed: EMBOFLOW_MONGO_URI names a server")
        return
    info = embedded.check_mongod(embedded.locate_mongod())
    if not info.usable:
        yield Check("mongod", "fail", info.problem or str(info.path), info.hint)
        return
    yield Check("mongod", "pass", f"{info.version} ({info.path})")


def _database(found: "Settings") -> Iterator[Check]:
    from emboflow_dagster.mongo import embedded
    from emboflow_dagster.mongo.client import connect

    if found.mongo_uri is None:
        server = embedded.find(found.home)
        if server is None:
            unfit = [row for row in _folder("database", found.home / "mongo") if row.status == "fail"]
            if unfit:
                yield from unfit
                return
            yield Check("database", "pass", f"embedded, not running; started on first use in {found.home}")
            return
        uri, text = server.uri, f"embedded, pid {server.pid}, port {server.port}"
    else:
        uri, text = found.mongo_uri, redacted(found.mongo_uri)
    mongo = connect(uri, found.database)
    try:
        yield Check("database", "pass", f"{text}, database {found.database}")
        yield from _inside(mongo)
    finally:
        mongo.close()


def _inside(mongo: Any) -> Iterator[Check]:
    from emboflow_dagster.mongo.setup import is_current, missing

    # Only a replica set commits this; nothing is written.
    mongo.in_transaction(lambda session: mongo["workspaces"].find_one({}, {"_id": 1}, session=session))
    yield Check("transactions", "pass", "committed on the replica set")
    if not is_current(mongo):
        yield Check("schema", "warn", "not set up yet", "`emboflow init` does; so does the first command")
        return
    drifted = missing(mongo)
    if drifted:
        yield Check(
            "schema",
            "fail",
            f"{len(drifted)} drifted: {', '.join(drifted[:5])}",
            "`emboflow init` repairs it",
        )
    else:
        yield Check("schema", "pass", "collections, validators and indexes as this release has them")


def _object_store(found: "Settings") -> Iterator[Check]:
    from emboflow_dagster.object_storage.store import open_store

    store = open_store(found.object_store)
    place = store.path_of("sha256")
    if place is None:
        yield Check("object store", "pass", store.check())
        return
    yield from _folder("object store", place.parent)


def _dagster_home(found: "Settings") -> Iterator[Check]:
    from emboflow_dagster.orchestration.webserver import Webserver

    yield from _folder("dagster home", found.dagster_home)
    server = Webserver.known(found.dagster_home)
    if server is None:
        yield Check("dagster", "pass", "no webserver is running here; `emboflow dev` starts one")
    elif server.is_up():
        yield Check("dagster", "pass", server.url)
    else:
        yield Check("dagster", "warn", f"{server.url} does not answer", "is it still starting?")


def _folder(name: str, folder: Path) -> Iterator[Check]:
    """Whether a folder can be written durably, and how much room it has. It is not made if it is absent."""
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        yield Check(name, "fail", f"{there} cannot be written", "change its owner, or set another folder")
        return
    probe = there / f".emboflow-doctor-{os.getpid()}"
    try:
        with probe.open("xb") as out:
            out.write(b"emboflow")
            out.flush()
            os.fsync(out.fileno())
        handle = os.open(there, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        yield Check(name, "fail", f"{there}: cannot write and fsync: {error.strerror}")
        return
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(there).free
    text = f"{folder}: writable, fsync works, {figures.size(free)} free"
    if free < NO_DISK_BYTES:
        yield Check(name, "fail", text, "make room")
    elif free < LOW_DISK_BYTES:
        yield Check(name, "warn", text, "recordings are large: make room soon")
    else:
        yield Check(name, "pass", text)
