"""A streamed answer on stdout."""

from collections.abc import Callable
from typing import Any

from ..hostile import RESET, SSE, Hostile, chunk, event, pieces, streamed

Run = Callable[..., Any]


def test_several_replies(peer: Hostile, run: Run) -> None:
    """The first of several replies is streamed, the others follow, each under a heading."""
    peer.plays([streamed(chunk("a", "stop"), chunk("b", index=1), chunk("c", "stop", 1), event(b"[DONE]"))])
    told = run("chat", "ctx-1", "hi", "--n", "2")
    assert told.out == "--- reply 1 of 2 ---\na\n--- reply 2 of 2 ---\nbc\n"
    assert told.err == "the service sent no usage\n"


def test_answer_that_was_cut_says_so(context_id: str, run: Run) -> None:
    """An answer that ended at a limit is printed like any other, and the usage line names the limit."""
    told = run("chat", context_id, "a long question", "--max-tokens", "1")
    assert (told.code, told.out) == (0, "echo\n")
    assert told.err.endswith("1 out; the answer was cut: length\n")


def test_interrupted_stream(peer: Hostile, run: Run) -> None:
    """The beginning of an interrupted stream is printed, stderr calls the answer incomplete; exit code 1, no retry."""
    peer.plays([SSE, *pieces(chunk("Once"), chunk(" upon")), RESET])
    failed = run("chat", "ctx-1", "hi")
    assert (failed.code, failed.out) == (1, "Once upon\n")
    assert failed.err.startswith("ctxcache: the answer is incomplete: the stream was interrupted: ")
    assert failed.err.count("\n") == 1
    assert len(peer.posts) == 1


def test_interrupted_stream_of_several_replies(peer: Hostile, run: Run) -> None:
    """The beginnings of all replies are printed."""
    peer.plays([SSE, *pieces(chunk("Once"), chunk("Twice", index=1)), RESET])
    failed = run("chat", "ctx-1", "hi", "--n", "2")
    assert failed.code == 1
    assert failed.out == "--- reply 1 of 2 ---\nOnce\n--- reply 2 of 2 ---\nTwice\n"


def test_error_inside_a_stream(peer: Hostile, run: Run) -> None:
    """An error event is reported like the same error outside a stream, after the text before it."""
    peer.plays([streamed(chunk("Once"), event({"error": {"code": "InternalServiceError", "message": "oops"}}))])
    failed = run("chat", "ctx-1", "hi")
    told = "ctxcache: 500 InternalServiceError: oops (request id req-1)\n"
    assert failed == (1, "Once\n", told)
