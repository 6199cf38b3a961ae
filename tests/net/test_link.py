"""Links over real loopback sockets, under both event loops."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from gardener.errors import GardenerError, LocalError, PeerLost, RemoteError, UserError
from gardener.net.address import Address, Inherited, parse, parse_peer
from gardener.net.dial import dial
from gardener.net.link import Handler, Link
from gardener.net.listen import GREETINGS, Listener, listen
from gardener.net.notices import Notices
from gardener.protocol import messages as m
from gardener.protocol import reports as r
from gardener.protocol import tensors as t
from gardener.protocol.connection import Times
from gardener.protocol.wire import Decoder, encode

Scenario = Callable[[], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
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


def card(stage: int) -> m.Card:
    return m.Card(stage, f"oak{stage}", "0.1.0", 0, 4, 8, 16, "model", "float32", "none", 0)


class Ear(Handler):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.messages: list[m.Message] = []
        self.errors: list[GardenerError] = []
        self.links: list[Link] = []
        self.whys: list[str] = []
        self.told = asyncio.Event()

    def heard(self, link: Link, message: m.Message) -> None:
        self.messages.append(message)
        self.told.set()

    def lost(self, link: Link, error: GardenerError) -> None:
        self.errors.append(error)
        self.told.set()

    def met(self, link: Link) -> None:
        self.links.append(link)
        self.told.set()

    def why(self, sentence: str) -> None:
        self.whys.append(sentence)
        self.told.set()

    async def until(self, ready: Callable[[], object]) -> None:
        while not ready():
            self.told.clear()
            await self.told.wait()


def anyone(_: m.Card) -> str | None:
    return None


async def serve(ear: Ear, at: str = "127.0.0.1:0", **options: Any) -> Listener:
    options = {"admit": anyone, "met": ear.met, "refused": ear.why} | options
    return await listen(at, lambda: card(2), ear, **options)


async def call(ear: Ear, address: Address | str, **options: Any) -> Link:
    defaults: dict[str, Any] = {"admit": anyone, "patience": 10.0, "waiting": Notices(ear.why).tell}
    options = defaults | options
    return await dial(address, card(1), ear, **options)


@contextlib.asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[Ear, Link, Ear, Link]]:
    """Two ends of an open link, upstream first, each with its ear."""
    below, above = Ear(), Ear()
    listener = await serve(below, **options)
    up = await call(above, listener.address, **options)
    await below.until(lambda: below.links)
    down = below.links[0]
    try:
        yield above, up, below, down
    finally:
        await up.close("the test is over")
        await down.close("the test is over")
        await listener.close()


@contextlib.asynccontextmanager
async def raw_peer(ear: Ear, **options: Any) -> AsyncIterator[socket.socket]:
    """A plain socket that has dialled and greeted like a good peer, and then is the test's."""
    loop = asyncio.get_running_loop()
    listener = await serve(ear, **options)
    try:
        with socket.create_connection(listener.address) as sock:
            sock.setblocking(False)
            await loop.sock_sendall(sock, encode(m.Hello(m.PROTOCOL, card(1), bytes(16))))
            assert isinstance((await read(sock))[0], m.Welcome)
            await loop.sock_sendall(sock, encode(m.Ping(1)))
            await ear.until(lambda: ear.links)
            yield sock
        await ear.links[0].close("the test is over")
    finally:
        await listener.close()


async def read(sock: socket.socket) -> list[m.Message]:
    """What the peer says next; empty once it has closed."""
    decoder = Decoder()
    while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
        if messages := list(decoder.feed(data)):
            return messages
    return []


