"""Spoiled bytes."""

import json
from typing import Any

import pytest

from ctxcache.gateway.faults import spoiling
from ctxcache.gateway.rules.answers import DONE

USAGE = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}


def event(**chunk: Any) -> bytes:
    """One event."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def test_events_are_split() -> None:
    """Bytes of whole events become the events, which joined are the bytes."""
    data = [event(a=1), event(b=2), DONE]
    assert spoiling.events(b"".join(data)) == data
    assert spoiling.events(b"") == []


@pytest.mark.parametrize("body", [b'{"a":1}', b"{}", b"x"])
def test_no_reader_takes_what_is_cut_or_garbled(body: bytes) -> None:
    """Half of a body, and a garbled body, is no JSON, in a string, too."""
    for spoiled in (
        spoiling.garble(body),
        spoiling.garble(b'{"a":"%b"}' % (b"x" * 100)),
        spoiling.half(body),
        spoiling.half_an_answer("Hello"),
        spoiling.GARBAGE[6:],
    ):
        with pytest.raises(json.JSONDecodeError):
            json.loads(spoiled.decode("utf-8", "replace"))


@pytest.mark.parametrize(
    ("answer", "evicted"),
    [
        ({"id": "x", "usage": USAGE}, {"id": "x", "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}}}),
        ({"id": "x", "usage": {"prompt_tokens": 9}}, {"id": "x", "usage": {"prompt_tokens": 9}}),
        ({"id": "x", "usage": None}, {"id": "x", "usage": None}),
        ({"id": "x"}, {"id": "x"}),
    ],
)
def test_usage_is_changed(answer: Any, evicted: Any) -> None:
    """A usage that tells of cached tokens tells of none, or there is no usage; nothing else changes."""
    body = json.dumps(answer).encode()
    assert json.loads(spoiling.change_usage(body, keep=True)) == evicted
    assert json.loads(spoiling.change_usage(body, keep=False)) == {"id": "x"}


def test_usage_of_a_stream_is_changed() -> None:
    """The event of the usage falls away, `usage: null` leaves the others; text that speaks of usage stays."""
    last = event(choices=[], usage=USAGE)
    text = event(choices=[{"delta": {"content": '"usage"'}}], usage=None)
    assert spoiling.change_usage_of_event(last, keep=False) is None
    assert b'"cached_tokens":0' in (spoiling.change_usage_of_event(last, keep=True) or b"")
    assert spoiling.change_usage_of_event(DONE, keep=False) == DONE
    assert spoiling.change_usage_of_event(event(choices=[]), keep=False) == event(choices=[])
    changed = spoiling.change_usage_of_event(text, keep=False) or b""
    assert json.loads(changed[6:]) == {"choices": [{"delta": {"content": '"usage"'}}]}
