"""What a client did wrong, by a record."""

from typing import Any

import pytest

from ctxcache.testing.verdicts import FINDINGS, Finding, cached_share, find

from .records import Records


def names(records: Records, *answers: str) -> list[str]:
    """The names of the findings."""
    return [finding.name for finding in find(records.calls, answers)]


def test_nothing_is_found_in_a_good_record(records: Records) -> None:
    """Calls that are answered, refused and repeated in time, or left in time are no findings."""
    records.create("c")
    records.chat("one")
    records.refused("two", retry_after=1.0)
    records.chat("two")
    records.refused("three", faults=("stall",), left=True, status=None)
    records.chat("three")
    records.refused("four", faults=("truncate",), text="Half", status=200)
    records.chat("four")
    assert find(records.calls, ["Whole."]) == []


def test_a_finding_names_the_calls(records: Records) -> None:
    """A finding says what happened, in which calls."""
    records.refused("one", retry_after=7.0)
    records.chat("one")
    (finding,) = find(records.calls)
    assert finding == Finding("retry_after_ignored", (1, 2), "came again after 1.0 s, told to wait 7 s")
    assert str(finding) == "retry_after_ignored: came again after 1.0 s, told to wait 7 s (calls 1, 2)"
    assert str(Finding("no_read_timeout", (3,), "x")) == "no_read_timeout: x (call 3)"


@pytest.mark.parametrize(
    ("pause", "waited", "found"), [(7, 6.9, True), (7, 6.96, False), (None, 0, False), (0, 0, False)]
)
def test_pauses(records: Records, pause: Any, waited: float, found: bool) -> None:
    """A call that comes again too early ignores the pause; some hundredths of a second are no matter."""
    records.refused("one", retry_after=pause, seconds=waited)
    records.chat("one")
    assert names(records) == ["retry_after_ignored"] * found


def test_a_turn_repeated(records: Records) -> None:
    """A stored turn whose answer was lost must not come again."""
    records.chat("one", whole=False, status=None)
    records.chat("one")
    assert names(records) == ["turn_repeated"]


@pytest.mark.parametrize(
    ("mode", "after", "answers", "found"),
    [
        ("session", "two", [], True),
        ("session", "one", [], False),
        ("common_prefix", "two", [], False),
        ("common_prefix", "two", ["Half of"], True),
        ("common_prefix", "two", ["", "Other"], False),
        ("session", None, [], False),
        ("session", None, ["Half of"], True),
    ],
)
def test_a_truncated_answer(records: Records, mode: str, after: Any, answers: list[str], found: bool) -> None:
    """A truncated answer was accepted if part of the text is among the answers, or the session just went on."""
    records.refused("one", faults=("truncate",), text="Half of the answer", mode=mode, status=200)
    if after:
        records.chat(after, mode=mode)
    records.chat("elsewhere", context="d")
    assert names(records, *answers) == ["truncated_stream_accepted"] * found


def test_a_context_per_call(records: Records) -> None:
    """Prefixes with the same messages, each used once, are a finding; so are three sessions."""
    for number in range(2):
        records.create(f"p{number}", mode="common_prefix")
        records.chat("x", context=f"p{number}", mode="common_prefix")
    assert names(records) == ["context_created_per_call"]
    for number in range(2):
        records.create(f"s{number}")
        records.chat("x", context=f"s{number}")
    assert names(records) == ["context_created_per_call"]
    records.create("s3")
    assert names(records) == ["context_created_per_call"] * 2


def test_contexts_that_are_needed(records: Records) -> None:
    """Contexts used more than once, replaced when they had ended, lost, or of other messages are no finding."""
    records.create("a", mode="common_prefix")
    records.chat("x", context="a", mode="common_prefix")
    records.refused("x", context="a", code="NotFound.context_id", mode="", status=404)
    records.create("b", mode="common_prefix")
    records.chat("x", context="b", mode="common_prefix")
    records.create("lost", mode="common_prefix", whole=False, status=None)
    records.create("other", "another manual", mode="common_prefix")
    assert names(records) == []
    records.create("c", mode="common_prefix")
    records.chat("y", context="b", mode="common_prefix")
    assert names(records) == []


@pytest.mark.parametrize(
    ("attempts", "pause", "found"), [(6, 0.1, True), (6, 0.3, False), (5, 0, False), (11, 5, True), (10, 5, False)]
)
def test_storms(records: Records, attempts: int, pause: float, found: bool) -> None:
    """The same call more than 5 times within a second, or more than 10 times, is one storm."""
    for _ in range(attempts):
        records.refused("one", seconds=pause)
    assert names(records) == ["retry_storm"] * found


def test_a_client_without_a_read_timeout(records: Records) -> None:
    """A client that stays for as long as an answer stalls has no timeout; one that still waits may have."""
    records.refused("one", faults=("stall",), status=200, outlasted=True)
    records.refused("two", faults=("stall",), status=None, ended=None)
    assert names(records) == ["no_read_timeout"]


def test_the_share_of_cached_tokens(records: Records) -> None:
    """The share is that of all prompt tokens of all chats; none without a usage."""
    records.create("c")
    assert cached_share(records.calls) is None
    records.chat("one", cached=10)
    records.chat("two", cached=5)
    records.refused("three")
    assert cached_share(records.calls) == 0.75


def test_every_name_is_listed() -> None:
    """The names are those that `allow` takes."""
    assert len(FINDINGS) == 6
