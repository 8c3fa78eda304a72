"""The list of keys, as it stands in a file."""

from typing import Any

import pytest

from ctxcache.errors import InvalidInputError
from ctxcache.gateway.rules.clients import KeyLimits
from ctxcache.gateway.rules.key_list import ListedKey, add, clients_of, decode, encode, remove

ANN = ListedKey(name="ann", hash=bytes(32))
LIMITS = KeyLimits(contexts=1, memory_bytes=2, calls=3, requests_per_minute=4, tokens_per_minute=5)
BOB = ListedKey(name="bob@search.example", hash=bytes(31) + b"\1", limits=LIMITS)


def test_a_list_is_read_as_it_was_written() -> None:
    """A list comes back with names and hashes in order; each key has a line of its own."""
    assert decode(encode((BOB, ANN))) == (BOB, ANN)
    assert decode(encode(())) == ()
    assert len(encode((ANN, BOB)).splitlines()) == 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [1]}',
        b'{"keys": [{"name": "ann"}]}',
        b'{"keys": [{"name": "ann", "hash": 1}]}',
        b'{"keys": [{"name": "ann", "hash": "%b"}]}' % (b"0" * 63),
        b'{"keys": [{"name": "ann", "hash": "%b", "more": 1}]}' % (b"0" * 64),
        b'{"keys": [{"name": "", "hash": "%b"}]}' % (b"0" * 64),
        b'{"keys": [{"name": ["ann"], "hash": "%b"}]}' % (b"0" * 64),
        b'{"keys": [{"name": "ann", "hash": "%b", "limits": 1}]}' % (b"0" * 64),
        b'{"keys": [{"name": "ann", "hash": "%b", "limits": {"speed": 1}}]}' % (b"0" * 64),
        b'{"keys": [{"name": "ann", "hash": "%b", "limits": {"calls": "1"}}]}' % (b"0" * 64),
        encode((ANN, ANN)),
        encode((ANN, BOB))[:-3],
    ],
)
def test_anything_else_is_no_list(data: bytes) -> None:
    """A file that is damaged, or says something unknown, is refused as a whole."""
    with pytest.raises(InvalidInputError):
        decode(data)


@pytest.mark.parametrize("name", ["", "-x", "a b", "ä", "a\n", "x" * 65, None])
def test_names(name: Any) -> None:
    """A name can stand on a command line and in a log."""
    with pytest.raises(InvalidInputError, match=r"^name must be 1 to 64 letters, digits and \. _ @ -"):
        add((), ListedKey(name=name, hash=bytes(32)))


def test_names_are_taken_once() -> None:
    """A second key under one name is refused, and so is a key under two names."""
    for key in (ListedKey(name="ann", hash=BOB.hash), ListedKey(name="other", hash=ANN.hash)):
        with pytest.raises(InvalidInputError, match=r"^name must be a name without a key"):
            add((ANN,), key)


def test_a_key_is_removed_by_name() -> None:
    """The other keys stay; an unknown name is an error."""
    assert remove((ANN, BOB), "ann") == (BOB,)
    with pytest.raises(InvalidInputError, match=r"^name must be the name of a key of the file, got 'carl'"):
        remove((ANN, BOB), "carl")


def test_each_key_is_a_client_of_its_own() -> None:
    """Owners differ between keys, not between names, are the same after a restart, and tell nothing of the hash."""
    clients = clients_of((ANN, BOB))
    assert clients == clients_of((ANN, BOB))
    assert clients[ANN.hash].owner not in ("", clients[BOB.hash].owner, ANN.hash.hex())
    assert clients_of((ListedKey(name="new", hash=ANN.hash),))[ANN.hash] == clients[ANN.hash]
