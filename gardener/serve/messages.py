"""The messages and tools of a chat request, as a chat template takes them."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

TEXTS = ("text", "refusal")
"""Kinds of parts that hold text, under their own name."""


def as_text(content: object) -> object:
    """Content as one text: parts of text stand on lines of their own, as vLLM and llama.cpp have
    it. Anything else but parts is left to the check that follows."""
    if not isinstance(content, list):
        return content
    return "\n".join(_part(number, part) for number, part in enumerate(content))


def _part(number: int, part: object) -> str:
    if isinstance(part, str):
        return part
    said: dict[str, Any] = part if isinstance(part, dict) else {}
    kind = said.get("type")
    if kind not in TEXTS:
        raise PydanticCustomError(
            "part",
            "part {number} is of type {kind}: this model reads text alone",
            {"number": number, "kind": repr(kind)},
        )
    text = said.get(kind)
    if not isinstance(text, str):
        raise PydanticCustomError(
            "part", "part {number} has no {kind}: give it one", {"number": number, "kind": kind}
        )
    return text


Text = Annotated[str, BeforeValidator(as_text)]
"""Text, or a list of parts that are text."""


def as_arguments(value: object) -> object:
    """The arguments of a call: JSON text, as OpenAI has it, becomes the object that it says, which
    is what chat templates write."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError as error:
        raise PydanticCustomError("arguments", "no JSON ({why})", {"why": str(error)}) from error


class CalledFunction(BaseModel):
    """The function of a call that was made."""

    model_config = ConfigDict(strict=True)

    name: str
    arguments: Annotated[dict[str, Any], BeforeValidator(as_arguments)]


class Call(BaseModel):
    """A call that the model made in an earlier turn."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(BaseModel):
    """One turn. The developer's is the system's."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError(
                "content", "a message of role {role} has no content", {"role": self.role}
            )
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError(
                "calls", "only the assistant calls tools, this is role {role}", {"role": self.role}
            )
        return self

    def plain(self) -> dict[str, Any]:
        """As `Prompter.chat` takes it."""
        said = self.model_dump(exclude_none=True)
        role = "system" if self.role == "developer" else self.role
        return said | {"role": role, "content": self.content or ""}


class Function(BaseModel):
    """What is said of a function that may be called."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    function: Function


def as_tool(value: Any, check: ModelWrapValidatorHandler[Tool]) -> dict[str, Any]:
    """What was sent is what the chat template gets: it may say more of a function than is checked,
    and in an order of its own."""
    check(value)
    found: dict[str, Any] = value
    return found


SentTool = Annotated[Tool, WrapValidator(as_tool)]
"""A tool as a template takes it, once it is checked: a dict."""
