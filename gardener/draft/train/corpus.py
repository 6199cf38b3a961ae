"""The dialogues of a run: written a chunk at a time, kept on disk, and read again for replay."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from pathlib import Path

from gardener.draft.train import chunks
from gardener.draft.train.chunks import Text
from gardener.draft.train.dialogue import Dialogue, Lines, Script, Style, play, written
from gardener.draft.train.plan import Plan
from gardener.stages.lanes import Lanes
from gardener.stages.load import Whole

ALL = 99_999
"""No chunk has a higher number."""

HELD_OUT = "held-out.safetensors"


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
    ) -> None:
        self._folder, self._plan, self._whole = folder, plan, whole
        self._script, self._asked = script, asked
        self._taps = tuple(taps)
        self._facts = {"model": fingerprint, "taps": " ".join(map(str, taps))}
        self._talk: Iterator[Dialogue] | None = None
        self._read: dict[Path, list[Text]] = {}
        self._random = random.Random(plan.seed)

    def chunks(self) -> list[Path]:
        """What is there, the oldest first."""
        return sorted(self._folder.glob("chunk-*.safetensors"))

    def chunk(self, index: int, say: Callable[[int], None]) -> list[Text]:
        """Chunk `index`; written first if it is not there. `say` is told how many tokens are."""
        path = self._folder / f"chunk-{index:05d}.safetensors"
        if not path.exists():
            self._write(path, self._plan.chunk, index, say)
            for old in self.chunks()[: -self._plan.keep]:
                self._read.pop(old, None)
                old.unlink()
        return self._texts(path)

    def held_out(self, say: Callable[[int], None]) -> list[Text]:
        """Dialogues that are never trained on."""
        path = self._folder / HELD_OUT
        if not path.exists():
            self._write(path, self._plan.chunk // 2, -1, say)
        return chunks.read(path, self._facts)

    def replay(self, before: int, tokens: int) -> list[Text]:
        """Dialogues of about so many tokens, at random from chunks older than `before`."""
        paths = [p for p in self.chunks() if p.stem < f"chunk-{before:05d}"]
        found: list[Text] = []
        size = 0
        while paths and size < tokens:
            found.append(self._random.choice(self._texts(self._random.choice(paths))))
            size += len(found[-1].tokens)
        return found

    def _texts(self, path: Path) -> list[Text]:
        if path not in self._read:
            self._read[path] = chunks.read(path, self._facts)
        return self._read[path]

    def _write(self, path: Path, tokens: int, index: int, say: Callable[[int], None]) -> None:
        if self._talk is None:
            self._talk = self._play(index)
        made: list[Dialogue] = []
        size = 0
        while size < tokens:
            made.append(next(self._talk))
            size += len(made[-1].tokens)
            say(size)
        chunks.write(path, made, self._facts)

    def _play(self, index: int) -> Iterator[Dialogue]:
        """Dialogues without end; another `index` begins with others."""
        plan = self._plan
        seed = plan.seed * 1_000_003 + index
        lanes = Lanes(self._whole, plan.lanes, plan.room, self._taps, seed)
        return play(lanes, self._script.opening, self._pieces(random.Random(seed)))

    def _pieces(self, rng: random.Random) -> Iterator[Lines]:
        style = Style(rounds=self._plan.rounds)
        given = cycle(rng.sample(self._asked, len(self._asked))) if self._asked else None
        for _ in count():
            asked = next(given) if given else ()
            yield written(self._script, style, self._plan.room, rng, asked)
