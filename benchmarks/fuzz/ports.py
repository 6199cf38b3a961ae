"""Mutated frames to the ports of a real ring, and on its links while it works."""

import asyncio
import contextlib
import io
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

from benchmarks.fuzz.frames import NONCE, Spoiler, body, framed, samples
from benchmarks.fuzz.ring import Meddle, Ring, honest, write
from benchmarks.fuzz.tally import Tally
from gardener.errors import GardenerError, LocalError, RemoteError
from gardener.net.link import Link
from gardener.net.listen import listen
from gardener.protocol import messages as m
from gardener.protocol import reports as r
from gardener.protocol.wire import Decoder

OVER = 2**40
"""Stamp of the last Ping of a stream: who answers it has heard all that came before."""

PATIENCE = 10.0
"""Seconds in which a request ends, whatever a link makes of it."""

QUIET = 0.05
"""Seconds without an answer after which a stream is over: a length that lies has eaten its end."""

SEGMENT, ADVANCE = b"\x06", b"\x07"
"""Codes of messages, as they stand in the sixth byte of a frame."""

TOGETHER = 200
"""Streams, or runs, after which the ring is asked honestly."""


class Sink:
    """Stands where the holder would, and hears."""

    def __init__(self) -> None:
        self.verdicts = 0

    def heard(self, link: Link, message: m.Message) -> None:
        """Nothing is done about it."""
        self.verdicts += isinstance(message, m.Verdict)

    async def hears(self, verdicts: int) -> bool:
        """Wait a moment for so many; whether they came."""
        for _ in range(20):
            if self.verdicts >= verdicts:
                return True
            await asyncio.sleep(0.001)
        return False

    def lost(self, link: Link, error: GardenerError) -> None:
        """Nor about that."""


