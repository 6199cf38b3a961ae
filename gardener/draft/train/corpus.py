"""The dialogues of a run: written a chunk at a time, kept on disk, and read again for replay."""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import TypeAlias

from gardener.draft.train import chunks
from gardener.draft.train.chunks import Text
from gardener.draft.train.dialogue import Dialogue, DialoguePiece, Play, Script, Style, written
from gardener.draft.train.hours import Hours, Stopped
from gardener.draft.train.plan import Plan
from gardener.errors import UserError
from gardener.model.batch_decoder import BatchDecoder
from gardener.model.loader import Whole

ALL = 99_999
"""No chunk has a higher number."""

HELD_OUT = "held-out.safetensors"

BEGUN = "begun.safetensors"
"""Dialogues of a session that was interrupted before there were enough for a chunk."""

SECONDS = "seconds"
"""What was worked by then, in all sessions."""

FRESH = 0.97
"""Share of the time in which dialogues are written. The last steps are small ones: for these, what
there is will do."""

FIRST = 0.45
"""Share of the time by which the first dialogues are written, enough or not."""

AGAIN = 0.4
"""Share of what is left of the time that another chunk may take to be written."""

LATEST = 0.8
"""Share of the time after which dialogues without answers are not waited for."""

ANSWERS = 256
"""Tokens of answers for which the first dialogues are waited for, beyond their time."""

Count: TypeAlias = Callable[[int], None]


