"""Plugins, custom nodes and storage connections: what a workspace adds to the product."""

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.model.base import (
    ActorId,
    Checksum,
    Document,
    FreeForm,
    Id,
    Model,
    Name,
    Slug,
    UtcDatetime,
)
from emboflow_dagster.model.dockerfile import check_dockerfile
from emboflow_dagster.model.text import refuse

MAX_PLUGIN_VERSIONS = 50
#: ``team/name:tag``; no registry's port, no digest: it names what is built here.
IMAGE_TAG_PATTERN: Final = r"^[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"


class PluginScope(StrEnum):
    PLATFORM = "platform"
    WORKSPACE = "workspace"


class PluginStatus(StrEnum):
    INSTALLED = "installed"
    ENABLED = "enabled"
    DISABLED = "disabled"


class PluginVersion(Model):
    """One installable version of a plugin."""

    version: Annotated[str, Field(min_length=1, max_length=64)]
    digest: Checksum | None = None
    created_at: UtcDatetime


class Plugin(Document):
    """An installable extension; its versions are nested while they are few (C-17)."""

    collection: ClassVar[str] = "plugins"
    prefix: ClassVar[str] = "plg"

    workspace_id: Id | None = None
    scope: PluginScope
    name: Name
    status: PluginStatus = PluginStatus.INSTALLED
    current_version: Annotated[str, Field(min_length=1, max_length=64)]
    versions: Annotated[list[PluginVersion], Field(min_length=1, max_length=MAX_PLUGIN_VERSIONS)]
    permissions: Annotated[list[str], Field(max_length=100)] = Field(default_factory=list)
    metadata: FreeForm = Field(default_factory=dict)
    created_at: UtcDatetime
    updated_at: UtcDatetime

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.scope is PluginScope.WORKSPACE) != (self.workspace_id is not None):
            raise refuse(ErrorKind.INVALID_INPUT, "workspaceId", "is set exactly when the scope is workspace")
        if self.current_version not in {v.version for v in self.versions}:
            raise refuse(
                ErrorKind.INVALID_INPUT, "currentVersion", f"{self.current_version!r} is not in versions"
            )
        return self


class CustomNodeCategory(StrEnum):
    SOURCE = "source"
    TRANSFORM = "transform"
    INSPECT = "inspect"
    ANNOTATE = "annotate"
    EXPORT = "export"
    UTILITY = "utility"


class CustomNodeStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    ARCHIVED = "archived"


class NodeContract(Model):
    """What a custom node takes and gives; its outputs are checked against it."""

    inputs: FreeForm = Field(default_factory=dict)
    outputs: FreeForm = Field(default_factory=dict)
    config_schema: FreeForm = Field(default_factory=dict)
    category: CustomNodeCategory | None = None


class DockerImageSource(Model):
    """A custom node that is an existing image."""

    kind: Literal["docker_image"]
    image: Annotated[str, Field(min_length=1, max_length=512)]


class DockerfileSource(Model):
    """A custom node that is a self-contained Dockerfile and the tag to build it under."""

    kind: Literal["dockerfile"]
    dockerfile: Annotated[str, Field(min_length=1, max_length=64 << 10)]
    image_tag: Annotated[str, Field(min_length=1, max_length=256, pattern=IMAGE_TAG_PATTERN)]

    @field_validator("dockerfile")
    @classmethod
    def _self_contained(cls, text: str) -> str:
        return check_dockerfile(text, "")


CustomNodeSource = Annotated[DockerImageSource | DockerfileSource, Field(discriminator="kind")]


