"""Speculation: truth under random schedules, and the exact commands for chosen events."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import VOCABULARY, Drafts, FakeRing, decode, pick, plain, target, told

from gardener.decoding.costs import Costs
from gardener.decoding.curves import Curve
from gardener.decoding.events import (
    Abort,
    Command,
    Emit,
    Finish,
    Grow,
    Grown,
    Judged,
    Moment,
    Room,
    Send,
)
from gardener.decoding.limits import Limits
from gardener.decoding.policy import POLICIES, Bounds, make
from gardener.decoding.policy.published import SEGMENT, TREE
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Guess
from gardener.errors import RemoteError
from gardener.protocol.logprobs import TokenLogprobs
from gardener.protocol.messages import Advance, Close, Open, Segment, Verdict
from gardener.protocol.sampling import GREEDY, Sampling


def right(text: Sequence[int]) -> tuple[Guess, ...]:
    return (Guess(target(text), 0.9),)


def wrong(text: Sequence[int]) -> tuple[Guess, ...]:
    return (Guess((target(text) + 1) % VOCABULARY, 0.9),)


def silent(text: Sequence[int]) -> tuple[Guess, ...]:
    return ()


def mixed(chance: random.Random) -> Drafts:
    def draft(text: Sequence[int]) -> tuple[Guess, ...]:
        tokens = chance.sample(range(VOCABULARY), chance.randint(0, 3))
        return tuple(Guess(t, chance.choice([0.2, 0.5, 1.0]) / len(tokens)) for t in tokens)

    return draft


SLOW = {"serial", "chunked", "chunked-80", "flowspec", "flowspec-80"}
"""Policies that by their nature wait for the drafter, whatever it takes."""


def costs(chance: random.Random, stages: int) -> Costs:
    """Of stages for which rows cost nothing, little or much, and of a drafter that may be slow."""
    steep = chance.choice([0.0, 0.001, 0.1])
    made = Costs([Curve(((1, 0.01), (2, 0.01 + steep)))] * stages)
    if draft := chance.choice([0.0, 0.001, 1.0]):
        made.observe_draft(1, draft)
    return made


def schedule(seed: int, policy: str) -> tuple[list[int], Limits, dict[str, Any]]:
    """A random prompt, limits, and everything about the ring and the drafters."""
    chance = random.Random(f"{policy} {seed}")
    prompt = [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 14))]
    limits = Limits(
        chance.randint(1, 16),
        len(prompt) + chance.randint(1, 20),
        frozenset(chance.sample(range(VOCABULARY), chance.choice([0, 0, 1]))),
    )
    shape = Bounds(
        rows=chance.choice([None, *range(1, 9)]),
        window=chance.choice([None, *range(1, 6)]),
        floor=chance.choice([0.01, 0.2, 0.5]),
        batch=chance.randint(1, 4),
    )
    stages, drafters = chance.randint(1, 5), chance.randint(1, 3)
    free = tuple(chance.random() < 0.5 for _ in range(drafters))
    ring = {
        "policy": make(policy, shape),
        "drafts": chance.choice([right, wrong, silent, mixed(chance)]),
        "chance": chance,
        "stages": stages,
        "overtake": chance.random(),
        "chunk": chance.randint(1, 5),
        "costs": costs(chance, stages),
        "moody": True,
    }
    if policy not in SLOW and chance.random() < 0.3:
        stuck = chance.randrange(drafters)
        ring["stuck"] = frozenset([stuck])
        free = tuple(each and number != stuck for number, each in enumerate(free))
    ring["free"] = free
    return prompt, limits, ring


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("block", range(2))
def test_every_schedule_writes_what_plain_decoding_writes(policy: str, block: int) -> None:
    for seed in range(block * 60, block * 60 + 60):
        prompt, limits, ring = schedule(seed, policy)
        done = decode(prompt, limits=limits, **ring)
        assert (done.emitted, done.reason) == plain(prompt, limits), f"seed {seed}"
        counts = done.speculation.counts
        assert counts.emitted == len(done.emitted) == counts.accepted + counts.missed
        assert counts.rows - counts.wasted == counts.emitted, "one row before each token came true"
        assert counts.rows == sum(len(sending.rows) for sending in done.sendings)
        rows_are_sound(done)
        segments_are_sound(done)


def seeing(sampling: Sampling) -> Drafts:
    """A drafter that ranks with the target's own noise."""
    return lambda text: (Guess(pick(text, sampling), 0.9), Guess(target(text), 0.1))


