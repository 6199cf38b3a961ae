"""A ring that is ready, with the tokenizer of its model: what a program asks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from gardener.decoding.policy import Bounds, Policy, default_policy, make
from gardener.errors import UserError
from gardener.holder.answer import Wanted, ask, completed
from gardener.holder.detokenizer import token_text
from gardener.holder.holder import Holder
from gardener.holder.prompter import Prompter
from gardener.holder.session import Session
from gardener.protocol.cards import exactness
from gardener.protocol.messages import Card
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import check_text


class Terms(TypedDict, total=False):
    """How a prompt is to be answered; see `OpenRing.ask` and `OpenRing.ask_tokens`."""

    max_new_tokens: int
    stop: Sequence[str]
    policy: str | None
    bounds: Bounds | None
    sampling: Sampling | None
    logprobs: int | None
    ignore_eos: bool
    stop_tokens: Sequence[str | int]
    shown: Sequence[str]


class OpenRing:
    """Ask it with `ask`; the answer comes while it is written. Several requests may run at the same
    time, `RingSettings.max_requests` of them; others wait for their turn."""

    def __init__(
        self, settings: RingSettings, holder: Holder, folder: Path, prompter: Prompter
    ) -> None:
        """`folder` is the model's. Get one from `open_ring`."""
        self.settings, self.holder, self.folder, self.prompter = settings, holder, folder, prompter

    @property
    def longest(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.prompter.context

    @property
    def stages(self) -> tuple[Card, ...]:
        """What the stages say about themselves: name, layers, dtype, memory."""
        return self.holder.cards

    @property
    def exactness(self) -> str:
        """How exact the ring is, in one sentence: whether the text is that of the model alone, or
        may leave it where the two best tokens are as good as tied."""
        return exactness(self.holder.cards)

    def ask(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 256,
        stop: Sequence[str] = (),
        raw: bool = False,
        history: Sequence[tuple[str, str]] = (),
        system: str | None = None,
        policy: str | None = None,
        bounds: Bounds | None = None,
        sampling: Sampling | None = None,
        logprobs: int | None = None,
        ignore_eos: bool = False,
        stop_tokens: Sequence[str | int] = (),
    ) -> Session:
        """Begin a request and return its session, an async iterator of pieces. `async with` it, or
        a request whose answer is not read to its end runs on.

        stop        texts before which the answer ends; one may be or hold a special token, though
                    these are not shown
        stop_tokens tokens at which it ends as at the model's own `eos`: what they are, or numbers
        raw         leave the chat template out
        history     the turns before it: what was asked, and what was answered
        system      the system message, in place of `RingSettings.system`
        policy      a name of `policy.POLICIES`; None: the one that does best in this ring
        bounds      on rows, window and probability of what is sent
        sampling    how tokens are picked; None: always the likeliest one. `Session.sampling` tells
                    what it runs with: a seed is drawn where none is given
        logprobs    pieces bring the log probability of each token, before all settings, and those
                    of this many of the best tokens (0 to 20)
        ignore_eos  go on where the model would end, up to `max_new_tokens` or a stop

        Raises UserError for what cannot be asked, when too many requests wait already, or after the
        ring was closed, and PeerLost if it has been broken for too long.
        """
        if raw and system is not None:
            raise UserError("a raw text has no system message: leave raw or system out")
        tokens = self.prompter.encode(prompt, raw=raw, history=history, system=system)
        return self.ask_tokens(
            tokens,
            max_new_tokens=max_new_tokens,
            stop=stop,
            policy=policy,
            bounds=bounds,
            sampling=sampling,
            logprobs=logprobs,
            ignore_eos=ignore_eos,
            stop_tokens=stop_tokens,
        )

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self.holder.admission.waiting)

    def check_room(self) -> None:
        """Raise Busy if nobody else may wait."""
        self.holder.check_room()

    def ask_tokens(self, tokens: Sequence[int], **said: Unpack[Terms]) -> Session:
        """The same for a prompt of tokens, as `prompter` makes them. `shown`: special tokens that
        are text in the answer, as the vocabulary writes them."""
        return self.begin(*self.planned(tokens, **said))

    def begin(self, wanted: Wanted, policy: Policy) -> Session:
        """Begin what was planned; see `ask`."""
        self.holder.prepare([wanted.tokens], wanted.new_tokens, wanted.sampling)
        return ask(self.holder, self.prompter, policy, wanted)

    def planned(self, tokens: Sequence[int], **said: Unpack[Terms]) -> tuple[Wanted, Policy]:
        """What `ask_tokens` begins, once it is known that it can be asked. Nothing happens yet.

        Raises UserError for what cannot be asked.
        """
        stops, ends = tuple(said.get("stop", ())), said.get("stop_tokens", ())
        new_tokens, logprobs = said.get("max_new_tokens", 256), said.get("logprobs")
        ignore_eos = said.get("ignore_eos", False)
        if new_tokens < 1 or not all(stops):
            raise UserError("ask for one new token at least, and give every stop some text")
        for each in (*stops, *(each for each in ends if isinstance(each, str))):
            check_text(each, f"stop {each!r}")
        stop_tokens = [self._token(each) for each in ends]
        if logprobs is not None and self.settings.simulate is not None:
            raise UserError(
                "a simulated ring plays back what was recorded, without log probabilities: ask for "
                "them in a real one"
            )
        try:
            wanted = Wanted(
                tokens,
                new_tokens,
                stops,
                sampling=self.settled(said.get("sampling") or GREEDY, ignore_eos, stop_tokens),
                logprobs=logprobs,
                ignore_eos=ignore_eos,
                stop_tokens=stop_tokens,
                shown=said.get("shown", ()),
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        bounds = said.get("bounds") or Bounds()
        name = said.get("policy") or default_policy(self.settings.crowded, bounds.window)
        try:
            return wanted, make(name, bounds)
        except KeyError:
            raise UserError(f"there is no policy {name}: see gardener.POLICIES") from None

    def _token(self, named: str | int) -> int:
        """The number of a token. Raises UserError."""
        if isinstance(named, int):
            return named
        backend = self.prompter.backend
        found = backend.token_to_id(named)
        if found is not None:
            return found
        pieces = backend.encode(named, add_special_tokens=False)
        if len(pieces.ids) == 1 and token_text(backend, pieces.ids[0]) == named:
            return pieces.ids[0]
        raise UserError(
            f"stop token {named!r} is not a token of this model, which makes "
            f"{len(pieces.ids)} tokens of it: name one as its vocabulary writes it, or by number, "
            "or give a stop text instead"
        )

    def settled(
        self, sampling: Sampling, ignore_eos: bool = False, stop_tokens: Sequence[int] = ()
    ) -> Sampling:
        """These settings as requests of this ring run with them: with a seed, if they need one.

        Raises UserError for what its model does not have, or what cannot be simulated.
        """
        if ignore_eos and self.settings.simulate is not None:
            raise UserError(
                "a simulated ring plays back what was recorded, which ends where the model ended "
                "it: leave ignore_eos out"
            )
        try:
            return completed(sampling, self.prompter, stop_tokens)
        except ValueError as error:
            raise UserError(str(error)) from error
