"""Typed decoding of single messages, topic by topic: one bad schema never hides the other topics.

``rosbags`` refuses a whole file when one schema does not parse, so each schema gets a type store of its own.
Message types that the recording does not define are looked up among the types of the current ROS 2 release.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats import foxglove, protobuf_messages
from emboflow_dagster.formats.extras import needs_extra
from emboflow_dagster.formats.recording import MAX_MESSAGE_BYTES, Connection

Decode = Callable[[bytes], Any]


class UndecodableError(InvalidInputError):
    """The schema or the bytes of a message cannot be understood; other topics are not concerned."""

    default_kind = ErrorKind.FORMAT_UNSUPPORTED


class UnsupportedEncodingError(UndecodableError):
    """The messages are in an encoding that nothing here reads."""


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_IDL = re.compile(r"^(=+\r?\nIDL: .*|#.*)$", re.MULTILINE)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ENCODINGS = frozenset({"ros1", "cdr", "json", "protobuf"})
_IDL = frozenset({"ros2idl", "omgidl"})
#: The second byte of plain CDR; that of the younger encodings aligns differently, which ROS never writes.
_PLAIN_CDR = frozenset({0, 1})

#: Packages of the current ROS 2 release; a test compares them with those of rosbags.
RELEASE_PACKAGES = frozenset(
    {
        "action_msgs",
        "actionlib_msgs",
        "builtin_interfaces",
        "diagnostic_msgs",
        "geometry_msgs",
        "lifecycle_msgs",
        "nav_msgs",
        "rcl_interfaces",
        "rmw_dds_common",
        "rosbag2_interfaces",
        "rosgraph_msgs",
        "sensor_msgs",
        "service_msgs",
        "shape_msgs",
        "statistics_msgs",
        "std_msgs",
        "stereo_msgs",
        "tf2_msgs",
        "trajectory_msgs",
        "type_description_interfaces",
        "unique_identifier_msgs",
        "visualization_msgs",
    }
)


class Decoder:
    """From a message's bytes to its fields: a rosbags message object, or plain values (JSON, protobuf).

    Args:
        connection: Its type, definition and encoding.

    Attributes:
        fallback: Set once the recorded definition did not fit the bytes and the standard type of the same
            name did: real recordings carry wrong definitions.

    Raises:
        UnsupportedEncodingError: No decoder exists for this encoding.
        UndecodableError: The type is not defined or its definition does not parse.
        ConfigurationError: The libraries for ROS messages are not installed.
    """

    def __init__(self, connection: Connection) -> None:
        if connection.encoding not in ENCODINGS:
            raise UnsupportedEncodingError(
                f"messages are encoded as {connection.encoding!r}; read are {', '.join(sorted(ENCODINGS))}"
            )
        if connection.compression not in {"", "zstd"}:
            raise UnsupportedEncodingError(f"messages are compressed with {connection.compression!r}")
        self.fallback = False
        self._compressed = connection.compression == "zstd"
        self._cdr = connection.encoding == "cdr"
        self._type = connection.type
        self._choices: list[Decode] = []
        self._may_be_standard = False
        if connection.encoding in {"json", "protobuf"}:
            self._choices.append(_self_describing(connection))
            return
        failure = UndecodableError(
            f"{connection.type} is neither defined in the recording nor a standard type"
        )
        # An empty definition is that of an empty message; none at all has no encoding either.
        if connection.definition_encoding:
            try:
                self._choices.append(
                    _recorded(
                        connection.encoding,
                        connection.type,
                        connection.definition,
                        connection.definition_encoding,
                    )
                )
            except UndecodableError as error:
                failure = error
        self._may_be_standard = connection.encoding == "cdr" and _is_of_release_package(connection.type)
        if not self._choices and not self._try_standard():
            raise failure

    def _try_standard(self) -> bool:
        """Add the standard type of that name, once: loading them takes longer than a small recording."""
        known = self._may_be_standard and self._type in _release_types().fielddefs
        self._may_be_standard = False
        if known:
            self._choices.append(_of_release(self._type))
        return known

    def __call__(self, data: bytes) -> Any:
        """The fields of one message.

        Raises:
            UndecodableError: Whatever the libraries raise: the bytes do not fit the type.
        """
        failure: Exception | None = None
        index = 0
        while index < len(self._choices) or self._try_standard():
            try:
                message = self._choices[index](_unzstd(data) if self._compressed else data)
            except Exception as error:  # noqa: BLE001 - generated decoders fail in any way on foreign bytes
                if not self._compressed and self._cdr and data.startswith(ZSTD_MAGIC):
                    self._compressed = True  # no CDR begins so: the metadata that would say it is gone
                    continue
                failure = failure or error
                index += 1
                continue
            if index:
                self.fallback = True
                self._choices = self._choices[index:]
            return message
        text = f"{self._type}: {type(failure).__name__}: {failure}"
        raise UndecodableError(text) from failure


def _self_describing(connection: Connection) -> Decode:
    name = connection.type
    if connection.encoding == "json":
        read: Decode = json.loads
    elif connection.definition_encoding != "protobuf":
        said = connection.definition_encoding or "none"
        raise UndecodableError(f"the schema of {shown(name)} is {shown(said)}, expected protobuf descriptors")
    else:
        try:
            read = protobuf_messages.decoder(name, connection.definition)
        except InvalidInputError as error:
            raise UndecodableError(error.message) from error
    return (lambda data: foxglove.shaped(name, read(data))) if name.startswith(foxglove.PREFIX) else read


@cache
def _recorded(encoding: str, type_name: str, definition: bytes, definition_encoding: str) -> Decode:
    with needs_extra("rosbag"):
        from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    store = get_typestore(Stores.EMPTY)
    name = type_name.replace("::", "/") if definition_encoding == "omgidl" else _full_name(type_name)
    text = definition.decode("utf-8", "replace")
    try:
        idl = definition_encoding in _IDL
        types = get_types_from_idl(_one_idl(text)) if idl else get_types_from_msg(text, name)
        _check_names(types)
        # Its own definitions of Time and Duration would be refused as different spellings of the same.
        store.register({key: value for key, value in types.items() if key not in store.fielddefs})
        store.get_msgdef(name)
    except Exception as error:
        # The parser and the code generator behind it fail in any way on a schema they do not know.
        raise UndecodableError(f"the definition of {type_name} is not understood: {error}") from error
    if encoding == "ros1":
        return lambda data: store.deserialize_ros1(data, name)
    if definition_encoding == "omgidl":
        return lambda data: store.deserialize_cdr(_plain_cdr(data), name)
    return lambda data: store.deserialize_cdr(data, name)


def _one_idl(text: str) -> str:
    """Without what separates the files in one schema, and without what a preprocessor reads."""
    return _NO_IDL.sub("", text)


def _plain_cdr(data: bytes) -> bytes:
    if len(data) > 1 and data[1] not in _PLAIN_CDR:
        raise UnsupportedEncodingError(f"encapsulation {data[1]}: only plain CDR is read")
    return data


def _check_names(types: dict[str, Any]) -> None:
    # The library turns definitions into Python source and runs it. Its grammar lets only identifiers through;
    # the recording may come from anybody, so nothing else reaches it whatever the grammar of a later release.
    for type_name, (constants, fields) in types.items():
        for name in (*type_name.split("/"), *(item[0] for item in (*constants, *fields))):
            if not _IDENTIFIER.fullmatch(name):
                raise UndecodableError(f"{shown(name)} is no name of a type or field")


def _of_release(type_name: str) -> Decode:
    store = _release_types()
    return lambda data: store.deserialize_cdr(data, type_name)


def _is_of_release_package(type_name: str) -> bool:
    return type_name.partition("/")[0] in RELEASE_PACKAGES


@cache
def _release_types() -> Any:
    with needs_extra("rosbag"):
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
    with needs_extra("rosbag"):
        import zstandard

    return zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_MESSAGE_BYTES)