def opening(seed: int, prompt: Sequence[int]) -> dict[str, Any]:
    """Noise with a seed, and perhaps log probabilities and rows that are kept."""
    chance = random.Random(f"opening {seed}")
    kept = chance.randrange(len(prompt))
    return {
        "sampling": Sampling(temperature=chance.choice([0.3, 1.0, 3.0]), seed=seed),
        "logprobs": chance.choice([None, 0, 2]),
        "prefix": (7, kept) if kept else None,
    }


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("block", range(2))
def test_every_schedule_writes_with_noise_what_plain_decoding_writes_with_the_same_seed(
    policy: str, block: int
) -> None:
    for seed in range(block * 40, block * 40 + 40):
        prompt, limits, ring = schedule(seed, policy)
        opened = opening(seed, prompt)
        if seed % 3 == 0:
            ring["drafts"] = seeing(opened["sampling"])
        done = decode(prompt, limits=limits, **ring, **opened)
        wanted = plain(prompt, limits, opened["sampling"])
        assert (done.emitted, done.reason) == wanted, f"seed {seed}"
        assert done.logprobs == told_of(prompt, done.emitted, opened["logprobs"]), f"seed {seed}"
        rows_are_sound(done)
        segments_are_sound(done)


def told_of(prompt: Sequence[int], emitted: Sequence[int], best: int | None) -> list[TokenLogprobs]:
    """What the target itself says of each token that it wrote."""
    text = [*prompt, *emitted]
    rows = [] if best is None else range(len(prompt), len(text))
    return [told(text[:at], text[at], best or 0) for at in rows]


def test_another_seed_and_another_temperature_write_another_text() -> None:
    """Or else the test above would show nothing."""
    limits = Limits(40, 100)
    ways = [GREEDY, *(Sampling(temperature=t, seed=s) for t in (0.5, 1.0) for s in (1, 2))]
    assert len({tuple(plain([1], limits, way)[0]) for way in ways}) == len(ways)


def test_a_drafter_that_ranks_with_the_same_noise_is_right_more_often() -> None:
    sampling, limits = Sampling(temperature=3.0, seed=5), Limits(60, 100)
    accepted = []
    for drafts in (right, seeing(sampling)):
        policy = make("gardener", Bounds(rows=2, window=2, floor=0.1))
        done = decode([1], policy, limits, drafts, random.Random(0), sampling=sampling)
        assert done.emitted == plain([1], limits, sampling)[0]
        accepted.append(done.speculation.counts.accepted)
    assert accepted[0] < 30 < 50 < accepted[1]


def rows_are_sound(done: FakeRing) -> None:
    """Every node went out once, after its parent, and no other had its parent and its token. What
    is kept did not go out."""
    prefix = done.speculation.prefix
    seen = set(range(prefix[1] if prefix else 0))
    places: set[tuple[int, int]] = set()
    for segment in done.segments():
        for node, parent, token in zip(segment.ids, segment.parents, segment.tokens, strict=True):
            assert node not in seen, "a node was sent twice"
            assert parent == -1 or parent in seen, "a parent was not sent before its child"
            assert (parent, token) not in places, "two nodes for one parent and token"
            seen.add(node)
            places.add((parent, token))


