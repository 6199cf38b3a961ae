"""What to train on: the target writes the user's turns and answers them.

A chat template has fixed text around what each side says. Given only the text before the first user
turn, an instruction model goes on to write what a user would ask (Xu et al. 2024, Magpie); given
the text after it, it answers. So no data set is needed, and answers are the target's own. The
first words of a turn may be given, so that all kinds of things are asked. Or the user's turns come
from a file, and only the answers are written here.

Without a template there are no turns: the target goes on from given words. What it writes first, at
some temperature so that no two texts are the same, counts as the user's.
"""

import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from gardener.errors import UserError, reason
from gardener.model.batch_decoder import BatchDecoder, Kept

TEMPLATE, USER, ANSWER = 0, 1, 2
"""Who wrote a token."""


@dataclass(frozen=True)
class Script:
    """The fixed text of a chat template, as tokens: before the first user turn, between user turn
    and answer, between answer and next user turn. `ends`: tokens that end a turn. `openings`: first
    words of user turns, one of which begins most dialogues.

    Without a template, `opening` is what the tokenizer puts before a text, perhaps nothing, and the
    others are empty: texts begin with one of `openings`, which there must be.
    """

    opening: tuple[int, ...]
    answering: tuple[int, ...]
    asking: tuple[int, ...]
    ends: frozenset[int]
    openings: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Style:
    """How dialogues are written.

    rounds   most user turns in one; each further one is as likely as not
    asked    most tokens of a user turn
    answered most tokens of an answer
    greedy   share of answers that are written greedily, the others are sampled
    heats    lowest and highest temperature of a sampled turn
    spark    temperature of the first token of a user turn: high, so that turns begin differently
    opened   share of dialogues that begin with given words
    """

    rounds: int = 2
    asked: int = 96
    answered: int = 160
    greedy: float = 0.75
    heats: tuple[float, float] = (0.7, 1.1)
    spark: float = 2.0
    opened: float = 0.85


@dataclass
class Dialogue:
    """A text, who wrote each token, and after it was written, what is kept of the target."""

    tokens: list[int] = field(default_factory=list)
    roles: list[int] = field(default_factory=list)
    kept: Kept | None = None

    @property
    def answers(self) -> int:
        """Tokens of answers."""
        return self.roles.count(ANSWER)


def read_openings(path: Path | None) -> list[str]:
    """First words of user turns: the lines of a file, or those of the package, in which \\n stands
    for a new line. Raises UserError."""
    source = path or files("gardener.draft.train") / "openings.txt"
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--openings {path}: {reason(error)}") from error
    return [line.replace("\\n", "\n") for line in lines if line and not line.startswith("#")]


Lines: TypeAlias = Generator[tuple[int, float], int, Dialogue]
"""A dialogue in the making: yields the next token of the text and the temperature at which to draw
a token after it, and is sent what was drawn."""

DialoguePiece: TypeAlias = tuple[Dialogue, Lines]
"""A dialogue, and what makes it."""


def written(
    script: Script,
    style: Style,
    room: int,
    rng: random.Random,
    asked: Sequence[Sequence[int]] = (),
    made: Dialogue | None = None,
) -> Lines:
    """One dialogue of at most `room` tokens, whose opening but for its last token is there already.

    asked: user turns that are given, as tokens. made: what it is written into.
    """
    made = Dialogue() if made is None else made
    made.tokens += script.opening[:-1]
    made.roles += [TEMPLATE] * len(made.tokens)
    rounds = len(asked) or 1 + sum(rng.random() < 0.5 for _ in range(style.rounds - 1))
    given = script.opening[-1:]
    if not script.answering:
        yield from _continue(script, style, room, rng, asked, made)
        return made
    for turn in range(rounds):
        heat = rng.uniform(*style.heats)
        answering = script.answering
        if asked:
            yield from _recite(made, given, TEMPLATE, 0.0)
            yield from _recite(made, asked[turn], USER, 0.0)
        else:
            token = yield from _recite(made, given, TEMPLATE, style.spark)
            if turn == 0 and script.openings and rng.random() < style.opened:
                token = yield from _recite(made, rng.choice(script.openings), USER, heat)
            room_left = min(style.asked, room - len(made.tokens))
            token = yield from _improvise(
                made, token, USER, heat, script.ends, room_left, script.answering
            )
            if _hand_over(made, script.answering):
                answering = ()
        if len(made.tokens) + len(answering) >= room:
            break
        heat = 0.0 if rng.random() < style.greedy else heat
        if answering:
            token = yield from _recite(made, answering, TEMPLATE, heat)
        room_left = min(style.answered, room - len(made.tokens))
        token = yield from _improvise(made, token, ANSWER, heat, script.ends, room_left)
        ended = token in script.ends
        given = script.asking
        if not ended or len(made.tokens) + len(given) + 16 > room:
            break
    return made


