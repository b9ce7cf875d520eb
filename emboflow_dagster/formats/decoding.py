"""Typed decoding of single messages, topic by topic: one bad schema never hides the other topics.

``rosbags`` refuses a whole file when one schema does not parse, so each schema gets a type store of its own.
Message types that the recording does not define are looked up among the types of the current ROS 2 release.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.formats.recording import MAX_MESSAGE_BYTES, Connection

Decode = Callable[[bytes], Any]


class UndecodableError(InvalidInputError):
    """The schema or the bytes of a message cannot be understood; other topics are not concerned."""

    default_kind = ErrorKind.FORMAT_UNSUPPORTED


class UnsupportedEncodingError(UndecodableError):
    """The messages are in an encoding that nothing here reads."""


ENCODINGS = frozenset({"ros1", "cdr", "json"})


def decoder_for(connection: Connection) -> Decode:
    """A function from a message's bytes to its fields (a rosbags message object, or JSON values).

    The function raises :class:`UndecodableError`, whatever the libraries raise.

    Raises:
        UnsupportedEncodingError: No decoder exists for this encoding.
        UndecodableError: The type is not defined or its definition does not parse.
    """
    if connection.encoding not in ENCODINGS:
        raise UnsupportedEncodingError(
            f"messages are encoded as {connection.encoding!r}; read are {', '.join(sorted(ENCODINGS))}"
        )
    if connection.compression not in {"", "zstd"}:
        raise UnsupportedEncodingError(f"messages are compressed with {connection.compression!r}")
    if connection.encoding == "json":
        decode: Decode = json.loads
    else:
        decode = _ros_decoder(
            connection.encoding, connection.type, connection.definition, connection.definition_encoding
        )
    compressed = connection.compression == "zstd"

    def guarded(data: bytes) -> Any:
        try:
            return decode(_unzstd(data) if compressed else data)
        except UndecodableError:
            raise
        except Exception as error:
            # Generated decoders fail in any way on bytes of another type; all of them mean the same.
            raise UndecodableError(f"{connection.type}: {type(error).__name__}: {error}") from error

    return guarded


@cache
def _ros_decoder(encoding: str, type_name: str, definition: bytes, definition_encoding: str) -> Decode:
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    if not definition:
        if encoding == "ros1":
            raise UndecodableError(f"the recording holds no definition of {type_name}")
        store, name = _release_types(), type_name
        if name not in store.fielddefs:
            raise UndecodableError(f"{type_name} is neither defined in the recording nor a standard type")
    else:
        store, name = get_typestore(Stores.EMPTY), _full_name(type_name)
        text = definition.decode("utf-8", "replace")
        try:
            types = (
                get_types_from_idl(text)
                if definition_encoding == "ros2idl"
                else get_types_from_msg(text, name)
            )
            # Its own definitions of Time and Duration would be refused as different spellings of the same.
            store.register({key: value for key, value in types.items() if key not in store.fielddefs})
        except Exception as error:
            raise UndecodableError(f"the definition of {type_name} does not parse: {error}") from error
    try:
        store.get_msgdef(name)
    except Exception as error:
        raise UndecodableError(f"{type_name} cannot be resolved: {error}") from error
    if encoding == "ros1":
        return lambda data: store.deserialize_ros1(data, name)
    return lambda data: store.deserialize_cdr(data, name)


@cache
def _release_types() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.LATEST)


def _full_name(type_name: str) -> str:
    """``std_msgs/String`` as the type stores call it.

    >>> _full_name("std_msgs/String")
    'std_msgs/msg/String'
    """
    package, slash, name = type_name.partition("/")
    return type_name if not slash or "/" in name else f"{package}/msg/{name}"


def _unzstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_MESSAGE_BYTES)
