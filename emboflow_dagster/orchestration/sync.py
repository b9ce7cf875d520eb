"""After something was published: let the running Dagster see it. Cheap when nothing runs."""

from dataclasses import dataclass
from pathlib import Path

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.orchestration.webserver import LOCATION, Webserver


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What became of it: reloaded locations, or why none was."""

    url: str | None
    reloaded: tuple[str, ...] = ()
    message: str = ""

    def to_json(self) -> dict[str, object]:
        """The report for ``--json``."""
        return {"url": self.url, "reloaded": list(self.reloaded), "message": self.message}


def sync(dagster_home: Path, *, url: str | None = None, location: str = LOCATION) -> SyncReport:
    """Reload the code location of the webserver that is known; it reads MongoDB while it loads.

    Never needed for correctness: a queued run of a version that the location does not hold is executed
    by the job for any version. Never raises: what was published stays published.

    Args:
        dagster_home: Whose webserver; ``emboflow dev`` announces itself there.
        url: A webserver elsewhere.
        location: The code location's name.
    """
    server = Webserver(url.rstrip("/")) if url else Webserver.known(dagster_home)
    if server is None:
        return SyncReport(None, message="no Dagster webserver is known; it reads the database when it starts")
    try:
        server.reload(location)
    except EmboflowError as error:
        return SyncReport(server.url, message=f"error[{error.kind.value}]: {error.message}")
    return SyncReport(server.url, reloaded=(location,), message=f"{server.url} shows it")
