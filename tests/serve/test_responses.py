"""What is sent back: whole and in chunks, as OpenAI's own client types have it."""

import json
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tokenizers import Tokenizer, decoders, models

from benchmarks.streaming import KINDS, sequences
from benchmarks.streaming import whole as as_a_whole
from gardener.decoding.events import Moment
from gardener.decoding.limits import Counts
from gardener.holder.detokenizer import LETTER_OF, common, traits, written
from gardener.holder.piece import Piece
from gardener.holder.text import TextStream
from gardener.protocol.logprobs import TokenLogprobs
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.serve.accounts import Standing
from gardener.serve.question import Question
from gardener.serve.responses import ChatForm, CompletionForm, Reply
from gardener.serve.token_logprobs import TextOffsets

STANDING = Standing("the ring is exact: so", near_ties=False, fingerprint="fp_5")
END = 256
PIECES = (Piece((83,), "S"), Piece((111, 46), "o."), Piece((END,)))
LOOK = '<tool_call>{"name": "look", "arguments": {"at": 5}}</tool_call>'


def bytes_and_an_end() -> Tokenizer:
    """A token for each byte, and a special one."""
    tokenizer = Tokenizer(models.BPE({letter: byte for byte, letter in LETTER_OF.items()}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


TOKENIZER = bytes_and_an_end()


def asked(finish: str | None = "eos", policy: str = "gardener", plain: int = 0) -> Any:
    """An answer that ended, as far as responses look at it."""
    counted = Counts(emitted=4, segments=2, accepted=2, drafted=9, plain=plain)
    speculation = SimpleNamespace(
        asked=5,
        policy=SimpleNamespace(name=policy),
        counts=counted,
        moment=Moment(dearer=1.25),
    )
    sampling = Sampling(temperature=1.0, seed=7)
    return SimpleNamespace(
        speculation=speculation,
        finish_reason=finish,
        cached_tokens=3,
        interruptions=1,
        sampling=sampling,
    )


def reply(usage: bool = False, pieces: bool = False, **question: Any) -> Reply:
    asks = Question((1,), GREEDY, **question)
    return Reply("m", asks, STANDING, TOKENIZER, usage, pieces, created=9)


def chunks(
    form: ChatForm | CompletionForm, pieces: Iterable[Piece] = PIECES, **ended: Any
) -> list[dict[str, Any]]:
    made = [*form.begin()]
    for piece in pieces:
        made += form.piece(piece)
    return [json.loads(chunk) for chunk in (*made, *form.end(asked(**ended)))]


def whole(
    form: ChatForm | CompletionForm, pieces: Sequence[Piece] = PIECES, **ended: Any
) -> dict[str, Any]:
    for piece in pieces:
        list(form.piece(piece))
    found: dict[str, Any] = json.loads(form.whole(asked(**ended)))
    return found


GARDENER = {
    "policy": "gardener",
    "drafted": 9,
    "accepted": 2,
    "segments": 2,
    "tokens_per_segment": 2.0,
    "plain_tokens": 0,
    "guessing": None,
    "exactness": "the ring is exact: so",
    "near_ties": False,
    "interruptions": 1,
    "seed": 7,
    "finish": "eos",
    "note": None,
}
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 4,
    "total_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def test_a_chat_that_is_not_streamed() -> None:
    body = whole(ChatForm(reply()))
    number = body["id"]
    assert body == {
        "id": number,
        "object": "chat.completion",
        "created": 9,
        "model": "m",
        "system_fingerprint": "fp_5",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "So.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "gardener": GARDENER,
    }
    assert number.startswith("chatcmpl-")
    assert number != whole(ChatForm(reply()))["id"]
    ChatCompletion.model_validate(body)


def test_a_chat_in_chunks() -> None:
    first, *texts, last = made = chunks(ChatForm(reply()))
    choice = {"index": 0, "logprobs": None, "finish_reason": None}
    delta = {"role": "assistant", "content": "", "refusal": None}
    assert first["choices"] == [{**choice, "delta": delta}]
    assert [each["choices"] for each in texts] == [
        [{**choice, "delta": {"content": text}}] for text in ("S", "o.")
    ]
    assert last["choices"] == [{**choice, "delta": {}, "finish_reason": "stop"}]
    assert last["gardener"] == GARDENER
    heads = [{**each, "choices": [], "gardener": None} for each in made]
    assert all(head == heads[0] and "usage" not in head for head in heads)
    for each in made:
        ChatCompletionChunk.model_validate(each)


def test_usage_comes_in_a_chunk_of_its_own_where_it_is_asked_for() -> None:
    for form in (ChatForm(reply(usage=True)), CompletionForm(reply(usage=True))):
        *others, last = chunks(form)
        assert (last["choices"], last["usage"]) == ([], USAGE)
        assert all(each["usage"] is None for each in others)


@pytest.mark.parametrize("text", ['"', "\\", "\n\x00", "é🚀", "</script>", "\u2028"])
def test_any_text_is_written_as_it_is(text: str) -> None:
    for form, path in ((ChatForm(reply()), "delta"), (CompletionForm(reply()), None)):
        made = [json.loads(chunk) for chunk in form.piece(Piece((1,), text))]
        (choice,) = made[0]["choices"]
        assert (choice[path]["content"] if path else choice["text"]) == text


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        *(("eos", "stop"), ("stop", "stop"), ("length", "length"), ("context", "length")),
        *(("failed", "error"), ("lost", "error"), ("abandoned", "error"), (None, "error")),
    ],
)
def test_only_what_came_to_its_end_stopped(finish: str | None, reason: str) -> None:
    for form in (ChatForm, CompletionForm):
        last = chunks(form(reply()), finish=finish)[-1]
        assert last["choices"][0]["finish_reason"] == reason
        assert last["gardener"]["finish"] == finish or finish is None
        body = whole(form(reply()), finish=finish)
        assert body["choices"][0]["finish_reason"] == reason


