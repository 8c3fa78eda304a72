"""Fragments of tool calls as servers send them: each call once and whole, whatever its fragments say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache.tool_calls import merge_fragments, merge_objects


def fragment(name=None, arguments=None, **fields):
    """One fragment; what is left out is not in it."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**fields, **({"function": function} if function else {})}


def merged(*chunks):
    """The calls of chunks: index, id, name and arguments of each."""
    calls = merge_fragments(chunks)
    return [
        (call["index"], call.get("id"), call["function"].get("name"), call["function"].get("arguments"))
        for call in calls
    ]


F = fragment

BY_THE_DOCUMENTS = [
    [F("f", "", index=0, id="a", type="function")],
    [F(arguments='{"x"', index=0)],
    [F(arguments=": 1}", index=0)],
    [F("g", "", index=1, id="b", type="function")],
    [F(arguments="{}", index=1)],
]
TWO = [(0, "a", "f", '{"x": 1}'), (1, "b", "g", "{}")]


@pytest.mark.parametrize(
    ("chunks", "calls"),
    [
        (BY_THE_DOCUMENTS, TWO),
        (
            [[F("f", '{"x": 1}', index=1, id="a"), F("g", "{}", index=3, id="b")]],
            [(1, "a", "f", '{"x": 1}'), (3, "b", "g", "{}")],
        ),
        ([[F("g", "{}", index=1, id="b")], [F("f", '{"x": 1}', index=0, id="a")]], TWO),
    ],
    ids=["fragments", "sparse", "out of order"],
)
def test_by_the_documents(chunks, calls):
    """Fragments of one index are one call; calls are in the order of their indexes."""
    assert merged(*chunks) == calls


@pytest.mark.parametrize("index", [{}, {"index": None}, {"index": "x"}, {"index": -1}, {"index": True}, {"index": 1.5}])
def test_no_index(index):
    """Without an index a name begins a call, and the arguments that follow belong to the last call."""
    chunks = [
        [F("f", "", id="a", **index)],
        [F(arguments='{"x"', **index)],
        [F(arguments=": 1}", **index)],
        [F("g", "", id="b", **index)],
        [F(arguments="{}", **index)],
    ]
    assert merged(*chunks) == TWO


def test_no_index_and_no_id():
    """Whole calls without index and id, one a chunk or all in one, are as many calls."""
    assert merged([F("f", "{}")], [F("f", '{"x": 1}')]) == [(0, None, "f", "{}"), (1, None, "f", '{"x": 1}')]
    assert merged([F("f", "{}"), F("g", "{}")]) == [(0, None, "f", "{}"), (1, None, "g", "{}")]


def test_no_index_but_ids():
    """Fragments without an index that interleave are told apart by their ids."""
    chunks = [[F("f", "", id="a"), F("g", "", id="b")], [F(arguments='{"x"', id="a")], [F(arguments="{}", id="b")]]
    assert merged(*chunks, [F(arguments=": 1}", id="a")]) == TWO
    assert merged(*chunks, [F("f", ": 1}", id="a")]) == TWO  # with the name repeated


def test_index_as_text():
    """An index may be text of digits; a number of absurd length is none."""
    assert (
        merged(*[[{**fragment, "index": str(fragment["index"])} for fragment in chunk] for chunk in BY_THE_DOCUMENTS])
        == TWO
    )
    assert merged([F("f", "{}", index="9" * 50)]) == [(0, None, "f", "{}")]


def test_index_only_sometimes():
    """The index may come in the first fragment only, or in the later ones only."""
    assert merged([F("f", "{", index=0, id="a")], [F(arguments="}")]) == [(0, "a", "f", "{}")]
    assert merged([F("f", "{", id="a")], [F(arguments="}", index=0)]) == [(0, "a", "f", "{}")]


@pytest.mark.parametrize(
    "chunks",
    [
        [[F("f", '{"x": 1}', index=0, id="a")], [F("g", "{}", index=0, id="b")]],
        [
            [F("f", "", index=0, id="a")],
            [F(arguments='{"x": 1}', index=0)],
            [F("g", "", index=0, id="b")],
            [F(arguments="{}", index=0)],
        ],
        [[F("f", '{"x": 1}', index=0, id="a"), F("g", "{}", index=0, id="b")]],
        [
            [F("f", "", index=0, id="a"), F("g", "", index=0, id="b")],
            [F(arguments='{"x": 1}', index=0, id="a")],
            [F(arguments="{}", index=0, id="b")],
        ],
    ],
    ids=["whole", "fragments", "one chunk", "one chunk, then by id"],
)
def test_index_0_for_all(chunks):
    """Calls that all say index 0 are told apart by their ids and names."""
    assert merged(*chunks) == TWO


def test_one_function_twice_at_index_0():
    """Two calls of one function at the same index: another id begins the second once the first is complete."""
    first = [[F("f", "", index=0, id="a")], [F(arguments='{"x": "}', index=0)], [F(arguments='\\"}"}', index=0)]]
    calls = merged(*first, [F("f", '{"x": 2}', index=0, id="b")])
    assert calls == [(0, "a", "f", '{"x": "}\\"}"}'), (1, "b", "f", '{"x": 2}')]
    assert json.loads(calls[0][3]) == {"x": '}"}'}
    both = [F("f", "", index=0, id="a"), F("f", "", index=0, id="b")]
    assert [call[1] for call in merged(both)] == ["a", "b"]


