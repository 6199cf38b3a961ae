"""What `/set` changes: how tokens are picked, how many, and under which policy."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from gardener.decoding.policy import POLICIES
from gardener.errors import UserError
from gardener.protocol.sampling import GREEDY, Sampling

DEFAULT = "default"
"""What a setting is set to to have it as it was at the start."""

MOST_TOKENS = 2**20


def _number(text: str) -> float:
    return float(text)


def _flag(text: str) -> bool:
    return {"on": True, "off": False, "true": True, "false": False}[text.lower()]


def _biases(text: str) -> tuple[tuple[int, float], ...]:
    given = (each.partition("=") for each in text.replace(",", " ").split())
    return tuple((int(token), float(bias)) for token, _, bias in given)


SAMPLED: dict[str, tuple[Callable[[str], Any], str]] = {
    "temperature": (_number, "a number"),
    "top_p": (_number, "a number"),
    "top_k": (int, "a whole number"),
    "min_p": (_number, "a number"),
    "repetition_penalty": (_number, "a number"),
    "presence_penalty": (_number, "a number"),
    "frequency_penalty": (_number, "a number"),
    "logit_bias": (_biases, "TOKEN=BIAS, by the token's number, like 42=-5"),
    "seed": (int, "a whole number"),
    "min_tokens": (int, "a whole number"),
}
"""Field of `Sampling` -> how it is read, and what it is."""

OTHERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "ignore_eos": (_flag, "on or off"),
    "max_tokens": (int, "a whole number"),
}

NAMES = (*SAMPLED, *OTHERS, "policy")


@dataclass(frozen=True)
class Knobs:
    """Settings of the next answers.

    policy  None: the server chooses, and nobody here
    given   names of those that were set: a server is told of them alone
    start   the settings at the start, to which `default` leads back; None: these
    """

    sampling: Sampling = GREEDY
    max_tokens: int = 1024
    policy: str | None = None
    ignore_eos: bool = False
    given: frozenset[str] = frozenset()
    start: "Knobs | None" = field(default=None, compare=False, repr=False)

    def __getitem__(self, name: str) -> Any:
        return getattr(self.sampling if name in SAMPLED else self, name)

    def set(self, name: str, text: str) -> "Knobs":
        """The same with one changed. Raises UserError for an unknown name or a value that cannot
        be, with the reason."""
        name = _known(name)
        start = self.start or self
        if name == "policy" and self.policy is None:
            raise UserError("the policy is the server's affair: it cannot be set from here")
        if text == DEFAULT:
            given = self.given - {name} | (start.given & {name})
            return replace(self._with(name, start[name]), given=given, start=start)
        return replace(self._with(name, _value(name, text)), given=self.given | {name}, start=start)

    def _with(self, name: str, value: Any) -> "Knobs":
        try:
            if name in SAMPLED:
                sampling = msgspec.structs.replace(self.sampling, **{name: value})
                changed = replace(self, sampling=sampling)
            else:
                changed = replace(self, **{name: value})
        except ValueError as error:
            raise UserError(str(error)) from error
        if changed.sampling.min_tokens > changed.max_tokens:
            raise UserError(
                f"min_tokens {changed.sampling.min_tokens} would be more than max_tokens "
                f"{changed.max_tokens}"
            )
        return changed

    @property
    def is_certain(self) -> bool:
        """Whether the same prompt gives the same answer again."""
        return self.sampling.is_greedy or self.sampling.seed is not None

    def lines(self) -> Iterator[str]:
        """Each setting and its value."""
        for name in NAMES:
            if name != "policy" or self.policy is not None:
                server = self.policy is None and name not in self.given and name != "max_tokens"
                yield f"{name:<20}{'as the server has it' if server else _written(self[name])}"

    def changed(self) -> list[str]:
        """Those that are not as usual, shortly."""
        usual = Knobs(policy=self.policy)
        return [f"{name} {_written(self[name])}" for name in NAMES if self[name] != usual[name]]


def _known(name: str) -> str:
    found = name.lower().replace("-", "_")
    found = "max_tokens" if found == "max_new_tokens" else found
    if found in NAMES:
        return found
    near = difflib.get_close_matches(found, NAMES, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
    raise UserError(f"there is no setting {name!r}: {hint}")


def _value(name: str, text: str) -> Any:
    """What the text says. Raises UserError."""
    if name == "policy":
        if text not in POLICIES:
            raise UserError(f"there is no policy {text!r}: choose from {', '.join(POLICIES)}")
        return text
    read, what = {**SAMPLED, **OTHERS}[name]
    try:
        value = read(text)
    except (ValueError, KeyError, OverflowError):
        raise UserError(f"{name} is {text!r}: it is {what}, or {DEFAULT}") from None
    if name == "max_tokens" and not 1 <= value <= MOST_TOKENS:
        raise UserError(f"max_tokens is {value}: it lies between 1 and {MOST_TOKENS}")
    return value


def _written(value: Any) -> str:
    match value:
        case None:
            return "a new one each time"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case ():
            return "none"
        case tuple():
            return ",".join(f"{token}={bias:g}" for token, bias in value)
    return str(value)
