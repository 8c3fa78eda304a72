"""A usage, for people and for programs."""

from ctxcache import CompletionTokensDetails, PromptTokensDetails, Usage
from ctxcache.cli.usage import usage_json, usage_line

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
