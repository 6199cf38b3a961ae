"""Dialling: a link to the next stage, tried again until somebody answers."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from gardener.errors import GardenerError, PeerLost
from gardener.net.address import Address, failure, parse_peer
from gardener.net.keys import Keys
from gardener.net.link import Handler, Link, Terms
from gardener.net.probe import measure_link
from gardener.net.spares import NO_SPARES, Spares, Turns
from gardener.protocol.connection import TIMES, Times
from gardener.protocol.greeting import Admit
from gardener.protocol.messages import Card

FIRST_DELAY, LAST_DELAY = 0.05, 1.0  # seconds between two attempts to connect, before jitter

NEAR_DELAY = 0.25
"""The same as `LAST_DELAY` where the other machine answers, if only to refuse: whatever is in the
way may be gone in a moment, and to ask costs next to nothing."""

ATTEMPT = 1.0
"""Seconds that an attempt gets even when patience is about to run out."""


async def dial(
    address: Address | str,
    card: Card,
    handler: Handler,
    *,
    admit: Admit,
    patience: float | None,
    waiting: Callable[[str], None],
    whom: str = "the next stage",
    nudge: asyncio.Event | None = None,
    times: Times = TIMES,
    keys: Keys | None = None,
    spares: Spares = NO_SPARES,
) -> Link:
    """Connect to `whom`, trying again for `patience` seconds (None: for ever); measure the link.

    `waiting` is told why, after every attempt that failed. Where it stays away, `spares` are asked
    to step in its place, one at a time; whoever is there first counts. Setting `nudge` ends the
    wait before the next attempt; it is cleared here. Raises PeerLost when patience runs out.
    Await it directly: an open link may end in the moment before a task that wraps this is done.
    """
    place = address if isinstance(address, Address) else parse_peer(address)
    terms = Terms(card, handler, admit, times, keys)
    loop = asyncio.get_running_loop()
    deadline = None if patience is None else loop.time() + patience
    turns, delay = Turns(spares, loop.time()), FIRST_DELAY
    while True:
        outcome = await _attempt(place, terms, deadline)
        if isinstance(outcome, Link):
            return outcome
        other = await _ask(turns, replace(terms, missed=spares.missed), deadline)
        if isinstance(other, Link):
            return other
        why = outcome.told(place) + other
        waiting(f"waiting for {whom} at {place}: {why}")
        left = float("inf") if deadline is None else deadline - loop.time()
        if left <= 0:
            raise PeerLost(f"gave up on {whom} at {place} after {patience:g} s: {why}")
        nudged = await _pause(min(delay * random.uniform(0.5, 1.0), left), nudge)
        last = NEAR_DELAY if outcome.answered else LAST_DELAY
        delay = FIRST_DELAY if nudged else min(2 * delay, last)


async def _ask(turns: Turns, terms: Terms, deadline: float | None) -> Link | str:
    """A link to one of the spares whose turn it is, or what they have said."""
    loop, said = asyncio.get_running_loop(), ""
    for spare in turns.due(loop.time()):
        outcome = await _attempt(spare, terms, deadline)
        if isinstance(outcome, Link):
            return outcome
        said += f"; the spare at {spare}: {outcome.told(spare)}"
        if turns.answered(spare, outcome.why, loop.time()):
            break
    return said


@dataclass(frozen=True)
class _Failure:
    """Why an attempt gave no link, and whether the other machine answered."""

    why: str
    answered: bool

    def told(self, place: Address) -> str:
        """Said of a peer that has been named."""
        return self.why.removeprefix(f"the peer at {place} ")


async def _attempt(place: Address, terms: Terms, deadline: float | None) -> Link | _Failure:
    """One try, until `deadline` of the loop's clock: an open link, or why there is none."""
    if deadline is not None:
        deadline = max(deadline, asyncio.get_running_loop().time() + ATTEMPT)
    try:
        async with asyncio.timeout_at(deadline):
            outcome = await _connect(place, terms)
    except TimeoutError:
        return _Failure(failure(TimeoutError()), answered=False)
    if isinstance(outcome, Link):
        outcome.adopt()
    return outcome


async def _connect(place: Address, terms: Terms) -> Link | _Failure:
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[GardenerError | None] = loop.create_future()

    def settle(error: GardenerError | None) -> None:
        if not outcome.done():
            outcome.set_result(error)

    link = Link(
        terms,
        upstream=False,
        opened=lambda _: settle(None),
        failed=lambda _, error: settle(error),
    )
    try:
        async with asyncio.timeout(terms.times.greeting):
            await loop.create_connection(lambda: link, place.host, place.port)
    except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
        return _Failure(failure(error), isinstance(error, ConnectionRefusedError))
    try:
        reason = await outcome
        if reason is None:
            await measure_link(link)
            reason = link.ended
        if reason is None:
            return link
        await link.close(str(reason))
        return _Failure(str(reason), answered=True)
    except asyncio.CancelledError:
        await link.abort("nobody waits for it any more")
        raise


async def _pause(seconds: float, nudge: asyncio.Event | None) -> bool:
    """Sleep; True if `nudge` cut the sleep short, in which case it is cleared."""
    if nudge is None:
        await asyncio.sleep(seconds)
        return False
    try:
        async with asyncio.timeout(seconds):
            await nudge.wait()
    except TimeoutError:
        return False
    nudge.clear()
    return True
