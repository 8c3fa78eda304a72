"""`autosave`: the file is whole and up to date, and a disk that fails or hangs costs no answer."""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from ctxcache import APITimeoutError, Hooks, InvalidInputError, OutcomeUnknownError, Timeouts, TurnInDoubtError
from ctxcache.managed.conversation import Conversation
from ctxcache.managed.conversation.autosave import Autosave, check_path
from ctxcache.managed.conversation.saved import SavedConversation
from ctxcache.managed.deadline import Deadline

from ...hostile import STALL, after, chunk
from ...hostile import streamed as whole_stream
from .said_things import BEGUN
from .talk import BRIEF, FAILED, ROLE, made, read, said, says, streams, told

SAVED = SavedConversation(model="m", transcript=BEGUN, margin=1.0)


@pytest.fixture
def path(tmp_path):
    """Where a conversation is saved, alone in a folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "chat.json"


def test_a_new_file(new, path):
    """Nothing is written before the first turn."""
    new(autosave=path)
    assert not path.exists()


async def test_after_every_turn(hostile, new, path):
    """When a call or a stream has ended, however, the file holds what `save` returns; nobody else may read it."""
    hostile.plays(made(), says("Hi"), streams("Fi", "ne"), FAILED, made("ctx-2"), [whole_stream(chunk("Half"))])
    conversation = new(autosave=path)
    await conversation.warm()
    assert path.read_text() == conversation.save()
    await conversation.ask("1?")
    assert path.read_text() == conversation.save()
    assert await read(conversation.stream("2?")) == "Fine"
    assert path.read_text() == conversation.save()
    with pytest.raises(OutcomeUnknownError):
        await conversation.ask("3?")
    assert path.read_text() == conversation.save()
    await conversation.resync()
    assert path.read_text() == conversation.save()
    async with conversation.stream("4?") as stream:
        await anext(stream)
    assert path.read_text() == conversation.save()
    assert [turn[1] for turn in said(conversation)] == ["Hi", "Fine", "Half"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_the_process_ends_during_a_turn(hostile, new, path, clock, how):
    """A turn that may have been sent is in doubt for whoever loads the file; nothing is sent twice unawares."""
    hostile.plays(made(), says("Hi"), [STALL])
    conversation = new(autosave=path)
    await conversation.ask("1?")
    task = asyncio.ensure_future(conversation.ask("2?") if how == "ask" else read(conversation.stream("2?")))
    await hostile.until(lambda: len(hostile.posts) == 3)
    loaded = Conversation.load(new.session, path, clock=clock)
    with pytest.raises(TurnInDoubtError):
        await loaded.ask("2?")
    assert said(loaded) == [("1?", "Hi", True)]
    task.cancel()
    await asyncio.wait([task])


async def test_turns_that_overlap(hostile, new, path):
    """Turns that wait for each other are all in the file at the end."""
    hostile.plays(made(), *[says("A"), streams("S")] * 4)
    conversation = new(autosave=path)
    turns = [conversation.ask(str(n)) if n % 2 == 0 else read(conversation.stream(str(n))) for n in range(8)]
    await asyncio.gather(*turns)
    assert path.read_text() == conversation.save()
    assert len(json.loads(path.read_text())["turns"]) == 8


@pytest.mark.parametrize("script", [[STALL], [whole_stream(ROLE)[:-5], STALL]])
async def test_a_cancelled_caller(hostile, new, path, script):
    """The file says what became of a turn whose caller was cancelled."""
    hostile.plays(made(), says("Hi"), script)
    conversation = new(autosave=path, in_doubt="keep")
    await conversation.ask("1?")
    task = asyncio.ensure_future(read(conversation.stream("2?")))
    await hostile.until(lambda: len(hostile.posts) == 3)
    task.cancel()
    await asyncio.wait([task])
    assert said(conversation)[-1] == ("2?", None, False)
    await hostile.until(lambda: path.read_text() == conversation.save())


async def test_cancelled_before_it_was_sent(hostile, new, path):
    """A turn that was cancelled while its context was created is not in doubt in the file either."""
    go = asyncio.Event()
    hostile.plays([after(go), *made()])
    conversation = new(autosave=path)
    task = asyncio.ensure_future(conversation.ask("1?"))
    await hostile.until(lambda: hostile.posts)
    task.cancel()
    await asyncio.wait([task])
    await hostile.until(path.exists)
    assert path.read_text() == conversation.save()
    assert json.loads(path.read_text())["doubtful"] is None
    go.set()
    await hostile.until(lambda: "pending" not in new.session.holdings())


async def test_load_and_go_on(hostile, new, path, clock):
    """A loaded conversation is saved where `load` says, in the same file or another."""
    hostile.plays(made(), says("Hi"), says("Fine"), says("Yes"))
    await new(autosave=str(path)).ask("1?")
    loaded = Conversation.load(new.session, path, clock=clock, autosave=path)
    await loaded.ask("2?")
    assert path.read_text() == loaded.save()
    other = path.with_name("other.json")
    again = Conversation.load(new.session, path.read_text(), clock=clock, autosave=other)
    await again.ask("3?")
    assert other.read_text() == again.save()
    assert path.read_text() == loaded.save()
    assert [line[1] for line in told(hostile)[1:]] == ["u:1?", "u:2?", "u:3?"]


@pytest.fixture
def warnings():
    """What `on_warning` was told."""
    return []


@pytest.fixture
def warned(session_for, warnings):
    """A session that writes down its warnings."""
    return session_for(hooks=Hooks(on_warning=warnings.append))


async def test_a_disk_that_fails(hostile, warned, warnings, path, log_lines):
    """The answers come all the same; logger and hook are told once, and again after a write that succeeded."""
    hostile.plays(made(), *[says(f"{n}!") for n in range(6)])
    conversation = Conversation(warned, model="m", messages=BRIEF, autosave=path)
    await conversation.ask("secret")
    for broken in (False, True, False, True):
        if broken:
            shutil.rmtree(path.parent)
        else:
            path.parent.mkdir(exist_ok=True)
        assert (await conversation.ask("?")).text.endswith("!")
        assert path.exists() is not broken
    assert len(said(conversation)) == 5
    assert [warning.kind for warning in warnings] == ["autosave"] * 2
    assert isinstance(warnings[0].error, FileNotFoundError)
    assert warnings[0].error.__traceback__ is None
    assert str(path) in warnings[0].message
    assert log_lines("WARNING") == [warning.message for warning in warnings]
    assert "secret" not in str(warnings)


@pytest.fixture
def disk(monkeypatch):
    """A disk that hangs until it is set."""
    go, fsync = threading.Event(), os.fsync

    def hang(handle):
        go.wait(10)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", hang)
    yield go
    go.set()


async def test_a_disk_that_hangs(disk, path):
    """A turn waits for a while only, and says so once."""
    reports = []
    autosave = Autosave(os.fspath(path), lambda *report: reports.append(report), patience=0.01)
    for _ in range(2):
        autosave.begin(SAVED)
        await autosave.written()
    [(message, error)] = reports
    assert "not written after 0.01 s" in message
    assert error is None
    disk.set()
    await Autosave.written(autosave)


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_a_turn_s_time_limit_ends_the_wait_for_the_disk(hostile, new, path, disk, how):
    """Before sending: nothing is sent, so nothing is in doubt."""
    hostile.plays(made())
    disk.set()
    conversation = new(autosave=path)
    await conversation.warm()
    disk.clear()
    limit = {"timeouts": Timeouts(total=0.05)}
    with pytest.raises(APITimeoutError, match=r"Timeouts\.total") as caught:
        await (conversation.ask("1?", **limit) if how == "ask" else read(conversation.stream("1?", **limit)))
    assert not caught.value.sent
    assert (len(hostile.posts), conversation.doubtful, said(conversation)) == (1, None, [])


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_a_turn_s_time_limit_after_the_answer(hostile, warned, warnings, path, disk, how):
    """The wait for the disk ends, the answer is returned, and the write goes on."""
    go = asyncio.Event()
    hostile.plays(made(), [after(go), *(says("Hi") if how == "ask" else streams("Hi"))])
    disk.set()
    conversation = Conversation(warned, model="m", messages=BRIEF, autosave=path)
    limit = {"timeouts": Timeouts(total=1)}
    turn = conversation.ask("1?", **limit) if how == "ask" else read(conversation.stream("1?", **limit))
    turn = asyncio.ensure_future(turn)
    await hostile.until(lambda: len(hostile.posts) == 2)
    disk.clear()
    go.set()
    await turn
    assert said(conversation) == [("1?", "Hi", True)]
    [warning] = warnings
    assert "not written after 0." in warning.message
    disk.set()
    await hostile.until(lambda: path.read_text() == conversation.save())


async def test_a_deadline_that_has_come(disk, path, clock):
    """The disk is not waited for, and nobody knows of a failure yet."""
    reports = []
    autosave, deadline = Autosave(os.fspath(path), lambda *report: reports.append(report)), Deadline(60, clock)
    clock.advance(61)
    autosave.begin(SAVED)
    await autosave.written(deadline)
    assert (reports, path.exists()) == ([], False)
    disk.set()
    await autosave.written()


async def test_the_newest_state_wins(disk, path, until):
    """However writes are held up and callers cancelled, the file ends with the newest state, one write at a time."""
    autosave = Autosave(os.fspath(path), print)
    for number in range(4):
        autosave.begin(attrs.evolve(SAVED, model=f"m-{number}"))
        task = asyncio.ensure_future(autosave.written())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert not path.exists()
    disk.set()
    await autosave.written()
    assert SavedConversation.loads(path.read_text()).model == "m-3"
    assert list(path.parent.iterdir()) == [path]


async def test_nothing_is_written_twice(disk, path, monkeypatch):
    """States that came while the disk was busy are written once, as the newest of them."""
    renames, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: renames.append(paths) or replace(*paths))
    autosave = Autosave(os.fspath(path), print)
    for _ in range(5):
        autosave.begin(SAVED)
    disk.set()
    await autosave.written()
    assert len(renames) <= 2


def threads():
    """The threads that write."""
    return [thread for thread in threading.enumerate() if thread.name == "ctxcache-autosave"]


async def test_a_disk_that_hangs_holds_up_nothing_else(disk, path):
    """The threads of the event loop, which look names up, stay free; so many states later there is one thread."""
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        autosave = Autosave(os.fspath(path), print)
        for _ in range(20):
            autosave.begin(SAVED)
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(str, 5) == "5"
        assert len(threads()) == 1
        disk.set()
        await autosave.written()


async def test_the_thread_ends(path):
    """When the newest state is written no thread is left."""
    autosave = Autosave(os.fspath(path), print)
    autosave.begin(SAVED)
    running = threads()
    await autosave.written()
    for thread in running:
        thread.join(5)
    assert threads() == []


@pytest.mark.parametrize("fails", [False, True])
def test_the_event_loop_ends_first(disk, path, log_lines, fails):
    """A write under way ends all the same; if that fails the log says so, and no hook is called."""
    reports = []

    async def begin():
        Autosave(os.fspath(path), lambda *report: reports.append(report)).begin(SAVED)

    asyncio.run(begin())
    [thread] = threads()
    if fails:
        shutil.rmtree(path.parent)
    disk.set()
    thread.join(5)
    assert path.exists() is not fails
    assert [("FileNotFoundError" in line) for line in log_lines("WARNING")] == [True] * fails
    assert reports == []


async def test_no_more_threads(path, monkeypatch):
    """At the end of the process, when no thread can be started any more, a state is written at once."""

    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reports = []
    autosave = Autosave(os.fspath(path), lambda *report: reports.append(report))
    autosave.begin(SAVED)
    assert SavedConversation.loads(path.read_text()) == SAVED
    shutil.rmtree(path.parent)
    autosave.begin(SAVED)
    await autosave.written()
    assert isinstance(reports[0][1], FileNotFoundError)


KILLED = """
import asyncio, sys
from ctxcache import Message
from ctxcache.managed.conversation.autosave import Autosave
from ctxcache.managed.conversation.saved import SavedConversation
from ctxcache.managed.conversation.transcript import Transcript

