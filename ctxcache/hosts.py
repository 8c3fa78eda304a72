"""Hosts: which are public, and which are reached through the proxy that the environment names.

`NO_PROXY` is read as by curl and Go; `bypasses` has the rules.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

__all__ = ["bypasses", "is_loopback", "is_public", "proxy_for"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Suffixes that no public host has: of a machine, a local network or a cluster, or reserved for nobody by RFC 6761.
_PRIVATE_SUFFIXES = (".local", ".internal", ".svc", ".localhost", ".invalid")
_NUMERIC = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+))*")  # an IPv4 address in an odd spelling


def is_public(host: str) -> bool:
    """Whether a host may be anywhere on the Internet, so that others can read unencrypted requests.

    >>> [is_public(host) for host in ("api.example.com", "8.8.8.8", "10.1.2.3", "gateway", "llm.prod.svc", "::1")]
    [True, True, False, False, False, False]
    """
    name = _plain(host)
    address = _address(name)
    if address is not None:
        return address.is_global
    return bool(_NUMERIC.fullmatch(name)) or ("." in name and not name.endswith(_PRIVATE_SUFFIXES))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    name = _plain(host)
    address = _address(name)
    return address.is_loopback if address is not None else name == "localhost" or name.endswith(".localhost")


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy that the environment names for a URL; None where there is none.

    Args:
        url: an http or https URL.
        environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`; names in lower case win.
    """
    parts = urlsplit(url)
    proxy = _setting(environment, f"{parts.scheme}_proxy") or _setting(environment, "all_proxy")
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    if not proxy or is_loopback(host) or bypasses(host, port, _setting(environment, "no_proxy")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _setting(environment: Mapping[str, str], name: str) -> str:
    if name == "http_proxy" and "REQUEST_METHOD" in environment:
        return environment.get(name, "").strip()  # under CGI, HTTP_PROXY is a header that any client may send
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def bypasses(host: str, port: int, no_proxy: str) -> bool:
    """Whether `NO_PROXY` names a host.

    The entries are separated by commas or spaces:

    - `*`: every host.
    - `example.com`, `.example.com`, `*.example.com`: the name itself and every name that ends so, at a dot.
    - `10.0.0.1`, `::1`, `[::1]`: an address, however spelled.
    - `10.0.0.0/8`, `fd00::/8`: the addresses of a network.
    - a name or an address with `:8080` behind: that port only (an IPv6 address then in brackets).

    >>> [bypasses(host, 443, "a.example, 10.0.0.0/8, [fd00::1]:80") for host in ("x.a.example", "10.9.9.9", "fd00::1")]
    [True, True, False]
    """
    name = _plain(host)
    address = _address(name)
    return any(_names(entry, name, address, port) for entry in re.split(r"[,\s]+", no_proxy.lower()) if entry)


def _names(entry: str, name: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            network = ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            return False
        return address is not None and address.version == network.version and address in network
    entry, wanted = _split_port(entry)
    if wanted is not None and wanted != port:
        return False
    named = _address(_plain(entry))
    if named is not None or address is not None:
        return named == address
    suffix = _plain(entry).removeprefix("*").lstrip(".")
    return bool(suffix) and (name == suffix or name.endswith(f".{suffix}"))


def _split_port(entry: str) -> tuple[str, int | None]:
    """The host and the port of an entry; an address without brackets has no port, a port that is none never matches."""
    host, colon, port = entry.rpartition(":")
    if not colon or _address(_plain(entry)) is not None:
        return entry, None
    return host, int(port) if re.fullmatch(r"[0-9]{1,5}", port) else -1


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
