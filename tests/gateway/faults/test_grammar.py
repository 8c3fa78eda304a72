"""Faults in one line of text."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache import InvalidInputError
from ctxcache.gateway.faults.fault import Fault
from ctxcache.gateway.faults.grammar import read_fault


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("fail=503", Fault("fail", status=503)),
        ("chat:fail=503,times=2", Fault("fail", status=503, on="chat", times=2)),
        ("create: rate_limit", Fault("rate_limit", on="create")),
        ("rate-limit=7.5", Fault("rate_limit", retry_after=7.5)),
        ("fail,status=429,retry_after=7,code=Mine.Own", Fault("fail", status=429, retry_after=7, code="Mine.Own")),
        ("chat:disconnect=3,nth=5", Fault("disconnect", after_chunks=3, on="chat", nth=5)),
        ("delay=0.5,probability=0.1,seed=1", Fault("delay", seconds=0.5, probability=0.1, seed=1)),
        ("limits,rpm=60,at_once=4", Fault("limits", rpm=60, at_once=4)),
        ("stall=5,after-chunks=0", Fault("stall", seconds=5, after_chunks=0)),
        ("reply=Hello: you", Fault("reply", text="Hello: you")),
        ('reply="Hello, \\"you\\"",times=1', Fault("reply", text='Hello, "you"', times=1)),
        ("reply=", Fault("reply", text="")),
        ("reply=503", Fault("reply", text="503")),
        ("outage", Fault("outage")),
        ("busy,on=chat", Fault("busy", on="chat")),
    ],
)
def test_a_line_is_read(line: str, fault: Fault) -> None:
    """Each form of the grammar gives the fault of the same options."""
    assert read_fault(line) == fault


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "fault must be KIND, KIND=VALUE or "),
        ("fail=503,", "fault must be KIND, KIND=VALUE or "),
        ("fail=503,,times=2", "fault must be KIND, KIND=VALUE or "),
        ("fail 503", "fault must be KIND, KIND=VALUE or "),
        ('reply="open', "fault must be KIND, KIND=VALUE or "),
        (5, "fault must be a Fault, or text: "),
        ("explode", "fault must be fail or rate_limit or "),
        ("models:fail=503", "fault fail: on must be 'create' or 'chat', got 'models'"),
        ("fail=often", "fault fail: status must be a whole number in [400, 599], got 'often'"),
        ("fail", "fault fail: status must be a whole number in [400, 599], got None"),
        ("busy=2", "fault busy: option must be on or nth or "),
        ("busy,seconds=2", "fault busy: option must be on or nth or "),
        ("busy,times", "fault busy: times must be a whole number from 1 up, got None"),
        ("busy,times=1,times=2", "fault busy: times must be given once, got '2'"),
        ("chat:busy,on=chat", "fault busy: on must be given once, got 'chat'"),
        ('reply="\\x"', "fault reply: text must be a JSON string"),
    ],
)
def test_another_line_is_refused(line: Any, message: str) -> None:
    """An error names the part, what is allowed, and what was given."""
    with pytest.raises(InvalidInputError) as refused:
        read_fault(line)
    assert refused.value.message.startswith(message)


@given(st.text())
def test_any_text_is_a_fault_or_an_error_of_ours(line: str) -> None:
    """Whatever is given is read, or refused by an error of the package."""
    with suppress(InvalidInputError):
        assert isinstance(read_fault(line), Fault)
