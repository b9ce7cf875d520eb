"""Which S3 endpoints are talked to: https anywhere sensible, plain http on this machine only.

An endpoint comes from the standard ``AWS_ENDPOINT_URL_S3`` and ``AWS_ENDPOINT_URL``, a profile, or a Dagster
resource. The address that a name resolves to is not looked at here.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from emboflow_dagster.errors import ConfigurationError, ErrorKind

HINT: Final = "AWS_ENDPOINT_URL_S3 is https://host[:port]; http:// is for a server on this machine"
#: Where clouds hand out credentials: never an object store.
_METADATA_NAMES: Final = frozenset({"metadata", "metadata.google.internal", "instance-data"})
_METADATA_ADDRESSES: Final = frozenset({"fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192"})
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_endpoint(url: str) -> str:
    """The endpoint's host and port, for messages; safe to show.

    Raises:
        ConfigurationError: Kind ``store-refused``: no http(s) URL, a login or a query in it, plain http to
            another machine, or the address of a metadata service.

    Source: spec/reliability.md, "Security decisions".
    """
    if any(c.isspace() or not c.isprintable() for c in url):
        raise _refused("an endpoint with white space or control characters in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("an endpoint that is no URL") from None
    if "@" in parts.netloc:
        raise _refused(
            "a login in the endpoint", "credentials come from AWS_* variables, a profile or a role"
        )
    host = (parts.hostname or "").removesuffix(".")
    if parts.scheme not in ("https", "http") or not host:
        raise _refused("an endpoint that is no http or https URL with a host")
    if parts.query or parts.fragment:
        raise _refused("a query or fragment in the endpoint")
    address = _address(host)
    shown = f"[{host}]" if ":" in host else host
    shown = shown if port is None else f"{shown}:{port}"
    if host in _METADATA_NAMES or (address is not None and _is_metadata(address)):
        raise _refused(f"{shown}: no object store is at a link-local, multicast or metadata address")
    if parts.scheme == "http" and not (
        host == "localhost" or (address is not None and _plain(address).is_loopback)
    ):
        raise _refused(f"plain http to {shown}: payloads and credentials would cross the network unprotected")
    return shown


def _address(host: str) -> Address | None:
    """The address a host is written as, ``None`` for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        # `127.1`, `2130706433` and `0x7f.1` are addresses to the C library and names to Python.
        if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]) or not all(_LABEL.fullmatch(x) for x in labels):
            raise _refused("an endpoint whose host is neither a name nor an address") from None
        return None


def _plain(address: Address) -> Address:
    """The IPv4 address inside of an IPv6 one, where there is one."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _is_metadata(address: Address) -> bool:
    inner = _plain(address)
    return (
        inner.is_link_local
        or inner.is_multicast
        or inner.is_unspecified
        or str(inner) in _METADATA_ADDRESSES
        or str(inner) == "255.255.255.255"
    )


def _refused(found: str, hint: str = HINT) -> ConfigurationError:
    return ConfigurationError(f"the object store: found {found}", kind=ErrorKind.STORE_REFUSED, hint=hint)
