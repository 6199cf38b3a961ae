"""Fields of requests that are known and cannot be had here: they are refused by name, unless their
value asks for nothing."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gardener.serve.fields import refused, shown

Nothing: TypeAlias = Callable[[Any], bool]
"""Whether a value asks for nothing, or for what happens anyway."""


def one_of(*values: object) -> Nothing:
    """It is one of these; True is not 1."""
    return lambda value: any(value == each and type(value) is type(each) for each in values)


def empty(value: Any) -> bool:
    """It holds nothing."""
    return value in ("", [], {}, False)


def text_format(value: Any) -> bool:
    """A `response_format` of text."""
    return isinstance(value, Mapping) and value.get("type") == "text"


NO_GRAMMAR = "answers are not held to a grammar here: describe the form in the prompt, and check it"

BOTH: dict[str, tuple[Nothing, str]] = {
    "n": (one_of(1), "one answer is written to a request: send several requests"),
    "best_of": (one_of(1), "one answer is written to a request: send several requests"),
    "use_beam_search": (empty, "leave it out: tokens are picked one by one"),
    "store": (empty, "nothing is kept here: leave it out"),
    "service_tier": (one_of("auto", "default"), "there is one only: leave it out"),
    "response_format": (text_format, NO_GRAMMAR),
    "guided_json": (empty, NO_GRAMMAR),
    "guided_regex": (empty, NO_GRAMMAR),
    "guided_choice": (empty, NO_GRAMMAR),
    "guided_grammar": (empty, NO_GRAMMAR),
    "structured_outputs": (empty, NO_GRAMMAR),
    "grammar": (empty, NO_GRAMMAR),
    "json_schema": (empty, NO_GRAMMAR),
    "length_penalty": (one_of(1, 1.0), "it belongs to beam search: leave it out"),
    "prompt_logprobs": (empty, "log probabilities are told of the answer alone: leave it out"),
    "truncate_prompt_tokens": (empty, "a prompt is never cut: shorten it yourself"),
    "allowed_token_ids": (empty, "take logit_bias"),
    "bad_words": (empty, "take logit_bias"),
    "include_stop_str_in_output": (empty, "a stop text is never shown: add it yourself"),
    "skip_special_tokens": (one_of(True), "special tokens are no text here: leave it out"),
}
"""Field -> which values are fine, and the way out."""

CHAT: dict[str, tuple[Nothing, str]] = {
    "functions": (empty, "that is the old name: send tools"),
    "function_call": (one_of("none", "auto"), "that is the old name: send tool_choice"),
    "audio": (empty, "this model writes text: leave it out"),
    "modalities": (one_of(["text"]), 'this model writes text: take ["text"]'),
    "prediction": (empty, "guesses are made by the ring itself: leave it out"),
    "web_search_options": (empty, "nothing is searched here: leave it out"),
    "reasoning_effort": (
        one_of("none"),
        "if the model's chat template knows it, send it in chat_template_kwargs",
    ),
    "verbosity": (one_of("medium"), "ask for it in the prompt"),
    "continue_final_message": (
        empty,
        "an answer is a turn of its own: send the text to /v1/completions to have it continued",
    ),
    "add_generation_prompt": (one_of(True), "an answer is always a turn of its own"),
    "echo": (empty, "the answer is sent alone: leave it out"),
    "suffix": (empty, "text is written at the end alone: leave it out"),
}
"""The same of chats only."""

COMPLETIONS: dict[str, tuple[Nothing, str]] = {
    "echo": (empty, "the answer is sent alone: put the prompt before it yourself"),
    "suffix": (empty, "text is written at the end alone: leave it out"),
    "tools": (empty, "a text has no tools: send messages to /v1/chat/completions"),
    "messages": (empty, "send messages to /v1/chat/completions, or a prompt here"),
}
"""The same of completions only."""


def refuse(body: Mapping[str, Any], known: Mapping[str, tuple[Nothing, str]]) -> None:
    """Raises ApiError (400) for the first field that asks for what cannot be had."""
    for name, (nothing, way_out) in {**BOTH, **known}.items():
        value = body.get(name)
        if value is not None and not nothing(value):
            raise refused(name, f"{name} is {shown(value)}: {way_out}", "unsupported_value")
