"""Looking at who listens somewhere, without becoming its neighbour."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import minted
import pytest
from loopback import Ear, card, run
from processes import free_ports

from gardener.net.address import Address
from gardener.net.dial import dial
from gardener.net.keys import Keys
from gardener.net.listen import GREETINGS, LOOKERS, Listener, listen
from gardener.net.look import Looker, Unseen, View, Why, listens, look
from gardener.protocol.sight import Sight
from gardener.runtime.clock import wall_clock


async def stage(ear: Ear, whys: list[str], ahead: int = 0, keys: Keys | None = None) -> Listener:
    """A stage that takes everybody; its clock is `ahead` by so many microseconds."""
    return await listen(
        "127.0.0.1:0",
        card(2, 2),
        ear,
        admit=lambda peer: None,
        met=ear.links.append,
        refused=whys.append,
        sight=lambda: Sight(wall_clock() + ahead, does="is loading", requests=ahead and 1),
        keys=keys,
    )


def test_it_shows_card_and_doing_and_how_far_it_is_and_is_no_link() -> None:
    async def scenario() -> None:
        ear, whys = Ear(), list[str]()
        listener = await stage(ear, whys)
        seen = await look(listener.address)
        assert isinstance(seen, View)
        assert seen.looked.card == card(2, 2)
        assert seen.looked.sight.does == "is loading"
        assert 0 < seen.round_trip < 1
        assert abs(seen.offset) < 1
        assert seen.bandwidth is not None
        assert seen.bandwidth > 1e6
        await listener.close()
        assert (ear.links, ear.messages, ear.errors, whys) == ([], [], [], [])

    run(scenario)


def test_one_at_work_is_not_measured_and_a_clock_that_is_off_is_seen() -> None:
    async def scenario() -> None:
        listener = await stage(Ear(), [], ahead=3_600_000_000)
        seen = await look(listener.address)
        assert isinstance(seen, View)
        assert 3599 < seen.offset < 3601
        assert seen.bandwidth is None
        await listener.close()

    run(scenario)


def test_those_who_look_push_out_no_greeting() -> None:
    """And of themselves the oldest."""

    async def scenario() -> None:
        ear, whys = Ear(), list[str]()
        listener = await stage(ear, whys)
        loop = asyncio.get_running_loop()
        waits = [await asyncio.open_connection(*listener.address) for _ in range(GREETINGS - 1)]
        lookers = []
        for _ in range(LOOKERS + 1):
            _, looker = await loop.create_connection(Looker, *listener.address)
            await looker.seen()
            lookers.append(looker)
        link = await dial(
            listener.address,
            card(1, 2),
            ear,
            admit=lambda _: None,
            patience=5.0,
            waiting=whys.append,
        )
        assert len(ear.links) == 1
        assert whys == []
        assert [looker.ended is None for looker in lookers].count(False) == 1
        assert lookers[0].ended is not None
        for each in lookers:
            await each.close()
        await link.close("done")
        await ear.links[0].close("done")
        await listener.close()
        for _, writer in waits:
            writer.close()

    run(scenario)


def test_a_name_that_is_none_and_a_port_where_nobody_is() -> None:
    async def scenario() -> None:
        seen = await look(Address("no-such-host.invalid", 7000))
        assert isinstance(seen, Unseen)
        assert seen.why is Why.NAME
        assert await look(Address("127.0.0.1", free_ports(1)[0])) == Unseen(Why.REFUSED)

    run(scenario)


@contextlib.asynccontextmanager
async def saying(answer: bytes, after: bytes = b"") -> AsyncIterator[Address]:
    """A server that says this when it has heard `after`, or at once."""

    serving = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if after:
                await reader.readuntil(after)
            writer.write(answer)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address(*server.sockets[0].getsockname())
    finally:
        server.close()
        await asyncio.gather(*filter(None, serving))


@pytest.mark.parametrize(
    ("answer", "after", "what"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", "an HTTP server"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", "an HTTP server"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", b"", "an SSH server"),
    ],
)
def test_something_else_that_listens_is_known(
    answer: bytes, after: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("gardener.net.look.STEP", 0.3)
        async with saying(answer, after) as place:
            assert await look(place) == Unseen(Why.STRANGER, what)

    run(scenario)


def test_one_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("gardener.net.look.STEP", 0.2)
        async with saying(b"never", after=b"magic") as place:
            assert await look(place) == Unseen(Why.SILENT)

    run(scenario)


def test_one_that_speaks_another_protocol_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        listener = await stage(Ear(), [])
        monkeypatch.setattr("gardener.protocol.connection.PROTOCOL", 99)
        seen = await look(listener.address)
        assert isinstance(seen, Unseen)
        assert seen.why is Why.BYE
        assert "but the peer speaks 99: install the same version" in seen.detail
        await listener.close()

    run(scenario)


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (b"", ""),
        (b"\x00\x00\x00\x10", ""),
        (b"\x15\x03\x03\x00\x02", ""),
        (b"<!DOCTYPE HTML>\n<html>", "an HTTP server"),
        (b"220 mail.example ESMTP", "something that says '220 mail.example ESM'"),
    ],
)
def test_what_the_first_bytes_tell(first: bytes, what: str) -> None:
    assert listens(first) == what


ONE, TWO = minted.keys("stage-1"), minted.keys("stage-2")


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        (None, TWO, "this port speaks TLS: start with --keys DIR"),
        (ONE, None, "does not speak TLS, it was started without --keys and we with"),
        (minted.keys("stage-1", "elm"), TWO, "its certificate is of another cluster"),
        (ONE, minted.keys("stage-2", begin=-20.0, end=-10.0), "the certificate of stage-2 of"),
    ],
)
def test_who_is_secured_otherwise(mine: Keys | None, theirs: Keys | None, words: str) -> None:
    async def scenario() -> None:
        listener = await stage(Ear(), [], keys=theirs)
        seen = await look(listener.address, mine)
        assert isinstance(seen, Unseen)
        assert seen.why is Why.KEYS
        assert words in seen.detail
        await listener.close()

    run(scenario)


def test_a_secured_one_shows_whose_certificate_it_has() -> None:
    async def scenario() -> None:
        listener = await stage(Ear(), [], keys=TWO)
        seen = await look(listener.address, ONE)
        assert isinstance(seen, View)
        assert seen.identity == TWO.identity
        assert seen.bandwidth is not None
        await listener.close()

    run(scenario)
