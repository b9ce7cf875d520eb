"""One bucket as this process talks to it: requests in, answers or errors of our tree out."""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from emboflow_dagster.errors import ConfigurationError, ErrorKind
from emboflow_dagster.object_storage.s3_endpoint import HINT, check_endpoint
from emboflow_dagster.object_storage.s3_errors import ALTERED, BARE, MISSING, Refusal, code_of, error_of

ATTEMPTS: Final = (
    4  # of one request that arrives altered; what fails otherwise is repeated by the client itself
)
PAUSE_S: Final = 0.2
IN_FLIGHT: Final = 4
#: Makes a client of the S3 API.
ClientMaker = Callable[[], Any]


class Bucket:
    """Requests to one bucket. The client is made when the first one is sent, and anew in a forked process."""

    def __init__(self, name: str, make: ClientMaker | None = None) -> None:
        self.name = name
        self._make = make or default_client
        self._lock = threading.Lock()
        self._made: tuple[int, Any, str] | None = None
        self._seen = False

    def ask(self, operation: str, *, but: Collection[str] = (), **arguments: Any) -> Any:
        """Send one request; the client repeats what fails on the way, with growing pauses.

        Args:
            operation: The client's method, for example ``put_object``.
            but: Error codes that the caller decides about.
            arguments: Those of the method, without the bucket.

        Raises:
            Refusal: The server answered with a code of ``but``.
            UnavailableError: It cannot be reached, or is too busy.
            ConfigurationError: Kind ``store-refused``: credentials, bucket or endpoint.
        """
        client, endpoint = self.client()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return getattr(client, operation)(Bucket=self.name, **arguments)
            except Exception as error:
                code = code_of(error)
                if code in but:
                    raise Refusal(code) from None
                if code in ALTERED and attempt < ATTEMPTS:
                    time.sleep(PAUSE_S * 2**attempt)
                    continue
                translated = error_of(self._told(error, code), self.name, endpoint)
                if translated is None:
                    raise
                raise translated from error
        raise AssertionError("unreachable")

    def _told(self, error: BaseException, code: str) -> BaseException:
        """The error with its reason: the answer to HEAD has none, that to a listing, allowed alike, has."""
        from botocore.exceptions import BotoCoreError, ClientError

        if code in BARE:
            try:
                self.client()[0].list_objects_v2(Bucket=self.name, MaxKeys=1)
            except (BotoCoreError, ClientError) as reason:
                return reason
        return error

    def head(self, name: str) -> dict[str, Any] | None:
        """What is known of an object without reading it; ``None`` when there is none."""
        try:
            return self.ask("head_object", but=MISSING, Key=name)
        except Refusal:
            # The answer to HEAD does not say whether the object or its bucket is missing.
            self.check()
            return None

    def check(self) -> str:
        """The endpoint of the bucket, once it has answered.

        Raises:
            UnavailableError: It cannot be reached.
            ConfigurationError: Kind ``store-refused``: credentials, bucket or endpoint.
        """
        _, endpoint = self.client()
        if not self._seen:
            self.ask("head_bucket")
            self._seen = True
        return endpoint

    def answers(self) -> str:
        """As :meth:`check`, for somebody who looks on: our own client waits for 20 seconds, not minutes."""
        quick = Bucket(self.name, lambda: default_client(patient=False))
        return quick.check() if self._make is default_client else self.check()

    def pages(self, operation: str, field: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """The rows of a listing, page by page."""
        tokens: dict[str, Any] = {}
        while True:
            page = self.ask(operation, **arguments, **tokens)
            yield from page.get(field) or ()
            if not page.get("IsTruncated"):
                return
            tokens = _next(operation, page)

    def client(self) -> tuple[Any, str]:
        """The client and its endpoint's host.

        Raises:
            ConfigurationError: The endpoint, profile or region is not allowed or not there.
        """
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), *self._new())
                self._seen = False
            return self._made[1:]

    def _new(self) -> tuple[Any, str]:
        try:
            client = self._make()
        except ValueError as error:  # an endpoint that is no URL: the message would quote it
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                "the object store: the endpoint is no URL", kind=ErrorKind.STORE_REFUSED, hint=HINT
            ) from None
        except Exception as error:
            translated = error_of(error, self.name, "the endpoint")
            if translated is None:
                raise
            raise translated from error
        return client, check_endpoint(client.meta.endpoint_url)


def default_client(*, patient: bool = True) -> Any:
    """A client by the standard AWS variables, files and roles.

    A patient one outlasts a store that is busy, and the completion of a long upload.

    Checksums are ours to compute (decision 0010): the client's own would cost a second time.
    """
    import boto3.session
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": 5 if patient else 1},
        connect_timeout=10 if patient else 5,
        read_timeout=60 if patient else 10,
        max_pool_connections=4 * IN_FLIGHT,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="emboflow-dagster",
        signature_version="s3v4",  # else URLs that are lent in us-east-1 are signed in a way few servers take
    )
    return boto3.session.Session().client("s3", config=config)


def metadata_of(head: dict[str, Any]) -> dict[str, str]:
    """An object's own metadata, names in lower case: they are headers, and servers in Go write `Sha256`."""
    return {name.lower(): value for name, value in (head.get("Metadata") or {}).items()}


def server_time(reply: Any) -> datetime:
    """The server's clock, as its answer says; this machine's where it does not."""
    try:
        return parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, TypeError, ValueError):
        return datetime.now(UTC)


def _next(operation: str, page: dict[str, Any]) -> dict[str, Any]:
    if operation == "list_objects_v2":
        return {"ContinuationToken": page["NextContinuationToken"]}
    if operation == "list_parts":
        return {"PartNumberMarker": page["NextPartNumberMarker"]}
    return {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
