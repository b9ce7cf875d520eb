"""Every failure EmboFlow can report, as one tree.

::

    EmboflowError
    ├── InvalidInputError      the caller's input is wrong; `problems` lists all of it   (also a ValueError)
    ├── NotFoundError          nothing with that id or name in this scope                (also a LookupError)
    │   └── ObjectNotFoundError   ... a blob or version; as in Flowcept           (also a ValueError)
    ├── AlreadyExistsError     that id, slug, name or tag is taken
    ├── ConflictError          somebody else wrote first, or the document is frozen; nothing was changed
    │   ├── TransitionError    a run or task is not in the status the step needs
    │   └── ImmutableError     the document never changes once written
    ├── ForbiddenError         the actor or the scope may not do this
    ├── IntegrityError         bytes are missing, short, or do not match their recorded sha256
    ├── ExecutionError         a node, hook or parser failed; the message names the cause
    │   └── LimitError         ... because it went over a memory, time or size limit
    ├── UnavailableError       the database, the store or a server cannot be reached  (also a ConnectionError)
    └── ConfigurationError     this machine, server or setting cannot work; the hint says what to change

Catch a class when every failure in it is handled the same way; compare ``kind`` when it is not.
Codes in :class:`ErrorKind` are append-only: scripts match on them.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar

MAX_MESSAGE_CHARS = 2_000


class ErrorKind(StrEnum):
    """Stable codes, shown as ``error[code]: message``; never renamed, never reused."""

    # input as a whole
    INVALID_INPUT = "invalid-input"
    USAGE = "usage"
    NOT_A_DICT = "not-a-dict"
    # free-form dicts
    KEY_OPERATOR = "key-operator"
    KEY_DOTTED = "key-dotted"
    KEY_EMPTY = "key-empty"
    KEY_NUL = "key-nul"
    KEY_TYPE = "key-type"
    KEY_TOO_LONG = "key-too-long"
    KEY_CONTROL = "key-control"
    KEY_RESERVED = "key-reserved"
    TEXT_SURROGATE = "text-surrogate"
    TEXT_NUL = "text-nul"
    INT_RANGE = "int-range"
    FLOAT_NONFINITE = "float-nonfinite"
    VALUE_TYPE = "value-type"
    DEPTH = "depth"
    TOO_MANY_KEYS = "too-many-keys"
    DOC_TOO_LARGE = "doc-too-large"
    DATETIME_NAIVE = "datetime-naive"
    DATETIME_TYPE = "datetime-type"
    DATETIME_RANGE = "datetime-range"
    # query filters
    FILTER_TYPE = "filter-type"
    FILTER_LIST = "filter-list"
    FILTER_SCOPE_FIELD = "filter-scope-field"
    OPERATOR_NOT_ALLOWED = "operator-not-allowed"
    # ids, slugs, names, versions, hashes
    ID = "id"
    ID_TYPE = "id-type"
    SLUG = "slug"
    SLUG_RESERVED = "slug-reserved"
    SLUG_TYPE = "slug-type"
    NAME_EMPTY = "name-empty"
    NAME_WHITESPACE = "name-whitespace"
    NAME_CONTROL = "name-control"
    NAME_NOT_NFKC = "name-not-nfkc"
    NAME_CONFUSABLE = "name-confusable"
    NAME_TYPE = "name-type"
    VERSION_TYPE = "version-type"
    VERSION_RANGE = "version-range"
    HASH = "hash"
    # paths and storage references
    PATH_TRAVERSAL = "path-traversal"
    PATH_ABSOLUTE = "path-absolute"
    PATH_BACKSLASH = "path-backslash"
    PATH_ENCODED = "path-encoded"
    PATH_ENCODING = "path-encoding"
    PATH_SCHEME = "path-scheme"
    PATH_CONTROL = "path-control"
    PATH_EMPTY = "path-empty"
    PATH_SEGMENT = "path-segment"
    PATH_RESERVED = "path-reserved"
    PATH_TOO_LONG = "path-too-long"
    PATH_TYPE = "path-type"
    PATH_NOT_NFKC = "path-not-nfkc"
    URI = "uri"
    URI_SCHEME = "uri-scheme"
    URI_USERINFO = "uri-userinfo"
    URI_QUERY = "uri-query"
    BUCKET = "bucket"
    SIZE = "size"
    CONTENT_TYPE = "content-type"
    REF_FIELD = "ref-field"
    REF_TYPE = "ref-type"
    # archives and recordings
    ARCHIVE_CORRUPT = "archive-corrupt"
    FILE_CORRUPT = "file-corrupt"
    FILE_EMPTY = "file-empty"
    FILE_MAGIC = "file-magic"
    FILE_TRUNCATED = "file-truncated"
    FILE_UNREADABLE = "file-unreadable"
    FORMAT_UNSUPPORTED = "format-unsupported"
    # YAML and JSON workflow files
    YAML_CORRUPT = "yaml-corrupt"
    YAML_ALIAS = "yaml-alias"
    YAML_TAG = "yaml-tag"
    YAML_DUPLICATE_KEY = "yaml-duplicate-key"
    # workflow graphs
    GRAPH_SHAPE = "graph-shape"
    GRAPH_FIELD = "graph-field"
    GRAPH_CYCLE = "graph-cycle"
    GRAPH_TOO_LARGE = "graph-too-large"
    GRAPH_EMPTY = "graph-empty"
    EDGE_SELF = "edge-self"
    EDGE_DUPLICATE = "edge-duplicate"
    EDGE_SHAPE = "edge-shape"
    EDGE_DANGLING = "edge-dangling"
    EDGE_FROM_SINK = "edge-from-sink"
    EDGE_TO_SOURCE = "edge-to-source"
    EDGE_TYPE_MISMATCH = "edge-type-mismatch"
    NODE_ID = "node-id"
    NODE_DUPLICATE = "node-duplicate"
    NODE_TYPE = "node-type"
    NODE_CONFIG = "node-config"
    NODE_UNREACHABLE = "node-unreachable"
    NODE_PORT = "node-port"
    NODE_EXECUTOR = "node-executor"
    NODE_CODE_HOOK = "node-code-hook"
    # schedules
    CRON = "cron"
    CRON_FIELDS = "cron-fields"
    CRON_NEVER = "cron-never"
    CRON_TYPE = "cron-type"
    TZ = "tz"
    SELECTOR = "selector"
    # secrets
    SECRET_PLAINTEXT = "secret-plaintext"  # noqa: S105 - the name of a failure, not a secret
    SECRET_REF = "secret-ref"  # noqa: S105 - likewise
    SECRET_REF_SCOPE = "secret-ref-scope"  # noqa: S105 - likewise
    # documents and scope
    NOT_FOUND = "not-found"
    REF_NOT_FOUND = "ref-not-found"
    REF_MISMATCH = "ref-mismatch"
    AMBIGUOUS = "ambiguous"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    STATE = "state"
    FENCED = "fenced"
    RUN_FINISHED = "run-finished"
    RUN_STILL_ACTIVE = "run-still-active"
    TASK_NOT_RETRYABLE = "task-not-retryable"
    IMMUTABLE = "immutable"
    IMMUTABLE_FIELD = "immutable-field"
    FORBIDDEN = "forbidden"
    INPUT_MISSING = "input-missing"
    UPSTREAM_NOT_SUCCEEDED = "upstream-not-succeeded"
    REQUEST_REUSED = "request-reused"
    CONTRACT = "contract"
    DOCUMENT_INVALID = "document-invalid"
    # bytes
    HASH_MISMATCH = "hash-mismatch"
    SIZE_MISMATCH = "size-mismatch"
    PAYLOAD_MISSING = "payload-missing"
    BLOB_INCOMPLETE = "blob-incomplete"
    BLOB_EXPIRED = "blob-expired"
    BLOB_WITHDRAWN = "blob-withdrawn"
    BLOB_QUARANTINED = "blob-quarantined"
    BLOB_UNCONTROLLED = "blob-uncontrolled"
    BLOB_QUOTA = "blob-quota"
    HASH_RECORDED_WRONG = "hash-recorded-wrong"
    LEGAL_HOLD = "legal-hold"
    SERIALISED_UNSAFE = "serialised-unsafe"
    SERIALISED_UNKNOWN = "serialised-unknown"
    EPISODE_FORGOTTEN = "episode-forgotten"
    STORE_REFUSED = "store-refused"
    OBJECT_CHANGED = "object-changed"
    PICKLE_GLOBAL = "pickle-global"
    PICKLE_OPCODE = "pickle-opcode"
    PICKLE_PERSISTENT = "pickle-persistent"
    PICKLE_CORRUPT = "pickle-corrupt"
    PICKLE_SIZE = "pickle-size"
    # ownership of blobs (Voedger's four, one code each)
    BLOB_OWNER_NOT_EMPTY = "blob-owner-not-empty"
    BLOB_OWNER_MISMATCH = "blob-owner-mismatch"
    BLOB_OWNER_FIELD_MISMATCH = "blob-owner-field-mismatch"
    BLOB_DUPLICATE_REFERENCE = "blob-duplicate-reference"
    BLOB_NOT_CLAIMABLE = "blob-not-claimable"
    BLOB_FIELD = "blob-field"
    # running
    NODE_FAILED = "node-failed"
    CHILD_CRASHED = "child-crashed"
    LIMIT_MEMORY = "limit-memory"
    LIMIT_TIME = "limit-time"
    LIMIT_SIZE = "limit-size"
    RUN_FAILED = "run-failed"
    TIMEOUT = "timeout"
    IMAGE_MISSING = "image-missing"
    IMAGE_BUILD = "image-build"
    WAITS_FOR_PEOPLE = "waits-for-people"
    # servers and machine
    UNAVAILABLE = "unavailable"
    TOPOLOGY = "topology"
    WRITE_CONCERN = "write-concern"
    SCHEMA_VERSION = "schema-version"
    INDEX = "index"
    MONGOD_MISSING = "mongod-missing"
    MONGOD_LIBRARY = "mongod-library"
    MONGOD_START = "mongod-start"
    DATA_FOLDER = "data-folder"
    CONFIGURATION = "configuration"
    EXTRA_MISSING = "extra-missing"
    DISK_FULL = "disk-full"
    CONTAINER_ENGINE = "container-engine"
    INTERNAL = "internal"


class Problem:
    """One thing that is wrong with an input: its code, where it is, what was found and what is allowed."""

    __slots__ = ("kind", "message", "path")

    def __init__(self, kind: ErrorKind, path: str, message: str) -> None:
        self.kind = kind
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def __repr__(self) -> str:
        return f"Problem({self.kind.value!r}, {self.path!r}, {self.message!r})"


def shown(value: object, limit: int = 80) -> str:
    """A bounded, escaped rendering of a found value for an error message.

    >>> shown("a" * 200, 10)
    "'aaaaaaaa…"
    """
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class EmboflowError(Exception):
    """Something EmboFlow was asked to do did not happen.

    Args:
        message: One line: what was found and what is allowed.
        hint: What to do about it, one line, or ``None``.
        kind: A more exact code than the class's own.
        problems: Every problem found, where an input can have several.
    """

    kind: ErrorKind = ErrorKind.INTERNAL
    default_kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        kind: ErrorKind | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        self.message = " ".join(message.split())[:MAX_MESSAGE_CHARS]
        self.hint = hint
        self.kind = kind or self.default_kind
        self.problems = tuple(problems)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        # Errors cross process borders (parsers and hooks run in children).
        problems = tuple((p.kind.value, p.path, p.message) for p in self.problems)
        return _rebuild, (type(self), self.message, self.hint, self.kind.value, problems)

    def as_dict(self) -> dict[str, object]:
        """The JSON a program gets: code, message, hint, problems."""
        return {
            "code": self.kind.value,
            "message": self.message,
            "hint": self.hint,
            "problems": [{"code": p.kind.value, "path": p.path, "message": p.message} for p in self.problems],
        }


def _rebuild(
    cls: type[EmboflowError],
    message: str,
    hint: str | None,
    kind: str,
    problems: tuple[tuple[str, str, str], ...],
) -> EmboflowError:
    return cls(
        message,
        hint=hint,
        kind=ErrorKind(kind),
        problems=[Problem(ErrorKind(k), path, text) for k, path, text in problems],
    )


class InvalidInputError(EmboflowError, ValueError):
    """The caller's input is wrong; ``problems`` lists everything that is."""

    default_kind = ErrorKind.INVALID_INPUT

    @classmethod
    def of(cls, problems: Sequence[Problem], *, hint: str | None = None) -> "InvalidInputError":
        """One error for all problems: the first one's code, all of their texts."""
        text = "; ".join(str(p) for p in problems[:20])
        if len(problems) > 20:  # noqa: PLR2004 - the rest is in `problems`
            text += f"; and {len(problems) - 20} more"
        return cls(text, kind=problems[0].kind, problems=problems, hint=hint)


