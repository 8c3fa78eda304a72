"""`ToolCallReader`: what each fragment adds, joined by the reader, is what `merge_fragments` makes of all."""

import json
from typing import Any

import pytest

from ctxcache.tool_calls import ToolCallAddition, ToolCallReader, merge_fragments

from .test_tool_calls import BY_THE_DOCUMENTS, F


def joined(chunks: list[list[dict[str, Any]]]) -> list[tuple[int, str, str, str]]:
    """The calls as a reader joins them that knows nothing of servers."""
    reader = ToolCallReader()
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for added in reader.read(chunk):
            call = calls.setdefault(added.index, ["", "", ""])
            for place, text in enumerate((added.id, added.name, added.arguments)):
                call[place] += text
    return [(index, *calls[index]) for index in sorted(calls)]


def merged(chunks: list[list[dict[str, Any]]]) -> list[tuple[int, str, str, str]]:
    """The calls as `merge_fragments` has them."""
    return [
        (call["index"], call.get("id") or "", call["function"].get("name", ""), call["function"].get("arguments", ""))
        for call in merge_fragments(chunks)
    ]


@pytest.mark.parametrize(
    "chunks",
    [
        BY_THE_DOCUMENTS,
        [[F("f", "", id="a")], [F(arguments="{}")], [F("g", "{}", id="b")]],  # no index
        [[F("edit_ex", "", index=0, id="a")], [F("isting_file", "{}", index=0)]],  # a name in pieces
        [[F("f", "{", index=0, id="a")], [F("f", "}", index=0, id="a")]],  # name and id in each fragment
        [[F("read", "", index=0, id="a")], [F("read_file", "{}", index=0, id="b")]],  # a name that grows
        [[F("f", "{}", index=0, id="a"), F("g", "{}", index=0, id="b")]],  # two calls with one index
        [[F("f", "{}", index=1, id="a")], [F("g", "{}", index=0, id="b")]],
        [[F("f", "{}", index=0)], [{"index": 0}]],
    ],
)
def test_additions_join_to_the_merged_calls(chunks: list[list[dict[str, Any]]]) -> None:
    """Plain joining gives each call once and whole, as servers differ."""
    assert joined(chunks) == merged(chunks)


def test_arguments_as_an_object() -> None:
    """Arguments that are an object are added as their JSON."""
    (added,) = ToolCallReader().read([F("f", {"x": "ü"}, id="a")])
    assert (added.name, json.loads(added.arguments)) == ("f", {"x": "ü"})


def test_a_fragment_that_adds_nothing() -> None:
    """A fragment without a function adds empty texts to the call."""
    reader = ToolCallReader()
    reader.read([F("f", "{}", index=0, id="a")])
    assert reader.read([{"index": 0, "id": "a"}]) == [ToolCallAddition(0, "", "", "")]
