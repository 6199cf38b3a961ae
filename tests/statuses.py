"""Statuses of a ring as a run might bring them, one after the other."""

import random
from collections.abc import Iterator

from gardener.decoding.limits import Counts
from gardener.watch.status import (
    AnswerFigures,
    ColouredText,
    HolderStatus,
    MovingSegment,
    RequestLine,
    ShownNode,
    StageStatus,
)

WORDS = ("Once ", "upon a time\n", "漢字", " é", "\x1b[2J", " 🌱 ")


def run(count: int, seed: int = 0, most_text: int = 2000) -> Iterator[HolderStatus]:
    """`count` statuses of a ring of two stages: it starts, and writes one answer after another.
    Where its text is longer than `most_text`, its beginning is forgotten."""
    chance = random.Random(seed)
    yield HolderStatus("starting", stages=(StageStatus(1, said="loading"), StageStatus(2)))
    text: list[ColouredText] = []
    for number in range(1, count):
        if chance.random() < 0.02:
            text = []
        for _ in range(chance.randrange(3)):
            guessed = chance.random() < 0.7
            word = chance.choice(WORDS)
            if text and text[-1].guessed == guessed:
                word = text.pop().text + word
            text.append(ColouredText(word, guessed))
        while sum(len(piece.text) for piece in text) > most_text:
            del text[0]
        yield HolderStatus(
            "answering",
            elapsed=number / 5,
            request=1,
            running=2,
            policy="gardener",
            stages=tuple(StageStatus(k, "0-9", "host", 0.004, 0.001, 0.5) for k in (1, 2)),
            segments=(MovingSegment(number, 0, 1, 3, 0, 1, chance.random(), 1),),
            round_trips=(0.001, None),
            tree=(ShownNode(0, -1, " root", 1.0, "judged"), ShownNode(1, 0, " a", 0.5, "ring")),
            text=tuple(text),
            figures=AnswerFigures(Counts(number), rate=chance.random(), rates=(1.0, 2.0)),
            others=(RequestLine(2, "writing", "plain", 9, number), RequestLine(0, "waiting")),
        )
