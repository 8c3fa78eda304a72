"""The states of a `ChatStream`."""

from enum import Enum

__all__ = ["CLOSED", "DONE", "ENDED", "FAILED", "NEW", "OPEN", "OPENING", "READING", "StreamState"]


class StreamState(Enum):
    """The state of a stream, and the next states. Any other transition is ignored: the earlier state wins.

    =======  ==============================================================  ================================
    state    meaning                                                         next
    =======  ==============================================================  ================================
    NEW      nothing was sent                                                OPENING, CLOSED
    OPENING  a task sends the request and waits for the head                 OPEN, FAILED, CLOSED
    OPEN     the head came; nobody is reading                                READING, CLOSED
    READING  a task waits for bytes                                          OPEN, ENDED, FAILED, CLOSED
    ENDED    the answer came whole; the last chunks may wait to be read      DONE, CLOSED
    DONE     the answer came whole and was read to the end                   none
    FAILED   an error ended the stream; the earlier chunks may be read       none
    CLOSED   closed, or the reader cancelled, before the end                 none
    =======  ==============================================================  ================================
    """

    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    READING = "reading"
    ENDED = "ended"
    DONE = "done"
    FAILED = "failed"
    CLOSED = "closed"

    next: "tuple[StreamState, ...]"


# A name is looked up faster than a member.
NEW, OPENING, OPEN, READING, ENDED, DONE, FAILED, CLOSED = StreamState
NEW.next = (OPENING, CLOSED)
OPENING.next = (OPEN, FAILED, CLOSED)
OPEN.next = (READING, CLOSED)
READING.next = (OPEN, ENDED, FAILED, CLOSED)
ENDED.next = (DONE, CLOSED)
DONE.next = FAILED.next = CLOSED.next = ()
