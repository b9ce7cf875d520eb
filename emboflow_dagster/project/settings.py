"""Where things are and who is asking: from the environment, or said outright."""

import getpass
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from emboflow_dagster.errors import ConfigurationError, ErrorKind, InvalidInputError, NotFoundError
from emboflow_dagster.model.run import CachePolicy
from emboflow_dagster.model.text import check_slug

DEFAULT_DATABASE = "emboflow"
DEFAULT_SLUG = "default"
DEFAULT_CACHE_WAIT_S = 3600.0
MAX_CACHE_WAIT_S = 7 * 86_400.0
DEFAULT_PREFIX_MAX_BYTES = 256 << 30
_PREFIX = "EMBOFLOW_PREFIX_MAX_BYTES"
_DATABASE = re.compile(r"^[A-Za-z0-9_-]{1,63}$")
_SERVERS_OWN = frozenset({"admin", "config", "local"})
_ACTOR = re.compile(r"^(user|system):([A-Za-z0-9_-]{1,64})$")


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment, one scope, one actor.

    ``mongo_uri`` ``None`` means the embedded server of ``home``; ``object_store`` is a URL.
    ``actor`` is ``user:<id>`` or ``system:<name>``. ``allow_gridfs``: payloads may be put into GridFS when a
    put asks for it (never by default, C-03).
    """

    home: Path
    mongo_uri: str | None
    database: str
    object_store: str
    workspace: str
    project: str
    actor: str
    dagster_home: Path
    allow_gridfs: bool = False
    #: What every node and run may be stricter than, never less strict.
    cache: CachePolicy = CachePolicy.USE
    #: How long a task waits for another one that computes the same, in seconds.
    cache_wait_s: float = DEFAULT_CACHE_WAIT_S
    #: How much of a prefix of an object store is brought here for one task.
    prefix_max_bytes: int = DEFAULT_PREFIX_MAX_BYTES
    #: The largest payload that a put or an upload may have (P-37); ``None``: any size.
    max_blob_bytes: int | None = None

    @classmethod
    def from_env(
        cls,
        *,
        home: Path | str | None = None,
        mongo_uri: str | None = None,
        database: str | None = None,
        object_store: str | None = None,
        workspace: str | None = None,
        project: str | None = None,
        actor: str | None = None,
        allow_gridfs: bool | None = None,
        cache: CachePolicy | None = None,
        cache_wait_s: float | None = None,
        prefix_max_bytes: int | None = None,
        max_blob_bytes: int | None = None,
    ) -> "Settings":
        """Settings from ``EMBOFLOW_*`` and ``DAGSTER_HOME``; arguments win over the environment.

        Raises:
            InvalidInputError: A slug, actor or database name is not allowed; all that are, at once.
            ConfigurationError: A path is relative, and the working directory is gone.
        """
        env = os.environ.get
        root = full_path(home or env("EMBOFLOW_HOME") or ".emboflow")
        settings = cls(
            home=root,
            mongo_uri=mongo_uri or env("EMBOFLOW_MONGO_URI") or None,
            database=database or env("EMBOFLOW_DATABASE") or DEFAULT_DATABASE,
            object_store=object_store or env("EMBOFLOW_OBJECT_STORE") or (root / "objects").as_uri(),
            workspace=workspace or env("EMBOFLOW_WORKSPACE") or DEFAULT_SLUG,
            project=project or env("EMBOFLOW_PROJECT") or DEFAULT_SLUG,
            actor=actor or env("EMBOFLOW_ACTOR") or f"user:{_login()}",
            dagster_home=full_path(env("DAGSTER_HOME") or root / "dagster"),
            allow_gridfs=_flag("EMBOFLOW_ALLOW_GRIDFS") if allow_gridfs is None else allow_gridfs,
            cache=_cache() if cache is None else cache,
            cache_wait_s=_cache_wait_s() if cache_wait_s is None else cache_wait_s,
            prefix_max_bytes=_prefix_max_bytes() if prefix_max_bytes is None else prefix_max_bytes,
            max_blob_bytes=_max_blob_bytes() if max_blob_bytes is None else max_blob_bytes,
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse names that could not be stored."""
        problems = []
        for name, slug in (("workspace", self.workspace), ("project", self.project)):
            try:
                check_slug(slug, name)
            except InvalidInputError as error:
                problems += error.problems
        if problems:
            raise InvalidInputError.of(problems)
        if not _ACTOR.match(self.actor):
            raise InvalidInputError(
                f"actor: found {self.actor!r}; allowed is user:<id> or system:<name>", kind=ErrorKind.ID
            )
        if not _DATABASE.match(self.database):
            raise InvalidInputError(
                f"EMBOFLOW_DATABASE: found {self.database!r}; allowed are 1-63 of A-Z a-z 0-9 _ -",
                kind=ErrorKind.ID,
            )
        if self.database.lower() in _SERVERS_OWN:
            raise InvalidInputError(
                f"EMBOFLOW_DATABASE: found {self.database!r}; admin, config and local are MongoDB's own",
                kind=ErrorKind.ID,
            )

    def scoped(self, workspace: str, project: str) -> "Settings":
        """The same deployment, another scope."""
        return replace(self, workspace=workspace, project=project)

    def environment(self) -> dict[str, str]:
        """The variables that give a child process the same deployment and scope."""
        variables = {
            "EMBOFLOW_HOME": str(self.home),
            "EMBOFLOW_DATABASE": self.database,
            "EMBOFLOW_OBJECT_STORE": self.object_store,
            "EMBOFLOW_WORKSPACE": self.workspace,
            "EMBOFLOW_PROJECT": self.project,
            "EMBOFLOW_ACTOR": self.actor,
            "DAGSTER_HOME": str(self.dagster_home),
        }
        if self.mongo_uri:
            variables["EMBOFLOW_MONGO_URI"] = self.mongo_uri
        if self.allow_gridfs:
            variables["EMBOFLOW_ALLOW_GRIDFS"] = "1"
        if self.cache is not CachePolicy.USE:
            variables["EMBOFLOW_CACHE"] = self.cache.value
        if self.cache_wait_s != DEFAULT_CACHE_WAIT_S:
            variables["EMBOFLOW_CACHE_WAIT_S"] = f"{self.cache_wait_s:g}"
        if self.prefix_max_bytes != DEFAULT_PREFIX_MAX_BYTES:
            variables[_PREFIX] = str(self.prefix_max_bytes)
        if self.max_blob_bytes is not None:
            variables["EMBOFLOW_MAX_BLOB_BYTES"] = str(self.max_blob_bytes)
        return variables


