"""Whether speculation pays: turned off where it does not, and tried again later.

What decides is not a model but the seconds per token that were seen, with guesses and without. That
catches what no cost curve knows: a drafter that shares its processor with a stage, a text that
nobody can guess. Decoding without guesses is only tried when it might be faster, by what the stages
measured when nothing else was at work.
"""

from dataclasses import dataclass

STRETCH = 24
"""Tokens after which it is decided anew."""

LONGEST = 16
"""Stretches without guesses in a row, at most, before guesses are tried again."""

GROWTH = 2
"""By this factor the pause grows before guesses are tried again."""

SHARED_LONGEST, SHARED_GROWTH = 256, 4
"""The same where several requests write: the mean over their texts hardly changes."""

MARGIN = 0.98
"""Decoding without guesses must take less than this share of the time to be worth a change."""

RATE = 0.3
"""Weight of the newest stretch in a running average."""


@dataclass
class Payoff:
    """plain: seconds per token without guesses; an estimate until it has been tried. longest,
    growth: of the pause, in stretches, before guesses are tried again. dearer: see `Moment`.
    """

    plain: float
    longest: int = LONGEST
    growth: int = GROWTH
    speculating: bool = True
    dearer: float = 0.0
    _tried: bool = False
    _guessing: float = 0.0  # seconds per token with guesses, 0: not known
    _tokens: int = 0
    _seconds: float = 0.0
    _stretches: int = 0  # without guesses, still to come
    _pause: int = 1  # stretches without guesses the next time

    def expect(self, plain: float) -> None:
        """What decoding without guesses should take a token; of no account once it was tried."""
        if not self._tried:
            self.plain = plain

    def emitted(self, tokens: int, seconds: float) -> None:
        """This many tokens came, this many seconds after the ones before them."""
        self._tokens += tokens
        self._seconds += seconds
        if self._tokens >= STRETCH:
            self._decide(self._seconds / self._tokens)
            self._tokens, self._seconds = 0, 0.0

    def _decide(self, pace: float) -> None:
        if self.speculating:
            self._guessing = _mean(self._guessing, pace)
            if self.plain < MARGIN * self._guessing:
                self.speculating, self._stretches = False, self._pause
                self.dearer = self._guessing / self.plain
            return
        self.plain = _mean(self.plain, pace) if self._tried else pace
        self._tried = True
        self._stretches -= 1
        if self.plain >= MARGIN * self._guessing:
            self.speculating, self._pause = True, 1
        elif not self._stretches:  # guesses get another try, and each time later
            self.speculating, self._pause = True, min(self.growth * self._pause, self.longest)
            self._guessing = 0.0


def _mean(old: float, new: float) -> float:
    return new if not old else old + RATE * (new - old)
