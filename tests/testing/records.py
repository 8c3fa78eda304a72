"""Records of calls, as a gateway would keep them."""

from typing import Any

from ctxcache.gateway.faults.record import RecordedCall
from ctxcache.models import ChatRequest, ContextRequest, PromptTokensDetails, Usage, system, user

MODEL = "Doubao-1.5-pro-32k"


class Records:
    """A record that a test writes, a call after the other, a second each."""

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []
        self.now = 0.0

    def create(self, context: str, text: str = "manual", /, **fields: Any) -> RecordedCall:
        """Note a create."""
        request = ContextRequest(model=MODEL, messages=[system(text)])
        return self._add("create", request, context, {"stored": True, **fields})

    def chat(self, question: str, /, context: str = "c", *, cached: int = 8, **fields: Any) -> RecordedCall:
        """Note a chat, answered well unless told otherwise."""
        request = ChatRequest(model=MODEL, context_id=context, messages=[user(question)])
        details = PromptTokensDetails(cached_tokens=cached)
        usage = Usage(prompt_tokens=10, completion_tokens=1, total_tokens=11, prompt_tokens_details=details)
        return self._add("chat", request, context, {"stored": True, "usage": usage, "text": "Whole.", **fields})

    def refused(self, question: str, /, **fields: Any) -> RecordedCall:
        """Note a chat that was refused."""
        return self.chat(question, **{"stored": False, "whole": False, "status": 429, "usage": None, **fields})

    def _add(self, endpoint: str, request: Any, context: str, fields: dict[str, Any]) -> RecordedCall:
        seconds = fields.pop("seconds", 1.0)
        call = RecordedCall(
            **{
                "number": len(self.calls) + 1,
                "endpoint": endpoint,
                "began": self.now,
                "ended": self.now,
                "request": request,
                "context_id": context,
                "mode": "session",
                "status": 200,
                "whole": True,
                **fields,
            }
        )
        self.now += seconds
        self.calls.append(call)
        return call
