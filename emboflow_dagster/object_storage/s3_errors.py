"""What the S3 client says went wrong, as errors of our tree.

Messages are ours: those of client and server may quote what nobody should read (keys, signatures, URLs).
"""

import re
from typing import Any, Final

from emboflow_dagster.errors import ConfigurationError, EmboflowError, ErrorKind, UnavailableError

#: There is no such object.
MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
#: The upload was completed or aborted by somebody, or is not what we think it is. Ceph and Swift say of one
#: that has ended that there is no such object.
UPLOAD_GONE: Final = frozenset({"NoSuchUpload", "NoSuchKey", "InvalidPart", "InvalidPartOrder"})
#: The object is there already (also: our own put, whose answer was lost), or somebody puts it now.
TAKEN: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
UNSUPPORTED: Final = frozenset({"NotImplemented", "501"})
#: The bytes arrived other than they were sent: sent again, they may arrive.
ALTERED: Final = frozenset(
    {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"}
)
#: What an answer without a body is told by: its status.
BARE: Final = frozenset({"301", "400", "403", "404"})
_BUSY: Final = frozenset(
    "SlowDown ServiceUnavailable Throttling ThrottlingException RequestLimitExceeded TooManyRequests "
    "InternalError RequestTimeout OperationAborted BandwidthLimitExceeded".split()
)
_HINTS: Final = {
    "AccessDenied": "the role or user lacks a permission: docs/object-store.md lists the needed ones",
    "AllAccessDisabled": "the bucket is disabled: ask its owner",
    "NoSuchBucket": "make the bucket, or set EMBOFLOW_OBJECT_STORE=s3://bucket/prefix to one that is there",
    "InvalidAccessKeyId": "the access key is not known there: is the endpoint the right one?",
    "SignatureDoesNotMatch": "the secret key is not that of the access key",
    "ExpiredToken": "the session has expired: sign in again",
    "InvalidToken": "the session token is not valid: sign in again",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION to it",
    "IllegalLocationConstraintException": "the bucket is in another region: set AWS_REGION to it",
    "QuotaExceeded": "make room in the store or raise its quota",
}
#: The answer to HEAD has no code but its status.
_SAME: Final = {"403": "AccessDenied", "301": "PermanentRedirect", "404": "NoSuchBucket"}
_ACTION: Final = re.compile(r"not authorized to perform: (s3:[A-Za-z]{3,60})")
_CREDENTIALS: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run under a role"


class Refusal(Exception):  # noqa: N818 - an answer, which the caller expects
    """The server answered with an error code that the caller wants to decide about."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def code_of(error: Any) -> str:
    """The code that the server answered, the HTTP status where the answer had no body; else nothing."""
    from botocore.exceptions import ClientError

    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code") or status_of(error))


def status_of(error: Any) -> int:
    """The HTTP status of a client error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def is_broken(error: BaseException) -> bool:
    """Whether a body broke off, stalled or arrived altered: asking for it again may work."""
    from botocore import exceptions as client

    broken = (
        client.ConnectionError,
        client.HTTPClientError,
        client.IncompleteReadError,
        client.ResponseStreamingError,
        client.FlexibleChecksumError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(error, broken)


def error_of(error: BaseException, bucket: str, endpoint: str) -> EmboflowError | None:
    """An exception of the S3 client as one of ours; ``None`` for what is none of its."""
    from botocore import exceptions as client

    if isinstance(error, client.ClientError):
        return _answered(error, bucket, endpoint)
    if isinstance(error, client.NoCredentialsError | client.PartialCredentialsError):
        return _refused(f"bucket {bucket}: there are no complete AWS credentials", _CREDENTIALS)
    if isinstance(
        error, client.CredentialRetrievalError | client.TokenRetrievalError | client.UnauthorizedSSOTokenError
    ):
        return _refused(f"bucket {bucket}: the AWS credentials could not be had", _CREDENTIALS)
    if isinstance(error, client.ProfileNotFound):
        return _refused(
            "AWS_PROFILE names a profile that is not there", "`aws configure list-profiles` lists them"
        )
    if isinstance(error, client.SSLError):
        if "CERTIFICATE" not in str(error).upper():
            return _refused(
                f"bucket {bucket}: {endpoint} speaks no TLS, or none that this machine takes",
                "is the port right? http:// is for a server on this machine",
            )
        return _refused(
            f"bucket {bucket}: the certificate of {endpoint} is not trusted",
            "AWS_CA_BUNDLE names the file of an authority of your own",
        )
    if isinstance(error, client.InvalidRegionError | client.NoRegionError):
        return _refused("AWS_REGION is missing or is no region", "set AWS_REGION, for example eu-central-1")
    if is_broken(error):
        return UnavailableError(
            f"bucket {bucket}: {endpoint} cannot be reached ({type(error).__name__})",
            hint="is the endpoint right, and the network there? `emboflow doctor` tries it",
        )
    if isinstance(error, client.BotoCoreError):
        return _refused(f"bucket {bucket}: the S3 client refused the request ({type(error).__name__})")
    return None


def _answered(error: Any, bucket: str, endpoint: str) -> EmboflowError:
    code, status = code_of(error), status_of(error)
    if code in UNSUPPORTED:
        return _refused(
            f"bucket {bucket}: {endpoint} answered {code}",
            "docs/object-store.md lists what a server must support",
        )
    if status >= 500 or status == 429 or code in _BUSY or code in ALTERED:  # noqa: PLR2004 - HTTP's numbers
        return UnavailableError(
            f"bucket {bucket}: {endpoint} answered {code} again and again",
            hint="the store is busy or broken; nothing is lost, run it again later",
        )
    action = _ACTION.search(str(error.response.get("Error", {}).get("Message", "")))
    asked = f" to {action[1]}" if action else ""
    return _refused(f"bucket {bucket}: {endpoint} answered {code}{asked}", _HINTS.get(_SAME.get(code, code)))


def _refused(message: str, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(message, kind=ErrorKind.STORE_REFUSED, hint=hint)
