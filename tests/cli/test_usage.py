"""A usage, for people and for programs."""

import json

import pytest

from ctxcache import CompletionTokensDetails, PromptTokensDetails, Usage
from ctxcache.cli.usage import read_usage, usage_json, usage_line

USAGE = Usage(
    prompt_tokens=1500,
    completion_tokens=20,
    total_tokens=1520,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=1400),
    completion_tokens_details=CompletionTokensDetails(reasoning_tokens=5),
)


def test_line() -> None:
    """Cached tokens are counted as part of the prompt's."""
    assert usage_line(USAGE) == "1,500 tokens in (1,400 cached + 100 new), 20 out"


def test_no_usage() -> None:
    """A service that sends no usage is not made to look free."""
    assert usage_line(None) == "the service sent no usage"


def test_json_has_the_names_of_the_service() -> None:
    """Programs get the fields of an answer's usage."""
    assert usage_json(USAGE) == {
        "prompt_tokens": 1500,
        "completion_tokens": 20,
        "total_tokens": 1520,
        "prompt_tokens_details": {"cached_tokens": 1400},
    }


def test_json_can_be_read_back() -> None:
    """A usage in JSON is read back, without the parts of the output."""
    usage = read_usage(json.loads(json.dumps(usage_json(USAGE))))
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.total_tokens) == (
        1500,
        1400,
        20,
        1520,
    )
    plain = read_usage({"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6})
    assert plain is not None
    assert plain.cached_tokens == 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"prompt_tokens": 5, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1, "total_tokens": 2},
        {"prompt_tokens": -1, "completion_tokens": 1, "total_tokens": 0},
        {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6, "prompt_tokens_details": {}},
    ],
)
def test_anything_else_is_no_usage(value: object) -> None:
    """Anything but whole numbers from 0 up under the service's names is no usage."""
    assert read_usage(value) is None