def _flag(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text in ("", "0", "false", "no"):
        return False
    if text in ("1", "true", "yes"):
        return True
    raise InvalidInputError(f"{name}: found {text!r}; allowed are 1 and 0")


def _cache() -> CachePolicy:
    text = os.environ.get("EMBOFLOW_CACHE", "").strip() or CachePolicy.USE.value
    try:
        return CachePolicy(text)
    except ValueError:
        raise InvalidInputError(
            f"EMBOFLOW_CACHE: found {text!r}; allowed are {', '.join(CachePolicy)}"
        ) from None


def _cache_wait_s() -> float:
    text = os.environ.get("EMBOFLOW_CACHE_WAIT_S", "").strip()
    try:
        seconds = float(text) if text else DEFAULT_CACHE_WAIT_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_CACHE_WAIT_S:
        raise InvalidInputError(
            f"EMBOFLOW_CACHE_WAIT_S: found {text!r}; allowed are seconds from 0 to {MAX_CACHE_WAIT_S:g}"
        )
    return seconds


def _prefix_max_bytes() -> int:
    text = os.environ.get(_PREFIX, "").strip() or str(DEFAULT_PREFIX_MAX_BYTES)
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InvalidInputError(f"{_PREFIX}: found {text!r}; a whole number of bytes is needed")
    return int(text)


def _max_blob_bytes() -> int | None:
    text = os.environ.get("EMBOFLOW_MAX_BLOB_BYTES", "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdecimal():
        raise InvalidInputError(f"EMBOFLOW_MAX_BLOB_BYTES: found {text!r}; a number of bytes is needed")
    return int(text)


def full_path(path: Path | str) -> Path:
    """``path`` from the root of the file system, ``~`` and ``~user`` resolved.

    Raises:
        NotFoundError: There is no such user.
        ConfigurationError: It is relative, and the working directory is gone.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise NotFoundError(
            f"{path}: there is no user of that name", hint="write ./~name for a file that is called so"
        ) from None
    except FileNotFoundError:
        raise ConfigurationError(
            "the working directory is gone", hint="change to one that exists, or use full paths"
        ) from None


def _login() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # no such user in a container
        name = "local"
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64].strip("-") or "local"
