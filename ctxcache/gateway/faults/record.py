"""The record of a call: what came, what was answered, what was stored."""

import attrs

from ...models import ChatRequest, ContextRequest, Message, Usage

__all__ = ["RecordedCall"]


@attrs.define(eq=False, kw_only=True)
class RecordedCall:
    """One call of create or chat.

    Attributes:
        number: the number of the call, from 1.
        endpoint: `create` or `chat`.
        began: when the request came, in seconds by a clock that only runs forward.
        ended: when the last byte was handed over, or the call ended otherwise; None while it runs.
        faults: the kinds of the faults that struck the call, in the order set.
        request: the request; None if it could not be read.
        context_id: the context of a chat; of a create, the one that was made, None without.
        mode: the mode of that context, "" if there was none.
        status: the HTTP status of the answer; None where no head was sent.
        code: the service's code of a refusal, "" otherwise.
        retry_after: the pause that a refusal asked for, in seconds.
        stored: whether a turn was stored, or a context made.
        whole: whether the answer was sent to its end.
        left: whether the client left before.
        outlasted: whether the client was still there when a stalled answer was cut.
        text: the answer of a chat as far as the engine came; of several replies the first.
        usage: the usage as the gateway counts, or the engine told; what a fault hides is in here.
    """

    number: int
    endpoint: str
    began: float
    faults: tuple[str, ...] = ()
    ended: float | None = None
    request: ContextRequest | ChatRequest | None = None
    context_id: str | None = None
    mode: str = ""
    status: int | None = None
    code: str = ""
    retry_after: float | None = None
    stored: bool = False
    whole: bool = False
    left: bool = False
    outlasted: bool = False
    text: str = ""
    usage: Usage | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of the request."""
        return () if self.request is None else tuple(self.request.messages)

    @property
    def refused(self) -> bool:
        """Whether the call was answered with an error."""
        return self.status is not None and self.status >= 400
