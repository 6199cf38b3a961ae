"""Who runs in a ring, who waits for a turn, and what is kept of those that have ended.

A request begins when fewer than `max_requests` run and every stage has memory for its keys and
values; what is kept of others goes first to make room. Who has waited longest is next, and nobody
overtakes: a long request is not put off for ever by short ones.
"""

from collections import deque
from collections.abc import Callable

from gardener.errors import Busy, GardenerError, our_fault
from gardener.holder.drafters import Drafts
from gardener.holder.kept import KeptPrefixes, Start
from gardener.holder.session import Session
from gardener.protocol.messages import Close, Message

MAX_WAITING = 64
"""Requests that wait for their turn."""


class Admission:
    """The sessions of one ring. `send`: into the ring."""

    def __init__(
        self, send: Callable[[Message], None], max_requests: int, max_waiting: int = MAX_WAITING
    ) -> None:
        self.max_requests, self.max_waiting = max_requests, max_waiting
        self.running: dict[int, Session] = {}  # by request
        self.waiting: deque[Session] = deque()
        self.prefixes = KeptPrefixes((), taps=False)  # until the ring stands
        self._drafts: dict[int, Drafts] = {}  # of what is kept
        self._blocked: Session | None = None  # that lacks memory, since nobody has ended
        self._suspended = False  # the ring broke
        self._send = send

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All that run or wait."""
        return (*self.running.values(), *self.waiting)

    @property
    def oldest(self) -> float | None:
        """Since when the oldest segment of all is under way."""
        flights = [flight for each in self.running.values() if (flight := each.round.oldest)]
        return min((flight.left for flight in flights), default=None)

    def check_room(self, seconds: float) -> None:
        """Raise Busy if nobody else may wait; it may be worth trying again after `seconds`."""
        alone = not self.waiting and len(self.running) < self.max_requests
        if not alone and len(self.waiting) >= self.max_waiting:
            raise Busy(len(self.running), len(self.waiting), seconds)

    def admit(self) -> None:
        """Begin the requests that have waited longest, as far as there is room."""
        if self._suspended:
            return
        while self.waiting and len(self.running) < self.max_requests:
            session = self.waiting[0]
            if session is self._blocked:
                return
            start = self._plan(session)
            if start is None:
                self._blocked = session
                return
            self.waiting.popleft()
            self.running[session.request] = session
            self._begin(session, start)

    def _plan(self, session: Session) -> Start | None:
        speculation = session.speculation
        announced = self._announced if speculation.keep else None
        return self.prefixes.plan(speculation.prompt, speculation.slots, announced)

    def _announced(self, request: int) -> int:
        return self.running[request].speculation.announced

    def _begin(self, session: Session, start: Start) -> None:
        speculation, shared = session.speculation, start.shared
        source = None
        if shared is not None:
            speculation.begin_with((shared.request, shared.rows))
            if shared.request in self.running:
                source = (self.running[shared.request].drafts, shared.tokens)
            else:
                source = (self._drafts[shared.request], shared.tokens)
        self.forget(*start.evict)
        self.prefixes.began(session.request, speculation.prompt, speculation.slots, start)
        session.begin(source)

    def ended(self, session: Session) -> None:
        """It has its last piece, and the stages were told so."""
        if session in self.waiting:
            self.waiting.remove(session)
        if self.running.pop(session.request, None) is None:
            return
        self._blocked = None
        speculation = session.speculation
        if not speculation.kept or session.error is not None:
            self.prefixes.ended(session.request)
            return
        self._drafts[session.request] = session.leave_drafts()
        tokens = [*session.prompt, *session.tokens]
        rows, slots = speculation.announced, speculation.settled_rows
        self.forget(*self.prefixes.keep(session.request, tokens, rows, slots))

    def forget(self, *requests: int) -> None:
        """Nothing is kept of these any more."""
        self._blocked = None
        for request in requests:
            drafts = self._drafts.pop(request, None)
            if drafts is not None:
                self.prefixes.evict(request)
                self._send(Close(request))
                drafts.close()

    def suspend(self) -> None:
        """The ring broke: nothing is kept of anybody, and those that run are the first to begin
        once it stands again. Stages that are still there are told to forget them."""
        self._suspended = True
        self.forget(*self.prefixes.kept)
        for session in reversed(self.running.values()):
            self._send(Close(session.request))
            session.suspend()
            self.waiting.appendleft(session)
        self.running.clear()

    @property
    def suspended(self) -> int:
        """Requests that had begun when the ring broke, and wait for it."""
        return sum(session.waited is not None for session in self.waiting)

    def resume(self, renew: Callable[[Session], None]) -> None:
        """The ring stands again, and `prefixes` are those of its stages as they are now. `renew`
        those that had begun; whoever does not fit any more ends."""
        self._blocked, prefixes = None, self.prefixes
        for session in tuple(self.waiting):
            try:
                if session.waited is not None:
                    renew(session)
                asked = session.speculation
                prefixes.check(asked.asked, asked.context - asked.asked, asked.spare)
            except Exception as error:  # one that does not fit, or a bug: the others go on
                session.fail(our_fault(error))
        self._suspended = False

    def fail(self, error: Callable[[Session], GardenerError], reason: str) -> None:
        """End all sessions because of an error."""
        for session in reversed(self.sessions):  # those that wait first, or they would begin
            session.fail(error(session), reason)

    def close(self) -> None:
        """End all sessions: they are left."""
        for session in reversed(self.sessions):  # as above
            session.close()
        for drafts in self._drafts.values():
            drafts.close()
        self._drafts.clear()
