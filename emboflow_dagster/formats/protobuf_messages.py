"""Protobuf messages by the descriptors that stand in the recording, as plain values by the fields' names.

MCAP keeps a serialized ``google.protobuf.FileDescriptorSet`` as the schema of such channels. Each is built in
a pool of its own, so no recording's types meet another's or this process's.
Source: https://mcap.dev/spec/registry#protobuf
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from emboflow_dagster.errors import InvalidInputError, shown
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.flattening import MAX_ARRAY, MAX_DEPTH

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

#: The schemas of Foxglove take 1 to 10 KB each.
MAX_DEFINITION_BYTES: Final = 4 << 20
#: Small messages in messages take twenty times their bytes in memory.
MAX_BYTES: Final = 32 << 20
#: Nothing that is read has longer lists; a list is cut one behind, so that who counts sees that it is longer.
_MOST: Final = MAX_ARRAY + 1
_WELL_KNOWN: Final = ("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers")
_WRAPPERS: Final = "google/protobuf/wrappers.proto"

_Read = Callable[[Any, int], Any]


def decoder(type_name: str, definition: bytes) -> Callable[[bytes], dict[str, Any]]:
    """What makes a message's bytes a dict: numbers, texts, bytes, lists and dicts of these.

    Enumeration values are their numbers, what wraps a number is that number, durations are seconds; points in
    time are texts of seconds, since they are no measurement of the robot.
    A field that knows whether it was set is absent where it was not; any other has its default then.

    Args:
        type_name: Full name, such as ``foxglove.CompressedImage``.
        definition: A serialized ``FileDescriptorSet``.

    Raises:
        InvalidInputError: The descriptors are damaged, incomplete or without the type.
        ConfigurationError: The library is not installed.
    """
    make = _message_class(type_name.lstrip("."), definition)

    def decode(data: bytes) -> dict[str, Any]:
        if len(data) > MAX_BYTES:
            raise ValueError(f"{len(data)} bytes; at most {MAX_BYTES} are decoded")
        message = make.FromString(data)
        if data and not message.ListFields() and _has_unknown(message):
            raise ValueError("none of its fields is one of the schema")
        return _fields(message, 0)

    return decode


@lru_cache(maxsize=64)
def _message_class(type_name: str, definition: bytes) -> Any:
    with needs_extra("rosbag"):
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    if len(definition) > MAX_DEFINITION_BYTES:
        raise InvalidInputError(
            f"its schema has {len(definition)} bytes, at most {MAX_DEFINITION_BYTES} are read"
        )
    try:
        files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(definition).file}
        for name in _WELL_KNOWN:
            path = f"google/protobuf/{name}.proto"
            if path not in files:  # who writes them often leaves these out
                known = import_module(f"google.protobuf.{name}_pb2").DESCRIPTOR.serialized_pb
                files[path] = descriptor_pb2.FileDescriptorProto.FromString(known)
        pool = descriptor_pool.DescriptorPool()
        for name in _in_order(files):
            pool.Add(files[name])
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(type_name))
    except KeyError as error:
        raise InvalidInputError(f"its schema does not define {shown(type_name)}") from error
    except Exception as error:
        # The library checks descriptors in C and says what is wrong with them by many kinds of error.
        raise InvalidInputError(f"the schema of {shown(type_name)} is not understood: {error}") from error


def _in_order(files: dict[str, Any]) -> Iterator[str]:
    """Names of files, each behind all those that it imports; a circle is left to the library to refuse."""
    done: set[str] = set()
    for name, file in files.items():
        pending = [(name, iter(file.dependency))]
        open_now = {name}
        while pending:
            current, imports = pending[-1]
            for wanted in imports:
                if wanted in files and wanted not in done and wanted not in open_now:
                    open_now.add(wanted)
                    pending.append((wanted, iter(files[wanted].dependency)))
                    break
            else:
                pending.pop()
                if current not in done:
                    done.add(current)
                    yield current


def _has_unknown(message: "Message") -> bool:
    from google.protobuf.unknown_fields import UnknownFieldSet

    return len(UnknownFieldSet(message)) > 0


def _fields(message: Any, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, has_presence, read in _plan(message.DESCRIPTOR):
        if not has_presence or message.HasField(name):
            found[name] = read(getattr(message, name), depth + 1)
    return found


@lru_cache(maxsize=4_096)
def _plan(kind: "Descriptor") -> tuple[tuple[str, bool, _Read], ...]:
    """Each field's name, whether it knows that it was set, and how its value is read."""
    return tuple(
        # A default that proto2 declares is what its absence means.
        (field.name, field.has_presence and not field.has_default_value, _reader(field))
        for field in kind.fields
    )


def _reader(field: "FieldDescriptor") -> _Read:
    inner = field.message_type
    one: _Read = _same if inner is None else _reader_of(inner)
    if not _is_repeated(field):
        return one
    if inner is not None and inner.GetOptions().map_entry:
        value = _reader(inner.fields_by_name["value"])
        return lambda items, depth: _mapping(items, value, depth)
    if inner is None:
        return lambda items, _: list(items[:_MOST])
    return lambda items, depth: [one(item, depth) for item in items[:_MOST]]


def _is_repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)  # `label` is deprecated where there is this
    return field.label == field.LABEL_REPEATED if repeated is None else bool(repeated)


def _reader_of(kind: "Descriptor") -> _Read:
    if kind.full_name == "google.protobuf.Timestamp":
        return lambda value, _: f"{value.seconds}.{value.nanos:09d}"
    if kind.full_name == "google.protobuf.Duration":
        return lambda value, _: value.seconds + value.nanos * 1e-9
    if kind.file.name == _WRAPPERS:
        return lambda value, _: value.value
    return lambda value, depth: _fields(value, depth) if depth <= MAX_DEPTH else None


def _mapping(items: Any, value: _Read, depth: int) -> dict[str, Any] | None:
    """In the order of the keys: on the wire there is none."""
    if len(items) > MAX_ARRAY:
        return None
    return {str(key): value(items[key], depth) for key in sorted(items)}


def _same(value: Any, _: int) -> Any:
    return value