async def main():
    autosave = Autosave(sys.argv[1], print)
    for number in range(10**6):
        messages = (Message("user", str(number) * 100_000),)
        autosave.begin(SavedConversation(model="m", transcript=Transcript(messages=messages), margin=1.0))
        await autosave.written()
        print(flush=True)

asyncio.run(main())
"""


def test_a_process_that_is_killed(path):
    """Whenever the process is killed, the file is a whole conversation."""
    for round_ in range(4):
        command = [sys.executable, "-c", KILLED, os.fspath(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(2 + round_):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        SavedConversation.loads(path.read_text())


def test_a_symbolic_link(path, tmp_path, monkeypatch):
    """The file behind a link is replaced, not the link; a path is that of the folder at the time."""
    link = tmp_path / "link.json"
    link.symlink_to(path)
    assert check_path(link, new=True) == os.path.realpath(path)
    monkeypatch.chdir(path.parent)
    assert check_path("chat.json", new=True) == os.path.realpath(path)


@pytest.mark.parametrize("given", ["", "no/such/folder/chat.json", ".", b"chat.json", "a\0b", 5, True])
def test_other_paths(new, given, tmp_path, monkeypatch):
    """What cannot be a file in an existing folder is refused when the conversation is made or loaded."""
    monkeypatch.chdir(tmp_path)
    text = new().save()
    for make in (lambda: new(autosave=given), lambda: Conversation.load(new.session, text, autosave=given)):
        with pytest.raises(InvalidInputError, match="autosave must be the path of a file in an existing folder"):
            make()


def test_no_conversation_is_overwritten(new, path):
    """A new conversation does not take the place of one that is saved; an empty file may be there."""
    path.write_text("")
    new(autosave=path)
    path.write_text("{}")
    with pytest.raises(InvalidInputError, match=r"Conversation\.load"):
        new(autosave=path)
    assert path.read_text() == "{}"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"{}"])
def test_load_no_conversation(new, path, content):
    """A file that is missing, no text or no conversation is an `InvalidInputError`."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        Conversation.load(new.session, path)
    assert caught.value.field in ("text", "format")
    assert caught.value.__cause__ is None


def test_load_the_path_as_a_string(new, path):
    """A string is JSON; where it looks like a path, the error says what to pass."""
    with pytest.raises(InvalidInputError, match="pass a Path"):
        Conversation.load(new.session, os.fspath(path))
