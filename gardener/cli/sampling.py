"""The options that say how tokens are picked, and what becomes of them in a ring."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from cyclopts import Group, Parameter
from cyclopts.validators import Number

from gardener.cli.program import Misuse, flag
from gardener.errors import UserError
from gardener.model.checkpoint.generation import own_sampling
from gardener.protocol.sampling import GREEDY, MAX_BEST, Sampling, new_seed

SAMPLING = Group.create_ordered("Sampling")

Logprobs: TypeAlias = Annotated[
    int | None,
    Parameter(
        group=SAMPLING,
        validator=Number(gte=0, lte=MAX_BEST),
        metavar=f"0..{MAX_BEST}",
        help="With --json: the log probability of each token, and of this many of the best ones.",
    ),
]


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are picked. What is None was not given."""

    temperature: Annotated[
        float | None,
        Parameter(
            env_var="GARDENER_TEMPERATURE",
            metavar="T",
            help="0, the default: always the likeliest token. 1: as the model says.",
        ),
    ] = None
    top_p: Annotated[
        float | None,
        Parameter(
            env_var="GARDENER_TOP_P",
            metavar="P",
            help="Pick from the likeliest tokens that together have this probability.",
        ),
    ] = None
    top_k: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_TOP_K",
            metavar="K",
            help="Pick from this many of the likeliest tokens; 0: from all.",
        ),
    ] = None
    min_p: Annotated[
        float | None,
        Parameter(
            env_var="GARDENER_MIN_P",
            metavar="P",
            help="Pick from tokens that are at least this share as likely as the likeliest.",
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Parameter(
            env_var="GARDENER_REPETITION_PENALTY",
            metavar="X",
            help="Over 1: make tokens that stand in prompt or answer less likely.",
        ),
    ] = None
    presence_penalty: Annotated[
        float | None,
        Parameter(
            env_var="GARDENER_PRESENCE_PENALTY",
            metavar="X",
            help="Taken from the logits of tokens that stand in the answer.",
        ),
    ] = None
    frequency_penalty: Annotated[
        float | None,
        Parameter(
            env_var="GARDENER_FREQUENCY_PENALTY",
            metavar="X",
            help="The same, once for each time that they stand there.",
        ),
    ] = None
    logit_bias: Annotated[
        list[str] | None,
        Parameter(
            env_var="GARDENER_LOGIT_BIAS",
            metavar="TOKEN=BIAS",
            help="Added to the logit of a token, given by its number. May be given several times.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_SEED",
            metavar="N",
            help="The same seed gives the same text. Default: a new one each time, which is told.",
        ),
    ] = None
    min_tokens: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_MIN_TOKENS",
            metavar="N",
            help="Do not end an answer before it has this many tokens.",
        ),
    ] = None
    ignore_eos: Annotated[
        bool,
        flag(
            env_var="GARDENER_IGNORE_EOS",
            help="Go on where the model would end, up to --max-new-tokens.",
        ),
    ] = False
    sample: Annotated[
        bool,
        flag(
            env_var="GARDENER_SAMPLE",
            help="Take the settings that come with the model (generation_config.json); options "
            "given here go before them. A model that brings none is sampled at temperature 1.",
        ),
    ] = False

    def __post_init__(self) -> None:
        self.over(GREEDY)  # say now what cannot be, not when the ring stands

    def begun(self, new_tokens: int) -> "SamplingOptions":
        """The same for answers of up to so many tokens. Has a seed, drawn if none was given, which
        all rings and policies of one call share. Raises UserError."""
        if (self.min_tokens or 0) > new_tokens:
            raise UserError(
                f"--min-tokens {self.min_tokens} is more than --max-new-tokens {new_tokens}"
            )
        if self.seed is not None or not (self.sample or self.temperature):
            return self
        return replace(self, seed=new_seed())

    def over(self, settings: Sampling) -> Sampling:
        """These settings with what was given in their place. Raises UserError."""
        given: dict[str, Any] = {
            name: getattr(self, name) for name in _FIELDS if getattr(self, name) is not None
        }
        if self.logit_bias:
            given["logit_bias"] = tuple(map(_bias, self.logit_bias))
        try:
            return msgspec.structs.replace(settings, **given)
        except ValueError as error:
            raise UserError(_as_options(str(error))) from error

    def sampling(self, folder: Path, say: Callable[[str], None]) -> Sampling:
        """What was asked for, with the model in this folder. `say` is told what a person would not
        expect, and the seed. Raises UserError."""
        found = self.over(self._own(folder, say) if self.sample else GREEDY)
        idle = [option for option in _ONLY_WITH_NOISE if getattr(self, option)]
        if found.is_greedy and idle:
            say(f"temperature 0 takes the likeliest token: {_options(idle)} has no effect")
        if not found.is_greedy:
            say(described(found))
        return found

    def _own(self, folder: Path, say: Callable[[str], None]) -> Sampling:
        """The model's own settings."""
        own = own_sampling(folder)
        if own is None:
            if self.temperature is None:
                say("the model brings no settings of its own for --sample: temperature 1 is taken")
            return Sampling(temperature=1.0)
        if own.is_greedy and self.temperature is None:
            say(
                "the model's own settings take the likeliest token (do_sample is not true in its "
                "generation_config.json): give a --temperature to sample"
            )
        return own


def described(sampling: Sampling) -> str:
    """The settings that are not as usual, for a person."""
    told = {
        name: value
        for name, value in msgspec.structs.asdict(sampling).items()
        if value != getattr(GREEDY, name) and name not in {"logit_bias", "eos"}
    }
    return "sampling: " + ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in told.items()
    )


_ONLY_WITH_NOISE = ("top_p", "top_k", "min_p")
_FIELDS = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("presence_penalty", "frequency_penalty", "seed", "min_tokens"),
)


def _options(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _as_options(complaint: str) -> str:
    """The complaint of `Sampling`, which names a field first, for who gives options."""
    field, _, rest = complaint.partition(" ")
    return f"{_options([field])} {rest}" if field in {*_FIELDS, "logit_bias"} else complaint


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise Misuse(
            f"--logit-bias {text}: write the number of a token, =, and what is added, like 42=-5"
        ) from None