class CustomNode(Document):
    """A project's own container node."""

    collection: ClassVar[str] = "custom_nodes"
    prefix: ClassVar[str] = "cn"

    definition_id: Annotated[str, Field(pattern=r"^custom:[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
    workspace_id: Id
    project_id: Id
    name: Name
    slug: Slug
    description: Annotated[str, Field(max_length=4000)] = ""
    category: CustomNodeCategory
    status: CustomNodeStatus = CustomNodeStatus.ACTIVE
    contract: NodeContract
    source: CustomNodeSource
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime


class ConnectionType(StrEnum):
    OBJECT_STORAGE = "object_storage"
    LOCAL_PATH = "local_path"


class ConnectionProvider(StrEnum):
    S3 = "s3"
    MINIO = "minio"
    BOS = "bos"
    LOCAL = "local"


class ConnectionStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    ERROR = "error"


class StorageConnection(Document):
    """Where a workspace's bytes may be; secrets are named, never stored."""

    collection: ClassVar[str] = "storage_connections"
    prefix: ClassVar[str] = "stc"

    workspace_id: Id
    type: ConnectionType
    provider: ConnectionProvider
    name: Name
    status: ConnectionStatus = ConnectionStatus.ACTIVE
    config: FreeForm = Field(default_factory=dict)
    secret_ref: Annotated[str, Field(max_length=512)] | None = None
    created_by: ActorId
    created_at: UtcDatetime
    updated_at: UtcDatetime

    @field_validator("secret_ref", mode="before")
    @classmethod
    def _named(cls, value: object) -> str | None:
        return None if value is None else check_secret_ref(value, "")

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        _refuse_secrets(self.config, "config")
        return self


# As words of a key (`apiKey`, `client_secret`), run together, or alone.
_SECRET_WORDS: Final = re.compile(
    r"passw|passphrase|secret|token|credential|(api|access|account|private|signing|shared)key|connectionstring"
)
_SECRET_KEYS: Final = frozenset({"auth", "key", "pass", "pwd", "sas"})
_SECRET_VALUES: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|[a-z][a-z0-9+.-]*://[^/\s@]*:[^/\s@]*@"
    r"|\b(gh[pousr]_\w{20,}|github_pat_\w{20,}|xox[abeprs]-[\w-]{8,}|A(KI|SI)A[A-Z0-9]{16}\b|sk-[\w-]{20,})"
    r"|\b(AccountKey|SharedAccessSignature|password|pwd)=\S"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
)


def _refuse_secrets(value: Any, path: str) -> None:
    """Keys that name a secret and values that look like one, at any depth; the value is never shown."""
    if isinstance(value, dict):
        for key, item in value.items():
            plain = re.sub(r"[^a-z0-9]", "", key.lower())
            if plain in _SECRET_KEYS or _SECRET_WORDS.search(plain):
                raise _secret(f"{path}.{key}")
            _refuse_secrets(item, f"{path}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _refuse_secrets(item, f"{path}.{number}")
    elif isinstance(value, str) and _SECRET_VALUES.search(value):
        raise _secret(path)


def _secret(path: str) -> InvalidInputError:
    return refuse(
        ErrorKind.SECRET_PLAINTEXT,
        path,
        "secrets are not stored; put the value elsewhere and name it in secretRef",
    )


def check_secret_ref(value: object, path: str = "secretRef") -> str:
    """The name of a secret that is kept elsewhere.

    Its prefix keeps one workspace from naming another's secret, a system file or the database's own URI.

    Source: spec/reliability.md, "Security decisions".
    """
    if type(value) is not str or not re.fullmatch(r"(env:\w+|(file|aws-sm):[\w./#-]+)", value, re.ASCII):
        raise refuse(ErrorKind.SECRET_REF, path, "needed is env:NAME, file:PATH or aws-sm:NAME")
    allowed = (
        r"env:EMBOFLOW_SECRET_\w+|file:/run/secrets/[\w-][\w.-]*|aws-sm:emboflow(/[\w-][\w.-]*){2,}(#[\w-]+)?"
    )
    if not re.fullmatch(allowed, value, re.ASCII):
        raise refuse(
            ErrorKind.SECRET_REF_SCOPE,
            path,
            "allowed are env:EMBOFLOW_SECRET_*, file:/run/secrets/* and aws-sm:emboflow/<workspace>/<name>",
        )
    return value
