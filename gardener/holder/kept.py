"""What the stages keep of texts that were read, and for how much of them there is memory.

The holder decides all of it, and the stages obey: which request begins with the rows of which other
one, what is kept of one that has ended, and what goes to make room. Bookkeeping only: what is to be
told to whom is returned.

Every stage sets aside the same number of slots for a request, and a stage's memory is that many
slots. So one number counts for all stages, and the one with the fewest slots is the limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gardener.errors import UserError
from gardener.protocol.cards import kv_slots
from gardener.protocol.messages import Card
from gardener.protocol.room import longest_in, slots_for

Tokens: TypeAlias = NDArray[np.int64]

LEAST_ROWS = 16
"""Fewer rows than this are computed as quickly as they are copied."""

MOST_KEPT = 64
"""Requests of which something is kept at a time."""


class Shared(NamedTuple):
    """What a request has in common with an earlier one.

    rows    that the stages take from there: `Open.prefix` is (request, rows)
    tokens  that both texts begin with, as drafters are to be told: see `Drafter.open`
    """

    request: int
    rows: int
    tokens: int


class Start(NamedTuple):
    """A request can begin now: close those in `evict`, then open it with what it shares."""

    evict: tuple[int, ...]
    shared: Shared | None


@dataclass(frozen=True, slots=True)
class _Running:
    prompt: Tokens
    slots: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """Every stage has `rows` of its first tokens for certain, and no stage more than `slots`."""

    tokens: Tokens
    rows: int
    slots: int


class KeptPrefixes:
    """The requests that run in a ring and those of which something is kept. `taps`: a drafter wants
    features. `most`: how many are kept at a time."""

    def __init__(self, cards: Sequence[Card], taps: bool, most: int = MOST_KEPT) -> None:
        rooms = [(slots, c.stage) for c in cards if (slots := kv_slots(c)) is not None]
        self._room: int | None
        self._room, self._tightest = min(rooms, default=(None, 0))
        self._taps, self._most = taps, most
        self._running: dict[int, _Running] = {}
        self._kept: dict[int, _Kept] = {}  # the least recently used first

    @property
    def room(self) -> int | None:
        """Slots for which every stage has memory; None: nobody has said."""
        return self._room

    @property
    def used(self) -> int:
        """Slots that are set aside for running requests, or hold what is kept."""
        running = sum(each.slots for each in self._running.values())
        return running + sum(each.slots for each in self._kept.values())

    @property
    def kept(self) -> tuple[int, ...]:
        """The requests of which something is kept, the least recently used first."""
        return tuple(self._kept)

    # --- before a request begins -------------------------------------------------------------

    def check(self, prompt: int, new_tokens: int, spare: int) -> None:
        """Raise UserError for a request that would not fit if it were alone: so many tokens of the
        prompt, at most so many new ones, and `spare` rows of the tree."""
        if self._room is None or slots_for(prompt + new_tokens, spare) <= self._room:
            return
        fits = longest_in(self._room, spare)
        if fits > prompt:
            way_out = f"ask for at most {fits - prompt} new ones"
        elif fits > 1:
            way_out = f"prompt and answer together may have {fits}"
        else:
            way_out = "that is too little for any request"
        why = (
            f"stage {self._tightest} has memory for the keys and values of {self._room} tokens; a "
            f"prompt of {prompt}, up to {new_tokens} new ones and {spare} for guesses are too "
            f"many: {way_out}"
        )
        raise UserError(f"{why}, or give the stage more (--kv-memory)", why)

    def plan(
        self, prompt: Sequence[int], slots: int, announced: Callable[[int], int] | None
    ) -> Start | None:
        """How a request that needs so many slots can begin now; None: it has to wait until one that
        runs has ended. `announced`: of a running request, see `Speculation.announced`; None: it is
        to share nothing."""
        shared = None if announced is None else self.longest(prompt, announced)
        for chosen in (shared, None) if shared else (None,):
            evict = self._evictions(slots, None if chosen is None else chosen.request)
            if evict is not None:
                return Start(evict, chosen)
        return None

    def longest(self, prompt: Sequence[int], announced: Callable[[int], int]) -> Shared | None:
        """The most that this prompt has in common with a request that is kept, or with the prompt
        of one that runs; None: too little to be worth it."""
        wanted = np.array(prompt, np.int64)
        best: Shared | None = None
        for request, kept in self._kept.items():
            best = self._better(best, wanted, request, kept.tokens, kept.rows)
        for request, running in self._running.items():
            best = self._better(best, wanted, request, running.prompt, announced(request))
        return best

    def _better(
        self, best: Shared | None, wanted: Tokens, request: int, tokens: Tokens, rows: int
    ) -> Shared | None:
        """The better one of `best` and what there is at this request."""
        # A drafter that wants features has rows of what the ring computed of the token before.
        ahead = int(self._taps)
        rows = min(rows, _common(wanted, tokens) - ahead, len(wanted) - 1)
        if rows < LEAST_ROWS or (best is not None and rows < best.rows):
            return best
        return Shared(request, rows, rows + ahead)

    def _evictions(self, slots: int, spared: int | None) -> tuple[int, ...] | None:
        """Which kept requests have to go so that there are so many slots; None: that is not enough.
        One of them may be spared."""
        if self._room is None:
            return ()
        missing, evict = self.used + slots - self._room, []
        for request, kept in self._kept.items():
            if missing <= 0:
                break
            if request != spared:
                evict.append(request)
                missing -= kept.slots
        return tuple(evict) if missing <= 0 else None

    # --- what becomes of it ------------------------------------------------------------------

    def began(self, request: int, prompt: Sequence[int], slots: int, start: Start) -> None:
        """It was opened as planned: those in `start.evict` are closed."""
        for each in start.evict:
            self.evict(each)
        if start.shared is not None:
            self.touch(start.shared.request)
        self._running[request] = _Running(np.array(prompt, np.int64), slots)

    def ended(self, request: int) -> None:
        """It was closed for good."""
        self._running.pop(request, None)

    def keep(self, request: int, tokens: Sequence[int], rows: int, slots: int) -> tuple[int, ...]:
        """It has ended, and the stages keep its certain rows. Returns the requests that are to be
        closed now for good, for nothing is gained by them any more; it may be one of them.

        tokens  of the whole text
        rows    that all stages have for certain, see `Speculation.announced`
        slots   that hold them, at most, see `Speculation.settled_rows`
        """
        del self._running[request]
        new = _Kept(np.array(tokens, np.int64), rows, slots)
        if rows < LEAST_ROWS or any(_covers(each, new) for each in self._kept.values()):
            return (request,)
        closed = [each for each, kept in self._kept.items() if _covers(new, kept)]
        self._kept[request] = new
        left = [each for each in self._kept if each not in closed]
        closed += left[: max(len(left) - self._most, 0)]
        for each in closed:
            self.evict(each)
        return tuple(closed)

    def touch(self, request: int) -> None:
        """It was used just now."""
        if request in self._kept:
            self._kept[request] = self._kept.pop(request)

    def evict(self, request: int) -> None:
        """What was kept of it is closed."""
        self._kept.pop(request, None)


def _common(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length


def _covers(one: _Kept, other: _Kept) -> bool:
    """Whether whatever begins with `other` can as well begin with `one`."""
    return one.rows >= other.rows and _common(one.tokens, other.tokens) == len(other.tokens)