def _continue(
    script: Script,
    style: Style,
    room: int,
    rng: random.Random,
    asked: Sequence[Sequence[int]],
    made: Dialogue,
) -> Generator[tuple[int, float], int, None]:
    """A text without turns: given words and what follows on them. Where `asked` gives several, the
    others follow on that in turn."""
    yield from _recite(made, script.opening[-1:], TEMPLATE, style.spark)
    for words in asked or (rng.choice(script.openings),):
        heat = rng.uniform(*style.heats)
        token = yield from _recite(made, words, USER, heat)
        if not asked:
            few = min(rng.randint(1, style.asked), (room - len(made.tokens)) // 2)
            token = yield from _improvise(made, token, USER, heat, script.ends, few)
        heat = 0.0 if rng.random() < style.greedy else heat
        most = room - len(made.tokens)
        if asked:
            most = min(most, style.answered)
        token = yield from _improvise(made, token, ANSWER, heat, script.ends, most)
        if token in script.ends or len(made.tokens) + 16 > room:
            return


def _recite(
    made: Dialogue, tokens: Sequence[int], role: int, heat: float
) -> Generator[tuple[int, float], int, int]:
    """Given text. Returns what was drawn after its end."""
    drawn = -1
    for token in tokens:
        made.tokens.append(token)
        made.roles.append(role)
        drawn = yield token, heat
    return drawn


def _improvise(
    made: Dialogue,
    token: int,
    role: int,
    heat: float,
    ends: frozenset[int],
    most: int,
    until: tuple[int, ...] = (),
) -> Generator[tuple[int, float], int, int]:
    """Text that is drawn, beginning with `token`, up to a token of `ends`, which is the template's,
    or up to the tokens `until` and with them. Returns what was drawn after it."""
    for count in range(most):
        if token in ends or (until and count >= len(until) and _ends_with(made, until)):
            return token
        made.tokens.append(token)
        made.roles.append(role)
        token = yield token, heat
    return token


def _hand_over(made: Dialogue, answering: tuple[int, ...]) -> bool:
    """Whether the user turn ends with what the template writes between it and the answer, which
    then is the template's."""
    size = len(answering)
    if not _ends_with(made, answering) or made.roles[-size:] != [USER] * size:
        return False
    made.roles[-size:] = [TEMPLATE] * size
    return True


def _ends_with(made: Dialogue, tokens: tuple[int, ...]) -> bool:
    return tuple(made.tokens[-len(tokens) :]) == tokens


class Play:
    """Dialogues on all lanes at once, one token of each at a time. There is no end to `pieces`."""

    def __init__(
        self, lanes: BatchDecoder, opening: Sequence[int], pieces: Iterator[DialoguePiece]
    ) -> None:
        self._lanes, self._pieces = lanes, pieces
        self._opening = tuple(opening[:-1])  # the same in all lanes for good
        self._fed = 0
        self._parts: list[_Part] = []

    def step(self) -> list[Dialogue]:
        """A token more of each; those that ended with it, with what is kept of them."""
        lanes = self._lanes
        if self._fed < len(self._opening):
            token, self._fed = self._opening[self._fed], self._fed + 1
            lanes.step([token] * lanes.count, [self._fed - 1] * lanes.count, [0.0] * lanes.count)
            return []
        if not self._parts:
            self._parts = [self._next() for _ in range(lanes.count)]
        drawn = lanes.step(
            [part.token for part in self._parts],
            [part.position for part in self._parts],
            [part.heat for part in self._parts],
        )
        ended = []
        for lane, part in enumerate(self._parts):
            if not part.go_on(drawn[lane]):
                part.made.kept = lanes.kept(lane, len(part.made.tokens))
                ended.append(part.made)
                self._parts[lane] = self._next()
        return ended

    def cut(self) -> list[Dialogue]:
        """Those under way, as far as they are; nothing goes on after this."""
        made = [part.cut() for part in self._parts]
        for lane, dialogue in enumerate(made):
            dialogue.kept = self._lanes.kept(lane, len(dialogue.tokens))
        self._parts = []
        return made

    @property
    def under_way(self) -> int:
        """Tokens of dialogues that have not ended."""
        return sum(part.position for part in self._parts)

    @property
    def answers(self) -> int:
        """Tokens of their answers."""
        return sum(part.made.answers for part in self._parts)

    def _next(self) -> "_Part":
        return _Part(next(self._pieces), len(self._opening))


class _Part:
    """What a lane plays now."""

    def __init__(self, piece: DialoguePiece, position: int) -> None:
        self.made, self._lines = piece
        self.position = position
        self.token, self.heat = next(self._lines)

    def go_on(self, drawn: int) -> bool:
        """Take in what was drawn; False if this was the end."""
        self.position += 1
        try:
            self.token, self.heat = self._lines.send(drawn)
        except StopIteration:
            return False
        return True

    def cut(self) -> Dialogue:
        """End it here, before its next token was fed."""
        del self.made.tokens[self.position :], self.made.roles[self.position :]
        return self.made
