"""The greeting of a link, without I/O: each end shows its card, and each may refuse the other.

`link_state.py` knows the order in which the messages may come; here is what an end answers.
"""

import secrets
from collections.abc import Callable

from gardener.protocol.certificates import Identity, problem, stage_problem
from gardener.protocol.messages import PROTOCOL, Card, Hello, Welcome

GREETING_FRAME = 16 * 2**10
"""Frame limit, in bytes, for a peer that has not introduced itself yet."""

Admit = Callable[[Card], str | None]
"""Takes the peer's card; returns why the link is refused, or None."""


Replace = Callable[[Card, Card], str]
"""Of a spare: takes the card of the peer and that of the stage in whose place it is to step;
returns what it does about it, as a sentence."""


class Greeting:
    """Our half of a greeting, which must be finished within `seconds`."""

    def __init__(
        self,
        card: Card,
        admit: Admit,
        seconds: float,
        missed: Card | None = None,
        replace: Replace | None = None,
    ) -> None:
        """`missed`: we ask a spare to step in its place. `replace`: we are a spare, which has no
        links as long as it is one."""
        self.peer: Card | None = None
        """The card of the other end, once it has shown it."""
        self.identity: Identity | None = None
        """Who the other end is by its certificate, if there are certificates."""
        self._card = card
        self._admit = admit
        self._seconds = seconds
        self._missed, self._replace = missed, replace

    def due(self, now: float) -> float:
        """When a greeting that begins now must be finished."""
        return now + self._seconds

    def disbelief(self, identity: Identity | None, wall: float) -> str | None:
        """The peer has shown this certificate at this time (seconds since 1970). Returns why we
        do not believe it, or None."""
        self.identity = identity
        return problem(identity, wall, self._card.name)

    def hello(self) -> Hello:
        """The first message of the end that dialled."""
        return Hello(PROTOCOL, self._card, secrets.token_bytes(16), self._missed)

    def refusal(self, message: Hello | Welcome) -> str | None:
        """The peer has shown its card. Returns why we refuse it, or None."""
        self.peer = message.card
        if why := self.pretence():
            return why
        missed = message.missed if isinstance(message, Hello) else None
        if self._replace is not None and missed is not None:
            return self._replace(message.card, missed)
        return self._admit(message.card)

    def pretence(self) -> str | None:
        """Why the peer, which has shown its card, is not what that says; or None."""
        if self.identity is None or self.peer is None:
            return None
        return stage_problem(self.identity, self.peer.stage)

    def welcome(self, hello: Hello) -> Welcome:
        """The answer of the end that accepted to a peer that it does not refuse."""
        return Welcome(PROTOCOL, self._card, hello.nonce)

    def overdue(self, *, private: bool) -> str:
        """What is wrong with a greeting that took too long; it begins once the link is private."""
        what = "greeting" if private else "handshake of TLS"
        return f"the {what} was not finished within {self._seconds:g} s"
