"""A usage in the forms that commands print: a line for people, JSON for programs."""

from typing import Any

from ..models import Usage

__all__ = ["usage_json", "usage_line"]


def usage_line(usage: Usage | None) -> str:
    """Return a usage in words; cached tokens are part of the prompt's."""
    if usage is None:
        return "the service sent no usage"
    prompt = f"{usage.prompt_tokens:,} tokens in ({usage.cached_tokens:,} cached + {usage.fresh_tokens:,} new)"
    return f"{prompt}, {usage.completion_tokens:,} out"


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return a usage under the service's names."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
