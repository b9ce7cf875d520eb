"""Secrets of this process that a log must not hold, whoever printed them.

Children get no secret of ours, but a hook may read a file, and an error text may carry a URI. What is
filtered are the values that this process was given: ``EMBOFLOW_SECRET_*``, those of AWS, passwords in URIs.

Source: spec/reliability.md I18 and "Security decisions".
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote

MASK: Final = b"***"
#: Shorter ones are words that stand in every log.
SHORTEST: Final = 6
_NAMED: Final = re.compile(
    r"EMBOFLOW_SECRET_\w+|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|EMBOFLOW_MONGO_PASSWORD"
)
_PASSWORD: Final = re.compile(r"^[a-z0-9+.-]+://[^/@:]*:([^/@]*)@", re.IGNORECASE)


def secrets_of(environment: Mapping[str, str]) -> set[str]:
    """The secret values in an environment, long enough to be told from words."""
    found = {value for name, value in environment.items() if _NAMED.fullmatch(name)}
    for value in environment.values():
        if password := _PASSWORD.match(value):
            found |= {password[1], unquote(password[1])}
    # Logs are cut into lines: of a key of several lines each is one.
    lines = {line.strip() for value in found for line in value.splitlines()}
    return {line for line in lines if len(line) >= SHORTEST}


class SecretsFilter:
    """Replaces secret values in bytes.

    >>> SecretsFilter(["hunter22"])(b"it is hunter22!")
    b'it is ***!'
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one may begin with another.
        self._secrets = sorted({s.encode("utf-8", "surrogateescape") for s in secrets}, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets))) if self._secrets else None

    @classmethod
    def of_process(cls) -> "SecretsFilter":
        """A filter for what this process was given."""
        return cls(secrets_of(os.environ))

    def __call__(self, data: bytes) -> bytes:
        """``data`` with each secret replaced by ``***``."""
        return data if self._pattern is None else self._pattern.sub(MASK, data)

    def text(self, text: str) -> str:
        """The same for text."""
        if self._pattern is None:
            return text
        return self(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def unsafe_end(self, data: bytes) -> int:
        """How many bytes at the end of ``data`` may be the beginning of a secret that goes on."""
        return max((_overlap(data, secret) for secret in self._secrets), default=0)


def _overlap(data: bytes, secret: bytes) -> int:
    for size in range(min(len(secret) - 1, len(data)), 0, -1):
        if data.endswith(secret[:size]):
            return size
    return 0