class Corpus:
    """The chunks in a folder.

    asked: user turns of given dialogues, as tokens; empty where the target writes them itself.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        whole: Whole,
        script: Script,
        fingerprint: str,
        taps: Sequence[int],
        asked: Sequence[Sequence[Sequence[int]]] = (),
        hours: Hours | None = None,
    ) -> None:
        self.hours = hours or Hours(plan.hours)
        self._folder, self._plan, self._whole = folder, plan, whole
        self._script, self._asked = script, asked
        self._taps = tuple(taps)
        around = repr((script.opening, script.answering, script.asking))
        self._facts = {
            "model": fingerprint,
            "taps": " ".join(map(str, taps)),
            "template": hashlib.sha256(around.encode()).hexdigest()[:16],
        }
        self._play: Play | None = None
        self._pace: float | None = None  # tokens a second, as far as it is known
        self._read: dict[Path, list[Text]] = {}
        self._random = random.Random(plan.seed)

    def chunks(self) -> list[Path]:
        """What is there, the oldest first."""
        return sorted(self._folder.glob("chunk-*.safetensors"))

    def chunk(self, index: int, say: Count) -> list[Text]:
        """Chunk `index`; written first if it is not there. `say` is told how many tokens are.

        Nothing where there is no time for it. Raises UserError where the time is too short for
        anything, Stopped if the user has had enough.
        """
        path = self._path(index)
        if not path.exists():
            self._write(index, say)
            for old in self.chunks()[: -self._plan.keep]:
                self._read.pop(old, None)
                old.unlink()
        return self._texts(path) if path.exists() else []

    def held_out(self, say: Count) -> list[Text]:
        """Dialogues that are never trained on. Raises what `chunk` raises."""
        path = self._folder / HELD_OUT
        if not path.exists():
            self._write(None if self.chunks() else 0, say)
        return self._load(path)

    def worthwhile(self, index: int) -> bool:
        """Whether chunk `index` is there, or there is time to write it and to learn from it."""
        if self._path(index).exists() or not self.chunks():
            return True
        if self.hours.share >= FRESH or self._pace is None:
            return self.hours.share < FRESH
        left = self.hours.part(FRESH - self.hours.share)
        return self._plan.chunk / self._pace <= AGAIN * left

    def seconds(self) -> float:
        """What an interrupted session had worked by then, with all before it."""
        path = self._folder / BEGUN
        return float(chunks.facts_of(path).get(SECONDS, 0.0)) if path.exists() else 0.0

    def replay(self, before: int, tokens: int) -> list[Text]:
        """Random dialogues from chunks older than `before`, about `tokens` tokens in all."""
        paths = [p for p in self.chunks() if p.stem < f"chunk-{before:05d}"]
        found: list[Text] = []
        size = 0
        while paths and size < tokens:
            found.append(self._random.choice(self._texts(self._random.choice(paths))))
            size += len(found[-1].tokens)
        return found

    def _texts(self, path: Path) -> list[Text]:
        if path not in self._read:
            self._read[path] = self._load(path)
        return self._read[path]

    def _load(self, path: Path) -> list[Text]:
        """In what the model computes in now: it may have been something else before."""
        dtype = self._whole.head.dtype
        texts = chunks.read(path, self._facts)
        return [text._replace(features=text.features.to(dtype)) for text in texts]

    def _path(self, index: int) -> Path:
        return self._folder / f"chunk-{index:05d}.safetensors"

    def _write(self, index: int | None, say: Count) -> None:
        """A chunk, and the dialogues held out if they are not there. They are dealt out at random:
        the short ones end first, and there may be no time for the others."""
        sizes = {} if index is None else {self._path(index): self._plan.chunk}
        first = not (self._folder / HELD_OUT).exists()
        if first:
            sizes[self._folder / HELD_OUT] = self._plan.chunk // 2
        share = self.hours.share
        end = FIRST if first else share + AGAIN * (FRESH - share)
        made = self._written(sum(sizes.values()), end, index or 0, say)
        if len(made) < len(sizes):
            self._keep(made)
            if first:
                raise self._too_short(made)
            return
        self._random.shuffle(made)
        for path, part in _dealt(made, sizes):
            chunks.write(path, part, self._facts)
        (self._folder / BEGUN).unlink(missing_ok=True)

    def _written(self, tokens: int, end: float, index: int, say: Count) -> list[Dialogue]:
        """Dialogues with answers, `tokens` tokens in all, or what there is when the share `end` of
        the time is over. What an earlier session has begun comes first. Raises Stopped."""
        made = self._begun()
        play = self._play = self._play or self._new_play(index, len(made))
        began, before = self.hours.seconds, sum(len(each.tokens) for each in made)
        size = before
        try:
            while size < tokens and not self._over(end, made, play):
                self.hours.check()
                ended = play.step()
                made += ended
                size += sum(len(each.tokens) for each in ended)
                say(size + play.under_way)
            if size < tokens:
                made += self._cut()
        except Stopped:
            self._keep(made + self._cut())
            raise
        written = sum(len(each.tokens) for each in made) - before
        self._pace = written / max(self.hours.seconds - began, 1e-3)
        return [each for each in made if each.answers]

    def _over(self, end: float, made: Sequence[Dialogue], play: Play) -> bool:
        """Whether the time for writing is over. It is longer where there are no answers yet."""
        share = self.hours.share
        if share < end or share >= LATEST:
            return share >= end
        return sum(each.answers for each in made) + play.answers >= ANSWERS

    def _cut(self) -> list[Dialogue]:
        """All that is under way."""
        play, self._play = self._play, None
        return play.cut() if play is not None else []

    def _begun(self) -> list[Dialogue]:
        """What an earlier session has written for the chunk that comes next."""
        path = self._folder / BEGUN
        return chunks.dialogues(self._load(path)) if path.exists() else []

    def _keep(self, made: Sequence[Dialogue]) -> None:
        """For the next session: dialogues with answers, and how long it took."""
        useful = [each for each in made if each.answers]
        facts = self._facts | {SECONDS: f"{self.hours.seconds:.1f}"}
        if useful:
            chunks.write(self._folder / BEGUN, useful, facts)

    def _too_short(self, made: Sequence[Dialogue]) -> UserError:
        tokens = sum(len(each.tokens) for each in made)
        return UserError(
            f"{self._plan.hours:g} hours are too short for this model here: in "
            f"{self.hours.seconds:.0f} s it wrote {tokens:,} tokens of dialogues with answers, too "
            f"few to learn from and to test on: give --hours {4 * self._plan.hours:g} or more"
        )

    def _new_play(self, index: int, begun: int) -> Play:
        """Dialogues without end; another `index`, or more that was begun, brings others."""
        plan = self._plan
        seed = plan.seed * 1_000_003 + 7919 * begun + index
        lanes = BatchDecoder(self._whole, plan.lanes_now, plan.room, self._taps, seed)
        return Play(lanes, self._script.opening, self._pieces(random.Random(seed)))

    def _pieces(self, rng: random.Random) -> Iterator[DialoguePiece]:
        style = Style(rounds=self._plan.rounds)
        given = cycle(rng.sample(self._asked, len(self._asked))) if self._asked else None
        for _ in count():
            asked = next(given) if given else ()
            made = Dialogue()
            yield made, written(self._script, style, self._plan.room, rng, asked, made)


def _dealt(
    made: Sequence[Dialogue], sizes: Mapping[Path, int]
) -> Iterator[tuple[Path, list[Dialogue]]]:
    """To each path as much of what was made as it has of the sum of sizes; at least one."""
    rest = list(made)
    for place, (path, size) in enumerate(sizes.items(), 1):
        if place == len(sizes):
            yield path, rest
            return
        wanted = sum(len(each.tokens) for each in made) * size / sum(sizes.values())
        part = [rest.pop()]
        while len(rest) > len(sizes) - place and sum(len(each.tokens) for each in part) < wanted:
            part.append(rest.pop())
        yield path, part
