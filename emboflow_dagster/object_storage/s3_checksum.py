"""What a server checks a request's body by (decision 0010).

AWS checks a sha256, keeps it with the object and names it in listings, whatever the encryption. Other servers
refuse that header or take it unread; they check Content-MD5, and most name it again as the ETag of a part.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Checksum:
    """One of the two: how it is computed, sent, and found again in a listing."""

    name: str

    def new(self) -> Any:
        """An empty digest."""
        return hashlib.new(self.name, usedforsecurity=False)

    def of(self, block: bytes | bytearray | memoryview) -> bytes:
        """The raw checksum of a block."""
        digest = self.new()
        digest.update(block)
        return digest.digest()

    def header(self, value: bytes) -> dict[str, str]:
        """The argument that makes the server check a body."""
        return {"ChecksumSHA256" if self.name == "sha256" else "ContentMD5": base64.b64encode(value).decode()}

    def upload(self) -> dict[str, str]:
        """The argument that announces it for a multipart upload."""
        return {"ChecksumAlgorithm": "SHA256"} if self.name == "sha256" else {}

    def completed(self, value: bytes) -> dict[str, str]:
        """What the completion of an upload says of a part."""
        return self.header(value) if self.name == "sha256" else {}

    def listed(self, part: dict[str, Any]) -> bytes | None:
        """The checksum that a listing gives for a part; ``None`` where it gives none."""
        if self.name == "sha256":
            try:
                return base64.b64decode(part.get("ChecksumSHA256") or "", validate=True) or None
            except binascii.Error:
                return None
        tag = str(part.get("ETag", "")).strip('"')
        return bytes.fromhex(tag) if re.fullmatch(r"[0-9a-f]{32}", tag) else None


SHA256: Final = Checksum("sha256")
MD5: Final = Checksum("md5")


def checksum_for(endpoint: str) -> Checksum:
    """The one that the server behind an endpoint checks.

    >>> checksum_for("s3.eu-central-1.amazonaws.com").name, checksum_for("minio.example.org:9000").name
    ('sha256', 'md5')
    """
    host = endpoint.rpartition(":")[0] or endpoint
    return SHA256 if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else MD5
