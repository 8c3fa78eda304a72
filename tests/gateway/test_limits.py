"""The bounds of a gateway."""

import json
import re
from importlib.resources import files
from typing import Any

import attrs
import pytest

from ctxcache import InvalidInputError
from ctxcache.gateway import WINDOW, Gateway, GatewayLimits


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(GatewayLimits)])
@pytest.mark.parametrize("wrong", [0, -1, "5", True, float("nan")])
def test_limits_are_checked(name: str, wrong: Any) -> None:
    """A limit that is no number above 0 is refused by name."""
    with pytest.raises(InvalidInputError, match=rf"GatewayLimits\.{name} must be a"):
        GatewayLimits(**{name: wrong})


def test_a_gateway_takes_limits_only() -> None:
    """Anything else is refused by name."""
    limits: Any = {"connections": 5}
    with pytest.raises(InvalidInputError, match="limits must be GatewayLimits"):
        Gateway(limits=limits)


@pytest.mark.parametrize("window", [2, WINDOW, 300_000])
@pytest.mark.parametrize("text", ["\U0001f600" * 4, "abcd", "你", "\x01" * 4])
def test_a_body_that_fits_the_window_is_not_too_large(window: int, text: str) -> None:
    """The largest text that fits, all of its characters escaped, leaves room for 4 MiB of anything else."""
    body = json.dumps({"messages": [{"role": "user", "content": text * (window - 1)}]})
    assert len(body) + 4_000_000 < GatewayLimits().body_bytes_for(window)


def test_limits_that_depend_on_the_window_can_be_set() -> None:
    """A number of one's own holds for every window; the derived body has an end."""
    limits = GatewayLimits(body_bytes=5, context_bytes=6)
    assert (limits.body_bytes_for(WINDOW), limits.context_bytes_for(WINDOW)) == (5, 6)
    assert GatewayLimits().body_bytes_for(10**9) == 64 * 1024 * 1024


async def test_contexts_are_bounded(start: Any) -> None:
    """Beyond each bound on contexts a create is a 429 `QuotaExceeded`; the contexts there are stay."""
    big = [{"role": "user", "content": "hi", "name": "x" * 5000}]
    for limits, messages, words in (
        ({"contexts": 1}, [{"role": "user", "content": "hi"}], "There are 1 contexts already"),
        ({"context_bytes": 4000}, big, "The messages of a context may take 4000 bytes"),
        ({"memory_bytes": 8000}, big, "All contexts together may take 8000 bytes"),
    ):
        api = await start(limits=GatewayLimits(**limits))
        created = await api.create(**({"messages": big} if "memory_bytes" in limits else {}))
        answer = await api.post("/context/create", {"model": "Doubao-1.5-pro-32k", "messages": messages})
        assert (answer.status, answer.error["code"]) == (429, "QuotaExceeded")
        assert answer.error["message"].startswith(words)
        assert (await api.chat(created["id"])).status == 200


def test_the_docs_list_every_limit() -> None:
    """The page on self-hosting has each limit with its default."""
    page = files("ctxcache").joinpath("docs/self-hosting.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+)", page, re.MULTILINE))
    defaults = GatewayLimits()
    for field in attrs.fields(GatewayLimits):
        default = getattr(defaults, field.name)
        if default is not None:
            shown = float(rows[field.name].strip(",").replace(",", ""))
            assert default in {shown, shown * 2**20}, field.name
    assert list(rows) == [field.name for field in attrs.fields(GatewayLimits)]
