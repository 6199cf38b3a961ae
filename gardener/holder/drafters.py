"""The drafters of a holder, and what they draft for each request.

An instant drafter is called on the event loop and answers at once. Any other has a thread of its
own, where the calls of all requests wait in one queue; its answers come when they come. The ring
never waits for it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from gardener.decoding.tree import Node, Opinion
from gardener.draft.drafter import Draft, Drafter
from gardener.draft.factory import names
from gardener.errors import LocalError
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor
from gardener.runtime.worker import AnyWorker, Worker

T = TypeVar("T")

Guesses: TypeAlias = Sequence[Opinion]
"""What a drafter says, one opinion for each node that it was asked about."""

OnAnswer: TypeAlias = Callable[[int, Sequence[int], Guesses, float], None]
"""Told which drafter answered about which nodes, with what, and how many seconds it took."""

OnFailure: TypeAlias = Callable[[LocalError], None]
"""Told what went wrong in a drafter, by its name."""


class Drafters:
    """The drafters of a holder, numbered in their order, and the threads of those that take time.

    taps     features that the one that needs any wants from the ring
    again    which drafters know more about a node once it is the root
    instant  which drafters answer at once
    names    for people
    all      in their order
    """

    def __init__(
        self, drafters: Sequence[Drafter], make_worker: Callable[[str], AnyWorker] = Worker
    ) -> None:
        """`make_worker` takes a name. Raises LocalError if two drafters want features."""
        wanting = [drafter.taps for drafter in drafters if drafter.taps]
        if len(wanting) > 1:
            raise LocalError("only one drafter may ask the ring for features")
        self.taps: tuple[int, ...] = wanting[0] if wanting else ()
        self.again = tuple(bool(drafter.taps) for drafter in drafters)
        self.instant = tuple(drafter.instant for drafter in drafters)
        self.names = names(drafters)
        self.all = tuple(drafters)
        self._workers = [None if d.instant else make_worker(f"drafter {d.name}") for d in drafters]

    def open(
        self,
        prompt: Sequence[int],
        answered: OnAnswer,
        failed: OnFailure,
        *,
        sampling: Sampling = GREEDY,
        source: "tuple[Drafts, int] | None" = None,
    ) -> "Drafts":
        """Drafts for a request with this prompt, beside those that are open.

        `answered` and `failed` are called on the event loop, for drafters that are not instant,
        until the drafts are closed. Raises LocalError for an instant drafter that fails.

        source: other drafts, and how many tokens both texts begin with; see `Drafter.open`. Needed
        wherever the stages begin with rows of another request, even if its drafts are closed.
        """
        opened: list[_InstantDraft | _QueuedDraft] = []
        drafts = Drafts(opened)
        pairs = zip(self.all, self._workers, strict=True)
        try:
            for number, (drafter, worker) in enumerate(pairs):
                shared = None if source is None else (source[0].of(drafter), source[1])
                begin = partial(drafter.open, tuple(prompt), sampling)
                if worker is None:
                    opened.append(_InstantDraft(drafter, begin, shared))
                else:
                    tell = partial(answered, number)
                    opened.append(_QueuedDraft(drafter, worker, begin, tell, failed, shared))
        except LocalError:
            drafts.close()
            raise
        return drafts

    def close(self) -> None:
        """End the threads; one that is at work ends when it is done."""
        for worker in self._workers:
            if worker is not None:
                worker.close(patience=0.0)


class Drafts:
    """What the drafters draft for one request."""

    def __init__(self, drafts: Sequence["_InstantDraft | _QueuedDraft"]) -> None:
        """See `Drafters.open`."""
        self._drafts = drafts
        self._closed = False

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        """See `Draft.settle`. `features` are for the drafter that wants them. Instant drafters
        learn of it when they are asked next, or with `tell`."""
        for draft in self._drafts:
            draft.settle(nodes, features)

    def tell(self) -> None:
        """Tell the instant drafters what was accepted, now that there is time for it. Raises
        LocalError for one that fails."""
        for draft in self._drafts:
            if isinstance(draft, _InstantDraft):
                draft.tell()

    def expand(
        self, source: int, nodes: Sequence[int], paths: Sequence[Sequence[Node]]
    ) -> Guesses | None:
        """Ask a drafter about these nodes, to each of which a path leads down from the root.

        An instant drafter's guesses are returned; it knows by then what was accepted. Any other
        answers later: None. Raises LocalError for an instant drafter that fails.
        """
        if self._closed:
            return None
        draft = self._drafts[source]
        if isinstance(draft, _InstantDraft):
            self.tell()
        return draft.expand(nodes, paths)

    def of(self, drafter: Drafter) -> "_InstantDraft | _QueuedDraft | None":
        """That of this drafter, if there is one."""
        return next((draft for draft in self._drafts if draft.drafter is drafter), None)

    def keep(self) -> None:
        """The request is over, and others may begin with its text: nothing is guessed or answered
        any more, until it is closed."""
        for draft in self._drafts:
            draft.keep()

    def end(self) -> None:
        """The answer is complete: what the drafts were told goes on to be learned from, then what
        they held is freed. Whatever is told or asked later is ignored."""
        for draft in self._drafts:
            draft.end()
        self._drafts, self._closed = (), True

    def close(self) -> None:
        """The request is over: what waits in a queue and answers that are on their way are dropped,
        and what the drafts held is freed. Whatever is told or asked later is ignored."""
        for draft in self._drafts:
            draft.close()
        self._drafts, self._closed = (), True


class _InstantDraft:
    """A draft of an instant drafter, called on the event loop."""

    def __init__(self, drafter: Drafter, begin: "_Begin", shared: "_Shared | None") -> None:
        self.drafter = drafter
        source = None
        if shared is not None:
            theirs, tokens = shared
            source = (theirs.told() if isinstance(theirs, _InstantDraft) else None, tokens)
        self._draft = self._at_once(partial(begin, source=source))
        self._untold: list[Node] = []  # accepted tokens that it does not know of

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        self._untold += nodes

    def tell(self) -> None:
        untold, self._untold = self._untold, []  # it is told once, even if it fails
        if untold:
            self._at_once(partial(self._draft.settle, untold, ()))

    def expand(self, nodes: Sequence[int], paths: Sequence[Sequence[Node]]) -> Guesses:
        return self._at_once(partial(self._draft.expand, paths))

    def told(self) -> Draft:
        """The draft, which knows of all that was accepted."""
        self.tell()
        return self._draft

    def keep(self) -> None:
        """Nothing is under way."""

    def end(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is under way."""

    def _at_once(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:
            raise _failure(self.drafter, error) from error


class _QueuedDraft:
    """A draft of a drafter that takes time: it is opened, told and asked on a thread.

    While it is lent to others, which are to be opened from it in their turn, it is not closed: what
    was queued before is done first.
    """

    def __init__(
        self,
        drafter: Drafter,
        worker: AnyWorker,
        begin: Callable[[], Draft],
        answered: Callable[[Sequence[int], Guesses, float], None],
        failed: OnFailure,
        shared: "_Shared | None",
    ) -> None:
        self.drafter, self._worker = drafter, worker
        self._answered, self._failed = answered, failed
        self._kept = self._leaving = self._closed = False
        self._lent = 0
        self._draft: Draft | None = None  # set, and used, on the thread; none if it failed to open
        self._sound = True  # nothing has failed, so what it holds is right; set on the thread
        self._begin(begin, shared)

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        taps = self.drafter.taps
        if nodes or taps:
            self._queue(partial(self._settle, tuple(nodes), features if taps else ()))

    def expand(self, nodes: Sequence[int], paths: Sequence[Sequence[Node]]) -> None:
        self._queue(partial(self._expand, paths), partial(self._answer, nodes))

    def keep(self) -> None:
        self._kept = True

    def end(self) -> None:
        self._queue(lambda: None, lambda *_: self.close())

    def close(self) -> None:
        self._kept = self._leaving = True
        if not self._lent:
            self._closed = True
            self._draft = None

    def _begin(self, begin: "_Begin", shared: "_Shared | None") -> None:
        """Open the draft on the thread, from another one if `shared` says so."""
        if shared is None:
            self._queue(partial(self._open, begin))
            return
        theirs, tokens = shared
        if isinstance(theirs, _QueuedDraft):
            theirs._lent += 1
            self._queue(
                lambda: self._open(begin, source=(theirs._whole, tokens)), always=theirs._returned
            )
        else:
            self._queue(lambda: self._open(begin, source=(None, tokens)))

    @property
    def _whole(self) -> Draft | None:
        """The draft, if others may begin with it. For the thread."""
        return self._draft if self._sound else None

    def _returned(self) -> None:
        """One that was to be opened from this one is, or has ended before."""
        self._lent -= 1
        if self._leaving:
            self.close()

    def _open(self, begin: "_Begin", source: tuple[Draft | None, int] | None = None) -> None:
        self._draft = begin(source=source)
        if self._closed:  # in the meantime
            self._draft = None

    def _settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        if (draft := self._draft) is not None:
            draft.settle(nodes, features)

    def _expand(self, paths: Sequence[Sequence[Node]]) -> Guesses | None:
        draft = None if self._kept else self._draft
        return None if draft is None else draft.expand(paths)

    def _answer(self, nodes: Sequence[int], guesses: Guesses | None, seconds: float) -> None:
        if guesses is not None and not self._kept:
            self._answered(nodes, guesses, seconds)

    def _queue(
        self,
        work: Callable[[], T],
        then: Callable[[T | None, float], None] | None = None,
        always: Callable[[], None] = lambda: None,
    ) -> None:
        """Do this on the thread in its turn, then `then` on the event loop with what came of it;
        neither if the draft is closed by then. `always` is called there in any case."""

        def job() -> T | None:
            try:
                return None if self._closed else work()
            except BaseException:
                self._sound = False
                raise

        def done(outcome: T | None, error: BaseException | None, seconds: float) -> None:
            always()
            if self._closed:
                return
            if error is not None:
                if not self._leaving:
                    self._failed(_failure(self.drafter, error))
            elif then is not None:
                then(outcome, seconds)

        self._worker.call(done, job)


_Begin: TypeAlias = Callable[..., Draft]
"""Opens a draft, given what it begins with: `source`, see `Drafter.open`."""

_Shared: TypeAlias = tuple[_InstantDraft | _QueuedDraft | None, int]
"""What to open from, and how many tokens both texts begin with."""


def _failure(drafter: Drafter, error: BaseException) -> LocalError:
    """What to say of a drafter that failed. It is a fault of this process: what came from the ring
    was checked before the drafter got it."""
    failure = LocalError(
        f"the drafter {drafter.name} failed with {type(error).__name__} at the holder: {error}; "
        "this is a bug, please report it, and leave that drafter out meanwhile (--draft)"
    )
    failure.__cause__ = error
    return failure
