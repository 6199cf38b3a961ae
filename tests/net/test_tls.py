"""Secured links over real sockets under both event loops: they open, or both ends know why not."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import minted
import pytest
import simulated
import uvloop
from loopback import Ear, card, until

from gardener.errors import PeerLost
from gardener.net.address import Address
from gardener.net.dial import dial
from gardener.net.keys import Keys
from gardener.net.link import Link
from gardener.net.listen import Listener, listen
from gardener.net.look import Unseen, View, look
from gardener.net.tls import Tls
from gardener.protocol import messages as m
from gardener.protocol import tensors as t
from gardener.protocol.connection import Times
from gardener.protocol.reports import Lost
from gardener.protocol.wire import Decoder, encode

Scenario = Callable[[], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario to its end; fails if it leaves a task or an unreported error behind."""

    def runner(scenario: Scenario) -> None:
        complaints: list[dict[str, Any]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(20):
                await scenario()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=request.param) as asyncio_runner:
            asyncio_runner.run(main())
        assert complaints == []

    return runner


ONE, TWO = minted.keys("stage-1"), minted.keys("stage-2")


class Below(Ear):
    """The end that listens, and what it was told of links that failed."""

    def __init__(self) -> None:
        super().__init__()
        self.whys: list[str] = []
        self.told: list[str] = []  # to people

    async def serve(
        self, keys: Keys | None = TWO, at: str = "127.0.0.1:0", **more: Any
    ) -> Listener:
        options = {"admit": lambda _: None, "met": self.links.append}
        options |= {"refused": self.whys.append, "distrusted": self.told.append}
        return await listen(at, card(2, 2), self, **options | more, keys=keys)


async def call(
    address: Address, keys: Keys | None = ONE, stage: int = 1, ear: Ear | None = None, **more: Any
) -> Link:
    options: dict[str, Any] = {"admit": lambda _: None, "patience": 0.0}
    options |= {"waiting": lambda _: None, **more}
    return await dial(address, card(stage, 2), ear or Ear(), keys=keys, **options)


async def refused(
    mine: Keys | None, theirs: Keys | None, stage: int = 1, **more: Any
) -> tuple[str, str]:
    """What the end that dials says, and the one that listens, of a link that does not open."""
    below = Below()
    listener = await below.serve(theirs)
    with pytest.raises(PeerLost) as caught:
        await call(listener.address, mine, stage, **more)
    await until(lambda: below.whys)
    await listener.close()
    assert below.links == []
    assert len(below.whys) == 1
    assert below.told == below.whys
    return str(caught.value), below.whys[0]


@contextlib.asynccontextmanager
async def pair(
    at: str = "127.0.0.1:0", **more: Any
) -> AsyncIterator[tuple[Ear, Link, Below, Link]]:
    """Both ends of a secured link, upstream first, each with its ear."""
    above, below = Ear(), Below()
    listener = await below.serve(at=at, **more)
    up = await call(listener.address, ear=above, patience=10.0, **more)
    await until(lambda: below.links)
    await listener.close()
    try:
        yield above, up, below, below.links[0]
    finally:
        await up.close("the test is over")
        await below.links[0].close("the test is over")


# --- links that open -----------------------------------------------------------------------------


