"""The cards that peers show each other, and whether those who show them may stand in one ring.

Neighbours check each other when they connect; the holder checks the whole ring before it serves.
What cannot be checked: whether two stages hold equal weights where the fingerprint has no content
part (when a node has only its own files of a checkpoint).
"""

import re
from collections.abc import Sequence

import msgspec

from gardener.protocol.messages import SPARE, Card, microseconds
from gardener.protocol.names import as_name
from gardener.protocol.room import MOST_CONTEXT, longest_in
from gardener.runtime.wording import span

SERVED = "the ring serves somebody else at the moment"
"""The beginning of what a stage says when it refuses a holder because it has another one."""


def kv_slots(card: Card) -> int | None:
    """Slots for whose keys and values a stage has memory; None: it is not bounded."""
    return card.kv_room // card.kv_slot if card.kv_room and card.kv_slot else None


def busy(stage: int, peer: object, asker: int) -> str:
    """Why stage `stage` refuses `asker` (0: a holder): it already has `peer` before it."""
    why = f"stage {stage} already serves {peer}: wait until it has ended, or end it"
    return why if asker else f"{SERVED}: {why}"


def not_the_first(stage: int) -> str:
    """Why stage `stage` refuses a holder."""
    return f"the holder's --peer must be stage 1, but stage {stage} answers there"


def same_model(one: str, other: str) -> bool:
    """Compare two fingerprints, `structure:content`.

    The content part is empty where a node cannot see the whole checkpoint; then only the structure
    counts.
    """
    structure, _, content = one.partition(":")
    other_structure, _, other_content = other.partition(":")
    if structure != other_structure:
        return False
    return content == other_content or not content or not other_content


def with_link(
    card: Card, round_trip: float | None, bandwidth: float | None, peer: str = ""
) -> Card:
    """The card of a peer with what it has measured of its link to the next one, seconds and
    bytes/s (None: not known), and where it dialled that."""
    return msgspec.structs.replace(
        card,
        peer=as_name(peer),
        delay=microseconds((round_trip or 0.0) / 2),
        bandwidth=min(round(bandwidth or 0), 2**53),
    )


def mismatch(upstream: Card, downstream: Card) -> str | None:
    """Why `downstream` cannot follow `upstream` in a ring, in one sentence; None if it can."""
    problem = _identity(upstream, downstream)
    if problem or downstream.stage == 0 or upstream.stage == 0:
        return problem or _edge(upstream, downstream)
    if downstream.stage != upstream.stage + 1:
        return (
            f"stage {downstream.stage} cannot follow stage {upstream.stage}: give stage "
            f"{upstream.stage} the address of stage {upstream.stage + 1} as its --peer"
        )
    return _seam(upstream, downstream)


def ring_problem(cards: Sequence[Card]) -> str | None:
    """Why these stages, in the order of the ring after the holder's card `cards[0]`, cannot serve;
    or None."""
    if len(cards) < 2:
        return "the ring has no stage that holds layers"
    for upstream, downstream in zip(cards, [*cards[1:], cards[0]], strict=True):
        problem = mismatch(upstream, downstream)
        if problem:
            return problem
    return None


_AS_BEFORE = ("dtype", "quant", "head_quant", "layers", "width")
"""What stages of a ring that stands again must have as they had it, or its text would be
another one."""


def other_ring(before: Sequence[Card], now: Sequence[Card]) -> str | None:
    """Why the stages of a ring that is whole again cannot go on where these stages broke off; or
    None. Both in the order of the ring, without the holder."""
    if len(before) != len(now):
        return f"the ring has {_stages(len(now))} now, and had {len(before)}: start it as it was"
    for old, new in zip(before, now, strict=True):
        if problem := _other_stage(old, new):
            return f"stage {new.stage} came back with {problem}: start it as it was"
    return None


def _other_stage(old: Card, new: Card) -> str | None:
    if (old.first, old.end) != (new.first, new.end):
        return f"{span(new.first, new.end)}, and had {span(old.first, old.end)}"
    if not same_model(old.model, new.model):
        return "another model"
    for name in _AS_BEFORE:
        had, has = getattr(old, name), getattr(new, name)
        if had != has:
            return f"{name} {has}, and had {had}"
    if new.longest and new.longest < (old.longest or MOST_CONTEXT):
        had = old.longest or "any number of"
        return f"room for requests of {new.longest} tokens, and took {had}"
    return None