def segments_are_sound(done: FakeRing) -> None:
    """The root led where it had not been sent, and neither the window nor a segment was too full.

    A root may leave though the window is full, but never has to: a verdict made it the root.
    """
    policy = done.speculation.policy
    # FlowSpec brings the sizes that were published: up to 64 new nodes in one segment.
    most = 81 if policy.name.endswith("-80") else policy.bounds.most  # type: ignore[attr-defined]
    for sending in done.sendings:
        assert len(sending.rows) <= most
        # FlowSpec lets all of a tree leave, once it has begun to.
        tree = TREE // SEGMENT if policy.name.startswith("flowspec") else 0
        assert sending.flying <= sending.window + tree, "the window was exceeded"
        if sending.rows and sending.urgent:
            assert sending.rows[0] == sending.root, "the root did not lead"
        else:
            assert sending.root not in sending.rows
    if policy.name not in SLOW:
        assert done.withheld == 0, "a root waited for longer than its patience"


# --- shapes: for this event, exactly these commands ------------------------------------------


ROOM = Room(overdue=True)
"""The drafters have been waited for: what is there goes out."""


def begin(
    prompt: Sequence[int] = (1, 2, 3),
    policy: str = "gardener",
    new_tokens: int = 10,
    eos: Sequence[int] = (),
    rows: int = 4,
    window: int = 2,
    chunk: int = 8,
    draft: float = 0.0,
    stages: int = 1,
    **opened: Any,
) -> Speculation:
    """`draft`: seconds of a call of the drafter; a pass of a stage takes 0.01. `opened`: what goes
    into Open."""
    shape = Bounds(rows=rows, window=window, floor=0.1, batch=2)
    limits = Limits(new_tokens, 100, frozenset(eos))
    costs = Costs.flat(stages, 0.01, draft=draft)
    moment = Moment(costs=costs)
    return Speculation(7, prompt, make(policy, shape), limits, chunk, moment=moment, **opened)


def grown(*children: tuple[int, Sequence[tuple[int, float]]]) -> Grown:
    return Grown(tuple((node, tuple(Guess(*g) for g in guesses)) for node, guesses in children))


def judged(seq: int, picks: dict[int, int], *logs: float) -> Judged:
    logprobs = tuple(TokenLogprobs(log) for log in logs)
    return Judged(Verdict(7, seq, tuple(picks), tuple(picks.values()), ()), logprobs=logprobs)


def segment(seq: int, rows: Sequence[tuple[int, int, int, int]]) -> Send:
    """Rows are (id, parent, position, token)."""
    ids, parents, positions, tokens = zip(*rows, strict=True)
    return Send(Segment(7, seq, ids, parents, positions, tokens, None, ()))


def test_the_start_opens_the_request_and_asks_the_drafter() -> None:
    assert begin().start() == [Send(Open(7, 3, 13)), Grow((2,))]


def test_how_to_pick_what_to_tell_and_what_is_kept_go_out_with_the_opening() -> None:
    sampling = Sampling(temperature=0.7, seed=3)
    decoding = begin(policy="plain", sampling=sampling, logprobs=2, prefix=(5, 1))
    assert decoding.start() == [Send(Open(7, 3, 13, sampling=sampling, logprobs=2, prefix=(5, 1)))]


def test_noise_without_a_seed_never_leaves() -> None:
    with pytest.raises(ValueError, match="noise without a seed"):
        begin(sampling=Sampling(temperature=0.7)).start()


def test_rows_that_are_kept_are_never_sent_and_the_rest_goes_as_ever() -> None:
    decoding = begin(prompt=range(10), chunk=4, stages=2, prefix=(5, 3))
    decoding.start()
    decoding.handle(grown((9, [])))
    assert decoding.prompt_read == 3
    assert decoding.handle(ROOM) == [segment(0, [(row, row - 1, row, row) for row in range(3, 7)])]
    assert decoding.handle(ROOM) == [segment(1, [(row, row - 1, row, row) for row in range(7, 10)])]
    assert decoding.handle(ROOM) == []
    assert decoding.prompt_read == 3
    decoding.handle(judged(0, {}))
    assert decoding.prompt_read == 7
    assert decoding.handle(judged(1, {9: 4})) == [Emit((4,)), Grow((10,))]
    assert decoding.prompt_read == 9
    assert decoding.handle(ROOM) == [segment(2, [(10, 9, 10, 4)]), Send(Advance(7, (9,), 10))]