def segment(floats: int) -> m.Segment:
    data = bytes(range(256)) * (4 * floats // 256)
    return m.Segment(1, 1, (1,), (0,), (0,), (7,), t.Tensor("float32", (1, floats), data), ())


def test_both_ends_know_each_other_and_nobody_reads_along(run: Run) -> None:
    async def scenario() -> None:
        async with pair() as (above, up, below, down):
            assert up.core.identity == TWO.identity
            assert down.core.identity == ONE.identity
            up.send(m.Close(7))
            down.send(Lost(2, 1, 1, 1, "why"))
            await until(lambda: below.messages and above.messages)
            assert below.messages == [m.Close(7)]
            assert above.messages == [Lost(2, 1, 1, 1, "why")]
            assert up._tls is not None
            assert up._tls._tls.version() == "TLSv1.3"
            sealed = up._tls.give(encode(m.Bye("a secret")))
            assert b"secret" not in sealed
            up._transport.write(sealed)  # type: ignore[union-attr]
            await until(lambda: below.errors)
            assert str(below.errors[0]).endswith("left: a secret")

    run(scenario)


def test_large_frames_cross_whole_and_in_order(run: Run) -> None:
    big = segment(2**21)  # 8 MB

    async def scenario() -> None:
        async with pair() as (_, up, below, down):
            for _ in range(3):
                up.send(big, m.Close(1))
                await up.drain()
            await until(lambda: len(below.messages) == 6)
            assert below.messages == [big, m.Close(1)] * 3
            assert down.received_bytes > 3 * 2**23

    run(scenario)


@pytest.mark.parametrize("leaver", ["up", "down"])
def test_a_bye_arrives_with_what_was_said_before_it(run: Run, leaver: str) -> None:
    """Also where the one that leaves has not read all that has come."""

    async def scenario() -> None:
        async with pair() as (above, up, below, down):
            mine, theirs, ear = (up, down, below) if leaver == "up" else (down, up, above)
            for _ in range(50):
                theirs.send(Lost(2, 1, 1, 1, "x" * 900))
            mine.send(Lost(2, 1, 1, 1, "why"))
            await mine.close("good night")
            await until(lambda: ear.errors)
            assert Lost(2, 1, 1, 1, "why") in ear.messages
            assert str(ear.errors[0]).endswith("left: good night")

    run(scenario)


def test_two_that_leave_at_once_do_not_wait(run: Run) -> None:
    async def scenario() -> None:
        async with pair(times=Times(linger=15.0)) as (above, up, below, down):
            async with asyncio.timeout(5.0):
                await asyncio.gather(up.close("done"), down.close("done"))
            assert above.errors == below.errors == []

    run(scenario)


def test_it_is_the_same_over_any_transport() -> None:
    async def scenario() -> None:
        async with pair("simulated:7001") as (above, up, below, down):
            up.send(segment(2**18))
            await until(lambda: below.messages)
            await down.close("good night")
            await until(lambda: above.errors)
            assert str(above.errors[0]).endswith("left: good night")

    simulated.run(scenario)


# --- certificates that are refused ---------------------------------------------------------------


@pytest.mark.parametrize(("mine", "theirs"), [("elm", "oak"), ("oak", "elm")])
def test_another_cluster(run: Run, mine: str, theirs: str) -> None:
    async def scenario() -> None:
        near, far = await refused(minted.keys("stage-1", mine), minted.keys("stage-2", theirs))
        assert "we refused the peer at 127.0.0.1:" in near
        assert "its certificate is of another cluster, the CA in our ca.pem has not sign" in near
        assert f"refused the link: our certificate, stage-2 of cluster {theirs}, is not of" in far

    run(scenario)


def test_the_end_that_dials_learns_that_it_is_of_another_cluster(run: Run) -> None:
    """It has finished its handshake by then: the refusal is the first that it reads."""
    foreign = minted.keys.__wrapped__("stage-1", "elm")  # one of our own, since it is changed
    foreign.dialling.load_verify_locations(cadata=minted.ca("oak").certificate_pem.decode())

    async def scenario() -> None:
        near, far = await refused(foreign, TWO)
        assert "refused the link: our certificate, stage-1 of cluster elm, is not of its" in near
        assert "we refused the peer at 127.0.0.1:" in far
        assert "its certificate is of another cluster" in far

    run(scenario)


LATE, EARLY = {"begin": -5.0, "end": -1.0}, {"begin": 3.0, "end": 9.0}


@pytest.mark.parametrize(("when", "said"), [(LATE, "expired at"), (EARLY, "is valid only from")])
@pytest.mark.parametrize("whose", ["stage-1", "stage-2"])
def test_a_certificate_out_of_its_time_is_refused_by_name(
    run: Run, when: dict[str, float], said: str, whose: str
) -> None:
    async def scenario() -> None:
        both = [
            minted.keys(name, **when if name == whose else {}) for name in ("stage-1", "stage-2")
        ]
        near, far = await refused(both[0], both[1])
        why = f"the certificate of {whose} of cluster oak {said}"
        assert why in near
        assert why in far
        assert f"the clock of oak{2 if whose == 'stage-1' else 1} says" in near
        by_us, by_it = (far, near) if whose == "stage-1" else (near, far)
        assert "we refused the peer at" in by_us
        assert "refused the link: the certificate" in by_it

    run(scenario)


@pytest.mark.parametrize(
    ("names", "stage", "who"),
    [
        (("stage-2", "stage-2"), 1, "stage 1"),
        (("holder", "stage-2"), 1, "stage 1"),
        (("stage-1", "stage-2"), 0, "the holder"),
        (("spare-1", "stage-2"), 0, "the holder"),
        (("stage-1", "stage-1"), 1, "stage 2"),
    ],
)
def test_the_certificate_of_another_stage(
    run: Run, names: tuple[str, str], stage: int, who: str
) -> None:
    async def scenario() -> None:
        near, far = await refused(minted.keys(names[0]), minted.keys(names[1]), stage)
        name = names[1] if who == "stage 2" else names[0]
        why = f"the certificate is that of {name} of cluster oak, and {who} has shown it: start"
        assert why in near
        assert why in far

    run(scenario)


def test_a_spare_stands_in_for_any_stage(run: Run) -> None:
    async def scenario() -> None:
        below = Below()
        listener = await below.serve(minted.keys("spare-1"))
        link = await call(listener.address, minted.keys("spare-2"))
        await until(lambda: below.links)
        await link.close("done")
        await listener.close()

    run(scenario)


@pytest.mark.parametrize("whose", ["stage-1", "stage-2"])
def test_a_certificate_of_no_part_of_a_ring(run: Run, whose: str) -> None:
    """The CA has signed it, but for something else."""
    other = minted.keys(whose, uri="https://oak.example")

    async def scenario() -> None:
        near, far = await refused(*((other, TWO) if whose == "stage-1" else (ONE, other)))
        why = "the certificate is none of `gardener keys`"
        assert why in near
        assert why in far

    run(scenario)


def test_who_shows_no_certificate(run: Run) -> None:
    async def scenario() -> None:
        below = Below()
        listener = await below.serve()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(*listener.address, ssl=context)
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await reader.read()
        writer.close()
        await until(lambda: below.whys)
        assert "it has shown no certificate" in below.whys[0]
        await listener.close()

    run(scenario)


@pytest.mark.parametrize("refuses", ["listener", "dialler"])
def test_a_refusal_for_another_reason_arrives_too(run: Run, refuses: str) -> None:
    """From either end, which has greeted by then."""

    def late(_: m.Card) -> str:
        return "it is late"

    async def scenario() -> None:
        below = Below()
        here: dict[str, Any] = {"admit": late} if refuses == "listener" else {}
        there: dict[str, Any] = {} if here else {"admit": late}
        listener = await below.serve(**here)
        with pytest.raises(PeerLost, match="it is late"):
            await call(listener.address, **there)
        await until(lambda: below.whys)
        assert "it is late" in below.whys[0]
        await listener.close()

    run(scenario)


def test_a_secured_peer_can_be_looked_at(run: Run) -> None:
    async def scenario() -> None:
        below = Below()
        listener = await below.serve()
        seen = await look(listener.address, minted.keys("holder"))
        assert isinstance(seen, View)
        assert seen.looked.card == card(2, 2)
        unseen = await look(listener.address)
        assert isinstance(unseen, Unseen)
        assert "this port speaks TLS: start with --keys DIR" in unseen.detail
        foreign = await look(listener.address, minted.keys("holder", "elm"))
        assert isinstance(foreign, Unseen)
        assert "its certificate is of another cluster" in foreign.detail
        await listener.close()

    run(scenario)


# --- those who do not speak TLS, and those who do ------------------------------------------------


def test_a_plain_peer_at_a_port_with_tls(run: Run) -> None:
    async def scenario() -> None:
        near, far = await refused(None, TWO)
        assert "refused the link: this port speaks TLS: start with --keys DIR" in near
        assert "does not speak TLS, it was started without --keys and we with" in far

    run(scenario)


def test_a_peer_with_tls_at_a_plain_port(run: Run) -> None:
    async def scenario() -> None:
        near, far = await refused(ONE, None)
        assert "does not speak TLS, it was started without --keys and we with" in near
        assert "speaks TLS, it was started with --keys and we without" in far

    run(scenario)


@pytest.mark.parametrize("keys", [None, TWO], ids=["plain", "secured"])
def test_http_at_the_ring_is_answered_in_http(run: Run, keys: Keys | None) -> None:
    async def scenario() -> None:
        below = Below()
        listener = await below.serve(keys)
        reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: oak\r\n\r\n" + bytes(10_000))
        answer = (await reader.read()).decode()
        writer.close()
        assert answer.startswith("HTTP/1.1 400 Bad Request\r\n")
        assert "its address is what `gardener serve` prints" in answer
        await until(lambda: below.whys)
        assert "speaks HTTP, and this is a port of the ring" in below.whys[0]
        await listener.close()

    run(scenario)


@contextlib.asynccontextmanager
async def answering(first: bytes) -> AsyncIterator[Address]:
    """A server of something else, which says this to whoever says something."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(first)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield Address(*server.sockets[0].getsockname())
    server.close()
    await until(lambda: len(asyncio.all_tasks()) == 1)


HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "keys", "said"),
    [
        (HTTP, None, "answers in HTTP, so it is no stage of a ring: correct the address"),
        (HTTP, ONE, "answers in HTTP, so it is no stage of a ring: correct the address"),
        (b"\x15\x03\x03\x00\x02\x02\x46", None, "answers in TLS, and is no stage of a ring"),
        (b"\x15\x03\x03\x00\x02\x02\x46", ONE, "it gave TLS up (protocol version)"),
        (b"\x15\x03\x03\x00\x02\x01\x00", ONE, "ended TLS without a Bye"),
        (b"SSH-2.0-x\r\n", ONE, "does not speak TLS (it begins with 53 53 48 2d)"),
        (b"\x16\x03\x03\x00\x05hello", ONE, "what it says is no proper TLS"),
    ],
)
def test_a_dialled_stranger(run: Run, first: bytes, keys: Keys | None, said: str) -> None:
    async def scenario() -> None:
        async with answering(first) as address:
            with pytest.raises(PeerLost) as caught:
                await call(address, keys)
            assert said in str(caught.value)

    run(scenario)


# --- bytes as they come --------------------------------------------------------------------------


async def read(sock: socket.socket, size: int = 65536) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, size)


def test_records_may_come_byte_by_byte(run: Run) -> None:
    async def scenario() -> None:
        below, loop = Below(), asyncio.get_running_loop()
        listener = await below.serve()
        with socket.create_connection(listener.address) as sock:
            sock.setblocking(False)
            tls, decoder = Tls(ONE, dials=True), Decoder()
            tls.begin()
            heard: list[m.Message] = []

            async def say(data: bytes) -> None:
                for byte in tls.give(data):
                    await loop.sock_sendall(sock, bytes([byte]))
                    await asyncio.sleep(0)

            await say(b"")
            while not tls.established:
                tls.take(await read(sock, 1))
            await say(encode(m.Hello(m.PROTOCOL, card(1, 2), bytes(16))))
            while not heard:
                heard += decoder.feed(tls.take(await read(sock, 1)))
            assert isinstance(heard.pop(), m.Welcome)
            await say(encode(m.Ping(1)) + encode(m.Close(7)))
            await until(lambda: below.messages)
            assert below.messages == [m.Close(7)]
            await say(encode(m.Bye("done")))
            await until(lambda: below.errors)
        await listener.close()

    run(scenario)


@pytest.mark.parametrize("first", [b"", b"\x16", b"G"])
def test_the_deadline_of_a_greeting_counts_from_the_connection_on(run: Run, first: bytes) -> None:
    async def scenario() -> None:
        below = Below()
        listener = await below.serve(times=Times(greeting=0.1))
        with socket.create_connection(listener.address) as sock:
            sock.sendall(first)
            await until(lambda: below.whys)
        assert below.whys[0].endswith("the handshake of TLS was not finished within 0.1 s")
        await listener.close()

    run(scenario)


def test_who_never_answers_the_handshake_is_given_up(run: Run) -> None:
    async def scenario() -> None:
        async with answering(b"") as address:
            with pytest.raises(PeerLost, match=r"handshake of TLS was not finished within 0\.1"):
                await call(address, times=Times(greeting=0.1))

    run(scenario)


def test_a_changed_byte_ends_the_link(run: Run) -> None:
    async def scenario() -> None:
        async with pair() as (above, up, below, _):
            assert up._tls is not None
            assert up._transport is not None
            sealed = bytearray(up._tls.give(encode(m.Close(7))))
            sealed[-1] ^= 1
            up._transport.write(bytes(sealed))
            await until(lambda: below.errors)
            assert below.messages == []
            assert "is no proper TLS (decryption failed or bad record mac)" in str(below.errors[0])
            await until(lambda: above.errors)
            assert "it gave TLS up (bad record mac)" in str(above.errors[0])

    run(scenario)


def test_a_connection_that_is_cut_is_no_bye(run: Run) -> None:
    async def scenario() -> None:
        async with pair() as (above, _, _, down):
            await down.abort("as if killed")
            await until(lambda: above.errors)
            assert "closed the connection without saying why" in str(above.errors[0])

    run(scenario)


# --- a peer that says too little -----------------------------------------------------------------


class Peer:
    """The end that dials, of which each byte is ours to send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.tls = Tls(ONE, dials=True)
        self._decoder = Decoder()

    def say(self, *messages: m.Message) -> None:
        self.writer.write(self.tls.give(b"".join(map(encode, messages))))

    async def hear(self, kind: type[m.Message]) -> m.Message:
        """What comes next of this kind; all else is dropped."""
        while data := await self.reader.read(2**16):
            for message in self._decoder.feed(self.tls.take(data)):
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"it has closed the connection without a {kind.__name__}")

    async def trickle(self, data: bytes, size: int, seconds: float) -> None:
        """So many bytes each time."""
        for at in range(0, len(data), size):
            self.writer.write(data[at : at + size])
            await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def linked(below: Below, at: str = "127.0.0.1:0", **more: Any) -> AsyncIterator[Peer]:
    """A link that is open, to a peer of our own."""
    listener = await below.serve(at=at, **more)
    peer = Peer(*await asyncio.open_connection(*listener.address))
    peer.tls.begin()
    peer.say()
    while not peer.tls.established:
        peer.tls.take(await peer.reader.read(2**16))
    peer.say(m.Hello(m.PROTOCOL, card(1, 2), bytes(16)))
    await peer.hear(m.Welcome)
    peer.say(m.Ping(1))
    await until(lambda: below.links)
    await listener.close()
    try:
        yield peer
    finally:
        peer.writer.close()
        await below.links[0].close("the test is over")