def _stages(count: int) -> str:
    return "1 stage" if count == 1 else f"{count} stages"


def memory_problem(asked: int, cards: Sequence[Card]) -> str | None:
    """Why a single request of so many tokens is too much for the memory of one of these stages."""
    rooms = [(slots, card.stage) for card in cards if (slots := kv_slots(card)) is not None]
    slots, stage = min(rooms, default=(None, 0))
    if slots is None or (fits := longest_in(slots, SPARE)) >= asked:
        return None
    less = f"ask for at most {fits}" if fits > 1 else "that is too little for any request"
    return (
        f"--context is {asked}, and stage {stage} has memory for the keys and values of {slots} "
        f"tokens, {SPARE} of them for guesses: {less}, or give the stage more (--kv-memory)"
    )


_NEAR_TIES = {"float32": 1e-4, "float16": 0.0625}
"""How far the two best scores may lie apart where another batch of the same row may tip them.

A difference in one sum, however small, rounds some of all later hidden states the other way, so
this follows from what they are rounded to. Over 300 rows of the built-in model, the gap of the two
best logits moved by up to 0.25 in bfloat16 and 0.031 in float16 with the batch: this is twice that.
"""
_COARSE = 0.5  # bfloat16, and rows in 8 bits
_FLOAT32 = 1e-5
_ROWS_AS_THEY_ARE = {"", "none", "nf4", "fp4"}
"""Kinds of quantisation that leave rows in the dtype."""


def near_tie(cards: Sequence[Card]) -> float:
    """Scores of two tokens that are closer than this are a near tie in the ring of these stages:
    which one is picked may depend on the batch. 0.0: nothing does."""
    return max((_near_tie(card) for card in cards if card.spread), default=0.0)


def _near_tie(card: Card) -> float:
    # The head counts wherever it is: it rounds what the rows of this stage have become.
    coarse = not {card.quant, card.head_quant} <= _ROWS_AS_THEY_ARE
    if coarse or card.dtype not in _NEAR_TIES:
        return _COARSE
    # In float32 the order of a sum moves some 1e-7: what moves more is not that alone.
    odd = card.dtype == "float32" and card.spread > _FLOAT32
    return _COARSE if odd else _NEAR_TIES[card.dtype]


def arithmetic(card: Card) -> str:
    """What a stage computes in, for people, with the kind of the head where it is another one and
    the head is here."""
    return _kinds(card) if card.end == card.layers else _layers(card)


def ring_arithmetic(cards: Sequence[Card]) -> str:
    """The same of a whole ring, whose stages compute alike."""
    return _kinds(cards[0])


def _layers(card: Card) -> str:
    return card.dtype if card.quant == "none" else f"{card.dtype} {card.quant}"


def _kinds(card: Card) -> str:
    if card.head_quant in ("", card.quant):
        return _layers(card)
    head = "not quantised" if card.head_quant == "none" else card.head_quant
    return f"{_layers(card)}, head {head}"


def exactness(cards: Sequence[Card], what: str = "the ring") -> str:
    """How exact these stages are, which are `what`, in one sentence for people. Before its colon it
    says that in short. The least exact one counts."""
    worst = max(cards, key=lambda card: card.spread)
    if not worst.spread:
        return f"{what} is exact: a row's numbers do not depend on what is computed beside it"
    return (
        f"near ties may differ: two scores closer than {near_tie(cards):g} may change places, for "
        f"what is computed beside a row changes it by up to {worst.spread:.0e} (stage "
        f"{worst.stage}, {_kinds(worst)})"
    )


_KINDS = (
    ("dtype", "", "--dtype"),
    ("quant", "", "--quant"),
    ("head_quant", " the head", "--quant-head"),
)
"""What two stages must compute in alike: the field, whose it is, and the option that sets it. How
the layers are shared follows from the kinds, so that these come before the seam."""

