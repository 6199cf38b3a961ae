"""Several requests in one ring: which rows leave together, when, and that nobody starves."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gardener.decoding.costs import Costs
from gardener.decoding.curves import Curve
from gardener.decoding.dispatch import Departure, Dispatch
from gardener.decoding.events import Command, Emit, Finish, Grow, Grown, Judged, Send
from gardener.decoding.limits import Limits
from gardener.decoding.policy import POLICIES, Bounds, make
from gardener.decoding.round import Round
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Guess
from gardener.protocol.messages import Segment, Timing, Verdict

TICK = 0.030
FLAT = Costs([Curve(((1, TICK),))] * 3)
"""Three stages of 30 ms, whatever the rows."""

DEAR = Costs([Curve(((1, TICK), (2, 2 * TICK), (4, 4 * TICK), (64, 64 * TICK)))] * 3)
"""Each row takes as long as the first: no guess pays."""


class Shared:
    """Requests in one ring. Drafters are those of the test: `guesses` says what may follow a node,
    given its request and its depth below the prompt."""

    def __init__(
        self,
        costs: Costs = FLAT,
        guesses: Callable[[int, int], Sequence[Guess]] = lambda request, depth: (),
    ) -> None:
        self.dispatch, self.guesses = Dispatch(costs), guesses
        self.rounds: dict[int, Round] = {}
        self.emitted: dict[int, list[int]] = {}
        self.reasons: dict[int, str] = {}
        self.bundles: list[tuple[float, list[Segment]]] = []

    def begin(
        self,
        request: int,
        policy: str = "gardener",
        prompt: Sequence[int] = (1,),
        now: float = 0.0,
        tokens: int = 50,
        **more: Any,
    ) -> None:
        speculation = Speculation(
            request, prompt, make(policy, Bounds()), Limits(tokens, 4000), instant=(True,), **more
        )
        self.rounds[request] = Round(speculation, self.dispatch.costs)
        self.emitted[request] = []
        self.run(request, self.dispatch.start(self.rounds[request], now), now)

    def run(self, request: int, commands: Sequence[Command], now: float) -> None:
        left = list(commands)
        while left:
            match left.pop(0):
                case Emit(tokens):
                    self.emitted[request] += tokens
                case Finish(reason):
                    self.reasons[request] = reason
                case Grow(nodes):
                    tree = self.rounds[request].speculation.tree
                    said = tuple(
                        (node, tuple(self.guesses(request, tree.depth(node)))) for node in nodes
                    )
                    left += self.dispatch.handle(self.rounds[request], Grown(said), now)
                case Send(Segment() as segment):
                    self.bundles[-1][1].append(segment)

    def depart(self, now: float) -> list[dict[int, int]]:
        """Let leave what may; for each bundle the rows of each request."""
        first = len(self.bundles)
        while left := self.dispatch.departures(now):
            self.bundles.append((now, []))
            for departure in left:
                assert departure.error is None
                self.run(departure.request, departure.commands, now)
        return [{s.request: len(s.ids) for s in bundle} for _, bundle in self.bundles[first:]]

    def judge(self, segment: Segment, now: float, pick: Callable[[int], int]) -> None:
        """The verdict of a segment: what the target picks after each position."""
        verdict = Verdict(
            segment.request,
            segment.seq,
            tuple(id_ for id_ in segment.ids),
            tuple(pick(position) for position in segment.positions),
            (Timing(0, 30_000, len(segment.ids)),) * 3,
        )
        round_ = self.rounds[segment.request]
        self.run(segment.request, self.dispatch.handle(round_, Judged(verdict), now), now)

    def finish(self, pick: Callable[[int], int] = lambda position: 7) -> None:
        """Run until all answers are complete: a bundle is back three ticks after it left."""
        judged, now = 0, 0.0
        for _ in range(5000):
            self.depart(now)
            if len(self.reasons) == len(self.rounds):
                return
            back = self.bundles[judged][0] + 3 * TICK if judged < len(self.bundles) else None
            wake = self.dispatch.wake
            assert back is not None or wake is not None, "everything stands still"
            now = max(now, min(at for at in (back, wake) if at is not None))
            if back is not None and back <= now:
                for segment in self.bundles[judged][1]:
                    self.judge(segment, now, pick)
                judged += 1
        raise AssertionError("not finished")


def likely(request: int, depth: int) -> list[Guess]:
    return [Guess(7, 0.8)]


def test_roots_of_all_requests_leave_together_and_are_marked_so() -> None:
    ring = Shared()
    for request in (1, 2, 3):
        ring.begin(request)
    assert ring.depart(0.0) == [{1: 1}], "three places in the ring, three requests: one each"
    assert ring.depart(TICK / 2) == []
    assert ring.dispatch.wake == pytest.approx(TICK)
    assert ring.depart(TICK) == [{2: 1}]
    for request in (4, 5, 6):
        ring.begin(request, now=TICK)
    bundle = ring.depart(2 * TICK)
    assert bundle == [{3: 1, 4: 1}], "six requests: two in each place, the oldest first"
    assert [segment.more for segment in ring.bundles[-1][1]] == [True, False]
    flights = [ring.rounds[request].newest for request in (3, 4)]
    assert [(f.beside, f.first) for f in flights if f] == [(1, True), (1, False)]


def test_guesses_fill_what_roots_leave_free() -> None:
    ring = Shared(guesses=likely)
    for request in (1, 2):
        ring.begin(request)
    (bundle,) = ring.depart(0.0)
    assert set(bundle) == {1, 2}
    assert bundle[1] > 1, "where rows cost nothing, all that is likely leaves"
    assert abs(bundle[1] - bundle[2]) <= 1, "equally likely texts get equally many rows"


def test_the_likelier_text_gets_the_rows() -> None:
    # Each row beyond the fourth costs as much as a sixth of the pass.
    bent = Costs([Curve(((1, TICK), (4, TICK), (64, 11 * TICK)))] * 3)
    sure = {1: 0.95, 2: 0.3}
    ring = Shared(bent, guesses=lambda request, depth: [Guess(7, sure[request])])
    for request in (1, 2):
        ring.begin(request)
    (bundle,) = ring.depart(0.0)
    assert bundle[1] > bundle[2] >= 1


def test_where_no_guess_pays_a_full_ring_sends_roots_alone() -> None:
    ring = Shared(DEAR, guesses=likely)
    for request in range(1, 7):
        ring.begin(request)
    assert ring.depart(0.0) == [{1: 1, 2: 1}]


def test_a_request_alone_again_gets_all_of_the_ring() -> None:
    alone, shared = Shared(guesses=likely), Shared(guesses=likely)
    for ring in (alone, shared):
        ring.begin(1)
    shared.begin(2, tokens=1)
    shared.depart(0.0)
    for segment in list(shared.bundles[0][1]):
        shared.judge(segment, 3 * TICK, lambda position: 7)
    assert 2 in shared.reasons
    assert shared.dispatch.writing == 1
    size = alone.depart(0.0)[0][1]
    assert shared.depart(3 * TICK + 1e-4)[0][1] >= size - 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("costs", [FLAT, DEAR], ids=["flat", "dear"])
@pytest.mark.parametrize("requests", [2, 5, 12])
def test_all_requests_write_their_text_whatever_the_policy(
    policy: str, costs: Costs, requests: int
) -> None:
    ring = Shared(costs, guesses=likely)
    for request in range(1, requests + 1):
        ring.begin(request, policy, prompt=(1,) * request, chunk=3)
    chance = random.Random(policy)
    text = [chance.choice([7, 7, 8]) for _ in range(200)]
    ring.finish(lambda position: text[position])
    for request, tokens in ring.emitted.items():
        assert tokens == text[request - 1 : request - 1 + 50]


@pytest.mark.parametrize("policy", ["gardener", "plain"])
@pytest.mark.parametrize("costs", [FLAT, DEAR], ids=["flat", "dear"])
def test_a_root_leaves_with_one_of_as_many_bundles_as_the_ring_has_places(
    policy: str, costs: Costs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "observe", lambda *seen: None)  # what is known is right
    ring = Shared(costs, guesses=likely)
    for request in range(1, 17):
        ring.begin(request, policy)
    since = dict.fromkeys(ring.rounds, 0)  # bundles that had left when each root was known
    longest, judged, now = 0, 0, 0.0
    back: list[float] = []
    while len(ring.reasons) < 16:
        first = len(ring.bundles)
        ring.depart(now)
        for number, (_, bundle) in enumerate(ring.bundles[first:], first):
            back.append(now + costs.round_trip(sum(len(segment.ids) for segment in bundle)))
            for segment in bundle:
                if ring.rounds[segment.request].speculation.tree.root in segment.ids:
                    longest = max(longest, number - since.pop(segment.request, number))
        wake = ring.dispatch.wake
        due = back[judged] if judged < len(back) else None
        now = max(now, min(at for at in (due, wake) if at is not None))
        if due is not None and due <= now:
            for segment in ring.bundles[judged][1]:
                ring.judge(segment, now, lambda position: 7)
                speculation = ring.rounds[segment.request].speculation
                if speculation.urgent and not speculation.finished:
                    since.setdefault(segment.request, len(ring.bundles))
            judged += 1
    assert longest <= 3


def test_one_segment_of_prompts_goes_with_each_bundle() -> None:
    ring = Shared(guesses=likely)
    ring.begin(1)
    ring.begin(2, prompt=(1,) * 40, now=-TICK, chunk=10)
    ring.begin(3, prompt=(1,) * 40, now=-TICK, chunk=10)
    bundles = [ring.depart(at * TICK)[0] for at in (0, 1.01, 2.02, 3.2)]
    assert [each.get(2, 0) for each in bundles] == [10, 0, 10, 0]
    assert [each.get(3, 0) for each in bundles] == [0, 10, 0, 10]
    assert bundles[0][1] >= 1, "what writes goes on"


def test_while_others_write_a_prompt_comes_in_pieces_that_do_not_hold_them_up() -> None:
    curve = Curve(((1, TICK), (16, TICK), (128, 8 * TICK)))
    ring = Shared(Costs([curve] * 3), guesses=likely)
    ring.begin(1)
    ring.begin(2, prompt=(1,) * 400, now=-TICK, chunk=128)
    assert ring.depart(0.0)[0][2] == 64, "which take four ticks, and 128 take eight"
    alone = Shared(Costs([curve] * 3))
    alone.begin(2, prompt=(1,) * 400, chunk=128)
    assert alone.depart(0.0)[0][2] == 128


def test_what_comes_while_a_prompt_is_read_says_nothing_of_guesses() -> None:
    ring = Shared(guesses=likely)
    for request in (1, 2):
        ring.begin(request, tokens=4000)
    ring.begin(3, prompt=(1,) * 3000, chunk=8)
    now, judged = 0.0, 0
    for _ in range(100):
        ring.depart(now)
        now += 10 * TICK  # the ring is slow, with the prompt and with nothing else to blame
        for segment in [each for _, bundle in ring.bundles[judged:] for each in bundle]:
            ring.judge(segment, now, lambda position: 7)
        judged = len(ring.bundles)
    assert ring.rounds[3].prompt_under_way
    assert len(ring.emitted[1]) > 100
    assert ring.dispatch.payoffs.at(2).speculating


def test_of_those_that_left_together_one_tells_what_the_ring_takes() -> None:
    costs = Costs([Curve(((1, TICK),))] * 3)
    ring = Shared(costs, guesses=likely)
    seen: list[int] = []
    for request in (1, 2):
        ring.begin(request)
    ring.depart(0.0)
    for request in (1, 2):  # the first verdict of a request is of the prompt
        ring.judge(ring.bundles[0][1][request - 1], 3 * TICK, lambda position: 7)
    ring.depart(3 * TICK)
    observe = Costs.observe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Costs, "observe", lambda self, rows, *more: seen.append(rows))
        for segment in list(ring.bundles[-1][1]):
            ring.judge(segment, 6 * TICK, lambda position: 7)
    assert Costs.observe is observe
    assert seen == [sum(len(segment.ids) for segment in ring.bundles[-1][1])]


def test_a_policy_that_fails_harms_no_other() -> None:
    ring = Shared()
    for request in (1, 2):
        ring.begin(request, "plain")

    def broken(view: object) -> list[int]:
        raise ZeroDivisionError("odd")

    policy = ring.rounds[1].speculation.policy
    object.__setattr__(ring.rounds[1].speculation, "policy", _Broken(policy, broken))
    left: list[Departure] = ring.dispatch.departures(0.0)
    assert [(each.request, type(each.error)) for each in left] == [
        (1, ZeroDivisionError),
        (2, type(None)),
    ]


def test_a_policy_that_cannot_say_what_it_would_send_harms_no_other() -> None:
    ring = Shared(guesses=likely)
    for request in (1, 2):
        ring.begin(request)

    def broken(view: object) -> list[int]:
        raise ZeroDivisionError("odd")

    speculation = ring.rounds[1].speculation
    object.__setattr__(speculation, "policy", _Broken(speculation.policy, broken, "offer"))
    left = ring.dispatch.departures(0.0)
    assert [(each.request, type(each.error)) for each in left] == [
        (1, ZeroDivisionError),
        (2, type(None)),
    ]


class _Broken:
    def __init__(
        self, policy: Any, broken: Callable[[object], list[int]], method: str = "choose"
    ) -> None:
        self._policy = policy
        setattr(self, method, broken)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)


def test_a_request_that_has_ended_is_told_nothing_more() -> None:
    ring = Shared()
    ring.begin(1, tokens=1)
    ring.depart(0.0)
    ring.judge(ring.bundles[0][1][0], 3 * TICK, lambda position: 7)
    assert ring.reasons == {1: "length"}
    assert ring.dispatch.handle(ring.rounds[1], Grown(((0, ()),)), 1.0) == []
    assert ring.dispatch.departures(1.0) == []
    assert ring.dispatch.wake is None
