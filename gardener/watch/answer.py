"""How an answer grows: its speed, its text and its token tree, fed record by record."""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from tokenizers import Tokenizer

from gardener.holder.detokenizer import Detokenizer
from gardener.runtime.trace import Record
from gardener.runtime.wording import harmless
from gardener.watch.rates import RateHistory
from gardener.watch.snapshot import WatchedRequest
from gardener.watch.status import ColouredText, ShownNode

LATELY = 2.0
"""Seconds over which tokens per second are counted."""

BUCKET = 0.5
"""Seconds of each bar of the sparkline of tokens per second."""

LONG = 16_000
"""Characters from which on the first half of the text is forgotten."""

SHOWN = 48
"""The most nodes of the tree that one frame shows."""

CUTTINGS = 4
"""The most pruned branches that one frame shows."""

CUTTING = 24
"""The number of characters after which the text of a pruned branch ends."""


@lru_cache(4096)
def token_text(text: str) -> str:
    """A token without the spaces around it, and with a sign for what would be invisible."""
    shown = text.replace("\r", "").replace("\n", "↵").replace("\t", "⇥")
    return harmless(shown.strip(" ") or "␣", instead="�")


class Speed:
    """Counts tokens over time."""

    def __init__(self) -> None:
        self.began: float | None = None  # monotonic seconds of the first record
        self.first: float | None = None  # and of the first token
        self.last: float | None = None  # and of the last record
        self._tokens = RateHistory(BUCKET)

    def read(self, record: Record) -> None:
        """Take note of a record."""
        if self.began is None:
            self.began = record.at
        self.last = record.at
        if record.what == "emitted":
            self.first = record.at if self.first is None else self.first
            self._tokens.add(record.at, record.rows)

    @property
    def wait(self) -> float | None:
        """Seconds until the first token."""
        return None if self.began is None or self.first is None else self.first - self.began

    def mean(self, now: float) -> float:
        """Tokens per second since the first one."""
        if self.first is None or now <= self.first:
            return 0.0
        return max(self._tokens.total - 1, 0) / (now - self.first)

    def lately(self, now: float) -> float:
        """Tokens per second over the last moments."""
        span = 0.0 if self.first is None else min(LATELY, now - self.first)
        return self.mean(now) if span < BUCKET else self._tokens.lately(now, span) / span

    def bars(self, now: float) -> tuple[float, ...]:
        """Tokens per second in each past bucket, the newest complete one last."""
        return self._tokens.bars(now)


class Transcript:
    """The text, in pieces that had been guessed and pieces that had not."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._text = Detokenizer(tokenizer, prompt)
        self._pieces: list[ColouredText] = []
        self._length = 0
        self._last = ""  # text of the last token: whether it was a miss is known right after

    def read(self, record: Record) -> None:
        """Take note of a record."""
        if record.what == "missed":
            self._flush(guessed=False)
        elif record.what == "emitted":
            for token in record.items:
                self._flush(guessed=True)
                self._last = self._text.push([token])

    def pieces(self) -> tuple[ColouredText, ...]:
        """The end of the text until now."""
        self._flush(guessed=True)
        return tuple(self._pieces)

    def _flush(self, guessed: bool) -> None:
        text, self._last = self._last, ""
        if not text:
            return
        self._length += len(text)
        if self._pieces and self._pieces[-1].guessed == guessed:
            text = self._pieces.pop().text + text
        self._pieces.append(ColouredText(text, guessed))
        if self._length > LONG:
            self._forget()

    def _forget(self) -> None:
        kept: list[ColouredText] = []
        length = 0
        while self._pieces and length < LONG // 2:
            text, guessed = self._pieces.pop()
            kept.append(ColouredText(text[-(LONG // 2) :], guessed))
            length += len(kept[-1].text)
        self._pieces, self._length = kept[::-1], length


class TreeChanges:
    """The likeliest nodes of the tree, and which of those shown last were pruned since."""

    def __init__(self, decode: Callable[[int], str]) -> None:
        self._decode = decode
        self._root = -1
        self._shown: dict[int, tuple[int, int]] = {}  # node -> its parent and token
        self._path: list[int] = []  # tokens accepted since the last frame

    def read(self, record: Record) -> None:
        """Take note of a record."""
        if record.what == "emitted":
            self._path += record.items

    def take(self, request: WatchedRequest) -> tuple[tuple[ShownNode, ...], tuple[str, ...]]:
        """The nodes, with the root first and parents before children; the texts of what died."""
        tree = request.tree
        flying = {node for flight in request.flights for node in flight.ids}
        pruned = self._pruned(request)
        best = heapq.nsmallest(SHOWN, tree, key=lambda node: (-node.score, node.id))
        top = tree[tree.root].score
        self._root, self._path = tree.root, []
        self._shown = {node.id: (node.parent, node.token) for node in best}
        return tuple(
            ShownNode(
                node.id,
                node.parent,
                self._decode(node.token),
                math.exp(node.score - top),
                "ring" if node.id in flying else "judged" if node.id in request.sent else "waiting",
            )
            for node in best
        ), pruned

    def _pruned(self, request: WatchedRequest) -> tuple[str, ...]:
        ids = {place: node for node, place in self._shown.items()}
        settled = {self._root}
        at: int | None = self._root
        for token in self._path:
            at = None if at is None else ids.get((at, token))
            if at is not None:
                settled.add(at)
        dead = {
            node: parent
            for node, (parent, _) in self._shown.items()
            if node not in request.tree and node not in settled
        }
        heads = [node for node, parent in dead.items() if parent not in dead]
        return tuple(self._cutting(head, dead) for head in heads[:CUTTINGS])

    def _cutting(self, head: int, dead: Mapping[int, int]) -> str:
        """The text of a dead branch along its likeliest nodes."""
        first: dict[int, int] = {}  # a dead node -> the likeliest of its dead children
        for node, parent in dead.items():
            first.setdefault(parent, node)
        text, at = "", head
        while len(text) < CUTTING:
            text += self._decode(self._shown[at][1])
            if at not in first:
                break
            at = first[at]
        return token_text(text)
