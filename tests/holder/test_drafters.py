"""Drafters at their own pace: who is asked where, what is dropped, and that nobody waits."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from gardener.decoding.tree import Guess, Node
from gardener.draft.drafter import Drafter
from gardener.errors import LocalError
from gardener.holder.drafters import Drafters, Drafts, Guesses, OnAnswer
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor

PATIENCE = 20.0
"""Seconds until a test that waits for something has failed."""

ROOT = Node(3, 2, 7, 0.0)
FEATURES = (Tensor("float32", (2, 1), bytes(8)),)


class Told(Exception):
    """What a stand-in raises."""


class Plant:
    """A drafter that notes what it hears, and guesses the last token of each path plus one. All
    its drafts are itself.

    gate    closed, it waits in `expand` until it is opened
    gated   the tokens at which it does so; None: at all of them
    raises  where to raise what
    """

    numbers = ""
    context = None

    def __init__(
        self, name: str = "plant", instant: bool = False, taps: tuple[int, ...] = ()
    ) -> None:
        self.name, self.instant, self.taps = name, instant, taps
        self.heard: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.gated: set[int] | None = None
        self.raises: dict[str, BaseException] = {}
        self._more = threading.Condition()

    def open(self, prompt: Sequence[int], sampling: Sampling = GREEDY, **source: Any) -> "Plant":
        self._note("open", *prompt)
        return self

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        self._note("settle", [node.token for node in nodes], len(features))

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        self._note("expand", *(path[-1].token for path in paths))
        if self.gated is None or self.gated & {path[-1].token for path in paths}:
            assert self.gate.wait(PATIENCE)
        return [(Guess(path[-1].token + 1, 0.5),) for path in paths]

    def reached(self, *what: Any) -> bool:
        """Waits until it hears this, and the loop waits with it."""
        with self._more:
            return self._more.wait_for(lambda: what in self.heard, PATIENCE)

    def _note(self, call: str, *what: Any) -> None:
        self.threads.add(threading.get_ident())
        with self._more:
            self.heard.append((call, *what))
            self._more.notify_all()
        if call in self.raises:
            raise self.raises[call]


class Ear:
    """Hears what the drafters have to say, and where. One request at a time."""

    def __init__(self, *drafters: Drafter) -> None:
        self.answers: list[tuple[int, list[int], list[int]]] = []
        self.seconds: list[float] = []
        self.errors: list[Exception] = []
        self.threads: set[int] = set()
        self._news = asyncio.Event()
        self.drafters = Drafters(drafters)
        self.drafts = Drafts(())

    def open(self, *prompt: int) -> None:
        """A new request, which ends the one before."""
        self.drafts.close()
        self.drafts = self.drafters.open(prompt, self._answered, self._failed)

    def _answered(
        self, source: int, nodes: Sequence[int], guesses: Guesses, seconds: float
    ) -> None:
        self.answers.append((source, [*nodes], [g.token for told in guesses for g in told or ()]))
        self.seconds.append(seconds)
        self._hear()

    def _failed(self, error: Exception) -> None:
        self.errors.append(error)
        self._hear()

    def _hear(self) -> None:
        self.threads.add(threading.get_ident())
        self._news.set()

    async def news(self, count: int) -> None:
        """Until this many answers and errors have come."""
        while len(self.answers) + len(self.errors) < count:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), PATIENCE)

    def ask(self, *tokens: int, source: int = 0, node: int = 3) -> None:
        """About one path below the root for each token."""
        paths = [[ROOT, Node(9, ROOT.id, token, 0.0)] for token in tokens]
        begin = time.perf_counter()
        guesses = self.drafts.expand(source, [node], paths)
        if guesses is not None:
            self._answered(source, [node], guesses, time.perf_counter() - begin)


async def silence(drafters: Drafters) -> None:
    """Until all that was queued is done, and told."""
    for worker in drafters._workers:
        if worker is not None:
            await worker.run(lambda: None)


def never(*what: object) -> None:
    raise AssertionError(what)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


# --- instant drafters ------------------------------------------------------------------------


def test_an_instant_drafter_answers_at_once() -> None:
    async def main() -> None:
        quick = Plant(instant=True)
        ear = Ear(quick)
        ear.open(1, 2)
        ear.ask(5, 6, node=4)
        assert ear.answers == [(0, [4], [6, 7])]
        assert quick.heard == [("open", 1, 2), ("expand", 5, 6)]
        assert quick.threads == {threading.get_ident()}

    run(main())


def test_instant_drafters_know_what_was_accepted_before_they_are_asked() -> None:
    async def main() -> None:
        quick, other = Plant(instant=True), Plant(instant=True)
        ear = Ear(quick, other)
        ear.open(1)
        ear.drafts.settle([ROOT], ())
        ear.drafts.settle([ROOT._replace(token=8)], ())
        assert quick.heard == [("open", 1)]  # there is no hurry
        ear.ask(5)
        assert quick.heard == [("open", 1), ("settle", [7, 8], 0), ("expand", 5)]
        assert other.heard == [("open", 1), ("settle", [7, 8], 0)]

    run(main())


def test_they_are_told_once_and_when_there_is_time() -> None:
    async def main() -> None:
        quick = Plant(instant=True)
        ear = Ear(quick)
        ear.open(1)
        ear.drafts.tell()
        ear.drafts.settle([ROOT], ())
        ear.drafts.tell()
        ear.drafts.tell()
        ear.ask(5)
        assert quick.heard == [("open", 1), ("settle", [7], 0), ("expand", 5)]

    run(main())


def test_a_new_request_is_not_told_of_the_one_before() -> None:
    async def main() -> None:
        quick = Plant(instant=True)
        ear = Ear(quick)
        ear.open(1)
        ear.drafts.settle([ROOT], ())
        ear.open(2)
        ear.ask(5)
        assert quick.heard == [("open", 1), ("open", 2), ("expand", 5)]

    run(main())


def test_instant_drafters_need_no_features() -> None:
    async def main() -> None:
        quick = Plant(instant=True)
        ear = Ear(quick)
        ear.open(1)
        ear.drafts.settle((), FEATURES)
        ear.drafts.tell()
        ear.drafts.settle([ROOT], FEATURES)
        ear.drafts.tell()
        assert quick.heard == [("open", 1), ("settle", [7], 0)]

    run(main())


# --- slow drafters ---------------------------------------------------------------------------


def test_a_slow_drafter_answers_later_on_the_loop() -> None:
    async def main() -> None:
        slow = Plant()
        slow.gate.clear()
        ear = Ear(slow)
        ear.open(1, 2)
        ear.ask(5, 6, node=4)
        assert slow.reached("expand", 5, 6)
        assert ear.answers == []  # it is at work, and we are not
        slow.gate.set()
        await ear.news(1)
        assert ear.answers == [(0, [4], [6, 7])]
        assert ear.seconds[0] >= 0
        assert ear.threads == {threading.get_ident()}
        assert len(slow.threads) == 1
        assert ear.threads.isdisjoint(slow.threads)
        assert slow.heard == [("open", 1, 2), ("expand", 5, 6)]
        ear.drafters.close()

    run(main())


def test_nobody_waits_for_a_slow_drafter() -> None:
    async def main() -> None:
        slow, quick, other = Plant("slow"), Plant("quick", instant=True), Plant("other")
        slow.gate.clear()
        ear = Ear(slow, quick, other)
        ear.open(1)
        ear.ask(5, source=0)
        assert slow.reached("expand", 5)
        ear.drafts.settle([ROOT], ())
        ear.ask(6, source=0)
        ear.ask(5, source=1)
        assert ear.answers == [(1, [3], [6])]
        ear.ask(5, source=2)
        await ear.news(2)
        assert ear.answers[1:] == [(2, [3], [6])]
        slow.gate.set()
        await ear.news(4)
        assert ear.answers[2:] == [(0, [3], [6]), (0, [3], [7])]
        assert slow.threads.isdisjoint(other.threads)
        ear.drafters.close()

    run(main())


def test_what_a_slow_drafter_hears_keeps_its_order() -> None:
    async def main() -> None:
        slow = Plant()
        ear = Ear(slow)
        ear.open(1)
        ear.ask(5)
        ear.drafts.settle([ROOT], ())
        ear.ask(6)
        ear.drafts.settle([ROOT._replace(token=8)], ())
        ear.ask(7)
        await ear.news(3)
        assert [call for call, *_ in slow.heard] == ["open"] + ["expand", "settle"] * 2 + ["expand"]
        assert slow.heard[2] == ("settle", [7], 0)
        assert [tokens for _, _, tokens in ear.answers] == [[6], [7], [8]]
        ear.drafters.close()

    run(main())


def test_what_is_settled_later_does_not_reach_into_what_was_said() -> None:
    async def main() -> None:
        slow = Plant()
        slow.gate.clear()
        ear = Ear(slow)
        ear.open(1)
        ear.ask(5)
        nodes = [ROOT]
        ear.drafts.settle(nodes, ())
        nodes.clear()
        ear.ask(5)
        slow.gate.set()
        await ear.news(2)
        assert ("settle", [7], 0) in slow.heard
        ear.drafters.close()

    run(main())


def test_features_go_to_the_one_that_wants_them() -> None:
    async def main() -> None:
        plain, tapped = Plant("plain"), Plant("tapped", taps=(2, 4))
        ear = Ear(plain, tapped)
        assert ear.drafters.taps == (2, 4)
        assert ear.drafters.again == (False, True)
        ear.open(1)
        ear.drafts.settle((), FEATURES)  # while the prompt is computed
        ear.drafts.settle([ROOT], FEATURES)
        for source in (0, 1):
            ear.ask(5, source=source)
        await ear.news(2)
        assert plain.heard == [("open", 1), ("settle", [7], 0), ("expand", 5)]
        assert tapped.heard == [
            ("open", 1),
            ("settle", [], 1),
            ("settle", [7], 1),
            ("expand", 5),
        ]
        ear.drafters.close()

    run(main())


# --- earlier requests ------------------------------------------------------------------------


def test_what_was_asked_for_an_earlier_request_is_dropped() -> None:
    async def main() -> None:
        slow = Plant()
        slow.gate.clear()
        ear = Ear(slow)
        ear.open(1)
        ear.ask(10)
        assert slow.reached("expand", 10)
        ear.ask(20)
        ear.drafts.settle([ROOT], ())
        ear.open(2)
        ear.ask(30)
        slow.gate.set()
        await ear.news(1)
        assert ear.answers == [(0, [3], [31])]
        # What had not begun was not even computed.
        assert slow.heard == [("open", 1), ("expand", 10), ("open", 2), ("expand", 30)]
        ear.drafters.close()

    run(main())


def test_an_answer_that_is_on_its_way_when_a_request_begins_is_dropped() -> None:
    async def main() -> None:
        slow = Plant()
        slow.gated = {20}
        slow.gate.clear()
        ear = Ear(slow)
        ear.open(1)
        ear.ask(10)
        ear.ask(20)
        assert slow.reached("expand", 20)  # so the answer about 10 waits for the loop
        ear.open(2)
        slow.gate.set()
        ear.ask(30)
        await ear.news(1)
        assert ear.answers == [(0, [3], [31])]
        ear.drafters.close()

    run(main())


def test_an_error_in_an_earlier_request_is_dropped() -> None:
    async def main() -> None:
        slow = Plant()
        slow.raises["settle"] = Told()
        ear = Ear(slow)
        ear.open(1)
        ear.drafts.settle([ROOT], ())
        ear.ask(10)
        assert slow.reached("expand", 10)  # so the error waits for the loop
        ear.open(2)
        ear.ask(30)
        await ear.news(1)
        assert ear.answers == [(0, [3], [31])]
        assert ear.errors == []
        ear.drafters.close()

    run(main())


# --- several requests --------------------------------------------------------------------------


class Texts:
    """Keeps a text for each draft, and guesses its sum. `heard` are the first tokens of those
    that were called, in order."""

    name, numbers, context = "texts", "", None
    taps: tuple[int, ...] = ()

    def __init__(self, instant: bool) -> None:
        self.instant = instant
        self.heard: list[int] = []
        self.drafts: weakref.WeakSet[OneText] = weakref.WeakSet()
        self.samplings: list[Sampling] = []

    def open(self, prompt: Sequence[int], sampling: Sampling = GREEDY, **source: Any) -> "OneText":
        self.samplings.append(sampling)
        draft = OneText(self, prompt)
        self.drafts.add(draft)
        return draft


class OneText:
    def __init__(self, drafter: Texts, prompt: Sequence[int]) -> None:
        self._heard, self._text = drafter.heard, list(prompt)

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        self._heard.append(self._text[0])
        self._text += [node.token for node in nodes]

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        self._heard.append(self._text[0])
        return [(Guess(sum(self._text), 0.5),) for _ in paths]


@pytest.mark.parametrize("instant", [True, False])
def test_requests_share_drafters_and_keep_texts_of_their_own(instant: bool) -> None:
    async def main() -> None:
        drafter = Texts(instant)
        drafters = Drafters([drafter])
        told: list[tuple[int, int]] = []

        def tell(request: int, guesses: Guesses) -> None:
            told.extend((request, guess.token) for said in guesses for guess in said or ())

        def answered(request: int) -> OnAnswer:
            return lambda source, nodes, guesses, seconds: tell(request, guesses)

        open_ones = {n: drafters.open([n], answered(n), never) for n in (100, 200, 300)}
        for request, drafts in open_ones.items():
            drafts.settle([ROOT._replace(token=request // 100)], ())
        open_ones[200].close()
        for request, drafts in open_ones.items():
            guesses = drafts.expand(0, [3], [[ROOT]])
            tell(request, guesses or ())
            assert bool(guesses) == (instant and request != 200)
        await silence(drafters)
        assert told == [(100, 101), (300, 303)]
        if instant:
            assert drafter.heard == [100, 100, 300, 300]
        else:  # first in, first out
            assert [n for n in drafter.heard if n != 200] == [100, 300, 100, 300]
        drafters.close()

    run(main())


@pytest.mark.parametrize("instant", [True, False])
def test_drafters_are_told_how_the_target_picks(instant: bool) -> None:
    async def main() -> None:
        drafter, picks = Texts(instant), Sampling(0.7, seed=3)
        drafters = Drafters([drafter])
        drafters.open([1], never, never, sampling=picks)
        drafters.open([2], never, never)
        await silence(drafters)
        assert drafter.samplings == [picks, GREEDY]
        drafters.close()

    run(main())


@pytest.mark.parametrize("instant", [True, False])
def test_closed_drafts_are_freed_and_ask_nobody(instant: bool) -> None:
    async def main() -> None:
        drafter = Texts(instant)
        drafters = Drafters([drafter])
        drafts = drafters.open([1], never, never)
        await silence(drafters)
        assert len(drafter.drafts) == 1
        drafts.close()
        assert len(drafter.drafts) == 0
        drafts.settle([ROOT], ())
        drafts.tell()
        assert drafts.expand(0, [3], [[ROOT]]) is None
        drafts.close()
        assert drafter.heard == []
        drafters.close()

    run(main())


def test_an_instant_drafter_that_fails_to_open_leaves_nothing_open() -> None:
    async def main() -> None:
        slow, quick = Texts(instant=False), Plant(instant=True)
        quick.raises["open"] = Told()
        ear = Ear(slow, quick)
        with pytest.raises(LocalError, match="the drafter plant failed with Told"):
            ear.open(1)
        await silence(ear.drafters)
        assert len(slow.drafts) == 0
        ear.drafters.close()

    run(main())


# --- when something is wrong -----------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "settle", "expand"])
def test_what_a_drafter_raises_is_reported(call: str) -> None:
    async def main() -> None:
        slow = Plant()
        slow.raises[call] = Told(call)
        ear = Ear(slow)
        ear.open(1)
        ear.drafts.settle([ROOT], ())
        ear.ask(5)
        await ear.news(2 if call == "settle" else 1)
        (error,) = ear.errors
        assert isinstance(error, LocalError)
        assert error.__cause__ is slow.raises[call]
        assert "the drafter plant failed with Told at the holder" in str(error)
        assert ear.threads == {threading.get_ident()}
        await silence(ear.drafters)
        # Without a draft there is nobody to ask.
        assert ear.answers == ([(0, [3], [6])] if call == "settle" else [])
        ear.drafters.close()

    run(main())


def test_what_is_no_ordinary_exception_becomes_one() -> None:
    async def main() -> None:
        slow = Plant()
        slow.raises["expand"] = SystemExit(3)
        ear = Ear(slow)
        ear.open(1)
        ear.ask(5)
        await ear.news(1)
        (error,) = ear.errors
        assert isinstance(error, LocalError)
        assert "SystemExit at the holder: 3" in str(error)
        ear.drafters.close()

    run(main())


def test_after_an_error_the_next_request_is_served() -> None:
    async def main() -> None:
        slow = Plant()
        slow.raises["expand"] = Told()
        ear = Ear(slow)
        ear.open(1)
        ear.ask(5)
        await ear.news(1)
        slow.raises.clear()
        ear.open(2)
        ear.ask(6)
        await ear.news(2)
        assert ear.answers == [(0, [3], [7])]
        ear.drafters.close()

    run(main())


def test_what_an_instant_drafter_raises_meets_the_one_who_asked() -> None:
    async def main() -> None:
        quick = Plant(instant=True)
        quick.raises["expand"] = Told()
        ear = Ear(quick)
        ear.open(1)
        with pytest.raises(LocalError, match="the drafter plant failed with Told"):
            ear.ask(5)
        assert ear.errors == []

    run(main())


def test_two_drafters_with_taps_are_refused() -> None:
    one, two = Plant(instant=True, taps=(1,)), Plant(instant=True, taps=(1,))
    with pytest.raises(LocalError, match="only one drafter may ask the ring for features"):
        Drafters([one, Plant(instant=True), two])
    assert Drafters([Plant(instant=True), one]).taps == (1,)
    assert Drafters([Plant(instant=True)]).taps == ()
    assert Drafters([]).names == "none"


# --- the end ---------------------------------------------------------------------------------


def test_closing_waits_for_nobody_and_ends_the_threads() -> None:
    async def main() -> None:
        slow = Plant("a-slow-one")
        slow.gate.clear()
        ear = Ear(slow)
        ear.open(1)
        ear.ask(5)
        ear.ask(6)
        assert slow.reached("expand", 5)
        (thread,) = (t for t in threading.enumerate() if t.name == "drafter a-slow-one")
        begin = time.perf_counter()
        ear.drafters.close()
        assert time.perf_counter() - begin < PATIENCE / 10
        assert thread.is_alive()  # still at work, and we are here
        slow.gate.set()
        await asyncio.to_thread(thread.join, PATIENCE)
        assert not thread.is_alive()
        assert slow.heard == [("open", 1), ("expand", 5)]

    run(main())


# --- drafts that begin with others ---------------------------------------------------------------


class Borrower(Plant):
    """Each of its drafts is another object; says what each was opened from."""

    def __init__(self, *, instant: bool = False) -> None:
        super().__init__(instant=instant, taps=() if instant else (1,))
        self.drafts: list[Plant] = []
        self.sources: list[tuple[int | None, int] | None] = []  # which draft, and tokens

    def open(self, prompt: Sequence[int], *_: Any, **source: Any) -> "Plant":
        self._note("open", *prompt)
        given = source["source"]
        if given is not None:
            draft, tokens = given
            given = (self.drafts.index(draft) if draft else None, tokens)
        self.sources.append(given)
        made = Lent(self)
        self.drafts.append(made)
        return made


class Lent(Plant):
    """What it hears, its lender hears."""

    def __init__(self, lender: Plant) -> None:
        super().__init__()
        self._lender = lender

    def _note(self, call: str, *what: Any) -> None:
        self._lender._note(call, *what)


def opened(drafters: Drafters, first: int, source: tuple[Drafts, int] | None = None) -> Drafts:
    return drafters.open([first], lambda *_: None, lambda _: None, source=source)


@pytest.mark.parametrize("instant", [False, True])
def test_a_draft_is_opened_from_another_one_behind_all_that_it_was_told(instant: bool) -> None:
    async def main() -> None:
        plant = Borrower(instant=instant)
        drafters = Drafters([plant])
        one = opened(drafters, 1)
        one.settle([ROOT], FEATURES)
        two = opened(drafters, 2, (one, 1))
        opened(drafters, 3, (Drafts(()), 1))
        opened(drafters, 4, (two, 5))
        await silence(drafters)
        assert plant.sources == [None, (0, 1), (None, 1), (1, 5)]
        assert [call for call, *_ in plant.heard] == ["open", "settle", "open", "open", "open"]
        drafters.close()

    run(main())


def test_one_that_is_closed_at_once_is_still_opened_from() -> None:
    async def main() -> None:
        plant = Borrower()
        drafters = Drafters([plant])
        one = opened(drafters, 1)
        one.settle([ROOT], FEATURES)
        two = opened(drafters, 2, (one, 1))
        one.close()
        two.settle([ROOT], FEATURES)
        await silence(drafters)
        assert plant.sources == [None, (0, 1)]
        assert [call for call, *_ in plant.heard] == ["open", "settle", "open", "settle"]
        freed = weakref.ref(plant.drafts.pop(0))
        gc.collect()
        assert freed() is None, "closed once nobody needs it any more"
        drafters.close()

    run(main())


def test_one_that_is_kept_guesses_nothing_and_learns_what_it_was_told() -> None:
    async def main() -> None:
        plant = Borrower()
        plant.gate.clear()
        ear = Ear(plant)
        ear.open(1)
        ear.ask(5)
        assert plant.reached("expand", 5)
        ear.ask(6)
        ear.drafts.settle([ROOT], FEATURES)
        ear.drafts.keep()
        plant.gate.set()
        opened(ear.drafters, 2, (ear.drafts, 1))
        await silence(ear.drafters)
        assert plant.heard[-2:] == [("settle", [7], 1), ("open", 2)]
        assert ("expand", 6) not in plant.heard
        assert (ear.answers, plant.sources) == ([], [None, (0, 1)])
        ear.drafters.close()

    run(main())


def test_one_that_failed_is_no_source() -> None:
    async def main() -> None:
        plant = Borrower()
        plant.raises["settle"] = Told()
        ear = Ear(plant)
        ear.open(1)
        ear.drafts.settle([ROOT], FEATURES)
        opened(ear.drafters, 2, (ear.drafts, 1))
        await ear.news(1)
        await silence(ear.drafters)
        assert plant.sources == [None, (None, 1)]
        ear.drafters.close()

    run(main())
