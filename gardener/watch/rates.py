"""Amounts over time, for rates over the last seconds and for sparklines."""

from collections import deque


class RateHistory:
    """Remembers what was added when, in monotonic seconds."""

    def __init__(self, bucket: float, bars: int = 60) -> None:
        """Sum the amounts in buckets of `bucket` seconds, and keep the last `bars` of them."""
        self._bucket, self._bars = bucket, bars
        self._added: deque[tuple[float, float]] = deque()
        self.total = 0.0

    def add(self, at: float, amount: float) -> None:
        """Count an amount."""
        self._added.append((at, amount))
        self.total += amount

    def lately(self, now: float, span: float) -> float:
        """The sum over the last `span` seconds."""
        return sum(amount for at, amount in self._added if at > now - span)

    def bars(self, now: float) -> tuple[float, ...]:
        """The rate per second in each past bucket, the newest complete one last.

        Buckets begin at multiples of their length, so a bar no longer changes once it is drawn.
        """
        end = int(now / self._bucket)
        while self._added and self._added[0][0] < (end - self._bars) * self._bucket:
            self._added.popleft()
        if not self._added:
            return ()
        begin = int(self._added[0][0] / self._bucket)
        bars = [0.0] * max(end - begin, 0)
        for at, amount in self._added:
            if (bucket := int(at / self._bucket) - begin) < len(bars):
                bars[bucket] += amount / self._bucket
        return tuple(bars)
