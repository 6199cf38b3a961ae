"""One answer: gives a prompt to a holder and keeps the text and the figures of what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from gardener.decoding.limits import Limits
from gardener.decoding.policy import Policy
from gardener.errors import GardenerError
from gardener.holder.figures import Figures
from gardener.holder.holder import Holder
from gardener.holder.piece import Piece
from gardener.holder.prompter import Prompter
from gardener.holder.session import Session
from gardener.holder.text import TextStream, check_stops
from gardener.protocol.logprobs import TokenLogprobs
from gardener.protocol.sampling import GREEDY, MAX_BEST, MAX_ENDS, Sampling
from gardener.runtime import clock


@dataclass(frozen=True)
class Wanted:
    """What is asked of the model. `tokens` is the prompt.

    sampling    how tokens are picked; what it leaves open, `completed` fills in
    stops       texts before which it ends; special tokens count in them, though they are no text
    stop_tokens end it as the model's own `eos` do
    logprobs    with each token come its log probability and those of this many of the best tokens
    ignore_eos  the model's tokens that end an answer end none
    shown       special tokens that are text in the answer, as the vocabulary writes them

    Raises ValueError for what cannot be.
    """

    tokens: Sequence[int]
    new_tokens: int
    stops: Sequence[str] = ()
    chunk: int = 128
    sampling: Sampling = GREEDY
    logprobs: int | None = None
    ignore_eos: bool = False
    stop_tokens: Sequence[int] = ()
    shown: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_stops(self.stops)
        if self.sampling.min_tokens > self.new_tokens:
            raise ValueError(
                f"min_tokens is {self.sampling.min_tokens}, more than the most tokens to write, "
                f"which are {self.new_tokens}"
            )
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_BEST:
            raise ValueError(f"logprobs is {self.logprobs}: it lies between 0 and {MAX_BEST}")


@dataclass
class Answer:
    """What was written, why it ended there, and what it cost.

    sampling: how tokens were picked, with the seed. logprobs: of the tokens, if they were asked
    for. error: what went wrong, if something did; what had been written before is kept. stands: the
    ring can take another request, whatever became of this one. text_fault: why some of the text is
    U+FFFD though the tokens are right. interruptions: how often the ring broke meanwhile.
    """

    figures: Figures
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    reason: str = ""
    error: str | None = None
    stands: bool = True
    sampling: Sampling = GREEDY
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    text_fault: str | None = None
    interruptions: int = 0

    def take(self, piece: Piece, seconds: float) -> None:
        """Add a piece that came this long after the request."""
        self.text += piece.text
        self.logprobs += piece.logprobs
        if piece.tokens:
            self.tokens += piece.tokens
            self.figures.emitted(len(piece.tokens), seconds)


def completed(sampling: Sampling, prompter: Prompter, stop_tokens: Sequence[int] = ()) -> Sampling:
    """The same for this model, with nothing left open: a seed is drawn if one is needed, and where
    an answer may not end at once, the tokens that would end it are named, these too.

    Raises ValueError for a token that the model does not have.
    """
    named = [("logit_bias", token) for token, _ in sampling.logit_bias]
    for field_name, token in (*named, *(("stop_tokens", token) for token in stop_tokens)):
        if not 0 <= token < prompter.vocabulary:
            raise ValueError(
                f"{field_name} names token {token}: this model has tokens 0 to "
                f"{prompter.vocabulary - 1}"
            )
    seeded = sampling.seeded()
    if not sampling.min_tokens:
        return seeded
    eos = sorted({token for token in (*prompter.eos, *stop_tokens) if token >= 0})
    if len(eos) > MAX_ENDS:
        raise ValueError(
            f"min_tokens is {sampling.min_tokens}, and {len(eos)} tokens end an answer: "
            f"with more than {MAX_ENDS}, leave it at 0"
        )
    return msgspec.structs.replace(seeded, eos=tuple(eos))


def ask(holder: Holder, prompter: Prompter, policy: Policy, wanted: Wanted) -> Session:
    """Begin a request; its session gives tokens and text, piece by piece.

    Raises ValueError if the prompt leaves no room for an answer or the settings do not fit the
    model, and what broke the ring if it is broken.
    """
    sampling = completed(wanted.sampling, prompter, wanted.stop_tokens)
    text = TextStream(
        prompter.backend, wanted.tokens, wanted.stops, sampling.min_tokens, wanted.shown
    )
    eos = frozenset(wanted.stop_tokens).union(() if wanted.ignore_eos else prompter.eos)
    limits = Limits(wanted.new_tokens, prompter.context, eos, text.push)
    return holder.open(
        wanted.tokens,
        policy,
        limits,
        wanted.chunk,
        text,
        sampling=sampling,
        logprobs=wanted.logprobs,
    )


async def answer(
    holder: Holder,
    prompter: Prompter,
    policy: Policy,
    wanted: Wanted,
    show: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Run one prompt; `show` gets the text as it is accepted.

    Where the ring breaks, or a stage cannot compute this prompt, `error` of the answer says so: no
    exception is raised. Raises ValueError if the prompt leaves no room for an answer.
    """
    try:
        session = ask(holder, prompter, policy, wanted)
    except GardenerError as error:
        figures = Figures(policy.name, len(wanted.tokens))
        return Answer(
            figures,
            reason="lost",
            error=str(error),
            stands=holder.stands,
            sampling=wanted.sampling,
        )
    return await collect(session, show)


def uninterrupted(got: Answer) -> Answer:
    """The answer for whoever measures: one during which the ring broke counts as failed, though it
    went on."""
    if got.interruptions and got.error is None:
        got.error = "the ring broke while it was written, so its times tell nothing"
    return got


async def collect(session: Session, show: Callable[[str], None] = lambda text: None) -> Answer:
    """What comes of a session that has just begun; see `answer`."""
    begin, speculation = clock.now(), session.speculation
    figures = Figures(speculation.policy.name, len(speculation.prompt))
    result = Answer(figures, sampling=session.sampling)
    try:
        async with session:
            async for piece in session:
                result.take(piece, clock.now() - begin)
                if piece.text:
                    show(piece.text)
    except GardenerError as error:
        result.error, result.stands = str(error), session.ring_stands
    result.reason = session.finish_reason or "lost"
    result.text_fault, result.interruptions = session.text_fault, session.interruptions
    figures.counts, figures.stage_times = session.speculation.counts, session.stage_times
    return result