class NotFoundError(EmboflowError, LookupError):
    """Nothing with that id or name exists in this scope."""

    default_kind = ErrorKind.NOT_FOUND


class ObjectNotFoundError(NotFoundError, ValueError):
    """There is no such blob, or no such version of it; a ``ValueError`` too, as in Flowcept."""


class AlreadyExistsError(EmboflowError):
    """That id, slug, name or tag is taken."""

    default_kind = ErrorKind.DUPLICATE


class ConflictError(EmboflowError):
    """Somebody else wrote first; nothing was changed. Read again and retry."""

    default_kind = ErrorKind.CONFLICT


class TransitionError(ConflictError):
    """A run or task is not in the status the step needs; nothing was changed."""

    default_kind = ErrorKind.STATE


class ImmutableError(ConflictError):
    """The document or field never changes once written."""

    default_kind = ErrorKind.IMMUTABLE


class ForbiddenError(EmboflowError):
    """The actor or the scope may not do this."""

    default_kind = ErrorKind.FORBIDDEN


class IntegrityError(EmboflowError):
    """Bytes are missing, short, or do not match their recorded sha256.

    ``found`` is the sha256 and the size in bytes of what is there instead, where somebody read it.
    """

    default_kind = ErrorKind.HASH_MISMATCH
    found: tuple[str, int] | None = None

    def with_found(self, sha256: str, size: int) -> "IntegrityError":
        """The same error, saying what was found."""
        self.found = (sha256, size)
        return self


class ExecutionError(EmboflowError):
    """A node, hook or parser failed; the message names the cause."""

    default_kind = ErrorKind.NODE_FAILED


class LimitError(ExecutionError):
    """A child process went over its memory, time or size limit and was ended."""

    default_kind = ErrorKind.LIMIT_TIME


class UnavailableError(EmboflowError, ConnectionError):
    """The database, the object store or a server cannot be reached; trying again may work."""

    default_kind = ErrorKind.UNAVAILABLE


class ConfigurationError(EmboflowError):
    """This machine, server or setting cannot work; the hint says what to change."""

    default_kind = ErrorKind.CONFIGURATION
