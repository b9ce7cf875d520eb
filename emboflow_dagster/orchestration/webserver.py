"""The running Dagster webserver: where it is, and what is asked of it. Needs no Dagster to be imported."""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, ExecutionError, UnavailableError

LOCATION: Final = "emboflow"
_FILE: Final = "emboflow-webserver.json"
_RELOAD: Final = """
mutation Reload($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename
    ... on WorkspaceLocationEntry {
      loadStatus
      locationOrLoadError { __typename ... on PythonError { message } }
    }
    ... on RepositoryLocationNotFound { message }
    ... on ReloadNotSupported { message }
    ... on UnauthorizedError { message }
    ... on PythonError { message }
  }
}
"""
_LOCATIONS: Final = """
query Locations {
  workspaceOrError {
    __typename
    ... on Workspace {
      locationEntries {
        name
        loadStatus
        locationOrLoadError { __typename ... on PythonError { message } }
      }
    }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Webserver:
    """A webserver's address, without a slash at its end."""

    url: str

    @classmethod
    def known(cls, dagster_home: Path) -> "Webserver | None":
        """The one that ``EMBOFLOW_DAGSTER_URL`` names, else the one that ``emboflow dev`` runs."""
        if url := os.environ.get("EMBOFLOW_DAGSTER_URL"):
            return cls(url.rstrip("/"))
        try:
            found = json.loads((dagster_home / _FILE).read_text())
            os.kill(found["pid"], 0)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(found["url"])

    def announce(self, dagster_home: Path) -> None:
        """Let other processes of this home find the webserver for as long as this process lives."""
        (dagster_home / _FILE).write_text(json.dumps({"url": self.url, "pid": os.getpid()}))

    @staticmethod
    def withdraw(dagster_home: Path) -> None:
        """Take the announcement back."""
        (dagster_home / _FILE).unlink(missing_ok=True)

    def is_up(self, timeout_s: float = 2.0) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=timeout_s) as reply:  # noqa: S310
                return reply.status == 200  # noqa: PLR2004
        except OSError:
            return False

    def ask(
        self, query: str, variables: dict[str, Any] | None = None, *, timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """One GraphQL query; returns its ``data``.

        Raises:
            UnavailableError: It does not answer.
            ExecutionError: It answers with an error.
        """
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        request = urllib.request.Request(  # noqa: S310 - http or https, as configured
            f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310
                answer = json.load(reply)
        except urllib.error.HTTPError as error:
            raise ExecutionError(
                f"{self.url} answers {error.code}{_reason(error)}", kind=ErrorKind.INTERNAL
            ) from error
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{self.url} does not answer: {error}") from error
        if answer.get("errors"):
            raise ExecutionError(f"{self.url}: {answer['errors'][0].get('message')}", kind=ErrorKind.INTERNAL)
        return answer["data"]

    def locations(self) -> dict[str, str]:
        """Code location to ``LOADING``, ``LOADED``, or the reason why it does not load."""
        entries = self.ask(_LOCATIONS)["workspaceOrError"].get("locationEntries", [])
        return {entry["name"]: _status(entry) for entry in entries}

    def reload(self, location: str = LOCATION) -> None:
        """Load a code location anew; it reads the database while loading.

        Raises:
            ExecutionError: There is no such location, or it does not load.
        """
        found = self.ask(_RELOAD, {"name": location})["reloadRepositoryLocation"]
        if found["__typename"] != "WorkspaceLocationEntry":
            raise ExecutionError(f"{location}: {found.get('message')}", kind=ErrorKind.INTERNAL)
        status = _status(found)
        if status not in ("LOADED", "LOADING"):
            raise ExecutionError(f"{location} does not load: {status}", kind=ErrorKind.INTERNAL)


def _reason(error: urllib.error.HTTPError) -> str:
    """What a GraphQL error says: Dagster answers 500 with the message in the body."""
    try:
        return f": {json.load(error)['errors'][0]['message']}"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _status(entry: dict[str, Any]) -> str:
    loaded = entry.get("locationOrLoadError") or {}
    if loaded.get("__typename") == "PythonError":
        return loaded.get("message") or "error"
    return entry["loadStatus"]
