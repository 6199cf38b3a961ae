"""The drafters of a holder, each at its own pace.

An instant one is asked on the event loop. Any other has a thread of its own: what it is told and
asked waits there in a queue, and its answers come when they come. The ring never waits for it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ParamSpec, TypeAlias, TypeVar

from gardener.decoding.tree import Node, Opinion
from gardener.draft.drafter import Drafter
from gardener.errors import LocalError
from gardener.protocol.messages import Tensor
from gardener.runtime import clock
from gardener.runtime.worker import AnyWorker, Worker

Guesses: TypeAlias = Sequence[Opinion]
P = ParamSpec("P")
T = TypeVar("T")
Answered: TypeAlias = Callable[[int, Sequence[int], Guesses, float], None]
"""Told which drafter answered about which nodes, with what, and how many seconds it took."""


class Sources:
    """`answered` and `failed` are called on the event loop, for the request that is on."""

    def __init__(
        self,
        drafters: Sequence[Drafter],
        answered: Answered,
        failed: Callable[[LocalError], None],
        make_worker: Callable[[str], AnyWorker] = Worker,
    ) -> None:
        """`make_worker` takes a name. Raises LocalError if two drafters want features."""
        wanting = [drafter.taps for drafter in drafters if drafter.taps]
        if len(wanting) > 1:
            raise LocalError("only one drafter may ask the ring for features")
        self.taps: tuple[int, ...] = wanting[0] if wanting else ()
        self.drafters = tuple(drafters)
        self._answered, self._failed = answered, failed
        self._workers = [None if d.instant else make_worker(f"drafter {d.name}") for d in drafters]
        self._request = 0  # counts up; what was asked for an earlier one is dropped
        self._untold: list[Node] = []  # accepted tokens that instant drafters do not know of

    @property
    def again(self) -> tuple[bool, ...]:
        """Which drafters know more about a node once it is the root."""
        return tuple(bool(drafter.taps) for drafter in self.drafters)

    @property
    def instant(self) -> tuple[bool, ...]:
        """Which drafters answer at once."""
        return tuple(drafter.instant for drafter in self.drafters)

    def begin(self, prompt: Sequence[int]) -> None:
        """A new request. Raises LocalError for an instant drafter that fails, as all below do."""
        self._request += 1
        self._untold = []
        for drafter, worker in zip(self.drafters, self._workers, strict=True):
            if worker is None:
                _at_once(drafter, drafter.begin, prompt)
            else:
                self._queue(drafter, worker, partial(drafter.begin, prompt))

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        """See `Drafter.settle`; `features` for the one that wants them."""
        self._untold += nodes
        for drafter, worker in zip(self.drafters, self._workers, strict=True):
            if worker is not None and (nodes or drafter.taps):
                given = features if drafter.taps else ()
                self._queue(drafter, worker, partial(drafter.settle, tuple(nodes), given))

    def tell(self) -> None:
        """Tell the instant drafters what was accepted: before they are asked, or when there is
        time for it."""
        if self._untold:
            for drafter in self.drafters:
                if drafter.instant:
                    _at_once(drafter, drafter.settle, self._untold, ())
            self._untold = []

    def expand(self, source: int, nodes: Sequence[int], paths: Sequence[Sequence[Node]]) -> None:
        """Ask a drafter about these nodes, to each of which a path leads down from the root."""
        drafter, worker = self.drafters[source], self._workers[source]
        if worker is None:
            self.tell()
            begin = clock.now()
            guesses = _at_once(drafter, drafter.expand, paths)
            self._answered(source, nodes, guesses, clock.now() - begin)
            return
        self._queue(
            drafter,
            worker,
            partial(drafter.expand, paths),
            lambda guesses, seconds: self._answered(source, nodes, guesses, seconds),
        )

    def close(self) -> None:
        """End the threads; one that is at work ends when it is done."""
        for worker in self._workers:
            if worker is not None:
                worker.close(patience=0.0)

    def _queue(
        self,
        drafter: Drafter,
        worker: AnyWorker,
        work: Callable[[], T],
        then: Callable[[T, float], None] | None = None,
    ) -> None:
        request = self._request

        def job() -> T | None:
            return work() if request == self._request else None

        def done(outcome: T | None, error: BaseException | None, seconds: float) -> None:
            if request != self._request:
                return
            if error is not None:
                self._failed(_failure(drafter, error))
            elif then is not None:
                then(outcome, seconds)  # type: ignore[arg-type]  # T may be None itself

        worker.call(done, job)


def _at_once(drafter: Drafter, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return work(*args, **kwargs)
    except Exception as error:
        raise _failure(drafter, error) from error


def _failure(drafter: Drafter, error: BaseException) -> LocalError:
    """What to say of a drafter that failed. Whatever it raised is a fault of this process: what
    came from the ring had been checked before a drafter was given it."""
    failure = LocalError(
        f"the drafter {drafter.name} failed with {type(error).__name__} at the holder: {error}; "
        "this is a bug, please report it, and leave that drafter out meanwhile (--draft)"
    )
    failure.__cause__ = error
    return failure
