"""Who may say what, when: the state machine of one link, as one table, without I/O.

Of the two ends of a link, *upstream* dialled and says Hello; *downstream* accepted and answers
Welcome. Work flows downstream. Both ends run the same table, and both look up what they say and
what they hear, so a breach is noticed at the end that commits it (LocalError: our bug) and at the
end that suffers it (RemoteError: the peer's).

The upstream end has the last word of the greeting, a Ping: only then do both ends know that neither
refuses the other.

Who dials may say Look instead of Hello: then it is shown who is there, may time some Pings, and no
link comes of it.
"""

import sys
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from gardener.errors import LocalError, RemoteError
from gardener.protocol.messages import (
    MESSAGES,
    PROTOCOL,
    Advance,
    Bye,
    Close,
    Hello,
    Looked,
    Message,
    Open,
    Ping,
    Pong,
    Segment,
    Survey,
    Verdict,
    Welcome,
    code,
    fields,
)
from gardener.protocol.reports import Busy, Failed, Lost, Waiting
from gardener.protocol.sight import Look


class End(StrEnum):
    """The two ends of a link."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


class State(StrEnum):
    """How far a link is."""

    GREETING = "greeting"
    GREETED = "greeted"
    WELCOMED = "welcomed"
    OPEN = "open"
    LOOKING = "looking"
    LOOKED = "looked"
    CLOSED = "closed"


_UP, _DOWN = End.UPSTREAM, End.DOWNSTREAM
_WORK = (Survey, Open, Close, Segment, Advance, Verdict)
_ALWAYS = (Ping, Pong, Lost, Failed)

TABLE: Mapping[State, Mapping[End, Mapping[type[Struct], State]]] = {
    State.GREETING: {
        _UP: {Hello: State.GREETED, Look: State.LOOKING, Bye: State.CLOSED},
        _DOWN: {Bye: State.CLOSED},
    },
    State.GREETED: {
        _UP: {Bye: State.CLOSED},
        _DOWN: {Welcome: State.WELCOMED, Bye: State.CLOSED},
    },
    State.WELCOMED: {
        _UP: {Ping: State.OPEN, Bye: State.CLOSED},
        _DOWN: {Bye: State.CLOSED},
    },
    State.OPEN: {
        _UP: {**dict.fromkeys((*_WORK, *_ALWAYS), State.OPEN), Bye: State.CLOSED},
        _DOWN: {**dict.fromkeys((*_ALWAYS, Waiting, Busy), State.OPEN), Bye: State.CLOSED},
    },
    State.LOOKING: {
        _UP: {Bye: State.CLOSED},
        _DOWN: {Looked: State.LOOKED, Bye: State.CLOSED},
    },
    State.LOOKED: {
        _UP: {Ping: State.LOOKED, Bye: State.CLOSED},
        _DOWN: {Pong: State.LOOKED, Bye: State.CLOSED},
    },
    State.CLOSED: {_UP: {}, _DOWN: {}},
}
"""state -> end that speaks -> message -> next state. What is not here may not be said."""


class LinkState:
    """One end of a link. Tell it every message, in order; it objects to what does not fit."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.peer = _DOWN if end is _UP else _UP
        self.state = State.GREETING
        self._nonce: bytes | None = None

    def sent(self, message: Message) -> None:
        """We are about to say this. Raises LocalError if we may not."""
        after = TABLE[self.state][self.end].get(type(message))
        if after is None:
            raise LocalError(f"the {self.end} end {self._breach(self.end, message)}")
        if isinstance(message, Hello):
            self._nonce = message.nonce
        elif isinstance(message, Welcome) and message.nonce != self._nonce:
            raise LocalError("a Welcome must carry the nonce of the Hello that it answers")
        self.state = after

    def received(self, message: Message) -> None:
        """The peer has said this. Raises RemoteError if it may not."""
        after = TABLE[self.state][self.peer].get(type(message))
        if after is None:
            raise RemoteError(f"the {self.peer} end {self._breach(self.peer, message)}")
        if isinstance(message, Hello | Welcome | Look | Looked):
            self._greeted(message)
        self.state = after

    def _greeted(self, message: Hello | Welcome | Look | Looked) -> None:
        if message.protocol != PROTOCOL:
            raise RemoteError(
                f"we speak protocol {PROTOCOL} but the peer speaks {message.protocol}: "
                "install the same version of gardener on both machines"
            )
        if isinstance(message, Hello):
            self._nonce = message.nonce
        elif isinstance(message, Welcome) and message.nonce != self._nonce:
            raise RemoteError("a Welcome answers another Hello than ours: its nonce is not ours")

    def _breach(self, speaker: End, message: Message) -> str:
        allowed = [kind.__name__ for kind in TABLE[self.state][speaker]]
        expected = " or ".join(allowed) or "nothing"
        return f"said {type(message).__name__} while {self.state}, where it may say {expected}"


def table() -> str:
    """`TABLE` in Markdown."""
    lines = [
        "| state | upstream (dialled) may say | downstream (accepted) may say |",
        "|---|---|---|",
    ]
    for state, ends in TABLE.items():
        lines.append(f"| {state} | {_sayings(state, ends[_UP])} | {_sayings(state, ends[_DOWN])} |")
    return "\n".join(lines)


def message_table() -> str:
    """Every message with its code and fields, in Markdown."""
    lines = ["| code | message | fields | meaning |", "|---|---|---|---|"]
    for kind in MESSAGES:
        names = ", ".join(fields(kind))
        paragraph = (kind.__doc__ or "").partition("\n\n")[0]
        lines.append(
            f"| {code(kind)} | {kind.__name__} | {names} | {' '.join(paragraph.split())} |"
        )
    return "\n".join(lines)


def _sayings(state: State, moves: Mapping[type[Struct], State]) -> str:
    """`Survey, Ping; Bye → closed`: grouped by where they lead."""
    leads: dict[State, list[str]] = {}
    for kind, after in moves.items():
        leads.setdefault(after, []).append(kind.__name__)
    parts = [
        ", ".join(names) + ("" if after is state else f" → {after}")
        for after, names in leads.items()
    ]
    return "; ".join(parts) or "nothing"


if __name__ == "__main__":  # what docs/protocol.md holds between its markers
    sys.stdout.write(f"{table()}\n\n{message_table()}\n")
