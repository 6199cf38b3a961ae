"""The lives of a request: each loss of the ring ends one, and the next one has another number."""

from collections.abc import Sequence
from copy import deepcopy

from gardener.decoding.renewal import renewed
from gardener.decoding.speculation import Speculation

MOST_FRUITLESS = 5
"""So often the ring may break one time after the other without another token of an answer: then
this request may be what breaks it, and ends."""


class Lives:
    """Of one request.

    requests   all numbers that it had in the ring
    suspended  the ring broke: no stage knows of it any more
    fruitless  how often it broke since there was a token of the answer
    """

    def __init__(self, speculation: Speculation) -> None:
        self.requests = [speculation.request]
        self.suspended = False
        self.fruitless = 0
        self._policy = deepcopy(speculation.policy)  # as it was before it saw anything
        self._written = -1  # tokens of the answer at the last loss

    def suspend(self, written: int) -> None:
        """The ring broke, with so many tokens of the answer."""
        self.suspended = True
        self.fruitless = self.fruitless + 1 if written == self._written else 1
        self._written = written

    def renew(self, speculation: Speculation, request: int, answer: Sequence[int]) -> Speculation:
        """The ring stands again: the same request under this number, with the answer so far."""
        self.suspended = False
        self.requests.append(request)
        return renewed(speculation, request, answer, deepcopy(self._policy))
