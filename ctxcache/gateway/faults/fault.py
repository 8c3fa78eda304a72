"""A fault: what happens, and on which calls. Pure.

================  ==================  ========================================================  ==========
kind              value               what happens                                              the turn
================  ==================  ========================================================  ==========
fail              status              the call is refused with this status                      did not run
rate_limit        retry_after = 1     429 with `Retry-After`                                    did not run
busy                                  403, as if another call ran on the session (chat only)    did not run
expire                                the call's context ends just before (chat only)           did not run
outage                                connections are refused, open ones cut                    did not run
limits                                429 beyond `rpm` calls a minute, or `at_once` at a time   did not run
delay             seconds             the call waits before anything else                       runs
slow_first_token  seconds             the first fragment waits (chat only)                      runs
disconnect        after_chunks = 1    the connection is cut after so many chunks                not stored
truncate          after_chunks = 1    the answer ends early, by HTTP in good order              not stored
stall             seconds = 30        no byte more after `after_chunks = 1`; then the cut       not stored
corrupt           after_chunks = 1    the next chunk is no JSON                                 stored
lose_reply        after_chunks = 0    the answer is lost after so many chunks                   stored
evict                                 the usage has 0 cached tokens                             stored
no_usage                              the answer has no usage                                   stored
reply             text                the answer is this text (chat only)                       stored
================  ==================  ========================================================  ==========

A plain answer has no chunks: `disconnect`, `stall` and `lose_reply` send nothing of that; `truncate` sends the first
half, `corrupt` the whole with a part garbled. So for a create, whose context exists after all but the first two.
"""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from ... import checks
from ...errors import InvalidInputError

__all__ = ["KINDS", "OPTIONS", "Fault", "Kind", "chance"]

_LONGEST: Final = 86_400.0
_ENDPOINTS: Final = ("create", "chat")
_WHEN: Final = ("on", "nth", "times", "probability", "seed")


@attrs.frozen
class Kind:
    """What a kind of fault takes.

    Attributes:
        value: the option whose value follows the kind in the grammar, `fail=503`; "" for none.
        defaults: what is taken where an option is not given; a value without a default must be given.
        options: the other options.
        chat_only: whether the kind has no meaning for a create.
    """

    value: str = ""
    defaults: Mapping[str, float] = MappingProxyType({})
    options: tuple[str, ...] = ()
    chat_only: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "fail": Kind("status", options=("code", "retry_after")),
    "rate_limit": Kind("retry_after", {"retry_after": 1.0}),
    "busy": Kind(chat_only=True),
    "expire": Kind(chat_only=True),
    "outage": Kind(),
    "limits": Kind(options=("rpm", "at_once")),
    "delay": Kind("seconds"),
    "slow_first_token": Kind("seconds", chat_only=True),
    "disconnect": Kind("after_chunks", {"after_chunks": 1}),
    "truncate": Kind("after_chunks", {"after_chunks": 1}),
    "stall": Kind("seconds", {"seconds": 30.0, "after_chunks": 1}, options=("after_chunks",)),
    "corrupt": Kind("after_chunks", {"after_chunks": 1}),
    "lose_reply": Kind("after_chunks", {"after_chunks": 0}),
    "evict": Kind(),
    "no_usage": Kind(),
    "reply": Kind("text", chat_only=True),
}

_Check = Callable[[str, Any], Any]


def _count(field: str, value: Any) -> int:
    return checks.whole(field, value, 1)


def _seconds(field: str, value: Any) -> float:
    return checks.number(field, value, 0, _LONGEST)


OPTIONS: Final[Mapping[str, _Check]] = {
    "on": lambda field, value: checks.one_of(field, value, _ENDPOINTS),
    "nth": _count,
    "times": _count,
    "probability": lambda field, value: checks.number(field, value, 0, 1),
    "seed": lambda field, value: checks.whole(field, value, 0),
    "status": lambda field, value: checks.whole(field, value, 400, 599),
    "code": checks.text,
    "retry_after": _seconds,
    "seconds": _seconds,
    "after_chunks": lambda field, value: checks.whole(field, value, 0),
    "rpm": _count,
    "at_once": _count,
    "text": checks.string,
}