@pytest.mark.parametrize("later", ["", None, "a", "c"], ids=["empty", "null", "repeated", "another"])
def test_ids_of_later_fragments(later):
    """The first id counts, whatever the later fragments say."""
    assert merged([F("f", "{", index=0, id="a")], [F(arguments="}", index=0, id=later)]) == [(0, "a", "f", "{}")]
    assert merged([F("f", "{", id="a")], [F(arguments="}", id=later)]) == [(0, "a", "f", "{}")]


def test_an_id_that_changes_with_the_name_repeated():
    """Another id in every fragment, with the whole name each time, is one call until its arguments are complete."""
    chunks = [
        [F("f", piece, index=0, id=f"id-{number}")] for number, piece in enumerate(["", '{"x": "', "\\\\", '"', "}"])
    ]
    assert merged(*chunks) == [(0, "id-0", "f", '{"x": "\\\\"}')]


def test_an_id_that_comes_late():
    """An id that only a later fragment has counts, too."""
    assert merged([F("f", "{", index=0, id="")], [F(arguments="}", index=0, id="a")]) == [(0, "a", "f", "{}")]


@pytest.mark.parametrize("index", [{}, {"index": 0}], ids=["without", "with"])
@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["read_file", "read_file", "read_file"], "read_file"),
        (["edit_ex", "isting_file", None], "edit_existing_file"),
        (["read", "read_fi", "read_file"], "read_file"),
        (["read_file", "", None], "read_file"),
        ([None, "read_file", "read_file"], "read_file"),
    ],
    ids=["repeated", "pieces", "growing", "empty", "late"],
)
def test_names(names, name, index):
    """A name is joined from its pieces, and counts once where it is repeated or grows."""
    assert merged(*[[F(piece, **index)] for piece in names]) == [(0, None, name, None)]
    pieces = ["{", '"x": 1', "}"]
    if names[1] != "isting_file" or index:
        chunks = [[F(part, text, **index)] for part, text in zip(names, pieces, strict=True)]
        assert merged(*chunks, [F(names[-1], "", **index)]) == [(0, None, name, '{"x": 1}')]


def test_objects_as_arguments():
    """Arguments that are objects are merged, and a function that is none is kept as it came."""
    assert merge_fragments([[F("f", {"a": 1}, index=0)], [F(arguments={"b": 2}, index=0)]])[0]["function"] == {
        "name": "f",
        "arguments": {"a": 1, "b": 2},
    }
    assert merge_fragments([[F("f", "{}", index=0)], [{"index": 0, "function": "odd"}]]) == (
        {
            "index": 0,
            "function": "odd",
        },
    )


def test_what_is_merged_of_other_fields():
    """Texts and lists are joined, objects merged, of anything else the last counts; types are not doubled."""
    objects = [
        {"type": "function", "a": "x", "b": [1], "c": {"d": 1}, "e": 1},
        {"type": "function", "a": "y", "b": [2], "c": {"f": 2}, "e": None},
    ]
    assert merge_objects(objects) == {"type": "function", "a": "xy", "b": [1, 2], "c": {"d": 1, "f": 2}, "e": 1}


names = st.sampled_from(["f", "g", "find", "find_all"])
arguments = st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers(), max_size=3)
calls = st.lists(st.tuples(names, arguments), min_size=1, max_size=4)


@given(calls, st.data())
def test_any_cut(calls, data):
    """However the arguments of calls with indexes are cut, each call is whole and in its place."""
    fragments = []
    for index, (name, values) in enumerate(calls):
        text = json.dumps(values)
        cut = data.draw(st.integers(0, len(text)))
        fragments.append((index, F(name, text[:cut], index=index, id=f"id-{index}")))
        fragments.append((index, F(arguments=text[cut:], index=index)))
    assert merged(*[[fragment] for _, fragment in fragments]) == [
        (index, f"id-{index}", name, json.dumps(values)) for index, (name, values) in enumerate(calls)
    ]


values = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "0", "a", "{", "}", '"', "\\"])
odd = st.dictionaries(
    st.sampled_from(["index", "id", "type", "function", "x"]),
    values
    | st.dictionaries(
        st.sampled_from(["name", "arguments", "x"]),
        values | st.dictionaries(values.filter(lambda v: isinstance(v, str)), values),
    ),
)


@given(st.lists(st.lists(odd, max_size=3), max_size=6))
def test_anything(chunks):
    """Whatever the fragments are, they merge to calls with indexes that ascend, and no fragment's text is lost."""
    found = merge_fragments(chunks)
    assert [call["index"] for call in found] == sorted({call["index"] for call in found})
    assert bool(found) == any(chunks)


def test_linear():
    """A call of many fragments, each with an id of its own and the name repeated, is read in one pass."""
    pieces = ['{"x": "', *["y" * 10] * 20_000, '"}']
    chunks = [[F("f", piece, index=0, id=str(number))] for number, piece in enumerate(pieces)]
    assert merged(*chunks) == [(0, "0", "f", "".join(pieces))]