def test_where_all_but_the_last_token_is_kept_the_root_goes_alone_or_with_guesses() -> None:
    decoding = begin(prefix=(5, 2))
    decoding.start()
    decoding.handle(grown((2, [(50, 0.6)])))
    decoding.handle(grown((3, [])))
    assert decoding.handle(Room()) == [segment(0, [(2, 1, 2, 3), (3, 2, 3, 50)])]
    assert (decoding.counts.prefill, decoding.counts.rows) == (0, 2)


def test_each_token_comes_with_the_log_probability_of_the_row_before_it() -> None:
    decoding = begin(prompt=(1,), logprobs=0)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.6), (8, 0.3)])))
    decoding.handle(grown((1, []), (2, [(7, 0.9)])))
    decoding.handle(ROOM)
    # Row 1 is a sibling that died with this verdict: nothing is said of it.
    picks = judged(0, {0: 8, 1: 3, 2: 4}, -1.0, -2.0, -3.0)
    emitted = Emit((8, 4), logprobs=(TokenLogprobs(-1.0), TokenLogprobs(-3.0)))
    assert decoding.handle(picks)[0] == emitted


def test_plain_never_asks_the_drafter() -> None:
    assert begin(policy="plain").start() == [Send(Open(7, 3, 13))]


def test_the_prompt_goes_with_the_root_and_what_is_drafted_already() -> None:
    decoding = begin()
    decoding.start()
    assert decoding.handle(grown((2, [(50, 0.6), (51, 0.3)]))) == [Grow((3, 4))]
    assert decoding.handle(grown((3, []), (4, []))) == []
    assert decoding.handle(Room()) == [
        segment(0, [(0, -1, 0, 1), (1, 0, 1, 2), (2, 1, 2, 3), (3, 2, 3, 50), (4, 2, 3, 51)])
    ]


def test_the_prompt_and_its_root_do_not_wait_for_the_drafter() -> None:
    decoding = begin(draft=1e-4)
    assert decoding.start() == [Send(Open(7, 3, 13)), Grow((2,))]
    first = segment(0, [(0, -1, 0, 1), (1, 0, 1, 2), (2, 1, 2, 3)])
    assert decoding.handle(Room()) == [first]


def test_a_root_waits_for_the_drafter_only_where_that_is_worth_it() -> None:
    for draft, waits in ((1e-4, True), (1.0, False)):
        decoding = begin(prompt=(1,), draft=draft)
        decoding.start()
        root = segment(0, [(0, -1, 0, 1)])
        assert decoding.handle(Room()) == ([] if waits else [root])
        decoding.handle(grown((0, [])))
        assert decoding.handle(Room()) == ([root] if waits else [])


def test_a_long_prompt_is_cut_into_chunks_of_which_some_are_under_way_at_once() -> None:
    decoding = begin(prompt=range(10), chunk=4, stages=2)
    decoding.start()
    decoding.handle(grown((9, [])))
    chunks = [[n for c in commands for n in ids(c)] for commands in rooms(decoding)]
    assert chunks == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    longer = begin(prompt=range(90), chunk=4, window=3)
    longer.start()
    under_way = len(rooms(longer))
    assert 1 < under_way < 10
    assert longer.prompt_read == 0
    longer.handle(judged(0, {}))
    assert len(rooms(longer)) == 1
    assert longer.prompt_read == 4
    longer.handle(judged(1, {}))
    assert longer.prompt_read == 8


@pytest.mark.parametrize("stages", [1, 2, 5])
def test_a_piece_of_the_prompt_is_under_way_for_each_stage_and_one_waits(stages: int) -> None:
    decoding = begin(prompt=range(90), chunk=4, stages=stages)
    decoding.start()
    assert len(rooms(decoding)) == len(decoding.flights) == stages + 1
    for seq in range(3):
        decoding.handle(judged(seq, {}))
        assert len(rooms(decoding)) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_the_last_piece_of_the_prompt_brings_the_root_while_others_are_under_way(
    policy: str,
) -> None:
    decoding = begin(prompt=range(10), chunk=4, stages=3, policy=policy)
    decoding.start()
    decoding.handle(grown((9, [])))
    chunks = [[n for c in commands for n in ids(c)] for commands in rooms(decoding)]
    assert chunks == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def rooms(decoding: Speculation) -> list[list[Command]]:
    """What `Room` brings until it brings nothing."""
    done = []
    while commands := decoding.handle(ROOM):
        done.append(commands)
    return done