class Ports:
    """The fuzzer of one ring. The streams of a seed depend on their numbers alone."""

    def __init__(self, ring: Ring, seed: int) -> None:
        self.ring, self.tally = ring, Tally()
        self.frames = 0
        """Mutated frames that were sent."""
        self.right: list[int] = []
        self._seed = seed
        self._recorded: list[bytes] = []
        self._samples = [body(sample) for sample in samples()]
        self._complaints: list[str] = []
        self._told = 0  # lines of the stages that were read
        self._sink = Sink()
        self._numbers = count()  # of streams

    async def begin(self) -> None:
        """Ask honestly, and record what goes into the ring."""
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self._complaints.append(_told(context))
        )

        def record(content: bytes) -> list[bytes]:
            self._recorded.append(content)
            return honest(content)

        self.ring.relays[0].down = record
        self.right = await self.ring.ask()
        self.ring.relays[0].down = honest
        greeting = (m.Hello, m.Ping, m.Pong, m.Bye)
        self._recorded = [each for each in self._recorded if not isinstance(_of(each), greeting)]

    # --- streams -----------------------------------------------------------------------------

    async def streams(self, frames: int) -> None:
        """Play the holder to stage 1, with real requests in which some frames are spoilt, until so
        many were; and now and then greet badly at each port."""
        until = self.frames + frames
        while self.frames < until and not self.tally.faults:
            async with self._listening():
                for _ in range(TOGETHER):
                    if self.frames < until and not self.tally.faults:
                        number = next(self._numbers)
                        await self._watched(f"stream {number}", partial(self._stream, number))
            await self._check()

    async def _stream(self, number: int) -> None:
        chance = random.Random(f"{self._seed} stream {number}")
        spoiler = Spoiler(chance)
        corpus = self._samples + self._recorded
        if chance.random() < 0.2:
            port = chance.choice((*self.ring.stage_ports, self.ring.holder_port))
            greeting = [self._hello(), body(m.Ping(1))]
            greeting[chance.randrange(2)] = spoiler.spoilt(chance.choice(corpus), corpus)[4:]
            self.frames += 1
            await self._talk(port, [framed(each) for each in greeting], polite=False)
            return
        at = int(len(self._recorded) * chance.random() ** 2)  # early ones take less time
        out = [framed(each) for each in self._recorded[:at]]
        for _ in range(chance.choice((1, 1, 2, 5))):
            base = self._recorded[at] if chance.random() < 0.6 else chance.choice(corpus)
            out.append(spoiler.spoilt(base, corpus) if chance.random() < 0.9 else framed(base))
            self.frames += 1
        if chance.random() < 0.3:
            out += [framed(each) for each in self._recorded[at:]]
        await self._talk(self.ring.stage_ports[0], out)

    def _hello(self) -> bytes:
        return body(m.Hello(m.PROTOCOL, self.ring.card, NONCE))

    async def _talk(self, port: int, out: list[bytes], polite: bool = True) -> None:
        """Greet, say all this, and hear what comes of it."""
        for _ in range(100):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)  # nobody listens there now
                continue
            decoder = Decoder()
            try:
                if not polite:
                    await self._say(reader, writer, decoder, out)
                    return
                writer.write(framed(self._hello()))
                if isinstance(await _next(reader, decoder), m.Welcome):
                    await self._say(reader, writer, decoder, [framed(body(m.Ping(1))), *out])
                    return
            finally:
                writer.transport.abort()
            await asyncio.sleep(0.005)  # it has not let go of the stream before this one yet
        raise TimeoutError("the port was never free")

    async def _say(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: Decoder,
        out: list[bytes],
    ) -> None:
        segments, waits = self._sink.verdicts, True
        for frame in (*out, framed(body(m.Ping(OVER)))):
            if waits and frame[5:6] == ADVANCE:  # an honest one follows on a verdict
                waits = await self._sink.hears(segments)
            segments += frame[5:6] == SEGMENT
            if writer.is_closing():
                break
            writer.write(frame)
        said = "closed without a word"
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(QUIET):
                    message = await _next(reader, decoder)
                if message is None:
                    break
                if isinstance(message, m.Bye | r.Failed | r.Lost):
                    said = f"{type(message).__name__}: {message.why}"
                elif message == m.Pong(OVER):
                    said = said if ":" in said else "heard all"
                    break
        self.tally.hear(said)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        """Somebody for the last stage to dial."""
        links: list[Link] = []
        listener = await listen(
            f"127.0.0.1:{self.ring.holder_port}",
            self.ring.card,
            self._sink,
            admit=lambda peer: None,
            met=links.append,
        )
        try:
            yield
        finally:
            await listener.close()
            for link in links:
                await link.abort("enough")

    # --- on the links ------------------------------------------------------------------------

    async def meddle(self, runs: int) -> None:
        """Ask so many times while one of the links spoils what goes over it."""
        for number in range(runs):
            if self.tally.faults:
                return
            await self._watched(f"run {number}", partial(self._meddled, number))
            if number % 20 == 19 or number == runs - 1:
                await self._check()

    async def _meddled(self, number: int) -> None:
        chance = random.Random(f"{self._seed} run {number}")
        relay = chance.choice(self.ring.relays)
        way = chance.choice(("down", "down", "up"))
        setattr(relay, way, self._spoiling(chance))
        try:
            self.tally.hear(await self._outcome())
        finally:
            relay.down = relay.up = honest

    def _spoiling(self, chance: random.Random) -> Meddle:
        """Spoils some frames, from the first or a later one on."""
        spoiler, corpus = Spoiler(chance), self._samples + self._recorded
        rest, share = chance.choice((0, *range(3, 30))), chance.choice((1.0, 0.3, 0.05))

        def meddle(content: bytes) -> list[bytes]:
            nonlocal rest
            rest -= 1
            if rest >= 0 or chance.random() > share:
                return honest(content)
            self.frames += 1
            match chance.randrange(8):
                case 0:
                    return honest(content) * 2
                case 1:
                    return [framed(chance.choice(corpus)), *honest(content)]
            return [spoiler.spoilt(content, corpus)]

        return meddle

    async def _outcome(self) -> str:
        """What comes of a request now."""
        holder = self.ring.holder(patience=1.0, stall=1.0)
        try:
            async with asyncio.timeout(PATIENCE):
                await holder.connect()
                text = await write(holder)
        except LocalError:
            raise
        except GardenerError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            await holder.close()
        return "the right text" if text == self.right else "a text of another's picks"

    # --- what may not be ---------------------------------------------------------------------

    async def _watched(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do it; take note of what went wrong in this process meanwhile."""
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            try:
                await act()
            except (OSError, RemoteError) as error:  # our connection was reset
                self.tally.hear(type(error).__name__)
            except Exception as error:
                self.tally.fault(f"{what}: {error!r}")
        for task in self.ring.tasks:
            if task.done():
                self.tally.fault(f"{what}: a node ended: {task}")
        if self._complaints or printed.getvalue():
            self.tally.fault("\n".join((what, *self._complaints, printed.getvalue())))
        for line in self.ring.said[self._told :]:
            if "could not be computed" in line or "refused" in line:
                self.tally.hear(line)
        self._told = len(self.ring.said)

    async def _check(self) -> None:
        """An honest request gets the right text."""
        text: list[int] | str = []
        try:
            text = await self.ring.ask()
        except GardenerError as error:
            text = str(error)
        if text != self.right:
            self.tally.fault(f"honestly asked, the ring wrote {text}, not {self.right}")
        del self.ring.said[:]
        self._told = 0


def _told(context: dict[str, Any]) -> str:
    """What the event loop complains of."""
    error = context.get("exception")
    trace = "" if error is None else "".join(traceback.format_exception(error))
    return f"{context['message']}: {trace}"


def _of(content: bytes) -> m.Message:
    (message,) = Decoder().feed(framed(content))
    return message


async def _next(reader: asyncio.StreamReader, decoder: Decoder) -> m.Message | None:
    """The next message; None: there is none."""
    try:
        size = await reader.readexactly(4)
        (message,) = decoder.feed(size + await reader.readexactly(int.from_bytes(size, "big")))
    except (OSError, asyncio.IncompleteReadError):
        return None
    return message
