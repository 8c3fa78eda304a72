"""Merges the fragments of tool calls that a stream carries into whole calls. Pure, and linear.

By OpenAI's documents the `index` of a fragment names the call; the first fragment of a call has the id and the name,
later fragments have pieces of the arguments. Servers deviate, with public reports:

==================================================  =========================================================
seen                                                rule
==================================================  =========================================================
`index` missing (Gemini's OpenAI endpoint, older    A fragment with a name begins a call, unless the name is that
vLLM), or as text ("0")                             of the last call, whose arguments are not complete yet; any
                                                    other fragment belongs to the call of that id, else to the last
                                                    call. Text of digits is a number.
`index` 0 for every call (apache/maka#1976)         Another id beside another name begins a call. So does another
                                                    id beside the same name, once the arguments are complete JSON.
two calls in a chunk, both with `index` 0 or        Two fragments of a chunk with different ids, or different names,
with none                                           are two calls.
`id` empty, missing or null in later fragments      The first id that is not empty counts.
another `id` in each fragment                       A fragment with another id and no name continues the call.
`name` in pieces (`edit_ex`, `isting_file`)         Pieces are joined.
`name` whole in each fragment                       A repeated name counts once; so does a name that grows
(open-webui/open-webui#22177)                       (`read`, `read_file`).
`arguments` as an object (Ollama)                   Objects are merged; text is joined.
==================================================  =========================================================
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

__all__ = ["ToolCallAddition", "ToolCallReader", "merge_fragments", "merge_objects"]

_JSON_MARKS: Final = re.compile(r'\\.|["{}\[\]]', re.DOTALL)
_ONCE: Final = frozenset({"id", "type", "index"})  # texts that are repeated, not continued


def merge_fragments(chunks: Iterable[Iterable[dict[str, Any]]]) -> tuple[dict[str, Any], ...]:
    """Return the calls that fragments make up, by index.

    Args:
        chunks: the `tool_calls` of each chunk, in the order in which the chunks came.
    """
    calls = _Calls()
    for fragments in chunks:
        in_chunk: list[_Call] = []
        for fragment in fragments:
            call = calls.of(fragment, in_chunk)
            call.add(fragment)
            in_chunk.append(call)
    return tuple(calls.by_index[index].merged(index) for index in sorted(calls.by_index))


@attrs.frozen
class ToolCallAddition:
    """What a fragment adds to a call: texts to be joined, each "" where the fragment adds nothing.

    Attributes:
        index: the place of the call among the calls of the answer.
        id: the id of the call, once.
        name: the next text of the name.
        arguments: the next text of the arguments.
    """

    index: int
    id: str
    name: str
    arguments: str


class ToolCallReader:
    """Reads fragments chunk by chunk, by the same rules, for readers that join the texts themselves."""

    def __init__(self) -> None:
        self._calls = _Calls()

    def read(self, fragments: Iterable[dict[str, Any]]) -> list[ToolCallAddition]:
        """Return what the fragments of a chunk add, in their order."""
        additions: list[ToolCallAddition] = []
        in_chunk: list[_Call] = []
        for fragment in fragments:
            call = self._calls.of(fragment, in_chunk)
            id_, name = call.id, call.name
            call.add(fragment)
            in_chunk.append(call)
            arguments = _arguments(fragment) or _object_arguments(fragment)
            additions.append(ToolCallAddition(call.index, "" if id_ else call.id, call.name[len(name) :], arguments))
        return additions


class _Calls:
    """The calls so far."""

    def __init__(self) -> None:
        self.by_index: dict[int, _Call] = {}  # by final index
        self._newest: dict[int | None, _Call] = {}  # by the index in the fragments; None: the newest of all
        self._by_id: dict[str, _Call] = {}

    def of(self, fragment: Mapping[str, Any], in_chunk: "list[_Call]") -> "_Call":
        """Return the call that a fragment belongs to or begins."""
        given, id_ = _index(fragment), _id(fragment)
        call = self._newest.get(given)
        if call is None and given is not None and given in self.by_index and self.by_index[given].given is None:
            call = self.by_index[given]  # begun by a fragment without an index
        known = self._by_id.get(id_)
        if known is not None and given in (None, known.given):
            call = known
        if call is None or call.is_followed_by(fragment, same_chunk=call in in_chunk):
            call = _Call(given)
            index = given if given is not None and given not in self.by_index else max(self.by_index, default=-1) + 1
            call.index = index
            self.by_index[index] = call
        self._newest[given] = self._newest[None] = call
        if id_:
            self._by_id.setdefault(id_, call)
        return call


class _Call:
    """The fragments of a call."""

    def __init__(self, given: int | None) -> None:
        self.given = given  # the index in the fragments
        self.index = 0  # the final one
        self.id = ""
        self.name = ""
        self._fragments: list[dict[str, Any]] = []
        self._arguments: list[str] = []
        self._unread = 0  # index of the first piece of the arguments that `complete` has not read
        self._escape = ""  # a backslash that escapes the first character of the next piece
        self._depth = 0
        self._in_text = self._begun = False

    def is_followed_by(self, fragment: Mapping[str, Any], *, same_chunk: bool) -> bool:
        """Whether a fragment begins another call, although the index, or the lack of an index, points to this call."""
        id_, name = _id(fragment), _name(fragment)
        if not name or not self.name or (id_ and id_ == self.id):
            return False
        another_id = bool(id_ and self.id)
        if same_chunk and (another_id or name != self.name):
            return True
        if another_id:
            return name != self.name or self.complete
        if self.given is not None:
            return False
        if name.startswith(self.name):
            return self.complete and bool(_arguments(fragment))
        return bool(self._arguments)  # else the name comes in pieces

    @property
    def complete(self) -> bool:
        """Whether the arguments so far are a whole JSON object or array."""
        for piece in self._arguments[self._unread :]:
            text = self._escape + piece
            self._escape = "\\" if (len(text) - len(text.rstrip("\\"))) % 2 else ""
            for mark in _JSON_MARKS.findall(text.removesuffix(self._escape)):
                if mark == '"':
                    self._in_text = not self._in_text
                elif not self._in_text and mark[0] != "\\":
                    self._depth += 1 if mark in "{[" else -1
                    self._begun = True
        self._unread = len(self._arguments)
        return self._begun and not self._in_text and self._depth == 0

    def add(self, fragment: dict[str, Any]) -> None:
        """Take a fragment in."""
        self.id = self.id or _id(fragment)
        name = _name(fragment)
        if name.startswith(self.name):
            self.name = name or self.name  # the first name, the same again, or a longer name
        else:
            self.name += name
        if arguments := _arguments(fragment):
            self._arguments.append(arguments)
        self._fragments.append(fragment)

    def merged(self, index: int) -> dict[str, Any]:
        """Return the whole call."""
        call = merge_objects(self._fragments)
        call["index"] = index
        if self.id:
            call["id"] = self.id
        if self.name and isinstance(call["function"], dict):
            call["function"]["name"] = self.name
        return call


def _index(fragment: Mapping[str, Any]) -> int | None:
    index = fragment.get("index")
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10:
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) and index >= 0 else None


def _id(fragment: Mapping[str, Any]) -> str:
    id_ = fragment.get("id")
    return id_ if isinstance(id_, str) else ""


def _name(fragment: Mapping[str, Any]) -> str:
    return _of_function(fragment, "name")


def _arguments(fragment: Mapping[str, Any]) -> str:
    return _of_function(fragment, "arguments")


def _object_arguments(fragment: Mapping[str, Any]) -> str:
    function = fragment.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else ""


def _of_function(fragment: Mapping[str, Any], key: str) -> str:
    function = fragment.get("function")
    value = function.get(key) if isinstance(function, dict) else None
    return value if isinstance(value, str) else ""


def merge_objects(objects: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge JSON objects: texts and lists are joined, objects merged; of other values the last counts."""
    merged: dict[str, Any] = {}
    values: dict[str, list[Any]] = {}
    for fields in objects:
        for name, value in fields.items():
            merged[name] = value
            if value is not None:
                values.setdefault(name, []).append(value)
    for name, found in values.items():
        if name not in _ONCE and all(isinstance(value, str) for value in found):
            merged[name] = "".join(found)
        elif all(isinstance(value, list) for value in found):
            merged[name] = [item for value in found for item in value]
        elif all(isinstance(value, dict) for value in found):
            merged[name] = merge_objects(found)
        else:
            merged[name] = found[-1]
    return merged