def test_an_answer_that_broke_says_so() -> None:
    for form in (ChatForm(reply(tools=("look",))), CompletionForm(reply())):
        list(form.piece(Piece((1,), "So. <tool")))
        *rest, last = [json.loads(chunk) for chunk in form.failed(asked("lost"))]
        assert last["choices"][0]["finish_reason"] == "error"
        assert form.text == "So. <tool"
        assert len(rest) == isinstance(form, ChatForm)  # what was held back


def test_calls_are_taken_out_of_the_text() -> None:
    pieces = [Piece((1,), text) for text in ("I look.\n<tool", LOOK[5:30], LOOK[30:], "\n", LOOK)]
    body = whole(ChatForm(reply(tools=("look",))), pieces)
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look."
    calls = choice["message"]["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "look", "arguments": '{"at": 5}'}] * 2
    ChatCompletion.model_validate(body)
    made = chunks(ChatForm(reply(tools=("look",))), pieces)
    deltas = [each["choices"][0]["delta"] for each in made]
    assert [delta["content"] for delta in deltas if "content" in delta] == ["", "I look."]
    streamed = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [(call["index"], call["function"]) for call in streamed] == [
        (place, call["function"]) for place, call in enumerate(calls)
    ]
    assert made[-1]["choices"][0]["finish_reason"] == "tool_calls"
    for each in made:
        ChatCompletionChunk.model_validate(each)


def test_calls_alone_leave_no_content() -> None:
    pieces = [Piece((1,), LOOK)]
    body = whole(ChatForm(reply(tools=("look",))), pieces, finish="length")
    (choice,) = body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "length")
    assert whole(ChatForm(reply()), pieces)["choices"][0]["message"]["content"] == LOOK


CUP = "é".encode()
SAID = TokenLogprobs(-0.5, ((CUP[0], -0.5), (65, float("-inf"))))
IN_PARTS = (
    Piece((CUP[0],), "", (SAID,)),
    Piece((CUP[1], END), "é", (TokenLogprobs(-0.25), TokenLogprobs(-0.125))),
)


def log_probabilities(made: Iterable[dict[str, Any]], name: str) -> list[Any]:
    """A list of the log probabilities, from all chunks."""
    found = [each["choices"][0]["logprobs"] for each in made]
    return [value for said in found if said for value in said[name]]


