"""A usage in the forms that commands print: a line for people, JSON for programs."""

from typing import Any

from ..models import PromptTokensDetails, Usage

__all__ = ["read_usage", "usage_json", "usage_line"]


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


def read_usage(value: object) -> Usage | None:
    """Read what `usage_json` returned; None for anything else."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    counts: list[Any] = [value.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    counts.append(details.get("cached_tokens") if isinstance(details, dict) else 0)
    if not all(type(count) is int and count >= 0 for count in counts):
        return None
    prompt, completion, total, cached = counts
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
    )