@attrs.frozen
class Fault:
    """What happens, and on which calls: `Fault("fail", status=503, on="chat", times=2)`.

    A fault strikes every call, from the moment it is set until healed; the options of the second group choose among
    those calls.

    Attributes:
        kind: see the table of `ctxcache docs testing`.
        status: the HTTP status, 400 to 599.
        code: the service's code in the error; "" is the usual one of the status.
        retry_after: the pause to ask for, in seconds.
        seconds: how long to wait.
        after_chunks: how many chunks of a stream are sent before.
        rpm: the calls that one minute takes.
        at_once: the calls that may run at a time.
        text: the answer.

        on: `create` or `chat`; None is both.
        nth: the number of the call to strike, 1 for the next one; with `times`, the first of so many.
        times: how many calls to strike; None is no end, with `nth` one.
        probability: strike a call with this probability, in [0, 1].
        seed: of that probability: the same seed strikes the same calls.

    Raises:
        InvalidInputError: for an unknown kind, an option that the kind does not have or lacks, a value out of range.
    """

    kind: str
    status: int | None = attrs.field(default=None, kw_only=True)
    code: str | None = attrs.field(default=None, kw_only=True)
    retry_after: float | None = attrs.field(default=None, kw_only=True)
    seconds: float | None = attrs.field(default=None, kw_only=True)
    after_chunks: int | None = attrs.field(default=None, kw_only=True)
    rpm: int | None = attrs.field(default=None, kw_only=True)
    at_once: int | None = attrs.field(default=None, kw_only=True)
    text: str | None = attrs.field(default=None, kw_only=True)
    on: str | None = attrs.field(default=None, kw_only=True)
    nth: int | None = attrs.field(default=None, kw_only=True)
    times: int | None = attrs.field(default=None, kw_only=True)
    probability: float | None = attrs.field(default=None, kw_only=True)
    seed: int | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        kind = KINDS[checks.one_of("fault", self.kind, KINDS)]
        known = (kind.value, *kind.options, *_WHEN)
        for name, check in OPTIONS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if name not in known:
                allowed = " or ".join(sorted(filter(None, known)))
                raise InvalidInputError.of(f"fault {self.kind}: option", name, allowed)
            object.__setattr__(self, name, check(f"fault {self.kind}: {name}", value))
        self._check_whole(kind)

    def _check_whole(self, kind: Kind) -> None:
        """Check what the options must be together, and fill in the defaults."""
        for name, default in kind.defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        if kind.value and getattr(self, kind.value) is None:
            OPTIONS[kind.value](f"fault {self.kind}: {kind.value}", None)  # raises
        if kind.chat_only and self.on == "create":
            raise InvalidInputError.of(f"fault {self.kind}: on", self.on, "'chat'")
        if self.kind == "limits" and self.rpm is None and self.at_once is None:
            raise InvalidInputError.of("fault limits: option", "none", "rpm or at_once")
        if self.seed is not None and self.probability is None:
            raise InvalidInputError.of(f"fault {self.kind}: seed", self.seed, "left out without a probability")

    @property
    def is_constant(self) -> bool:
        """Whether every call is struck, without an end."""
        return (self.on, self.nth, self.times, self.probability) == (None, None, None, None)

    def concerns(self, endpoint: str) -> bool:
        """Whether the fault is for an endpoint, `create` or `chat`."""
        return self.on in (None, endpoint) and not (endpoint == "create" and KINDS[self.kind].chat_only)


def chance(seed: int, number: int) -> float:
    """Return a number in [0, 1), the same for the same seed and number, otherwise as good as random."""
    digest = hashlib.blake2b(b"%d %d" % (seed, number), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
