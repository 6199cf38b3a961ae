"""Calls of functions in answers, whole and cut anywhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gardener.serve.tool_calls import Call, CallReader

TOOLS = ("look", "say")
ARGUMENTS = {"at": 'a "}" \\ {', "deep": [{"é": None}]}
SAID = json.dumps({"name": "look", "arguments": ARGUMENTS})
LOOK = f"<tool_call>\n{SAID}\n</tool_call>"
BARE = '{"name": "look", "parameters": {"x": 1}}'
X = Call("look", '{"x": 1}')
FULL = Call("look", json.dumps(ARGUMENTS, ensure_ascii=False))


def read(*pieces: str, most: int | None = None) -> tuple[str, list[Call]]:
    reader = CallReader(TOOLS, most)
    found = [*map(reader.push, pieces), reader.end()]
    return "".join(text for text, _ in found), [call for _, calls in found for call in calls]


@pytest.mark.parametrize(
    ("answer", "text", "calls"),
    [
        (LOOK, "", [FULL]),
        (f" \n{LOOK}\n", "", [FULL]),
        (f"I look.\n{LOOK}\n{LOOK}", "I look.", [FULL, FULL]),
        (f"{LOOK}\n\nSo.", "\n\nSo.", [FULL]),
        (f"<tool_call>{SAID}\n{SAID}</tool_call>", "", [FULL, FULL]),
        (f"<tool_call>{SAID}", "", [FULL]),  # models leave the end out
        ('<tool_call>{"name": "other"}</tool_call>', "", [Call("other", "{}")]),
        ('<tool_call>{"name": "say", "arguments": "{\\"a\\": 1}"}', "", [Call("say", '{"a": 1}')]),
        (BARE, "", [X]),
        (f"<|python_tag|>{BARE}", "", [X]),
        (f"{BARE}; {BARE}\n<|python_tag|>{BARE}", "", [X, X, X]),
        (f'{{"type": "function", {BARE[1:]}', "", [X]),
    ],
)
def test_calls_are_found(answer: str, text: str, calls: list[Call]) -> None:
    assert read(answer) == (text, calls)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ",
        "So. \n",
        "a < b <tool",
        "<tool_call>",
        "<tool_call>So.</tool_call>",
        '<tool_call>{"name": "look", "arguments": {</tool_call> ',
        '<tool_call>{"name": "look", "arguments": {"x": 1,}}</tool_call>',
        '<tool_call>{"name": "look", "arguments": 5}</tool_call>',
        '<tool_call>{"name": "look", "arguments": {"x": "\\ud800"}}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        f"See: {BARE}",
        "[" + BARE + "]",
        '{"name": "nobody", "parameters": {}}',  # an answer in JSON
        '{"answer": 5, "name": "look"}',
        "<|python_tag|>look(5)",
        "</tool_call>",
        "{",
    ],
)
def test_what_is_no_call_is_text_unchanged(answer: str) -> None:
    assert read(answer) == (answer, [])


def test_broken_calls_hide_none_that_follows() -> None:
    broken = '<tool_call>{"name": "look", "arguments": {"x": 1,}}</tool_call>'
    assert read(f"{broken}{LOOK}") == (broken, [FULL])
    assert read(f"<tool_call>So. {LOOK}") == ("<tool_call>So.", [FULL])


def test_one_call_may_be_the_most() -> None:
    assert read(f"So. {LOOK}{LOOK} And.", most=1) == ("So.", [FULL])


def test_half_a_call_is_never_shown() -> None:
    reader = CallReader(TOOLS)
    assert reader.push("I look.\n<to") == ("I look.", [])
    assert reader.push('ol_call>{"name": "look", "arg') == ("", [])
    assert reader.push('uments": {}}') == ("", [Call("look", "{}")])
    assert reader.push("</tool") == ("", [])
    assert reader.push("_call>") == ("", [])
    assert reader.end() == ("", [])


def test_an_answer_in_json_is_not_held_back() -> None:
    assert CallReader(TOOLS).push('{"answer"') == ('{"answer"', [])


def test_each_call_has_a_number_of_its_own() -> None:
    _, calls = read(LOOK, LOOK)
    assert len({call.number for call in calls}) == 2


PARTS = some.sampled_from(
    (
        *(LOOK, BARE, "<tool_call>", "</tool_call>", "<tool", "<|python_tag|>", ";"),
        *("{", "}", '"', "\\", "So.", " ", "\n", '{"name": "say"}', '{"answer": 1}'),
        '{"name": "nobody", "parameters": {}}',
    )
)


@given(some.lists(PARTS, max_size=6), some.data())
def test_the_pieces_that_an_answer_comes_in_make_no_difference(
    parts: list[str], data: some.DataObject
) -> None:
    answer = "".join(parts)
    cuts = sorted(data.draw(some.sets(some.integers(0, len(answer)), max_size=40)))
    ends = [*cuts, len(answer)]
    pieces = [answer[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    whole = read(answer)
    assert read(*pieces) == read(*answer) == whole
    if not whole[1]:
        assert whole[0] == answer
