"""Which requests had the ring to themselves: only then is their speed the ring's."""

from collections.abc import Collection, Iterable

from gardener.runtime.trace import Record

TURNS = frozenset(("sent", "emitted"))
"""What only a request that runs does; verdicts may come after its end."""


class Sharing:
    """Fed with the trace of all requests, in order."""

    def __init__(self) -> None:
        self._turn = 0  # whose the last record was
        self._begun: set[int] = set()
        self._shared: set[int] = set()

    def read(self, records: Iterable[Record], running: Collection[int]) -> None:
        """Take note of new records, and of which requests run now. A request shares where records
        of others stand between its own."""
        for record in records:
            if record.what not in TURNS or record.request == self._turn:
                continue
            if record.request in self._begun:
                self._shared.add(record.request)
            self._turn = record.request
            self._begun.add(record.request)
        if len(running) > 1:
            self._shared.update(running)

    def alone(self, request: int) -> bool:
        """Whether it has had the ring to itself all along."""
        return request not in self._shared

    def keep(self, requests: Collection[int]) -> None:
        """Forget all but these."""
        self._begun.intersection_update(requests)
        self._shared.intersection_update(requests)
