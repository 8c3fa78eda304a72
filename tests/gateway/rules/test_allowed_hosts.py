"""The names by which a client may call the gateway."""

from typing import Any

import pytest

from ctxcache.errors import InvalidInputError
from ctxcache.gateway.rules.allowed_hosts import AllowedHosts
from ctxcache.gateway.serving import local_url

LOCAL = ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "127.9.9.9:80", "[::1]", "[::1]:8000", "localhost."]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.5",
    "",
    ":80",
]
FOREIGN += ["0.0.0.0:80", "[::]:80", "[::1", "x@localhost", "localhost,evil", "127.0.0.1 evil", "::2"]


@pytest.mark.parametrize("listening", ["127.0.0.1", "localhost", "::1"])
def test_on_loopback_only_this_machine_is_served(listening: str) -> None:
    """A gateway on a loopback address is called by names of this machine, with any port, or without a `Host`."""
    hosts = AllowedHosts.of(listening, None)
    assert [host for host in [*LOCAL, None] if not hosts.allows(host)] == []
    assert [host for host in FOREIGN if hosts.allows(host) and host != "[::1"] == []


@pytest.mark.parametrize("listening", ["", "0.0.0.0", "::", "10.0.0.5", "gateway.example"])
def test_elsewhere_every_name_is_served(listening: str) -> None:
    """Beyond loopback others decide which names lead here."""
    hosts = AllowedHosts.of(listening, None)
    assert all(map(hosts.allows, [*LOCAL, *FOREIGN, None]))


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0"])
def test_names_of_ones_own(listening: str) -> None:
    """Given names are served beside those of this machine, and no others; `*` is every name."""
    hosts = AllowedHosts.of(listening, ["LLM.example", "fd00::5"])
    assert all(map(hosts.allows, [*LOCAL, "llm.example:8443", "llm.EXAMPLE.", "[fd00::5]:80", None]))
    assert not any(map(hosts.allows, ["evil.example", "x.llm.example", "10.0.0.5"]))
    assert AllowedHosts.of(listening, ["*"]).allows("evil.example")
    assert not AllowedHosts.of(listening, []).allows("evil.example")


@pytest.mark.parametrize("listening", ["10.0.0.7", "Gateway.example", "fd00::7"])
def test_the_address_listened_on_is_served(listening: str) -> None:
    """The base URL of a gateway can be called, whatever other names are allowed."""
    hosts = AllowedHosts.of(listening, ["llm.example"])
    url = local_url(listening, 8000)
    assert hosts.allows(url.removeprefix("http://").removesuffix("/v1"))
    assert hosts.allows("llm.example")
    assert not hosts.allows("evil.example")


@pytest.mark.parametrize("wrong", ["localhost", 5, [5], [""], ["a.example:80"], [None]])
def test_names_are_checked(wrong: Any) -> None:
    """Anything but names without a port is refused."""
    with pytest.raises(InvalidInputError, match="allowed_hosts must be a list of host names without port"):
        AllowedHosts.of("127.0.0.1", wrong)
