"""The settings that every answer of a file must share: prefix, model, sampling. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

__all__ = ["Settings"]

_MODE: Final = "common_prefix"
_HASH_DIGITS: Final = 16


@attrs.frozen
class Settings:
    """Prefix, model and sampling options of a batch.

    Attributes:
        model: the model's id.
        prefix_hash: of the mode and the text of the prefix.
        sampling: options of every question, by parameter.
    """

    model: str
    prefix_hash: str
    sampling: Mapping[str, Any]

    @classmethod
    def of(cls, model: str, prefix: str, sampling: Mapping[str, Any]) -> "Settings":
        """Return the settings for the text of a prefix."""
        data = json.dumps([_MODE, prefix]).encode()
        return cls(model, hashlib.sha256(data).hexdigest()[:_HASH_DIGITS], dict(sampling))

    def fields(self) -> dict[str, Any]:
        """Return the fields of an answer's line."""
        shared = {"model": self.model, "prefix_hash": self.prefix_hash}
        return {**shared, "sampling": self.sampling} if self.sampling else shared

    def difference(self, fields: Mapping[str, Any]) -> str:
        """Return what differs in an answer's line, in words; "" if nothing does."""
        if fields.get("prefix_hash") != self.prefix_hash:
            return "a different prefix"
        if fields.get("model") != self.model:
            return f"a different model ({_shown(fields.get('model'))})"
        if fields.get("sampling", {}) != self.sampling:
            return f"different sampling options ({_shown(fields.get('sampling', {}))})"
        return ""


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if value else "none"
    return text if len(text) <= 80 else text[:77] + "..."
