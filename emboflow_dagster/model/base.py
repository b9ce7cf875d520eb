"""What all documents have in common: ids, times, spelling, and how they meet MongoDB.

snake_case in Python, the seed's spelling in the collection. Writing refuses unknown fields;
reading ignores them (decision 0003), because a newer release may have added some.
"""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from ulid import ULID

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.text import (
    CHECKSUM_PATTERN,
    ID_PATTERN,
    SLUG_PATTERN,
    TYPE_PATTERN,
    check_name,
    check_slug,
)

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)


def utc_now() -> datetime:
    """Now, in UTC, at MongoDB's precision of one millisecond."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def new_id(prefix: str) -> str:
    """``<prefix>_<26-character ULID>``: sorts by time, never reused."""
    return f"{prefix}_{ULID()}"


def check_datetime(value: object) -> datetime:
    """An aware datetime of this era, in UTC, cut to milliseconds (BSON keeps no more)."""
    if not isinstance(value, datetime):
        raise InvalidInputError.of(
            [Problem(ErrorKind.DATETIME_TYPE, "", f"found {shown(value)}; a datetime is needed")]
        )
    if value.tzinfo is None:
        raise InvalidInputError.of([Problem(ErrorKind.DATETIME_NAIVE, "", "a date needs a time zone")])
    value = value.astimezone(UTC)
    if not EARLIEST <= value < LATEST:
        raise InvalidInputError.of(
            [Problem(ErrorKind.DATETIME_RANGE, "", f"found {value:%Y}; years 2000 to 2199 are allowed")]
        )
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


UtcDatetime = Annotated[datetime, BeforeValidator(check_datetime)]
DocumentId = Annotated[str, Field(pattern=ID_PATTERN, validation_alias="_id", serialization_alias="_id")]
Id = Annotated[str, Field(pattern=ID_PATTERN)]
ActorId = Annotated[str, Field(pattern=r"^(system:)?[A-Za-z0-9_-]{1,64}$")]
# Our checks come before pydantic's own, so that the code of a refusal is ours for every kind of value.
Slug = Annotated[str, Field(pattern=SLUG_PATTERN, max_length=63), BeforeValidator(check_slug)]
Name = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(check_name)]
TypeName = Annotated[str, Field(pattern=TYPE_PATTERN, max_length=64)]
Checksum = Annotated[str, Field(pattern=CHECKSUM_PATTERN)]
Int64 = Annotated[int, Field(ge=0, lt=2**63)]
FreeForm = Annotated[dict[str, Any], BeforeValidator(check_freeform)]
Summary = Annotated[dict[str, Any], BeforeValidator(lambda v: check_freeform(v, max_bytes=16 << 10))]


def sized_freeform(max_bytes: int, *, max_items: int = 20_000, map_keys: bool = False) -> BeforeValidator:
    """A validator for a free-form dict of another size than 64 KiB."""
    return BeforeValidator(
        lambda v: check_freeform(v, max_bytes=max_bytes, max_items=max_items, map_keys=map_keys)
    )


def plain_values(model: type[BaseModel], given: Any) -> Any:
    """Words for enumerations become their members; bytes are refused.

    Models are strict: no ``"3"`` for 3, no ``True`` for 1, no bytes for text. Enumerations alone are
    stored as words.
    """
    if not isinstance(given, Mapping):
        return given
    result = dict(given)
    for key, value in given.items():
        if isinstance(value, bytes | bytearray):
            raise InvalidInputError.of(
                [
                    Problem(
                        ErrorKind.VALUE_TYPE, str(key), "bytes belong in the object store, not in a document"
                    )
                ]
            )
    for key, words in _enumerations(model).items():
        if type(result.get(key)) is str:
            try:
                result[key] = words(result[key])
            except ValueError:
                allowed = ", ".join(str(member.value) for member in words)
                raise InvalidInputError.of(
                    [
                        Problem(
                            ErrorKind.INVALID_INPUT, key, f"found {shown(result[key])}; allowed are {allowed}"
                        )
                    ]
                ) from None
    return result


@functools.cache
def _enumerations(model: type[BaseModel]) -> dict[str, type[Enum]]:
    """Every spelling of the fields that hold an enumeration, alone or optional."""
    found: dict[str, type[Enum]] = {}
    for name, info in model.model_fields.items():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, Enum):
                found |= {
                    key: kind for key in (name, info.alias, info.validation_alias) if isinstance(key, str)
                }
    return found


class Model(BaseModel):
    """A frozen part of a document, camelCase in the collection."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, given: Any) -> Any:
        return plain_values(cls, given)

    def to_mongo(self) -> dict[str, Any]:
        """The dict as MongoDB stores it: the seed's names, dates as dates."""
        return self.model_dump(by_alias=True)

    def to_json(self) -> dict[str, Any]:
        """The dict as ``--json`` prints it: as stored, dates in ISO 8601."""
        return self.model_dump(by_alias=True, mode="json")


class Document(Model):
    """A MongoDB document of one of the collections; ``_id`` is ``id`` here."""

    collection: ClassVar[str]
    prefix: ClassVar[str]

    id: DocumentId

    @classmethod
    def checked(cls, **fields: Any) -> Self:
        """A new document, or one error that names every wrong field.

        Raises:
            InvalidInputError: Fields have wrong types, values or names.
        """
        try:
            return cls.model_validate(fields, by_name=True)
        except ValidationError as error:
            raise invalid(error, cls.collection) from None

    @classmethod
    def from_mongo(cls, raw: Mapping[str, Any]) -> Self:
        """A stored document; fields this release does not know are left aside.

        Raises:
            InvalidInputError: The stored document breaks the model (kind ``document-invalid``).
        """
        try:
            return cls.model_validate(dict(raw), extra="ignore", by_alias=True)
        except ValidationError as error:
            problems = invalid(error, cls.collection).problems
            raise InvalidInputError(
                f"{cls.collection} {shown(raw.get('_id'))}: stored document is not valid: "
                + "; ".join(str(p) for p in problems[:5]),
                kind=ErrorKind.DOCUMENT_INVALID,
                problems=problems,
                hint="run `emboflow verify` to see every damaged document",
            ) from None


def invalid(error: ValidationError, where: str) -> InvalidInputError:
    """pydantic's findings as one error of our tree, codes of our own checks kept."""
    problems: list[Problem] = []
    for row in error.errors():
        path = ".".join([where, *(str(part) for part in row["loc"])])
        inner = row.get("ctx", {}).get("error")
        if isinstance(inner, InvalidInputError):
            problems += [
                Problem(p.kind, f"{path}.{p.path}" if p.path else path, p.message) for p in inner.problems
            ]
        else:
            problems.append(
                Problem(ErrorKind.INVALID_INPUT, path, f"{row['msg']}; found {shown(row.get('input'))}")
            )
    return InvalidInputError.of(problems)
