"""Who calls, by the key."""

from ctxcache.config import Secret
from ctxcache.gateway.rules.clients import Client, Clients, digest


def test_each_key_finds_a_client() -> None:
    """A key finds the client that was given for the hash of the key, and other keys find none."""
    ann, bob = Client(owner="a", name="x"), Client(owner="b", name="y")
    clients = Clients({digest(b"one"): ann, digest(b"two"): bob})
    assert [clients.find(key) for key in (b"one", b"two", b"", b"three", digest(b"one"))] == [
        ann,
        bob,
        None,
        None,
        None,
    ]


def test_the_only_key_of_a_gateway() -> None:
    """The client of the only key owns what has no owner, and has a name that tells nothing of the key."""
    one, other = Clients.of_key(Secret("sk-1")), Clients.of_key(Secret("sk-2"))
    assert other.find(b"sk-1") is None
    clients = [one.find(b"sk-1"), Clients.of_key(Secret("sk-1")).find(b"sk-1"), other.find(b"sk-2")]
    names = [client.name for client in clients if client is not None and client.owner == ""]
    assert names[0] == names[1] != names[2]
    assert "sk" not in "".join(names)
