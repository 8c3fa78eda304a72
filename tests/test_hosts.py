"""Hosts: which are public, and which the proxy of the environment is for."""

import pytest

from ctxcache.hosts import bypasses, is_loopback, is_public, proxy_for

PUBLIC = """
    gateway.serevixai.ai API.Example.COM example.com. 8.8.8.8 1.1.1.1 2001:4860:4860::8888 [2001:4860:4860::8888]
    134744072 0x08080808 010.8.8.8 8.8 local.example.com svc.example internal.dev ::ffff:8.8.8.8
""".split()
PRIVATE = """
    localhost LOCALHOST. api.localhost 127.0.0.1 127.9.9.9 ::1 [::1] ::ffff:127.0.0.1 10.0.0.1 172.16.0.1 172.31.255.255
    192.168.1.1 169.254.169.254 100.64.0.1 fe80::1 fe80::1%eth0 fd00::1 [fd12:3456::1] gateway llm-gateway nas.local
    vault.internal chat.prod.svc chat.prod.svc.cluster.local 0.0.0.0
""".split()


@pytest.mark.parametrize("host", PUBLIC)
def test_public(host):
    """Names with a dot and global addresses are public, in whatever spelling."""
    assert is_public(host)
    assert not is_loopback(host)


@pytest.mark.parametrize("host", PRIVATE)
def test_private(host):
    """This machine, private and link-local addresses, single labels and the names of local networks are not."""
    assert not is_public(host)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("a.localhost", True), ("127.8.0.1", True), ("[::1]", True), ("::ffff:127.0.0.1", True)]
    + [(host, False) for host in ("gateway", "10.0.0.1", "notlocalhost", "localhost.example.com", "::2")],
)
def test_loopback(host, loopback):
    """Loopback is `localhost`, the names below it, 127.0.0.0/8 and ::1."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("no_proxy", "hosts", "others"),
    [
        ("", "", "example.com 10.0.0.1 ::1"),
        ("*", "example.com 10.0.0.1 ::1 fd00::1", ""),
        ("example.com", "example.com EXAMPLE.com a.example.com a.b.example.com example.com.", "badexample.com com"),
        (".example.com", "example.com a.example.com", "badexample.com example.com.evil"),
        ("*.example.com", "a.example.com", "badexample.com"),
        ("Example.COM.", "example.com", "example.org"),
        ("localhost", "localhost", "local"),
        ("10.0.0.1", "10.0.0.1 ::ffff:10.0.0.1", "10.0.0.11 110.0.0.1 0.0.1"),
        ("0.0.1", "", "10.0.0.1"),
        ("10.0.0.0/8", "10.1.2.3 10.0.0.1", "11.0.0.1 ::1 ten.example"),
        ("10.1.2.3/8", "10.9.9.9", "11.0.0.1"),
        ("192.168.0.0/255.255.0.0", "192.168.9.9", "192.169.0.1"),
        ("fd00::/8", "fd12::1 [fd12::1]", "fe80::1 10.0.0.1"),
        ("[fd00::]/8", "fd12::1", "fe80::1"),
        ("::1", "::1 [::1] 0:0:0:0:0:0:0:1", "::2"),
        ("[::1]", "::1", "::2 1"),
        ("[::1]:443", "::1", "::2"),
        ("[::1]:444", "", "::1"),
        ("fe80::1", "fe80::1%eth0", "fe80::2"),
        ("example.com:443", "example.com a.example.com", "example.org"),
        ("example.com:8080", "", "example.com"),
        ("10.0.0.1:443", "10.0.0.1", "10.0.0.2"),
        ("example.com:", "", "example.com"),
        ("example.com:https", "", "example.com"),
        (
            "a.example b.example\tc.example,,d.example , e.example",
            "a.example b.example c.example d.example e.example",
            "f",
        ),
        ("10.0.0.0/99, /, , [, ], :, ., *., example.com", "example.com", "10.0.0.1 example.org"),
    ],
)
def test_no_proxy(no_proxy, hosts, others):
    """`NO_PROXY` is read as curl and Go read it: names, suffixes, addresses, networks, ports."""
    assert [host for host in hosts.split() if not bypasses(host, 443, no_proxy)] == []
    assert [host for host in others.split() if bypasses(host, 443, no_proxy)] == []


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://h.example/v1", {}, None),
        ("http://h.example/v1", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("https://h.example/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://h.example/v1", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("https://h.example/v1", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://h.example/v1", {"ALL_PROXY": "http://p:1", "https_proxy": "http://q:1"}, "http://q:1"),
        ("http://h.example/v1", {"http_proxy": "http://p:1", "HTTP_PROXY": "http://q:1"}, "http://p:1"),
        ("http://h.example/v1", {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        ("http://h.example/v1", {"HTTP_PROXY": " "}, None),
        ("http://h.example/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "h.example:80"}, None),
        ("https://h.example/v1", {"HTTPS_PROXY": "http://p:1", "no_proxy": "h.example:443"}, None),
        ("https://h.example:8/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "h.example:443"}, "http://p:1"),
        ("http://127.0.0.1:9/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://localhost/v1", {"ALL_PROXY": "http://p:1"}, None),
        ("http://[::1]:9/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://[fd00::1]:9/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, None),
    ],
)
def test_proxy_for(url, environment, proxy):
    """The scheme's proxy wins over `ALL_PROXY`, lower case over upper case; loopback is reached directly."""
    assert proxy_for(url, environment) == proxy