_STORED = re.compile("(int[48]-[0-9]+-(?:none|int[48]))-(.*)")
"""The fingerprint of weights that were written quantised: the kind of the layers, their group and
the kind of the head, then the fingerprint of what they were made from."""


def _identity(upstream: Card, downstream: Card) -> str | None:
    a, b = _called(upstream), _called(downstream)
    if upstream.version != downstream.version:
        return (
            f"{a} runs gardener {upstream.version} but {b} runs {downstream.version}: "
            "install the same version on both"
        )
    if not same_model(upstream.model, downstream.model) or upstream.layers != downstream.layers:
        return _another_split(upstream, downstream) or (
            f"{a} and {b} hold {_different(upstream, downstream)}: give both the same --model"
        )
    if 0 in (upstream.stage, downstream.stage):
        return None  # a holder computes nothing
    for field, part, option in _KINDS:
        mine, theirs = getattr(upstream, field), getattr(downstream, field)
        if mine != theirs:
            return f"{a} computes{part} in {mine} but {b} in {theirs}: give both the same {option}"
    return None


def _called(card: Card) -> str:
    return f"stage {card.stage}" if card.stage else "the holder"


def made_from(fingerprint: str) -> tuple[str, str]:
    """How weights were quantised when they were written ("": not at all), and the fingerprint of
    the model that they were made from."""
    found = _STORED.fullmatch(fingerprint)
    return (found[1], found[2]) if found else ("", fingerprint)


def _another_split(upstream: Card, downstream: Card) -> str | None:
    """What to say of two that have the same model, but not quantised alike when it was written;
    None: that is not what tells them apart."""
    (mine, a), (theirs, b) = made_from(upstream.model), made_from(downstream.model)
    if mine == theirs or not same_model(a, b):
        return None
    if mine and theirs:
        return (
            f"{_called(upstream)} and {_called(downstream)} have folders of different splits "
            f"({mine} and {theirs}): give both those of the same one"
        )
    stored, other = (upstream, downstream) if mine else (downstream, upstream)
    quant = (mine or theirs).partition("-")[0]
    folder = f"stage-{other.stage}/" if other.stage else "holder/"
    return (
        f"{_called(stored)} has a folder that `gardener split --quant {quant}` wrote, and "
        f"{_called(other)} the model that it was made from: give {_called(other)} the folder "
        f"{folder} of the same split"
    )


def _different(upstream: Card, downstream: Card) -> str:
    """Two models, by what tells them apart."""
    mine, theirs = (made_from(card.model)[1].partition(":") for card in (upstream, downstream))
    if upstream.layers != downstream.layers:
        return f"different models (of {upstream.layers} and {downstream.layers} layers)"
    if mine[0] != theirs[0]:
        return f"different models ({mine[0][:12]} and {theirs[0][:12]})"
    return f"different weights of one kind of model ({mine[2][:12]} and {theirs[2][:12]})"


def _edge(upstream: Card, downstream: Card) -> str | None:
    """The two seams at the holder: the first stage starts the model, the last one ends it."""
    if upstream.stage == 0 and downstream.stage != 1:
        return not_the_first(downstream.stage)
    if upstream.stage == 0 and downstream.first != 0:
        return f"stage 1 starts at layer {downstream.first}: {_missing(0, downstream.first)}"
    if downstream.stage == 0 and upstream.end != upstream.layers:
        return (
            f"stage {upstream.stage} hands over to the holder but ends at layer "
            f"{upstream.end - 1}: {_missing(upstream.end, upstream.layers)}"
        )
    return None


def _seam(upstream: Card, downstream: Card) -> str | None:
    if downstream.first > upstream.end:
        return f"{_holdings(upstream, downstream)}: {_missing(upstream.end, downstream.first)}"
    if downstream.first < upstream.end:
        return f"{_holdings(upstream, downstream)}: they overlap"
    return None


def _holdings(upstream: Card, downstream: Card) -> str:
    held = span(downstream.first, downstream.end)
    return (
        f"stage {downstream.stage} holds {held} but stage {upstream.stage} ends at "
        f"{upstream.end - 1}"
    )


def _missing(first: int, end: int) -> str:
    return f"{span(first, end)} {'is' if end - first == 1 else 'are'} missing"