def ids(command: Command) -> tuple[int, ...]:
    assert isinstance(command, Send)
    assert isinstance(command.message, Segment)
    return command.message.ids


def ready(policy: str = "gardener", **more: Any) -> Speculation:
    """A one-token prompt whose root (id 0, token 1) is under way as segment 0."""
    decoding = begin(prompt=(1,), policy=policy, **more)
    decoding.start()
    if policy != "plain":
        decoding.handle(grown((0, [])))
    decoding.handle(ROOM)
    return decoding


def test_a_miss_goes_out_alone_at_once() -> None:
    decoding = ready()
    assert decoding.handle(judged(0, {0: 9})) == [Emit((9,)), Grow((1,))]
    assert decoding.handle(ROOM) == [segment(1, [(1, 0, 1, 9)]), Send(Advance(7, (0,), 1))]


def test_a_miss_takes_free_guesses_along() -> None:
    decoding = ready()
    decoding.handle(judged(0, {0: 9}))
    decoding.handle(grown((1, [(5, 0.5), (6, 0.05)])))  # 6 is below the floor
    assert decoding.handle(ROOM)[0] == segment(1, [(1, 0, 1, 9), (2, 1, 2, 5)])


def test_a_hit_needs_no_new_row_and_only_regrows() -> None:
    decoding = begin(prompt=(1,))
    decoding.start()
    decoding.handle(grown((0, [(9, 0.8)])))
    assert decoding.handle(ROOM) == [segment(0, [(0, -1, 0, 1), (1, 0, 1, 9)])]
    assert decoding.handle(grown((1, []))) == []
    # Root and child are judged in one segment: two tokens, the second one a miss.
    assert decoding.handle(judged(0, {0: 9, 1: 4})) == [Emit((9, 4)), Grow((2,))]


def test_an_advance_goes_first_where_rows_under_way_have_died() -> None:
    decoding = begin(prompt=(1,))
    decoding.start()
    decoding.handle(grown((0, [(9, 0.8)])))
    decoding.handle(ROOM)
    assert decoding.handle(judged(0, {0: 4, 1: 6}))[:2] == [
        Emit((4,)),
        Send(Advance(7, (0,), 2)),
    ]


def test_an_advance_names_all_that_was_settled_since_the_last_one() -> None:
    decoding = begin(prompt=(1,), rows=1, window=3)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.9)])))
    decoding.handle(grown((1, [])))
    rooms(decoding)
    assert decoding.handle(judged(0, {0: 9})) == [Emit((9,))]  # nothing died, nothing to send
    decoding.handle(judged(1, {1: 4}))
    assert decoding.handle(ROOM)[1] == Send(Advance(7, (0, 1), 2))


def test_what_was_settled_is_named_once() -> None:
    """Or else an Advance would grow with the text."""
    decoding = ready("plain", new_tokens=20)
    named: list[tuple[int, ...]] = []
    for seq in range(6):
        decoding.handle(judged(seq, {seq: 9}))
        sent = [c.message for c in decoding.handle(ROOM) if isinstance(c, Send)]
        named += [message.settled for message in sent if isinstance(message, Advance)]
    assert named == [(0,), (1,), (2,), (3,), (4,), (5,)]


def test_siblings_die_everywhere_on_a_hit() -> None:
    decoding = begin(prompt=(1,), rows=2)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.5), (8, 0.4)])))
    decoding.handle(grown((1, [(7, 0.9)]), (2, [(7, 0.9)])))
    decoding.handle(ROOM)  # 0 and 1
    assert decoding.handle(ROOM) == [segment(1, [(3, 1, 2, 7), (2, 0, 1, 8)])]
    # 1 came true while 3 is under way: it lives on as its child, 2 and 4 die.
    decoding.handle(judged(0, {0: 9}))
    assert sorted(node.id for node in decoding.tree) == [1, 3]


