"""What a request asks of a ring, once its fields are checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gardener.decoding.policy import Bounds
from gardener.model.checkpoint.generation import own_sampling
from gardener.protocol.sampling import Sampling
from gardener.serve.asked import Asked, Ring
from gardener.serve.tool_calls import MARKS


@dataclass(frozen=True)
class Question:
    """A prompt of tokens, and how to answer it.

    new_tokens  most tokens of the answer; None: as many as the ring writes, see `Ring.longest`
    stops, sampling, logprobs, ignore_eos, stop_tokens, policy  see `OpenRing.ask`
    tools       the answer may be a call of one of these functions
    most_calls  calls of functions in one answer; None: any number
    note        what the asker should know, in a sentence; empty: nothing
    """

    tokens: Sequence[int]
    sampling: Sampling
    new_tokens: int | None = None
    stops: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False
    stop_tokens: tuple[int, ...] = ()
    policy: str | None = None
    tools: tuple[str, ...] = ()
    most_calls: int | None = None
    note: str = ""

    @property
    def shown(self) -> Sequence[str]:
        """Special tokens that are text in the answer."""
        return MARKS if self.tools else ()

    def ask(self, ring: Ring, policy: str | None = None, bounds: Bounds | None = None) -> Asked:
        """Begin it in a ring; `policy`: for a question that names none. Raises as `OpenRing.ask`
        does."""
        return ring.ask_tokens(
            self.tokens,
            max_new_tokens=self.new_tokens or ring.longest,
            stop=self.stops,
            policy=self.policy or policy,
            bounds=bounds,
            sampling=self.sampling,
            logprobs=self.logprobs,
            ignore_eos=self.ignore_eos,
            stop_tokens=self.stop_tokens,
            shown=self.shown,
        )


def usual_sampling(folder: Path) -> Sampling:
    """How the model in a folder picks tokens where a request does not say: as its authors would
    have it, where their `generation_config.json` says so; else at temperature 1, OpenAI's default.

    A file that asks for the likeliest token (`do_sample` is not true) was most often written by a
    program that asked nobody, so it changes no temperature; what else it says of how to pick holds.

    Raises UserError for a file that cannot be.
    """
    own = own_sampling(folder)
    if own is None:
        return Sampling(temperature=1.0)
    return msgspec.structs.replace(own, temperature=1.0) if own.is_greedy else own
