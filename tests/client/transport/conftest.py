"""Fixtures of the transport's tests: a server behind TLS, a transport without a session."""

import ssl

import pytest

from ctxcache import Limits
from ctxcache.client.environment import Environment
from ctxcache.client.transport.transport import Transport
from ctxcache.config import Secret

from ...hostile import Hostile
from .certificate import PEM


@pytest.fixture
async def secure(quiet_loop):
    """A hostile server behind TLS, with a certificate nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    async with Hostile(ssl=context) as server:
        yield server


@pytest.fixture
async def transport(hostile, key):
    """A transport to `hostile`; at the end of the test it must hold nothing."""
    transport = Transport(
        hostile.url, Secret(key), limits=Limits(), headers={}, http=None, environment=Environment(look=0.001)
    )
    yield transport
    held = transport.holdings()
    await transport.aclose()
    assert not any(held.values())