@pytest.mark.parametrize("bye", [True, False])
def test_what_comes_after_the_end_of_tls_is_dropped(run: Run, bye: bool) -> None:
    async def scenario() -> None:
        below = Below()
        async with linked(below, times=Times(linger=15.0)) as peer:
            tls = below.links[0]._tls
            assert tls is not None
            if bye:
                peer.say(m.Bye("done"))
            peer.writer.write(peer.tls.end())
            await until(lambda: below.errors)
            said = "left: done" if bye else "ended TLS without a Bye"
            assert str(below.errors[0]).endswith(said)
            if not bye:
                for _ in range(20):
                    peer.writer.write(bytes(2**16))
                    await peer.writer.drain()
                assert await peer.hear(m.Bye) == m.Bye("you ended TLS without a Bye")
                await until(lambda: below.links[0].received_bytes > 20 * 2**16)
            assert tls._incoming.pending == 0

    run(scenario)


def test_a_record_that_never_ends_is_silence(run: Run) -> None:
    async def scenario() -> None:
        below = Below()
        async with linked(below, times=Times(heartbeat=0.05, silence=0.4)) as peer:
            endless = b"\x17\x03\x03\x40\x00" + bytes(2**14 - 1)
            trickling = asyncio.create_task(peer.trickle(endless, 1, 0.01))
            await until(lambda: below.errors)
            trickling.cancel()
            await asyncio.wait([trickling])
            assert "went silent, last heard" in str(below.errors[0])

    run(scenario)


@pytest.mark.parametrize(
    ("floats", "kilobits", "step"), [(2**21, 10_000, 0.005), (2**13, 64, 0.1), (2**12, 25, 0.4)]
)
def test_a_frame_over_a_slow_link_is_no_silence(floats: int, kilobits: int, step: float) -> None:
    """Under a virtual clock: 7 s for 8 MB; 4 s for 32 KiB; and 5 s for one record."""
    big = segment(floats)

    async def scenario() -> None:
        below = Below()
        async with linked(below, "simulated:7001") as peer:
            sealed = peer.tls.give(encode(big))
            await peer.trickle(sealed, int(kilobits * 125 * step), step)
            await until(lambda: below.messages or below.errors)
            assert below.errors == []
            assert below.messages == [big]

    simulated.run(scenario)
