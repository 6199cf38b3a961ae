"""How the answer grows: its speed, its text, its tree. Fed from the trace, record by record."""

import heapq
import math
from collections.abc import Callable, Collection, Mapping

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from gardener.cli.view.curve import Sparkline
from gardener.cli.view.text import Piece
from gardener.cli.view.tree import State, Twig, token_text
from gardener.decoding.tree import Tree
from gardener.runtime.trace import Record

LATELY = 2.0
"""Seconds over which tokens per second are counted."""

BUCKET = 0.5
"""Seconds of each bar of the curve of tokens per second."""

LONG = 16_000
"""Characters of text that are kept for the screen; half of them stay when there are more."""

TWIGS = 48
"""Most nodes of the tree in one picture."""

CUTTINGS = 4
"""Most pruned branches in one picture."""

BRANCH = 24
"""About so many characters of a pruned branch are shown."""


class Speed:
    """Counts tokens over time."""

    def __init__(self) -> None:
        self.began: float | None = None  # monotonic seconds of the first segment
        self.first: float | None = None  # and of the first token
        self._curve = Sparkline(BUCKET)

    def read(self, record: Record) -> None:
        if self.began is None:
            self.began = record.at
        if record.what == "emitted":
            self.first = record.at if self.first is None else self.first
            self._curve.add(record.at, record.rows)

    @property
    def wait(self) -> float | None:
        """Seconds from the first segment to the first token."""
        return None if self.began is None or self.first is None else self.first - self.began

    def mean(self, now: float) -> float:
        """Tokens per second since the first one."""
        if self.first is None or now <= self.first:
            return 0.0
        return max(self._curve.total - 1, 0) / (now - self.first)

    def lately(self, now: float) -> float:
        """Tokens per second over the last moments."""
        if self.first is None:
            return 0.0
        span = min(LATELY, now - self.first)
        if span < BUCKET:
            return self.mean(now)
        return self._curve.lately(now, span) / span

    def curve(self, now: float) -> tuple[float, ...]:
        """Tokens per second in each past bucket, the newest whole one last."""
        return self._curve.bars(now)


class Transcript:
    """The text, with what had been guessed and what had not."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._pieces: list[Piece] = []
        self._length = 0
        self._last = ""  # text of the last token: whether it was a miss is known right after

    def read(self, record: Record) -> None:
        if record.what == "missed":
            self._flush(False)
        elif record.what == "emitted":
            for token in record.items:
                self._flush(True)
                self._last = self._stream.step(self._tokenizer, token) or ""

    def pieces(self) -> tuple[Piece, ...]:
        self._flush(True)
        return tuple(self._pieces)

    def _flush(self, guessed: bool) -> None:
        text, self._last = self._last, ""
        if not text:
            return
        if self._pieces and self._pieces[-1].guessed == guessed:
            text = self._pieces.pop().text + text
        self._pieces.append(Piece(text, guessed))
        self._length += len(text)
        if self._length > LONG:
            self._forget()

    def _forget(self) -> None:
        kept: list[Piece] = []
        length = 0
        while self._pieces and length < LONG // 2:
            kept.append(self._pieces.pop())
            length += len(kept[-1].text)
        self._pieces, self._length = kept[::-1], length


class Growth:
    """The likeliest nodes of the tree now, and which of those shown last were pruned since."""

    def __init__(self, decode: Callable[[int], str]) -> None:
        self._decode = decode
        self._root = -1
        self._shown: dict[int, tuple[int, int]] = {}  # node -> its parent and token
        self._path: list[int] = []  # tokens accepted since the last picture

    def read(self, record: Record) -> None:
        if record.what == "emitted":
            self._path += record.items

    def take(
        self, tree: Tree, sent: Collection[int], flying: Collection[int]
    ) -> tuple[tuple[Twig, ...], tuple[str, ...]]:
        """Twigs, the root first and parents before children; and the texts of what died."""
        pruned = self._pruned(tree)
        best = heapq.nsmallest(TWIGS, tree, key=lambda node: (-node.score, node.id))
        top = tree[tree.root].score
        twigs = []
        for node in best:
            state: State = "ring" if node.id in flying else "waiting"
            if node.id in sent and node.id not in flying:
                state = "judged"
            probability = math.exp(node.score - top)
            text = self._decode(node.token)
            twigs.append(Twig(node.id, node.parent, text, probability, state))
        self._root, self._path = tree.root, []
        self._shown = {node.id: (node.parent, node.token) for node in best}
        return tuple(twigs), pruned

    def _pruned(self, tree: Tree) -> tuple[str, ...]:
        names = {place: node for node, place in self._shown.items()}
        settled = {self._root}
        at: int | None = self._root
        for token in self._path:
            at = names.get((at, token)) if at is not None else None
            if at is not None:
                settled.add(at)
        dead = {
            node: parent
            for node, (parent, _) in self._shown.items()
            if node not in tree and node not in settled
        }
        heads = [node for node, parent in dead.items() if parent not in dead]
        return tuple(self._branch(head, dead) for head in heads[:CUTTINGS])

    def _branch(self, head: int, dead: Mapping[int, int]) -> str:
        """The text of a dead branch, along its likeliest nodes."""
        first: dict[int, int] = {}  # a dead node -> the likeliest of its dead children
        for node, parent in dead.items():
            first.setdefault(parent, node)
        text, at = "", head
        while len(text) < BRANCH:
            text += self._decode(self._shown[at][1])
            if at not in first:
                break
            at = first[at]
        return token_text(text)
