"""A training run: write a chunk of dialogues, train on it and on older ones, keep what came of it.

    OUT/dialogues/         the chunks, `held-out.safetensors`, which is never trained on, and what
                           an interrupted session has begun
    OUT/state.pt           all that is needed to go on, written after every chunk and when the user
                           has had enough
    OUT/config.json, model.safetensors, calibration.json
                           the head as it is, written after every chunk
    OUT/report.json, report.md, acceptance.png

The learning rate follows the clock: it rises, falls along a cosine, and is lowest when the hours
are over. A run that was over goes on when it is given more hours. Between any two steps of writing
or training it checks the clock, and whether the user has had enough: see `Hours`.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gardener.draft.train.chunks import Text
from gardener.draft.train.corpus import ALL, Corpus
from gardener.draft.train.dialogue import Script
from gardener.draft.train.evaluate import Observations, observe
from gardener.draft.train.export import read_head, write_head
from gardener.draft.train.head import DraftHead, induction_of
from gardener.draft.train.hours import LOOKING, Hours, Stopped
from gardener.draft.train.objective import Target, TextBatch, batches, borrow
from gardener.draft.train.plan import Plan
from gardener.draft.train.trainer import Progress, Trainer, read_state
from gardener.draft.train.vocabulary import likeliest
from gardener.errors import UserError
from gardener.model.checkpoint.tensors import fingerprint
from gardener.model.loader import load_whole

STATE = "state.pt"

GLANCE = 4000
"""Held-out tokens looked at after a chunk; at the end it is all of them."""

SAMPLE = 60_000
"""Tokens of dialogues from which the draft vocabulary is chosen."""

GLANCING = 0.02
"""Most of the time that such a look may take."""

Tell = Callable[[float, Progress, str], None]
"""Told the seconds worked, how far the run is, and what is being done."""


class TrainingRun:
    """One session of a run in the folder `out`."""

    def __init__(
        self,
        out: Path,
        model: Path,
        plan: Plan,
        script: Script,
        tell: Tell,
        *,
        dtype: str,
        device: str,
        asked: Sequence[Sequence[Sequence[int]]] = (),
        start: Path | None = None,
        hours: Hours | None = None,
    ) -> None:
        """`start`: a head to begin with, when the run is new. `asked`: see `Corpus`. `hours`: the
        clock, if it began before this.

        Raises UserError, or Stopped.
        """
        self.out, self.plan, self._tell = out, plan, tell
        self.hours = hours or Hours(plan.hours)
        self.progress = Progress()
        self._say("loading the model")
        self.whole = load_whole(model, dtype=dtype, device=device)
        self.taps = plan.taps or (self.whole.architecture.layers,)
        self._check_taps()
        self._mark = fingerprint(model)
        self.corpus = Corpus(
            out / "dialogues", plan, self.whole, script, self._mark, self.taps, asked, self.hours
        )
        self.hours.before = self.corpus.seconds()
        self._random = random.Random(plan.seed)
        state = read_state(out / STATE) if (out / STATE).exists() else None
        if state is not None:
            self.hours.before = max(self.hours.before, state["progress"]["seconds"])
        torch.manual_seed(plan.seed)
        head, kept = self._head(start, state)
        self.trainer = Trainer(head, self._borrow(kept), plan)
        if state is not None:
            self.trainer.restore(state)
        self.progress = self.trainer.progress

    def _check_taps(self) -> None:
        layers = self.whole.architecture.layers
        ascending = list(self.taps) == sorted(set(self.taps))
        if not ascending or not 0 <= self.taps[0] <= self.taps[-1] <= layers:
            raise UserError(
                f"taps {self.taps}: name layers in ascending order, from 0 to {layers}, where "
                f"{layers} is the last hidden state"
            )

    def _borrow(self, kept: torch.Tensor) -> Target:
        return borrow(self.whole, kept)

    def _head(
        self, start: Path | None, state: dict[str, Any] | None
    ) -> tuple[DraftHead, torch.Tensor]:
        """The head to train and its draft vocabulary: of this run, of another one, or new."""
        shape = self.whole.architecture
        if state is None and start is not None:
            head, kept, taps = read_head(start, shape, self.plan.induction)
            if taps != self.taps:
                raise UserError(f"the head in {start} has taps {taps}, not {self.taps}")
            return head, self._likeliest(kept)
        induction = self.plan.induction
        if state is not None:
            induction = max(induction, induction_of(state["head"], shape))
        head = DraftHead(shape, len(self.taps), self.plan.inner or shape.inner, induction)
        if state is not None:
            return head, self._likeliest(state["kept"])
        return head, self._likeliest(torch.arange(shape.vocab))

    def _likeliest(self, among: torch.Tensor) -> torch.Tensor:
        """As many of these tokens as the plan wants. The head itself knows no tokens, so it may go
        on with fewer than it began with."""
        if self.plan.vocab >= len(among):
            return among
        texts = self.corpus.replay(ALL, SAMPLE) or self._chunk(0)
        self._say("choosing the draft vocabulary")
        return likeliest(among, texts, self.plan.vocab)

    # --- the work ----------------------------------------------------------------------------

    def work(self) -> None:
        """Until the hours are over, but for what the last look at the head takes. Raises Stopped
        if the user has had enough, and UserError if the hours were too short for any step."""
        held_out = self.held_out()
        try:
            while self.done < 1:
                self._one_round()
                if self.done < 1:
                    self._glance(held_out)
                self.save()
        except Stopped:
            self.save()
            raise
        if not self.progress.tokens:
            raise UserError(
                f"{self.plan.hours:g} hours are too short for this model here: {self.seconds:.0f} "
                f"s went by before the first step of training; what was written so far is kept: "
                f"give --hours {2 * self.plan.hours:g} or more"
            )

    def _one_round(self) -> None:
        """A new chunk where there is time for one, or older ones again."""
        index = self.progress.chunks
        if not self.corpus.worthwhile(index) or not self._one_chunk(index):
            self._train([], self.plan.chunk, "old chunks")

    def _glance(self, held_out: Sequence[Text]) -> None:
        """See how good the head has become."""
        more = self.hours.at_most(self.hours.part(GLANCING))
        seen = self._observed(_some(held_out, GLANCE), more)
        self.progress.curve.append((self.progress.chunks, seen.curve(1)))

    def held_out(self) -> list[Text]:
        """The dialogues that are not trained on."""
        return self.corpus.held_out(lambda n: self._say(f"writing dialogues to test on: {n:,}"))

    def judge(self) -> Observations:
        """What the head guesses on the held-out dialogues, all for which there is time."""
        self._say("looking at the held-out dialogues")
        seconds = LOOKING * self.hours.closing
        return self._observed(self.held_out(), self.hours.at_most(seconds))

    def _observed(self, texts: Sequence[Text], more: Callable[[], bool]) -> Observations:
        return observe(self._trained, self._target, texts, self.plan.batch_now, more)

    def save(self) -> None:
        """Write the head, if it is trained, and the state."""
        self.progress.seconds = self.seconds
        if self.progress.tokens:
            write_head(self.out, self._trained, self.kept, self.taps, self._mark)
        self.trainer.save(self.out / STATE)

    @property
    def kept(self) -> torch.Tensor:
        """The tokens of the draft vocabulary."""
        return self._target.kept

    @property
    def seconds(self) -> float:
        """Worked so far, in all sessions."""
        return self.hours.seconds

    @property
    def done(self) -> float:
        """Which share of the time for writing and training is over."""
        return self.hours.share

    @property
    def _trained(self) -> DraftHead:
        return self.trainer.head

    @property
    def _target(self) -> Target:
        return self.trainer.target

    def _say(self, what: str) -> None:
        self._tell(self.seconds, self.progress, what)

    def _one_chunk(self, index: int) -> bool:
        """Write it if it is not there, and train on it; False if there was no time to write it."""
        texts = self._chunk(index)
        if not texts:
            return False
        new = sum(len(text.tokens) for text in texts)
        self._train(texts, round(new * (self.plan.passes - 1)), f"chunk {index}")
        self.progress.chunks += 1
        self.progress.written += new
        return True

    def _train(self, texts: Sequence[Text], again: int, what: str) -> None:
        """On these dialogues, and on about `again` tokens of older ones."""
        texts = [*texts, *self.corpus.replay(self.progress.chunks, again)]
        before = self.progress.tokens
        losses = self.trainer.train(self._shuffled(texts, what), lambda: self.done)
        if self.progress.tokens > before:
            self.progress.losses.append(losses)

    def _chunk(self, index: int) -> list[Text]:
        return self.corpus.chunk(index, lambda n: self._say(f"writing chunk {index}: {n:,} tokens"))

    def _shuffled(self, texts: Sequence[Text], what: str) -> Iterator[TextBatch]:
        made = list(batches(texts, self.plan.batch_now))
        self._random.shuffle(made)
        for number, batch in enumerate(made, 1):
            self.hours.check()
            if self.done >= 1:
                return
            self._say(f"training on {what}: step {number} of {len(made)}")
            yield batch


def _some(texts: Sequence[Text], tokens: int) -> list[Text]:
    """Some of these texts with about `tokens` tokens in all, always the same ones. They are not the
    first ones, since short dialogues are finished first."""
    found: list[Text] = []
    for text in random.Random(0).sample(texts, len(texts)):
        if tokens <= 0:
            break
        found.append(text)
        tokens -= len(text.tokens)
    return found
