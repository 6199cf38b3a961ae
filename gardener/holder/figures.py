"""What one answer cost: the record that every command, report and benchmark reads."""

from dataclasses import asdict, dataclass, field
from typing import Any

from gardener.decoding.limits import Counts
from gardener.decoding.stage_times import StageTimes
from gardener.holder.rates import decoding_rate


@dataclass(slots=True)
class Figures:
    """Times are in seconds and begin when the prompt was given to the holder.

    policy       the name of the policy that ran
    tokens       how many were emitted
    first_token  the time until the first emission
    decode       the time from the first emission to the last one
    """

    policy: str
    prompt_tokens: int
    tokens: int = 0
    first_token: float = 0.0
    decode: float = 0.0
    counts: Counts = field(default_factory=Counts)
    stage_times: StageTimes = field(default_factory=StageTimes)

    def emitted(self, tokens: int, seconds: float) -> None:
        """Note that more tokens were emitted, and when."""
        if not self.tokens:
            self.first_token = seconds
        self.tokens += tokens
        self.decode = seconds - self.first_token

    @property
    def total(self) -> float:
        """The time until the last emission."""
        return self.first_token + self.decode

    def rate(self, prefill: float) -> float | None:
        """Tokens per second of decoding, where all answers to the prompt are taken to begin it
        after `prefill` seconds. None if there is no token but the first."""
        return decoding_rate(self.tokens, self.total, prefill)

    @property
    def own_rate(self) -> float:
        """Tokens per second after this answer's own first token; 0 for one token.

        It flatters a policy that had rows under way when the first token came: to compare answers,
        use `rate` with one prefill for all of them, or `end_to_end`.
        """
        return self.rate(self.first_token) or 0.0

    @property
    def end_to_end(self) -> float:
        """Tokens per second, the computation of the prompt included."""
        return self.tokens / self.total if self.total > 0 else 0.0

    @property
    def tokens_per_segment(self) -> float:
        """Tokens emitted per segment with rows of the tree."""
        return self.tokens / max(self.counts.segments, 1)

    @property
    def rows_per_segment(self) -> float:
        """Rows of the tree per segment that has any."""
        return self.counts.rows / max(self.counts.segments, 1)

    @property
    def tick(self) -> float:
        """Seconds of decoding per segment whose verdict came after the first token."""
        return self.decode / max(self.stage_times.segments, 1)

    def statistics(self) -> dict[str, Any]:
        """The figures that need no common prefill, for a report in JSON."""
        times = self.stage_times
        return {
            "tokens": self.tokens,
            "end_to_end": self.end_to_end,
            "tokens_per_segment": self.tokens_per_segment,
            "rows_per_segment": self.rows_per_segment,
            "seconds": {
                "total": self.total,
                "first_token": self.first_token,
                "decode": self.decode,
            },
            "counts": asdict(self.counts),
            "flight_seconds": times.flight,
            "stages": [
                {"wait_seconds": wait, "compute_seconds": compute}
                for wait, compute in zip(times.wait, times.compute, strict=True)
            ],
        }
