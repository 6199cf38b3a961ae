"""One answer: runs a prompt through a holder, and keeps the figures of how it went."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gardener.decoding.limits import Counts, Limits
from gardener.decoding.policy import Policy
from gardener.decoding.stage_times import StageTimes
from gardener.errors import GardenerError
from gardener.holder.chat_template import Prompter
from gardener.holder.holder import Holder
from gardener.holder.rates import decoding_rate
from gardener.holder.session import Piece
from gardener.holder.text import StopStrings, TextStream
from gardener.runtime import clock


@dataclass(frozen=True)
class Wanted:
    """What is asked of the model. `tokens` is the prompt."""

    tokens: Sequence[int]
    new_tokens: int
    stops: Sequence[str] = ()
    chunk: int = 128


@dataclass
class Answer:
    """What came of it. Times in seconds; `decode` runs from the first emission to the last one.
    `stands`: the ring can take another request, whatever became of this one."""

    policy: str
    prompt_tokens: int
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    reason: str = ""
    error: str | None = None
    stands: bool = True
    first_token: float = 0.0
    total: float = 0.0
    counts: Counts = field(default_factory=Counts)
    stage_times: StageTimes = field(default_factory=StageTimes)

    def take(self, piece: Piece, seconds: float) -> None:
        """Another piece came, this long after the request."""
        self.text += piece.text
        if piece.tokens:
            self.total = seconds
            self.first_token = self.first_token if self.tokens else seconds
            self.tokens += piece.tokens

    @property
    def decode(self) -> float:
        return self.total - self.first_token

    @property
    def rate(self) -> float:
        """Tokens per second after the first one, of this answer alone; 0 for one token. It flatters
        a policy that had rows under way when the first token came: compare by `decoding_rate` with
        one prefill for all, or end to end."""
        return decoding_rate(len(self.tokens), self.total, self.first_token) or 0.0

    @property
    def end_to_end(self) -> float:
        """Tokens per second, the computation of the prompt included."""
        return len(self.tokens) / self.total if self.total > 0 else 0.0

    @property
    def per_segment(self) -> float:
        """Tokens emitted per segment verified."""
        return len(self.tokens) / self.counts.segments if self.counts.segments else 0.0

    def statistics(self) -> dict[str, Any]:
        """The figures without the text and without those that need a prefill."""
        return {
            "tokens": len(self.tokens),
            "end_to_end": self.end_to_end,
            "tokens_per_segment": self.per_segment,
            "seconds": {
                "total": self.total,
                "first_token": self.first_token,
                "decode": self.decode,
            },
            "counts": asdict(self.counts),
            "flight_seconds": self.stage_times.flight,
            "stages": [
                {"wait_seconds": wait, "compute_seconds": compute}
                for wait, compute in zip(
                    self.stage_times.wait, self.stage_times.compute, strict=True
                )
            ],
        }


async def answer(
    holder: Holder,
    prompter: Prompter,
    policy: Policy,
    wanted: Wanted,
    show: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Run one prompt; `show` gets the text as it is accepted.

    A ring that breaks, or a stage that cannot compute this, is no exception here: what was written
    is kept, `error` says what happened.
    Raises ValueError if the prompt leaves no room for an answer.
    """
    stops = StopStrings(prompter.backend, wanted.stops)
    limits = Limits(wanted.new_tokens, prompter.context, prompter.eos, stops)
    text = TextStream(prompter.backend, wanted.stops)
    result = Answer(policy.name, len(wanted.tokens))
    begin = clock.now()
    try:
        session = holder.open(wanted.tokens, policy, limits, wanted.chunk, text)
    except GardenerError as error:
        result.error, result.stands, result.reason = str(error), holder.stands, "lost"
        return result
    try:
        async with session:
            async for piece in session:
                result.take(piece, clock.now() - begin)
                if piece.text:
                    show(piece.text)
    except GardenerError as error:
        result.error, result.stands = str(error), holder.stands
    result.reason = session.finish_reason or "lost"
    result.counts, result.stage_times = session.speculation.counts, session.stage_times
    return result