def test_a_link_opens_and_carries_messages_in_order(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pair() as (above, up, below, down):
            assert (up.peer, up.card, up.upstream) == (card(2), card(1), False)
            assert (down.peer, down.card, down.upstream) == (card(1), card(2), True)
            sent: list[m.Message] = [m.Open(1, 4, 9), m.Advance(1, (3,), 4), m.Close(1)]
            up.send(*sent)
            lost = r.Lost(3, 1, -1, 0, "silent")
            down.send(lost)
            await below.until(lambda: len(below.messages) == 3)
            await above.until(lambda: above.messages)
            assert below.messages == sent
            assert above.messages == [lost]
            assert up.sent_bytes >= down.received_bytes > 0
            assert 0 <= up.silent < 10
        assert above.errors == []
        assert str(below.errors[0]).endswith("left: the test is over")

    run(scenario)


def test_an_end_says_only_what_it_may(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pair() as (_, _, _, down):
            with pytest.raises(LocalError, match="downstream end said Close"):
                down.send(m.Close(1))

    run(scenario)


def test_both_ends_measure_the_round_trip(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pair(times=Times(heartbeat=0.01)) as (_, up, _, down):
            while up.round_trip is None or down.round_trip is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert 0 <= up.round_trip < 4

    run(scenario)


def test_ends_start_in_either_order(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = Address(*sock.getsockname())
        below, above = Ear(), Ear()
        dialling = asyncio.create_task(call(above, address))
        await above.until(lambda: above.whys)
        listener = await serve(below, str(address))
        up = await dialling
        await below.until(lambda: below.links)
        assert above.whys == [
            f"waiting for the next stage at {address}: connection refused, "
            "nothing listens there (start it, or correct the address)"
        ]
        await up.close("done")
        await below.until(lambda: below.errors)
        await listener.close()

    run(scenario)


@pytest.mark.parametrize("who", ["listener", "dialler"])
def test_a_refusal_is_told_at_both_ends_and_tried_again(
    run: Callable[[Scenario], None], who: str
) -> None:
    asked = 0

    def reluctant(peer: m.Card) -> str | None:
        nonlocal asked
        asked += 1
        return f"stage {peer.stage} is early" if asked < 3 else None

    async def scenario() -> None:
        below, above = Ear(), Ear()
        listener = await serve(below, admit=reluctant if who == "listener" else anyone)
        up = await call(above, listener.address, admit=reluctant if who == "dialler" else anyone)
        await below.until(lambda: below.links)
        assert len(above.whys) == 1  # although it was refused twice
        assert len(below.whys) == 2
        if who == "listener":
            assert above.whys[0].endswith("refused the link: stage 1 is early")
            assert "we refused stage 1 at" in below.whys[0]
        else:
            assert "we refused stage 2 at" in above.whys[0]
            assert below.whys[0].endswith("refused the link: stage 2 is early")
        assert len(below.links) == 1  # the listener's owner never saw the others
        await up.close("done")
        await below.until(lambda: below.errors)
        assert above.errors == []
        await listener.close()

    run(scenario)


def test_patience_runs_out_with_a_sentence(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = Address(*sock.getsockname())
        with pytest.raises(PeerLost) as caught:
            await call(Ear(), address, patience=0.1)
        assert str(caught.value) == (
            f"gave up on the next stage at {address} after 0.1 s: "
            "connection refused, nothing listens there (start it, or correct the address)"
        )

    run(scenario)


def test_a_port_that_does_not_greet_is_a_failed_attempt(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = Address(*sock.getsockname())
            with pytest.raises(PeerLost, match=r"the greeting was not finished within 0\.1 s"):
                await call(Ear(), address, patience=0.0, times=Times(greeting=0.1, linger=0.05))

    run(scenario)


def test_a_nudge_ends_the_wait(run: Callable[[Scenario], None], monkeypatch: Any) -> None:
    monkeypatch.setattr("gardener.net.dial.FIRST_DELAY", 1000.0)
    monkeypatch.setattr("gardener.net.dial.LAST_DELAY", 1000.0)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = Address(*sock.getsockname())
        below, above, nudge = Ear(), Ear(), asyncio.Event()
        dialling = asyncio.create_task(call(above, address, nudge=nudge, patience=None))
        await above.until(lambda: above.whys)
        listener = await serve(below, str(address))
        nudge.set()
        up = await dialling
        assert not nudge.is_set()
        await up.close("done")
        await listener.close()

    run(scenario)


def test_dialling_can_be_cancelled_at_any_time(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = Address(*sock.getsockname())
            for moment in (0.0, 0.001, 0.05):
                dialling = asyncio.create_task(call(Ear(), address))
                await asyncio.sleep(moment)
                dialling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await dialling

    run(scenario)


GARBAGE = {
    "noise": (b"SSH-2.0-OpenSSH_9.2\r\n", "the limit is 16384"),
    "length of 2^32-1": (b"\xff\xff\xff\xff", "4294967295 bytes"),
    "work before the greeting": (encode(m.Close(1)), "said Close while greeting"),
    "another protocol": (
        encode(m.Hello(m.PROTOCOL + 1, card(1), bytes(16))), "install the same version",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("noise", "said"), GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_at_the_port_ends_only_its_own_connection(
    run: Callable[[Scenario], None], noise: bytes, said: str
) -> None:
    async def scenario() -> None:
        async with pair() as (_, up, below, down):
            listener = await serve(below)
            with socket.create_connection(listener.address) as sock:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(sock, noise)
                (bye,) = await read(sock)
                assert isinstance(bye, m.Bye)
                assert said in bye.why
                assert await read(sock) == []
            assert said in below.whys[0]
            other = await call(Ear(), listener.address)
            up.send(m.Close(7))
            await below.until(lambda: below.messages)
            assert down.ended is None
            assert below.errors == []
            await other.close("done")
            await listener.close()

    run(scenario)


def test_dawdlers_are_pushed_out(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        ear = Ear()
        listener = await serve(ear)
        with contextlib.ExitStack() as idle:
            for _ in range(GREETINGS + 3):
                idle.enter_context(socket.create_connection(listener.address))
            await ear.until(lambda: len(ear.whys) == 3)
            assert "pushed out" in ear.whys[0]
            link = await call(Ear(), listener.address)
            await ear.until(lambda: ear.links)
            await listener.close()
        link.send(m.Close(1))  # an open link goes on
        await ear.until(lambda: ear.messages)
        await link.close("done")
        await ear.until(lambda: ear.errors)

    run(scenario)


def test_a_greeting_has_a_deadline(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        ear = Ear()
        listener = await serve(ear, times=Times(greeting=0.05))
        with socket.create_connection(listener.address) as sock:
            sock.setblocking(False)
            (bye,) = await read(sock)
            assert bye == m.Bye("the greeting was not finished within 0.05 s")
        await listener.close()

    run(scenario)


def test_a_slow_reader_holds_drain_up(run: Callable[[Scenario], None]) -> None:
    hidden = t.Tensor("float32", (1, 2**18), bytes(2**20))
    segment = m.Segment(1, 1, (1,), (0,), (0,), (7,), hidden, ())

    async def scenario() -> None:
        async with pair() as (_, up, below, down):
            assert down._transport is not None
            down._transport.pause_reading()
            for _ in range(32):  # more than the buffers of the kernel take
                up.send(segment)
            draining = asyncio.create_task(up.drain())
            await asyncio.sleep(0.05)
            assert not draining.done()
            down._transport.resume_reading()
            await draining
            await below.until(lambda: len(below.messages) == 32)
            assert below.messages == [segment] * 32

    run(scenario)


def test_a_peer_that_reads_nothing_is_lost(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gardener.protocol.connection.BACKLOG", 2**16)

    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear) as sock:
            theirs = ear.links[0]._transport
            assert theirs is not None
            for one, which in (
                (sock, socket.SO_RCVBUF),
                (theirs.get_extra_info("socket"), socket.SO_SNDBUF),
            ):
                one.setsockopt(socket.SOL_SOCKET, which, 4096)  # or it takes long to fill them
            # Each Ping is answered, and the answers are never read.
            pings = encode(m.Ping(1)) * 2**14
            with contextlib.suppress(OSError):
                while not ear.errors:
                    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, pings), 5)
            await ear.until(lambda: ear.errors)
            assert isinstance(ear.errors[0], PeerLost)
            assert "does not read what it is sent: it left" in str(ear.errors[0])

    run(scenario)


def test_drain_and_send_fail_when_the_link_is_lost(run: Callable[[Scenario], None]) -> None:
    hidden = t.Tensor("float32", (1, 2**18), bytes(2**20))
    segment = m.Segment(1, 1, (1,), (0,), (0,), (7,), hidden, ())

    async def scenario() -> None:
        async with pair(times=Times(silence=0.3, heartbeat=0.05)) as (above, up, _, down):
            assert down._transport is not None
            down._transport.pause_reading()
            assert down._timer is not None
            down._timer.cancel()  # it stands still: neither reads nor pings
            for _ in range(64):  # far more than the sockets take
                up.send(segment)
            with pytest.raises(PeerLost, match=r"stage 2 at .* went silent, last heard"):
                await up.drain()
            with pytest.raises(PeerLost, match="went silent"):
                up.send(m.Close(1))
            assert len(above.errors) == 1

    run(scenario)


def test_a_paused_peer_is_lost(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear, times=Times(silence=0.2, heartbeat=0.05)):
            await ear.until(lambda: ear.errors)
            assert isinstance(ear.errors[0], PeerLost)
            assert "stage 1 at 127.0.0.1:" in str(ear.errors[0])
            assert "went silent, last heard 0." in str(ear.errors[0])

    run(scenario)


def test_a_frame_on_its_way_counts_as_heard(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear, times=Times(silence=0.5, heartbeat=0.05)) as sock:
            loop = asyncio.get_running_loop()
            frame = encode(r.Lost(1, 1, 1, 1, "x" * 60))
            for byte in frame[:40]:  # takes longer in all than the silence allowed
                await loop.sock_sendall(sock, bytes([byte]))
                await asyncio.sleep(0.02)
            assert ear.errors == []

    run(scenario)


def test_a_killed_peer_is_lost(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.close()
            await ear.until(lambda: ear.errors)
            assert isinstance(ear.errors[0], PeerLost)
            assert "broke (connection reset by peer), last heard" in str(ear.errors[0])

    run(scenario)


def test_who_stood_still_says_so_of_a_link_that_broke_meanwhile(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear, times=Times(silence=0.4, heartbeat=0.05)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.close()
            time.sleep(0.6)  # noqa: ASYNC251 - as if this process were stopped
            await ear.until(lambda: ear.errors)
            assert ear.links[0].parting.stood_still > 0.5
            assert str(ear.errors[0]).startswith("this process stood still for 1 s, and the conn")

    run(scenario)


def test_what_breaks_long_after_this_process_stood_still_has_another_reason(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gardener.protocol.heartbeat.AFTERMATH", 0.05)

    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear, times=Times(silence=0.4, heartbeat=0.05)) as sock:
            time.sleep(0.6)  # noqa: ASYNC251 - as above
            await asyncio.sleep(0.15)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.close()
            await ear.until(lambda: ear.errors)
            assert ear.links[0].parting.stood_still == 0
            assert "stood still" not in str(ear.errors[0])

    run(scenario)


def test_a_peer_that_just_closes_is_lost(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear) as sock:
            sock.shutdown(socket.SHUT_WR)
            await ear.until(lambda: ear.errors)
            assert "closed the connection without saying why" in str(ear.errors[0])

    run(scenario)


def test_the_reason_of_a_bye_passes_through(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pair() as (above, up, below, down):
            await down.close("going home\x1b[31m" + "!" * 600)
            await above.until(lambda: above.errors)
            assert isinstance(above.errors[0], PeerLost)
            assert "left: going home?[31m!!!" in str(above.errors[0])
            assert below.errors == []
            with pytest.raises(PeerLost, match="we closed the link"):
                down.send(m.Ping(1))
            with pytest.raises(PeerLost, match="left: going home"):
                up.send(m.Ping(1))

    run(scenario)


def test_the_first_cause_of_an_end_is_the_one_that_is_told(run: Callable[[Scenario], None]) -> None:
    """Whatever comes after the Bye, and however the connection goes."""

    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear) as sock:
            parting = encode(m.Bye("going home")) + encode(m.Close(9)) + encode(m.Ping(2))
            await asyncio.get_running_loop().sock_sendall(sock, parting)
            await ear.until(lambda: ear.errors)
        (error,) = ear.errors
        assert isinstance(error, PeerLost)
        assert "left: going home" in str(error)
        assert ear.messages == []
        assert ear.links[0].parting.cause == "it left: going home"

    run(scenario)


def test_a_bye_arrives_although_much_was_on_its_way_to_the_sender(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario() -> None:
        async with pair() as (above, up, _, down):
            up.send(*[m.Advance(1, tuple(range(1000)), 1)] * 200)
            await down.close("enough")
            await above.until(lambda: above.errors)
            assert str(above.errors[0]).endswith("left: enough")

    run(scenario)


def test_closing_does_not_wait_for_a_peer_that_reads_nothing(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear, times=Times(linger=0.05)):
            await ear.links[0].close("nobody listens")
            assert ear.errors == []

    run(scenario)


BREACHES = {
    "bad frame": (b"\x00\x00\x00\x01\xc1", "a frame is not msgpack"),
    "too large": (b"\x7f\xff\xff\xff", "2147483647 bytes, the limit is 67108864"),
    "out of turn": (encode(m.Hello(m.PROTOCOL, card(1), bytes(16))), "said Hello while open"),
}


@pytest.mark.parametrize(("data", "said"), BREACHES.values(), ids=BREACHES.keys())
def test_a_breach_is_answered_with_a_bye(
    run: Callable[[Scenario], None], data: bytes, said: str
) -> None:
    async def scenario() -> None:
        ear = Ear()
        async with raw_peer(ear, times=Times(heartbeat=10.0)) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, encode(m.Close(1)) + data)
            await ear.until(lambda: ear.errors)
            assert ear.messages == [m.Close(1)]
            assert isinstance(ear.errors[0], RemoteError)
            assert said in str(ear.errors[0])
            heard = await read(sock)
            while not isinstance(heard[-1], m.Bye):
                heard = await read(sock)
            assert said in heard[-1].why
            assert len(ear.errors) == 1

    run(scenario)


def test_a_handler_may_find_the_breach(run: Callable[[Scenario], None]) -> None:
    class Strict(Ear):
        def heard(self, link: Link, message: m.Message) -> None:
            raise RemoteError("no request has the number 7")

    async def scenario() -> None:
        ear = Strict()
        async with raw_peer(ear) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, encode(m.Close(7)) * 2)
            await ear.until(lambda: ear.errors)
            assert "broke the protocol: no request has the number 7" in str(ear.errors[0])

    run(scenario)


def test_a_link_may_be_refused_as_late_as_when_it_is_met(run: Callable[[Scenario], None]) -> None:
    def met(link: Link) -> None:
        raise RemoteError(f"somebody was quicker than {link.peer.name}")

    async def scenario() -> None:
        below, above = Ear(), Ear()
        listener = await serve(below, met=met)
        with pytest.raises(PeerLost, match="somebody was quicker than oak1"):
            await call(above, listener.address, patience=0.0)
        assert "somebody was quicker than oak1" in below.whys[0]
        assert below.errors == above.errors == []
        await listener.close()

    run(scenario)


def test_who_listens_at_every_address_takes_ipv4_too(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        below, above = Ear(), Ear()
        listener = await serve(below, "[::]:0")
        link = await call(above, Address("127.0.0.1", listener.address.port))
        await below.until(lambda: below.links)
        await link.close("done")
        await below.until(lambda: below.errors)
        await listener.close()

    run(scenario)


def test_a_port_in_use_is_named(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        ear = Ear()
        listener = await serve(ear)
        with pytest.raises(UserError) as caught:
            await serve(ear, str(listener.address))
        assert str(caught.value) == (
            f"{listener.address} is in use: stop what listens there, or choose another port and "
            "start what dials it anew with that as its --peer"
        )
        await listener.close()
        again = await serve(ear, str(listener.address))
        await again.close()
        with pytest.raises(UserError, match=r"192\.0\.2\.1:0 is no address of this machine"):
            await serve(ear, "192.0.2.1:0")

    run(scenario)


def test_a_listening_socket_may_be_inherited(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        ear, sock = Ear(), socket.create_server(("127.0.0.1", 0))
        expected = Address(*sock.getsockname())
        listener = await serve(ear, f"fd:{sock.detach()}")
        assert listener.address == expected
        link = await call(Ear(), expected)
        await link.close("done")
        await ear.until(lambda: ear.errors)
        await listener.close()
        with socket.socket() as idle, pytest.raises(UserError, match="not a listening TCP socket"):
            await serve(ear, f"fd:{idle.fileno()}")
        with pytest.raises(UserError, match="fd:9999 is no socket"):
            await serve(ear, "fd:9999")

    run(scenario)


def test_addresses() -> None:
    assert parse("127.0.0.1:7000") == Address("127.0.0.1", 7000)
    assert parse("oak.local:0") == Address("oak.local", 0)
    assert str(parse("[::1]:7000")) == "[::1]:7000"
    assert parse("[::1]:7000") == Address("::1", 7000)
    assert parse("fd:3") == Inherited(3)
    for bad in ("7000", "oak", "oak:", ":7000", "oak:x", "oak:65536", "oak:-1", "::1:7000"):
        with pytest.raises(UserError, match=r"is not an address"):
            parse(bad)
    for bad in ("fd:3", "oak:0"):
        with pytest.raises(UserError, match="cannot be dialled"):
            parse_peer(bad)
