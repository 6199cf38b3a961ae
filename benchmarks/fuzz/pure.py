"""Mutated frames against one end of a link in this process, without a socket: the many."""

import random
import traceback

from benchmarks.fuzz.frames import Spoiler, body, card, framed, samples
from benchmarks.fuzz.tally import Tally
from gardener.errors import PeerLost, RemoteError
from gardener.protocol import messages as m
from gardener.protocol.connection import TIMES, Connection
from gardener.protocol.link_state import End
from gardener.protocol.wire import Decoder


class Pure:
    """`run` it; the same seed does the same."""

    def __init__(self, seed: int) -> None:
        self.frames = 0
        """Those that were sent."""
        self.tally = Tally([body(sample) for sample in samples()])
        self._chance = random.Random(seed)
        self._spoiler = Spoiler(self._chance)

    def run(self, frames: int) -> Tally:
        """So many frames, some of them one after the other on the same link."""
        until = self.frames + frames
        while self.frames < until and not self.tally.faults:
            self._some(min(until - self.frames, self._chance.choice((1, 1, 2, 4))))
        return self.tally

    def _some(self, frames: int) -> None:
        """A link in some state, and what it says to so many frames."""
        link = self._link()
        for _ in range(frames):
            given = self._chance.choice(self.tally.corpus)
            frame = self._spoiler.spoilt(given, self.tally.corpus)
            self.frames += 1
            try:
                said = self._said(link, frame)
            except Exception:
                self.tally.fault(f"{traceback.format_exc()}\nframe {frame.hex()}")
                return
            self.tally.hear(said, frame[4:])

    def _link(self) -> Connection:
        """In the greeting, or open, at either end."""
        end = self._chance.choice((End.UPSTREAM, End.DOWNSTREAM))
        link = Connection(end, card(1), lambda peer: None, TIMES)
        link.begin("fuzz:1", 0.0)
        sent = list(Decoder().feed(link.outgoing()))
        if self._chance.random() < 0.2:
            return link
        greeting: tuple[m.Message, ...]
        if end is End.DOWNSTREAM:
            greeting = (m.Hello(m.PROTOCOL, card(0), bytes(16)), m.Ping(1))
        else:
            hello = sent[0]
            assert isinstance(hello, m.Hello)
            greeting = (m.Welcome(m.PROTOCOL, card(2), hello.nonce),)
        for message in greeting:
            list(link.receive(framed(body(message)), 0.0))
        assert link.is_open
        return link

    def _said(self, link: Connection, frame: bytes) -> str:
        """What comes of the frame, in two pieces as they may come. What the link yields is what its
        owner would be given."""
        cut = self._chance.randrange(len(frame) + 1)
        heard = [
            type(event).__name__
            for piece in (frame[:cut], frame[cut:])
            for event in link.receive(piece, 0.0)
        ]
        list(Decoder().feed(link.outgoing()))  # what it answers is whole
        if link.parting is None:
            return f"heard {' '.join(heard) or 'nothing yet'}"
        if not isinstance(link.parting.error, RemoteError | PeerLost):
            raise TypeError(f"the link ended with {link.parting.error!r}")
        return str(link.parting.error)