def test_the_walk_goes_on_through_rows_judged_earlier() -> None:
    decoding = begin(prompt=(1,), rows=1, window=4)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.9)])))
    decoding.handle(grown((1, [(8, 0.9)])))
    assert [ids(c[0]) for c in rooms(decoding)] == [(0,), (1,), (2,)]
    assert decoding.handle(judged(0, {0: 9}))[0] == Emit((9,))
    assert decoding.handle(judged(1, {1: 8}))[0] == Emit((8,))
    assert decoding.handle(judged(2, {2: 5}))[0] == Emit((5,))
    assert (decoding.counts.accepted, decoding.counts.missed) == (2, 1)


def test_a_verdict_without_rows_changes_nothing() -> None:
    decoding = begin(prompt=(1,), rows=1, window=4)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.9)])))
    decoding.handle(grown((1, [])))
    rooms(decoding)
    decoding.handle(judged(0, {0: 4}))  # node 1 is dead
    assert decoding.handle(judged(1, {})) == []
    assert decoding.finished is None


@pytest.mark.parametrize("depth", range(5))
def test_a_miss_at_every_depth(depth: int) -> None:
    decoding = begin(prompt=(1,), rows=8)
    decoding.start()
    for node in range(5):
        decoding.handle(grown((node, [(10 + node, 0.95)])))
    rooms(decoding)
    picks = {node: 10 + node for node in range(6)}
    picks[depth] = 99
    commands = decoding.handle(judged(0, picks))
    assert commands[0] == Emit((*range(10, 10 + depth), 99))
    advance = Send(Advance(7, tuple(range(depth + 1)), decoding.tree.root))
    assert advance in [*commands, *decoding.handle(ROOM)]
    assert len(decoding.tree) == 1


def test_serial_waits_for_the_drafter_and_for_the_verdict() -> None:
    decoding = begin(prompt=(1,), policy="serial", rows=3)
    decoding.start()
    assert decoding.handle(Room()) == []
    assert decoding.handle(grown((0, [(9, 0.5), (8, 0.4)]))) == [Grow((1, 2))]
    assert decoding.handle(Room()) == []
    assert decoding.handle(grown((1, []), (2, []))) == []  # the best nodes have all been looked at
    assert decoding.handle(ROOM) == [segment(0, [(0, -1, 0, 1), (1, 0, 1, 9), (2, 0, 1, 8)])]
    assert decoding.handle(ROOM) == []


def test_what_a_verdict_made_the_root_goes_out_while_older_segments_are_under_way() -> None:
    decoding = begin(prompt=(1,), rows=1, window=2)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.9)])))
    decoding.handle(grown((1, [])))
    assert [ids(c[0]) for c in rooms(decoding)] == [(0,), (1,)]
    decoding.handle(judged(0, {0: 4}))  # a miss: segment 1 is in vain, but not back yet
    assert decoding.handle(ROOM)[0] == segment(2, [(2, 0, 1, 4)])
    assert [flight.seq for flight in decoding.flights] == [1, 2]


def two_sources() -> Speculation:
    """A drafter that answers at once, and one that looks again at what has become the root."""
    shape = Bounds(rows=4, window=2, floor=0.1, batch=2)
    policy = make("gardener", shape)
    return Speculation(7, (1,), policy, Limits(10, 100), 8, (False, True), (3, 4))


def test_drafters_are_asked_each_for_itself_and_the_stages_for_features() -> None:
    decoding = two_sources()
    assert decoding.start() == [Send(Open(7, 1, 11, (3, 4))), Grow((0,)), Grow((0,), 1)]
    assert decoding.handle(grown((0, [(9, 0.5)]))) == [Grow((1,))]  # the other is still at work
    late = Grown(((0, (Guess(9, 0.7), Guess(8, 0.2))),), source=1)
    assert decoding.handle(late) == [Grow((1, 2), 1)]
    scores = {node.token: node.score for node in decoding.tree}
    assert scores[9] == pytest.approx(math.log(0.25 + 0.75 * 0.7))  # half of 0.5, and what is left
    assert scores[8] == pytest.approx(math.log(0.75 * 0.2))


