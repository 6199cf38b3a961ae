"""Decoding against a recorded target: every verdict is read from what it wrote before.

The decoding, the policy and the drafters are the real ones; the ring is not there at all, so each
segment is verified before anything else happens. Picks of rows off the recorded text are zero:
nothing reads them.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gardener.decoding.events import (
    Command,
    Emit,
    Grow,
    Grown,
    Judged,
    Room,
    Send,
)
from gardener.decoding.limits import Limits
from gardener.decoding.policy import Policy
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Node
from gardener.draft.drafter import Draft, Drafter
from gardener.evaluation.datasets import read_conversations
from gardener.holder.prompter import Prompter
from gardener.model.loader import load_whole
from gardener.model.tensors import pack
from gardener.protocol.messages import Segment, Verdict
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor
from gardener.rings.simulate.recording import Recording, record


@dataclass
class Drafted:
    """How drafting went, without the prefill and what was emitted with it.

    growth: seconds drafting took. paths: the probability that was given to the path down to each
    row, and whether it came true. firsts: the same for the likeliest child of each true row, given
    that its parent is true.
    """

    emitted: int = 0
    verifications: int = 0
    growth: float = 0.0
    paths: list[tuple[float, bool]] = field(default_factory=list)
    firsts: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, other: "Drafted") -> None:
        self.emitted += other.emitted
        self.verifications += other.verifications
        self.growth += other.growth
        self.paths += other.paths
        self.firsts += other.firsts


class Player:
    """Plays one recording to the drafters under a policy that waits for its verdicts. The features
    of the recording are those that the drafters ask for."""

    def __init__(
        self,
        recording: Recording,
        drafters: Sequence[Drafter],
        policy: Policy,
        sampling: Sampling = GREEDY,
    ) -> None:
        self._recording, self._sampling = recording, sampling
        self._drafters = drafters
        self._drafts: list[Draft] = []
        self._taps = sum(len(drafter.taps) for drafter in drafters)
        taps = next((drafter.taps for drafter in drafters if drafter.taps), ())
        limits = Limits(len(recording.tokens) - recording.prompt, 1 << 20)
        again = tuple(bool(drafter.taps) for drafter in drafters)
        prompt = recording.tokens[: recording.prompt]
        self._decoding = Speculation(1, prompt, policy, limits, len(prompt), again, taps)
        self._true = set(range(len(prompt)))  # nodes on the recorded text
        self._queue: list[Segment] = []
        self._positions: dict[int, int] = {}  # of the rows in the segment at hand
        self.drafted = Drafted()

    def play(self) -> Drafted:
        """The whole recording."""
        decoding = self._decoding
        self._drafts = [drafter.open(decoding.prompt, self._sampling) for drafter in self._drafters]
        self._run(decoding.start())
        while not decoding.finished:
            self._run(decoding.handle(Room()))
            self._judge(self._queue.pop(0))
        return self.drafted

    def _run(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Send(Segment() as segment):
                    self._queue.append(segment)
                case Emit(_, nodes):
                    ids = [node.parent for node in nodes]
                    begin = time.perf_counter()
                    for drafter, draft in zip(self._drafters, self._drafts, strict=True):
                        draft.settle(nodes, self._features(ids) if drafter.taps else ())
                    self.drafted.growth += time.perf_counter() - begin
                case Grow(nodes, source):
                    paths = [self._decoding.tree.lineage(node) for node in nodes]
                    begin = time.perf_counter()
                    guesses = self._drafts[source].expand(paths)
                    self.drafted.growth += time.perf_counter() - begin
                    grown = tuple(zip(nodes, guesses, strict=True))
                    self._run(self._decoding.handle(Grown(grown, source)))

    def _features(self, nodes: Sequence[int]) -> list[Tensor]:
        first = self._positions[nodes[0]]
        parts = self._recording.features[first : first + len(nodes)].chunk(self._taps, -1)
        return [pack(part) for part in parts]

    def _judge(self, segment: Segment) -> None:
        text, prompt = self._recording.tokens, self._recording.prompt
        self._positions = dict(zip(segment.ids, segment.positions, strict=True))
        for node, parent, position, token in zip(
            segment.ids, segment.parents, segment.positions, segment.tokens, strict=True
        ):
            if parent in self._true and text[position] == token:
                self._true.add(node)
        if segment.positions[0] == 0 and prompt > 1:  # the prompt's features, as the holder's
            for drafter, draft in zip(self._drafters, self._drafts, strict=True):
                if drafter.taps:
                    parts = self._recording.features[: prompt - 1].chunk(self._taps, -1)
                    draft.settle((), [pack(part) for part in parts])
        judged = [node for node in segment.ids if node >= prompt - 1]
        picks = [text[self._positions[node] + 1] if node in self._true else 0 for node in judged]
        first = not self._decoding.counts.emitted
        self._listen(dict(zip(judged, picks, strict=True)))
        before = self._decoding.counts.emitted
        verdict = Verdict(1, segment.seq, tuple(judged), tuple(picks), (), ())
        self._run(self._decoding.handle(Judged(verdict)))
        if not first:
            self.drafted.verifications += 1
            self.drafted.emitted += self._decoding.counts.emitted - before

    def _listen(self, picks: dict[int, int]) -> None:
        """Note the verdicts on the rows of this tree, and on the likeliest child of each true
        node."""
        tree = self._decoding.tree
        root = tree[tree.root]
        children: dict[int, list[Node]] = {}
        for node in tree:
            if node.id != root.id:
                children.setdefault(node.parent, []).append(node)
                if node.id in picks:
                    odds = math.exp(min(node.score - root.score, 0.0))
                    self.drafted.paths.append((odds, node.id in self._true))
        for parent in picks.keys() & children.keys() & self._true:
            best = max(children[parent], key=lambda node: node.score)
            odds = math.exp(min(best.score - tree[parent].score, 0.0))
            self.drafted.firsts.append((odds, best.token == picks[parent]))


def recordings(
    folder: Path, files: Sequence[Path], most: int | None, new_tokens: int, taps: Sequence[int]
) -> dict[str, list[Recording]]:
    """What the model in `folder` writes for the first prompts of each file, greedily, float32."""
    prompter = Prompter(folder)
    whole = load_whole(folder, dtype="float32", device="cpu")
    prompts: dict[str, list[str]] = {}
    for row in read_conversations(files, most):
        prompts.setdefault(row.data, []).append(row.turns[0])
    every = [prompter.encode(text) for texts in prompts.values() for text in texts]
    made = iter(record(whole, every, new_tokens, prompter.eos, taps, lanes=64))
    return {name: [next(made) for _ in texts] for name, texts in prompts.items()}
