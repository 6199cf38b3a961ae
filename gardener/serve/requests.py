"""Requests of OpenAI's interface: which fields are understood, and what they mean in a ring.

Unknown fields are ignored. Those that are known and cannot be had are refused by name, see
`unsupported`. `null` is a field that was not sent.
"""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from gardener.decoding.policy import POLICIES
from gardener.holder.prompter import Prompter
from gardener.holder.text import check_stops
from gardener.protocol.sampling import MAX_BEST, MAX_SEED, Sampling
from gardener.serve import unsupported
from gardener.serve.fields import about, as_error, read_object, refused, setting_refused
from gardener.serve.messages import ChatMessage, SentTool
from gardener.serve.question import Question
from gardener.serve.unsupported import Nothing

MAX_STOPS = 16
"""Most stop texts of a request; OpenAI takes 4."""

MOST_DIGITS = 10
"""Of a token's number."""

LEAST_SEED, MOST_SEED = -(2**63), 2**63
"""OpenAI's seeds; ours begin at 0."""

TOOLS_LEFT_OUT = "the model's chat template takes no tools, so the model was not told of them"

Count = Annotated[int, Field(ge=1, le=2**31)]


class StreamOptions(BaseModel):
    """Of a streamed answer."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class _Request(BaseModel):
    """What both kinds have in common."""

    model_config = ConfigDict(strict=True, extra="ignore")
    refused: ClassVar[Mapping[str, tuple[Nothing, str]]]

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    stop: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: Annotated[int, Field(ge=LEAST_SEED, le=MOST_SEED)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    policy: str | None = None
    user: str | None = None

    @classmethod
    def read(cls, body: bytes) -> Self:
        """A request from its JSON. Raises ApiError (400) that names the field."""
        said = read_object(body)
        unsupported.refuse(said, cls.refused)
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            raise as_error(error) from error

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, value: object) -> object:
        found = [value] if isinstance(value, str) else value
        if isinstance(found, list) and len(found) > MAX_STOPS:
            raise PydanticCustomError(
                "stops",
                "there are {count} of them: give {most} at most",
                {"count": len(found), "most": MAX_STOPS},
            )
        texts = [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
        if "" in texts:
            raise PydanticCustomError("stops", "one is empty: give each some text")
        try:
            check_stops(texts)
        except ValueError as error:
            raise PydanticCustomError("stops", "{why}", {"why": str(error)}) from error
        return found

    @field_validator("logit_bias")
    @classmethod
    def _numbers(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for name in value or ():
            if not (name.isascii() and name.isdigit() and len(name) <= MOST_DIGITS):
                raise PydanticCustomError(
                    "token",
                    "{name} is no number of a token: name tokens by number, like 42",
                    {"name": textwrap.shorten(repr(name), 80)},
                )
        return value

    @field_validator("policy")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in POLICIES:
            raise PydanticCustomError(
                "policy",
                "there is no policy {name}: take one of {known}",
                {"name": repr(value), "known": ", ".join(POLICIES)},
            )
        return value

    @property
    def streamed(self) -> bool:
        """The answer comes in pieces."""
        return bool(self.stream)

    @property
    def wants_usage(self) -> bool:
        """A streamed answer ends with what it cost."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_pieces(self) -> bool:
        """A streamed answer says of each text whether it had been guessed."""
        return False

    @property
    def new_tokens(self) -> int | None:
        """Most tokens of the answer; None: to the end of the context."""
        return self.max_tokens

    def _sampling(self, usual: Sampling) -> Sampling:
        """The usual settings with those that were sent in their place."""
        names = (
            *("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
            *("presence_penalty", "frequency_penalty", "min_tokens"),
        )
        given: dict[str, Any] = {
            name: value for name in names if (value := getattr(self, name)) is not None
        }
        if given.get("top_k") == -1:  # as vLLM says that all are meant
            given["top_k"] = 0
        if self.seed is not None:
            given["seed"] = self.seed & MAX_SEED
        if self.logit_bias:
            given["logit_bias"] = tuple((int(name), bias) for name, bias in self.logit_bias.items())
        try:
            return msgspec.structs.replace(usual, **given)
        except ValueError as error:
            raise setting_refused(error) from error

    def _check_tokens(self, vocabulary: int) -> None:
        """Raises ApiError for a token that the model does not have."""
        named: dict[str, Iterable[int]] = {
            "logit_bias": map(int, self.logit_bias or ()),
            "stop_token_ids": self.stop_token_ids or (),
        }
        for name, tokens in named.items():
            for token in tokens:
                if not 0 <= token < vocabulary:
                    raise refused(
                        name,
                        f"{name} names token {token}: this model has tokens 0 to {vocabulary - 1}",
                    )

    def _question(
        self, prompter: Prompter, tokens: list[int], usual: Sampling, **more: Any
    ) -> Question:
        self._check_tokens(prompter.vocabulary)
        new_tokens, least = self.new_tokens, self.min_tokens or 0
        if new_tokens is not None and least > new_tokens:
            raise refused(
                "min_tokens",
                f"min_tokens is {least}, more than the most tokens to write, {new_tokens}",
            )
        return Question(
            tokens,
            self._sampling(usual),
            new_tokens,
            stops=tuple(self.stop or ()),
            ignore_eos=bool(self.ignore_eos),
            stop_tokens=tuple(self.stop_token_ids or ()),
            policy=self.policy,
            **more,
        )


class ChatRequest(_Request):
    """POST /v1/chat/completions."""

    refused = unsupported.CHAT

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_BEST)] | None = None
    tools: list[SentTool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    gardener_pieces: bool | None = None

    @field_validator("tool_choice")
    @classmethod
    def _free(cls, value: Any) -> Any:
        if value not in (None, "none", "auto"):
            raise PydanticCustomError(
                "choice", "no model is made to call a tool here: take auto, or ask in the prompt"
            )
        return value

    @property
    def wants_pieces(self) -> bool:
        return bool(self.stream and self.gardener_pieces)

    @property
    def new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def question(self, prompter: Prompter, usual: Sampling) -> Question:
        """What it asks. `usual`: how tokens are picked where it does not say, see
        `usual_sampling`. Raises ApiError (400)."""
        if self.top_logprobs is not None and not self.logprobs:
            raise refused(
                "top_logprobs", f"top_logprobs is {self.top_logprobs}: set logprobs to true with it"
            )
        tools: Any = None if self.tool_choice == "none" else self.tools
        with about("messages"):
            takes_tools = bool(tools) and prompter.takes_tools
        with about("chat_template_kwargs" if self.chat_template_kwargs else "messages"):
            tokens = prompter.chat(
                [message.plain() for message in self.messages],
                tools if takes_tools else None,
                self.chat_template_kwargs,
            )
        return self._question(
            prompter,
            tokens,
            usual,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            tools=tuple(tool["function"]["name"] for tool in tools) if takes_tools else (),
            most_calls=1 if self.parallel_tool_calls is False else None,
            note=TOOLS_LEFT_OUT if tools and not takes_tools else "",
        )


class CompletionRequest(_Request):
    """POST /v1/completions."""

    refused = unsupported.COMPLETIONS

    prompt: Any
    logprobs: Annotated[int, Field(ge=0, le=MAX_BEST)] | None = None

    @field_validator("prompt")
    @classmethod
    def _one(cls, value: Any) -> Any:
        """A text, or a list of token numbers."""
        if isinstance(value, list) and value and isinstance(value[0], str | list):
            if len(value) > 1:
                raise PydanticCustomError(
                    "prompts",
                    "there are {count} prompts: send each in a request of its own",
                    {"count": len(value)},
                )
            value = value[0]
        if isinstance(value, str) or (
            isinstance(value, list) and all(type(each) is int for each in value)
        ):
            return value
        raise PydanticCustomError("prompt", "a prompt is a text, or a list of token numbers")

    def question(self, prompter: Prompter, usual: Sampling) -> Question:
        """What it asks, see `ChatRequest.question`."""
        with about("prompt"):
            if isinstance(self.prompt, str):
                tokens = prompter.encode(self.prompt, raw=True)
            else:
                tokens = prompter.checked(self.prompt)
        return self._question(prompter, tokens, usual, logprobs=self.logprobs)