def test_a_drafter_with_new_features_looks_again_at_the_root_and_scores_the_branch_anew() -> None:
    decoding = two_sources()
    decoding.start()
    decoding.handle(grown())
    decoding.handle(Grown(((0, (Guess(9, 0.5),)),), 1))
    decoding.handle(Grown(((1, (Guess(5, 0.5), Guess(6, 0.3))),), 1))
    decoding.handle(Grown(((2, (Guess(4, 0.9),)),), 1))
    decoding.handle(Grown((), 1))
    decoding.handle(ROOM)
    before = {node.token: node.score for node in decoding.tree}
    emitted, *rest = decoding.handle(judged(0, {0: 9}))
    assert emitted == Emit((9,))
    assert isinstance(emitted, Emit)
    assert emitted.nodes == (decoding.tree[decoding.tree.root],)
    assert any(isinstance(each, Grow) and each.source == 1 and 1 in each.nodes for each in rest)
    decoding.handle(Grown(((1, (Guess(6, 0.8),)),), 1))
    after = {node.token: node.score for node in decoding.tree}
    assert after[6] - before[6] == pytest.approx(math.log(0.8 / 0.3))
    assert after[5] < before[5] - 5  # it is not named any more, but it may be under way
    assert after[4] - after[5] == pytest.approx(before[4] - before[5])


def test_who_named_a_token_is_counted() -> None:
    decoding = two_sources()
    decoding.start()
    decoding.handle(grown((0, [(9, 0.5)])))
    decoding.handle(Grown(((0, (Guess(9, 0.5),)),), 1))
    decoding.handle(ROOM)
    decoding.handle(judged(0, {0: 9, 1: 7}))
    assert decoding.counts.named == {0: 1, 1: 1}
    assert (decoding.counts.accepted, decoding.counts.missed) == (1, 1)


def test_guesses_that_come_too_late_are_dropped() -> None:
    decoding = begin(prompt=(1,))
    decoding.start()
    decoding.handle(ROOM)
    decoding.handle(judged(0, {0: 9}))  # the drafter is still at work on the old root
    assert decoding.handle(grown((0, [(5, 0.9)]))) == [Grow((1,))]
    assert len(decoding.tree) == 1


def test_an_end_of_sequence_is_never_sent_and_ends_the_answer() -> None:
    decoding = begin(prompt=(1,), eos=(5,))
    decoding.start()
    decoding.handle(grown((0, [(5, 0.9)])))
    assert len(decoding.tree) == 1
    decoding.handle(ROOM)
    assert decoding.handle(judged(0, {0: 5})) == [Emit((5,)), Send(Close(7)), Finish("eos")]
    assert decoding.handle(ROOM) == []


def test_nothing_after_the_last_token_is_emitted_or_counted() -> None:
    decoding = begin(prompt=(1,), new_tokens=2, rows=8)
    decoding.start()
    for node in range(4):
        decoding.handle(grown((node, [(10 + node, 0.95)])))
    sent = [ids(c[0]) for c in rooms(decoding)]
    assert sent == [(0, 1)], "rows that could only emit a third token were sent"
    assert decoding.handle(judged(0, {0: 10, 1: 11})) == [
        Emit((10, 11)),
        Send(Close(7)),
        Finish("length"),
    ]
    assert decoding.counts.emitted == 2


def test_rows_that_could_only_emit_a_token_too_many_are_not_sent_near_the_end_either() -> None:
    decoding = begin(prompt=(1,), new_tokens=4, rows=8)
    decoding.start()
    decoding.handle(grown((0, [])))
    assert [ids(c[0]) for c in rooms(decoding)] == [(0,)]
    decoding.handle(judged(0, {0: 9}))  # three more may come
    for node in range(1, 6):
        decoding.handle(grown((node, [(10 + node, 0.95)])))
    assert [ids(c[0]) for c in rooms(decoding)] == [(1, 2, 3)]


