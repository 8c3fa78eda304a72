"""Conversations on the hostile server, and what their hooks were told."""

import pytest

from ctxcache import Hooks
from ctxcache.managed.conversation import Conversation

from .talk import BRIEF


@pytest.fixture
def events():
    """What the hooks were told: the hook's name, and what matters of its event."""
    return []


@pytest.fixture
def hooks(events):
    """Hooks that write down what they are told."""
    return Hooks(
        on_create=lambda e: events.append(("create", e.context.id)),
        on_recreate=lambda e: events.append((e.reason, e.old_id, e.context.id)),
        on_warning=lambda e: events.append((e.kind, e.context_id)),
    )


@pytest.fixture
def new(session_for, hooks, clock):
    """Make conversations on the hostile server."""
    session = session_for(hooks=hooks)

    def make(messages=BRIEF, **settings):
        return Conversation(session, model="m", messages=messages, clock=clock, **settings)

    make.session = session
    return make