def test_log_probabilities_of_a_chat() -> None:
    """A token that is part of a character has its bytes. The one that ended it is not listed."""
    body = whole(ChatForm(reply(logprobs=2)), IN_PARTS)
    (choice,) = body["choices"]
    content = choice["logprobs"]["content"]
    part = {"token": "bytes:\\xc3", "logprob": -0.5, "bytes": [0xC3]}
    least = {"token": "A", "logprob": -9999.0, "bytes": [65]}
    assert content[0] == {**part, "top_logprobs": [part, least]}
    assert [each["bytes"] for each in content] == [[0xC3], [0xA9]]
    ChatCompletion.model_validate(body)
    made = chunks(ChatForm(reply(logprobs=2)), IN_PARTS)
    assert log_probabilities(made, "content") == content
    for each in made:
        ChatCompletionChunk.model_validate(each)


def test_log_probabilities_of_a_completion() -> None:
    pieces = (Piece((65,), "A", (TokenLogprobs(-1.0, ((66, -0.5),)),)), *IN_PARTS)
    body = whole(CompletionForm(reply(logprobs=1)), pieces)
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["A", "bytes:\\xc3", "bytes:\\xa9"],
        "token_logprobs": [-1.0, -0.5, -0.25],
        "top_logprobs": [
            {"B": -0.5, "A": -1.0},
            {"bytes:\\xc3": -0.5, "A": -9999.0},
            {"bytes:\\xa9": -0.25},
        ],
        "text_offset": [0, 1, 1],
    }
    Completion.model_validate(body)
    made = chunks(CompletionForm(reply(logprobs=1)), pieces)
    assert log_probabilities(made, "text_offset") == [0, 1, 1]
    # What ended for another reason than such a token has all.
    for finish in ("length", "lost"):
        assert log_probabilities(
            chunks(CompletionForm(reply(logprobs=1)), pieces, finish=finish), "tokens"
        ) == [*("A", "bytes:\\xc3", "bytes:\\xa9", "<end>")]


def pieces_of(text: str, *stops: str, ends: bool = False) -> list[Piece]:
    """What a session gives of it, byte by byte."""
    stream, made = TextStream(TOKENIZER, (), stops), []
    for byte in text.encode():
        done = stream.push(byte)
        made.append(Piece((byte,), stream.take(), (TokenLogprobs(-1.0),)))
        if done:
            return made
    if ends:
        made.append(Piece((END,), stream.take(), (TokenLogprobs(-1.0),)))
    return [*made, Piece((), stream.take(final=True))]


@pytest.mark.parametrize(
    ("pieces", "finish", "text"),
    [
        (pieces_of("So.\nNo", "\nN"), "stop", "So."),
        (pieces_of("So.\nX", "\nN", ends=True), "eos", "So.\nX"),
        (pieces_of("So.\n", "\nN", ends=True), "eos", "So.\n"),
        (pieces_of("So.\n", "\nN"), "length", "So.\n"),
        (pieces_of("", ends=True), "eos", ""),
    ],
)
def test_log_probabilities_are_those_of_the_text(
    pieces: list[Piece], finish: str, text: str
) -> None:
    """Neither of the stop text nor of the token that ended it; and in a stream they come with
    their text."""
    made = chunks(CompletionForm(reply(logprobs=0)), pieces, finish=finish)
    assert "".join(log_probabilities(made, "tokens")) == text
    assert log_probabilities(made, "text_offset") == [*range(len(text))]
    length = 0
    for each in made:
        (choice,) = each["choices"]
        begin, length = length, length + len(choice["text"])
        said = choice["logprobs"]
        assert (said["text_offset"] if said else []) == [*range(begin, length)]
    body = whole(CompletionForm(reply(logprobs=0)), pieces, finish=finish)
    assert (body["choices"][0]["text"], "".join(body["choices"][0]["logprobs"]["tokens"])) == (
        *(text, text),
    )
    for chat in (
        log_probabilities(chunks(ChatForm(reply(logprobs=0)), pieces, finish=finish), "content"),
        whole(ChatForm(reply(logprobs=0)), pieces, finish=finish)["choices"][0]["logprobs"][
            "content"
        ],
    ):
        assert "".join(each["token"] for each in chat) == text


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_begin_where_the_text_of_those_before_them_ends(kind: str) -> None:
    tokenizer, checked = KINDS[kind](), 0
    for tokens, prompt in sequences(tokenizer, 400, seed=1):
        text = as_a_whole(tokenizer, tokens, prompt)
        before = written(tokenizer, tokens[prompt - 1]) if prompt else None
        if "\N{REPLACEMENT CHARACTER}" in text or (before or "").startswith("<0x"):
            continue  # what begins within a character of the prompt has no place of its own
        offsets, right = TextOffsets(tokenizer, tokens[:prompt]), 0
        for end in range(prompt, len(tokens)):
            at = offsets.of(tokens[end])
            # Where bytes fall back, half a character makes those before it look like none.
            right = max(right, common(as_a_whole(tokenizer, tokens[:end], prompt), text))
            if written(tokenizer, tokens[end]) not in traits(tokenizer).special:
                assert at == right
                checked += 1
    assert checked > 30