def test_tokens_are_counted_that_came_while_guessing_was_turned_off() -> None:
    decoding = ready(new_tokens=20)
    for seq, speculating in enumerate((True, False, False, False)):
        moment = Moment(costs=Costs.flat(1, 0.01), speculating=speculating)
        decoding.handle(judged(seq, {seq: 9}), moment)
        decoding.handle(grown((seq + 1, [])))
        decoding.handle(ROOM)
    assert (decoding.counts.emitted, decoding.counts.plain) == (4, 3)


def test_a_stop_string_ends_the_answer_with_its_token() -> None:
    limits = Limits(10, 100, ends=lambda token: token == 11)
    decoding = Speculation(7, (1,), make("plain", Bounds()), limits)
    decoding.start()
    decoding.handle(ROOM)
    decoding.handle(judged(0, {0: 10}))
    decoding.handle(ROOM)
    assert decoding.handle(judged(1, {1: 11}))[-1] == Finish("stop")


@pytest.mark.parametrize("reason", ["stop", "lost"])
def test_rows_that_are_under_way_at_the_end_were_in_vain(reason: str) -> None:
    limits = Limits(10, 100, ends=lambda token: token == 9)
    shape, moment = Bounds(rows=1, window=4), Moment(costs=Costs.flat(1, 0.01))
    decoding = Speculation(7, (1,), make("gardener", shape), limits, moment=moment)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.9)])))
    decoding.handle(grown((1, [(8, 0.9)])))
    assert [ids(c[0]) for c in rooms(decoding)] == [(0,), (1,), (2,)]
    decoding.handle(judged(0, {0: 9}) if reason == "stop" else Abort("lost"))
    assert decoding.finished == reason
    counts = decoding.counts
    assert (counts.rows, counts.emitted) == (3, 1 if reason == "stop" else 0)
    assert counts.wasted == counts.rows - counts.emitted


def test_the_context_ends_the_answer() -> None:
    assert (
        decode([1, 2], make("plain", Bounds()), Limits(10, 4), silent, random.Random(0)).reason
        == "context"
    )


def test_a_lost_stage_ends_the_answer_and_tells_nobody() -> None:
    decoding = ready()
    assert decoding.handle(Abort("lost")) == [Finish("lost")]
    assert decoding.handle(judged(0, {0: 1})) == []


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        (judged(1, {0: 9}), "a verdict for segment 1, but the next one due is 0"),
        (judged(0, {}), "without a pick for the root"),
    ],
)
def test_a_verdict_that_cannot_be_is_refused(event: Judged, complaint: str) -> None:
    with pytest.raises(RemoteError, match=complaint):
        ready().handle(event)


def test_a_verdict_for_a_row_that_was_not_sent_is_refused() -> None:
    decoding = begin(prompt=(1,), rows=1)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.9)])))
    decoding.handle(ROOM)
    with pytest.raises(RemoteError, match="did not carry node 1"):
        decoding.handle(judged(0, {0: 9, 1: 3}))


def test_a_verdict_for_a_row_of_another_segment_is_refused() -> None:
    decoding = begin(prompt=(1,), rows=1, window=3)
    decoding.start()
    decoding.handle(grown((0, [(9, 0.9)])))
    decoding.handle(grown((1, [])))
    assert [ids(c[0]) for c in rooms(decoding)] == [(0,), (1,)]
    with pytest.raises(RemoteError, match="segment 0 did not carry node 1"):
        decoding.handle(judged(0, {0: 9, 1: 3}))


@pytest.mark.parametrize(
    ("prompt", "new_tokens", "context"), [((), 1, 10), ((1, 2), 1, 2), ((1,), 0, 10)]
)
def test_no_room_for_an_answer(prompt: Sequence[int], new_tokens: int, context: int) -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        Speculation(1, prompt, make("plain", Bounds()), Limits(new_tokens, context))
