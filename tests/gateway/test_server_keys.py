"""A gateway with a file of keys."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from ctxcache.errors import InvalidInputError, SessionError
from ctxcache.gateway import Gateway
from ctxcache.gateway.key_file import add_key, read_keys, remove_key

CREATE = {"model": "Doubao-1.5-pro-32k", "messages": [{"role": "system", "content": "x"}]}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The path of a file of keys."""
    return str(tmp_path / "keys.json")


async def status(api: Any) -> int:
    """Call with the key; return the status."""
    answer = await api.post("/context/create", CREATE)
    return int(answer.status)


async def test_every_key_of_the_file_is_let_in(start: Any, path: str) -> None:
    """A key of the file is accepted, any other refused, and so is a hash of the file."""
    ann, bob = add_key(path, "ann"), add_key(path, "bob")
    api = await start(keys=path)
    hashed = read_keys(path)[0].hash.hex()
    keys = (ann, bob, f"{ann}x", hashed, "ann")
    assert [await status(api.with_key(key)) for key in keys] == [200, 200, 401, 401, 401]


async def test_the_engine_tells_keys_apart(start: Any, dictated: Any, path: str) -> None:
    """`Prompt.client` differs from key to key, and holds neither key nor name."""
    keys = [add_key(path, name) for name in ("ann", "bob")]
    api = await start(keys=path, engine=dictated)
    for key in keys * 2:
        mine = api.with_key(key)
        dictated.say("a", None)
        assert (await mine.chat((await mine.create())["id"])).status == 200
    ann, bob, *again = [prompt.client for prompt in dictated.prompts]
    assert ann != bob
    assert again == [ann, bob]
    assert [name for name in (ann, bob) if "ann" in name or "sk-" in name] == []


async def test_a_changed_file_is_read_again(start: Any, dictated: Any, path: str) -> None:
    """A new key is accepted after `reload_keys`, a removed one refused; a call under way ends, and is stored."""
    ann = add_key(path, "ann")
    api = await start(keys=path, engine=dictated)
    mine = api.with_key(ann)
    context = (await mine.create())["id"]
    chat = asyncio.create_task(mine.chat(context, "first?"))
    await dictated.started.wait()
    remove_key(path, "ann")
    bob = add_key(path, "bob")
    assert [await status(api.with_key(key)) for key in (ann, bob)] == [200, 401]
    assert api.gateway.reload_keys()
    assert [await status(api.with_key(key)) for key in (ann, bob)] == [401, 200]
    dictated.say("a", None)
    assert (await chat).status == 200
    assert [message.text for message in api.gateway.messages(context)] == ["Be kind.", "first?", "a"]


async def test_a_new_key_under_an_old_name_owns_nothing(start: Any, path: str) -> None:
    """A context belongs to the key, not to the name."""
    old = add_key(path, "ann")
    api = await start(keys=path)
    context = (await api.with_key(old).create())["id"]
    remove_key(path, "ann")
    new = add_key(path, "ann")
    assert api.gateway.reload_keys()
    assert (await api.with_key(new).chat(context)).error["code"] == "NotFound.context_id"


@pytest.mark.parametrize("damage", ["cut", "gone"])
async def test_a_broken_file_leaves_the_keys(
    start: Any, path: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that cannot be read is told in the log, and every key is as before."""
    ann = add_key(path, "ann")
    api = await start(keys=path)
    os.truncate(path, 10)
    if damage == "gone":
        os.unlink(path)
    assert not api.gateway.reload_keys()
    assert await status(api.with_key(ann)) == 200
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.startswith("the keys stay as they were: keys must be a file") for text in warnings] == [True]


async def test_one_key_or_a_file(path: str) -> None:
    """A gateway with a file has no key of its own, and one without has nothing to read again."""
    add_key(path, "ann")
    with pytest.raises(InvalidInputError, match=r"^keys must be left out where api_key is given"):
        Gateway(keys=path, api_key="local-test")
    with pytest.raises(InvalidInputError, match=r"^keys must be a file that can be read"):
        Gateway(keys=f"{path}.other")
    with pytest.raises(SessionError, match="only hashes"):
        _ = Gateway(keys=path).api_key
    assert not Gateway().reload_keys()
