"""Who calls, by the key."""

import pytest

from ctxcache.config import Secret
from ctxcache.errors import InvalidInputError
from ctxcache.gateway.rules.clients import NO_LIMITS, Client, Clients, KeyLimits, digest


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


def test_clients_are_replaced() -> None:
    """After `replace` the keys are those given, and no others."""
    ann, bob = Client(owner="a"), Client(owner="b")
    clients = Clients({digest(b"one"): ann})
    clients.replace({digest(b"two"): bob})
    assert [clients.find(key) for key in (b"one", b"two")] == [None, bob]


@pytest.mark.parametrize("name", ["contexts", "memory_bytes", "calls", "requests_per_minute", "tokens_per_minute"])
def test_limits_of_a_key(name: str) -> None:
    """Each limit is a whole number from 1 up, or None; those of calls are told apart from those of what stays."""
    limits = KeyLimits(**{name: 5})
    assert getattr(limits, name) == 5
    assert limits.limit_calls == (name not in ("contexts", "memory_bytes"))
    assert KeyLimits(**{name: None}) == NO_LIMITS
    for wrong in (0, -1, 1.5, "1", True):
        with pytest.raises(InvalidInputError, match=f"^{name} must be"):
            KeyLimits(**{name: wrong})
