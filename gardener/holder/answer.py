"""One answer: gives a prompt to a holder and keeps the text and the figures of what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gardener.decoding.limits import Limits
from gardener.decoding.policy import Policy
from gardener.errors import GardenerError
from gardener.holder.chat_template import Prompter
from gardener.holder.figures import Figures
from gardener.holder.holder import Holder
from gardener.holder.session import Piece, Session
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
    """What was written, why it ended there, and what it cost.

    error: what went wrong, if something did; what had been written before is kept. stands: the ring
    can take another request, whatever became of this one.
    """

    figures: Figures
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    reason: str = ""
    error: str | None = None
    stands: bool = True

    def take(self, piece: Piece, seconds: float) -> None:
        """Add a piece that came this long after the request."""
        self.text += piece.text
        if piece.tokens:
            self.tokens += piece.tokens
            self.figures.emitted(len(piece.tokens), seconds)


def ask(holder: Holder, prompter: Prompter, policy: Policy, wanted: Wanted) -> Session:
    """Begin a request; its session gives tokens and text, piece by piece.

    Raises ValueError if the prompt leaves no room for an answer, and what broke the ring if it is
    broken.
    """
    stops = StopStrings(prompter.backend, wanted.stops)
    limits = Limits(wanted.new_tokens, prompter.context, prompter.eos, stops)
    text = TextStream(prompter.backend, wanted.stops)
    return holder.open(wanted.tokens, policy, limits, wanted.chunk, text)


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
        return Answer(figures, reason="lost", error=str(error), stands=holder.stands)
    return await collect(session, show)


async def collect(session: Session, show: Callable[[str], None] = lambda text: None) -> Answer:
    """What comes of a session that has just begun; see `answer`."""
    begin, speculation = clock.now(), session.speculation
    figures = Figures(speculation.policy.name, len(speculation.prompt))
    result = Answer(figures)
    try:
        async with session:
            async for piece in session:
                result.take(piece, clock.now() - begin)
                if piece.text:
                    show(piece.text)
    except GardenerError as error:
        result.error, result.stands = str(error), session.ring_stands
    result.reason = session.finish_reason or "lost"
    figures.counts, figures.stage_times = session.speculation.counts, session.stage_times
    return result
