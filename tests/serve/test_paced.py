"""Answers of a simulated ring, which the server tells at the pace of virtual time."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import tiny
import words

from gardener import DraftSettings, UserError
from gardener.decoding.policy import Bounds, make
from gardener.errors import Busy, LocalError, StageFailed
from gardener.holder.answer import Wanted
from gardener.holder.piece import Piece
from gardener.protocol.sampling import GREEDY
from gardener.rings.settings import RingSettings
from gardener.serve.paced import PacedAnswer, Reckoned
from gardener.serve.simulated import PacedRing, SimulatedKeeper, Simulation

FAR = 3600.0
WANTED = Wanted((1, 2, 3), 8)
A, B = Piece((5,), "a"), Piece((6,), "b")


def found(*pieces: tuple[float, Piece], error: Any = None, why: str = "length") -> Reckoned:
    return Reckoned(1, list(pieces), error, Any, GREEDY, why, cached_tokens=2)  # type: ignore[arg-type]


class Answer(PacedAnswer):
    """And where it is reckoned."""

    def __init__(self) -> None:
        self.work: Future[Reckoned] = Future()
        self.left = threading.Event()
        super().__init__(WANTED, make("plain", Bounds()), self.work, self.left)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_pieces_come_in_turn_and_then_the_reason() -> None:
    async def main() -> None:
        answer = Answer()
        assert answer.speculation.asked == 3
        answer.work.set_result(found((0.0, A), (0.001, B)))
        got = []
        async for piece in answer:
            assert answer.finish_reason is None
            got.append(piece)
        assert (got, answer.finish_reason, answer.cached_tokens) == ([A, B], "length", 2)
        answer.close()
        assert answer.finish_reason == "length"

    run(main())


def test_a_piece_is_not_lost_to_who_stops_waiting_for_it() -> None:
    """As a server does that sends a comment in between."""

    async def main() -> None:
        answer = Answer()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await anext(answer)
            if not answer.work.done():
                answer.work.set_result(found((0.05, A)))
        assert await anext(answer) is A

    run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_one_that_is_closed_ends_at_once(begun: bool) -> None:
    async def main() -> None:
        answer = Answer()
        if begun:
            answer.work.set_result(found((FAR, A)))
        waiting = asyncio.create_task(answer.__anext__())
        await asyncio.sleep(0.001)
        answer.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert answer.finish_reason == "abandoned"
        assert answer.left.is_set()
        assert answer.work.cancelled() != begun

    run(main())


def test_one_may_be_ended_because_of_something() -> None:
    async def main() -> None:
        answer = Answer()
        answer.work.set_result(found((FAR, A)))
        answer.fail(LocalError("the end"), "lost")
        with pytest.raises(LocalError, match="the end"):
            await anext(answer)
        assert answer.finish_reason == "lost"

    run(main())


def test_what_broke_it_comes_after_the_pieces() -> None:
    async def main() -> None:
        answer = Answer()
        answer.work.set_result(found((0.0, A), error=StageFailed("no memory"), why="failed"))
        assert await anext(answer) is A
        with pytest.raises(StageFailed, match="no memory"):
            await anext(answer)
        assert answer.finish_reason == "failed"
        other = Answer()
        other.work.set_exception(UserError("no room"))
        with pytest.raises(UserError, match="no room"):
            await anext(other)

    run(main())


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RingSettings:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    tiny.make("llama", folder, vocab_size=words.ROWS, max_position_embeddings=512)
    words.name_bytes(folder)
    return RingSettings(simulate=2, model=str(folder), draft=DraftSettings(()))


async def read(answer: PacedAnswer) -> list[int]:
    return [token async for piece in answer for token in piece.tokens]


def test_a_simulated_ring_answers_beside_the_loop_of_the_server(settings: RingSettings) -> None:
    async def main() -> None:
        said: list[str] = []
        simulation = Simulation(settings)
        try:
            ring = PacedRing(simulation, await simulation.open(said.append, said.append), 1)
            tokens = ring.prompter.encode("Why?", raw=True)
            first = ring.ask_tokens(tokens, max_new_tokens=5)
            second = ring.ask_tokens(tokens, max_new_tokens=5, policy="plain")
            assert ring.waiting == 1
            with pytest.raises(Busy, match="1 request runs and 1 waits"):
                ring.ask_tokens(tokens)
            with pytest.raises(UserError, match="without log probabilities"):
                ring.ask_tokens(tokens, logprobs=1)
            with pytest.raises(UserError, match="leave ignore_eos out"):
                ring.ask_tokens(tokens, ignore_eos=True)
            written = await read(first)
            assert len(written) == 5
            assert await read(second) == written
            assert second.speculation.counts.emitted == 5
            assert any("all times are virtual" in line for line in said)
        finally:
            await simulation.close()

    run(main())


def test_a_simulated_ring_that_cannot_be_says_why(tmp_path: Path) -> None:
    settings = RingSettings(simulate=2, model=str(tmp_path / "none"), draft=DraftSettings(()))
    with pytest.raises(UserError, match="none"):
        run(SimulatedKeeper(settings, lambda line: None, lambda line: None).run())
