"""One command to one server over one socket: what a health check needs of a driver, in a millisecond."""

import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

import bson
from bson.errors import BSONError

HEADER: Final = struct.Struct("<iiii")  # length, request id, response to, opcode
OP_MSG: Final = 2013
MAX_REPLY_BYTES: Final = 48_000_000


def run_command(port: int, command: Mapping[str, Any], *, timeout_s: float = 2.0) -> dict[str, Any]:
    """The reply of the server on 127.0.0.1:``port`` to ``command`` on `admin`.

    Args:
        port: TCP port on loopback.
        command: The command's name first, as MongoDB wants it.
        timeout_s: Seconds for connecting and for every read.

    Raises:
        OSError: Nothing answers there, it took too long, or what answers does not speak MongoDB.
    """
    body = struct.pack("<iB", 0, 0) + bson.encode({**command, "$db": "admin"})
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(HEADER.pack(HEADER.size + len(body), 1, 0, OP_MSG) + body)
        length, _, _, opcode = HEADER.unpack(_read_exactly(connection, HEADER.size))
        if opcode != OP_MSG or not HEADER.size < length <= MAX_REPLY_BYTES:
            raise ConnectionError(f"what answers on port {port} is not a MongoDB server")
        reply = _read_exactly(connection, length - HEADER.size)
    try:
        return bson.decode(reply[5:])
    except BSONError as error:
        raise ConnectionError(f"what answers on port {port} is not a MongoDB server: {error}") from error


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(min(size - len(received), 1 << 16))
        if not part:
            raise ConnectionError("the server closed the connection")
        received += part
    return bytes(received)
