"""A proxy before the S3 server that breaks what it is told to, and does two things that the server does not.

Real servers refuse a body that is not what its checksum says, and the completion of an upload that has ended;
moto takes the one and stumbles over the other.
"""

import base64
import hashlib
import http.client
import re
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to</Message></Error>"


@dataclass
class Exchange:
    """One request and its answer, both still to be changed."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    reply: bytes = b""
    reply_headers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def operation(self) -> str:
        """What S3 calls the request."""
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        on_key = parts.path.strip("/").count("/") > 0
        copied = "x-amz-copy-source" in self.headers
        if "partNumber" in query:
            return "UploadPartCopy" if copied else "UploadPart"
        if "uploadId" in query:
            names = {"POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload", "GET": "ListParts"}
            return names[self.method]
        if "uploads" in query:
            return "CreateMultipartUpload" if self.method == "POST" else "ListMultipartUploads"
        if not on_key:
            return {"GET": "ListObjects", "HEAD": "HeadBucket"}.get(self.method, "Bucket")
        names = {"PUT": "CopyObject" if copied else "PutObject", "DELETE": "DeleteObject"}
        return names.get(self.method, f"{self.method.title()}Object")


class CutError(Exception):
    """The connection ends here, without another byte."""


@dataclass
class Fault:
    """What is done to the next ``times`` requests of an operation, after ``skip`` of them passed."""

    operation: str
    times: int = 1
    skip: int = 0
    #: Before the server sees the request; what it raises or a status that it sets keeps the server out of it.
    before: Callable[[Exchange], None] | None = None
    #: When the server has answered.
    after: Callable[[Exchange], None] | None = None
    #: Instead of sending the answer's body.
    send: Callable[[Any, bytes], None] | None = None


class Proxy:
    """The proxy; ``url`` is its endpoint, ``seen`` the operations in the order in which they came."""

    def __init__(self, url: str) -> None:
        self.seen: list[str] = []
        self.refused: list[str] = []
        self.faults: list[Fault] = []
        self.stopped = threading.Event()
        self.under_way = 0
        self._upstream = urlsplit(url).netloc
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            def serve(self) -> None:
                proxy._exchange(self)

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A cut connection is what was asked for."""

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}"
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.stopped.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def count(self, operation: str) -> int:
        return self.seen.count(operation)

    # ------------------------------------------------------------------------------------- the faults

    def answers(self, operation: str, status: int, code: str, **how: Any) -> None:
        """The server does not see it, and an error comes back."""

        def before(exchange: Exchange) -> None:
            exchange.status, exchange.reply = status, ERROR.format(code=code).encode()
            exchange.reply_headers = [("Content-Type", "application/xml")]

        self.faults.append(Fault(operation, before=before, **how))

    def cuts(self, operation: str, **how: Any) -> None:
        """The connection ends before the server sees anything."""
        self.faults.append(Fault(operation, before=_cut, **how))

    def loses_the_reply(self, operation: str, **how: Any) -> None:
        """The server did it, and nobody hears."""
        self.faults.append(Fault(operation, after=_cut, **how))

    def flips_the_reply(self, operation: str, at: int, **how: Any) -> None:
        """One bit of the answer's body is another."""

        def after(exchange: Exchange) -> None:
            exchange.reply = flipped(exchange.reply, at)

        self.faults.append(Fault(operation, after=after, **how))

    def flips_the_request(self, operation: str, at: int, **how: Any) -> None:
        """One bit of the request's body is another."""

        def before(exchange: Exchange) -> None:
            exchange.body = flipped(exchange.body, at)

        self.faults.append(Fault(operation, before=before, **how))

    def shortens(self, operation: str, to: int, **how: Any) -> None:
        """The answer is shorter, and says so."""

        def after(exchange: Exchange) -> None:
            exchange.reply = exchange.reply[:to]

        self.faults.append(Fault(operation, after=after, **how))

    def breaks_off(self, operation: str, at: int, *, stall_s: float = 0, **how: Any) -> None:
        """The connection ends in the middle of the answer's body, after a silence perhaps."""

        def send(out: Any, body: bytes) -> None:
            out.write(body[:at])
            out.flush()
            self.stopped.wait(stall_s)
            raise CutError

        self.faults.append(Fault(operation, send=send, **how))

    # ------------------------------------------------------------------------------------ the passing

    def _taken(self, operation: str) -> Fault | None:
        with self._lock:
            self.seen.append(operation)
            for fault in self.faults:
                if fault.operation == operation and fault.times > 0:
                    if fault.skip:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    return fault
        return None

    def _exchange(self, handler: "_Handler") -> None:
        with self._lock:
            self.under_way += 1
        try:
            self._serve(handler)
        finally:
            with self._lock:
                self.under_way -= 1

    def _serve(self, handler: "_Handler") -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        exchange = Exchange(handler.command, handler.path, headers, handler.rfile.read(length))
        fault = self._taken(exchange.operation)
        if fault and fault.before:
            fault.before(exchange)
        if exchange.status == 0 and not _as_declared(exchange):
            exchange.status, exchange.reply = 400, ERROR.format(code="BadDigest").encode()
            self.refused.append(exchange.operation)
        if exchange.status == 0:
            self._pass_on(exchange)
        if fault and fault.after:
            fault.after(exchange)
        handler.answer(exchange, fault.send if fault else None)

    def _pass_on(self, exchange: Exchange) -> None:
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            kept = {name: value for name, value in exchange.headers.items() if name != "expect"}
            connection.request(exchange.method, exchange.path, exchange.body, kept)
            reply = connection.getresponse()
            exchange.reply = reply.read()
            exchange.status, exchange.reply_headers = reply.status, reply.getheaders()
            if exchange.operation == "CompleteMultipartUpload" and reply.status == 500:
                # moto stumbles over an upload that has ended; S3 says so.
                exchange.status, exchange.reply = 404, ERROR.format(code="NoSuchUpload").encode()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        """Answer one request."""

    def _serve(self) -> None:
        try:
            self.serve()
        except (CutError, OSError):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the names of the standard library

    def answer(self, exchange: Exchange, send: Callable[[Any, bytes], None] | None) -> None:
        """Send what is left of the answer."""
        self.send_response_only(exchange.status)
        own = {"content-length", "transfer-encoding", "connection"}
        head = exchange.method == "HEAD"
        for name, value in exchange.reply_headers:
            if name.lower() not in own or (head and name.lower() == "content-length"):
                self.send_header(name, value)
        if not head:
            self.send_header("Content-Length", str(len(exchange.reply)))
        self.end_headers()
        if send is not None:
            send(self.wfile, exchange.reply)
        if not head:
            self.wfile.write(exchange.reply)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the standard library
        """Nothing."""


def flipped(content: bytes, at: int) -> bytes:
    """``content`` with one bit of the byte at ``at`` changed."""
    changed = bytearray(content)
    changed[at] ^= 0x10
    return bytes(changed)


def _cut(_exchange: Exchange) -> None:
    raise CutError


def _as_declared(exchange: Exchange) -> bool:
    headers, body = exchange.headers, exchange.body
    declared = {
        "content-md5": lambda: base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        "x-amz-checksum-sha256": lambda: base64.b64encode(hashlib.sha256(body).digest()).decode(),
    }
    signed = headers.get("x-amz-content-sha256", "")
    # Bytes that the proxy itself changed keep the signature of the client: no server would take them.
    if re.fullmatch(r"[0-9a-f]{64}", signed) and hashlib.sha256(body).hexdigest() != signed:
        return False
    return all(headers[name] == found() for name, found in declared.items() if name in headers)


def wait_until(done: Callable[[], bool], within_s: float = 30) -> None:
    """Wait for something that another process does."""
    limit = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.01)