def test_log_probabilities_that_were_not_asked_for_are_null() -> None:
    for form in (ChatForm(reply()), CompletionForm(reply())):
        assert whole(form)["choices"][0]["logprobs"] is None
    empty = whole(CompletionForm(reply(logprobs=0)), [])["choices"][0]["logprobs"]
    assert empty["tokens"] == []


def test_a_completion_whole_and_in_chunks() -> None:
    body = whole(CompletionForm(reply()))
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "text": "So.", "logprobs": None, "finish_reason": "stop"}
    ]
    assert (body["usage"], body["gardener"]) == (USAGE, GARDENER)
    made = chunks(CompletionForm(reply()))
    assert [each["choices"][0]["text"] for each in made] == ["S", "o.", ""]
    assert made[-1]["choices"][0]["finish_reason"] == "stop"
    for each in (body, made[-1]):  # OpenAI's type knows no null before, which OpenAI sends
        Completion.model_validate(each)


def test_why_guessing_was_turned_down_is_said() -> None:
    off = whole(ChatForm(reply()), plain=3)["gardener"]
    assert off["plain_tokens"] == 3
    assert off["guessing"] == (
        "3 of 4 tokens were written without guesses: with them a token took 1.25 times as long"
    )
    assert "does not guess" in whole(ChatForm(reply()), policy="plain")["gardener"]["guessing"]
    assert whole(ChatForm(reply(note="Beware.")))["gardener"]["note"] == "Beware."


def told(form: ChatForm, *pieces: Piece) -> list[tuple[str, Any]]:
    made = [json.loads(chunk) for piece in pieces for chunk in form.piece(piece)]
    for each in made:
        ChatCompletionChunk.model_validate(each)
    return [(each["choices"][0]["delta"].get("content"), each.get("gardener")) for each in made]


def guessed(tokens: int) -> dict[str, Any]:
    return {"missed": False, "tokens": tokens}


def missed(tokens: int) -> dict[str, Any]:
    return {"missed": True, "tokens": tokens}


def test_chunks_tell_what_had_been_guessed_where_that_was_asked_for() -> None:
    pieces = (Piece((83,), "S"), Piece((111, 46), "o.", missed=True), Piece((33, 60), "!"))
    assert told(ChatForm(reply(pieces=True)), *pieces) == [
        ("S", guessed(1)),
        ("o", guessed(3)),
        (".", missed(3)),
        ("!", None),  # more was held back, since it may be the beginning of a stop text
    ]
    assert told(ChatForm(reply()), *pieces) == [("S", None), ("o.", None), ("!", None)]
    form = ChatForm(reply(pieces=True))
    told(form, *pieces)
    assert form.text == "So.!"
    said = Piece((111, 46), "o.", (SAID, SAID), missed=True)
    assert told(ChatForm(reply(pieces=True, logprobs=0)), said) == [("o.", missed(2))]


def test_what_a_call_of_a_tool_may_begin_with_is_not_told_of() -> None:
    form = ChatForm(reply(pieces=True, tools=("look",)))
    texts = ("I", " <to", "p", "!")
    pieces = [Piece(tuple(text.encode()), text, missed=True) for text in texts]
    assert told(form, *pieces) == [("I", missed(1)), (" <top", None), ("!", missed(7))]
