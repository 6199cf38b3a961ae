"""The head with its optimisers: steps, and a state on disk from which to go on.

Matrices are trained with Muon, which makes far more of few tokens than AdamW does. Norms use AdamW.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gardener.draft.train.head import DraftHead
from gardener.draft.train.muon import Muon
from gardener.draft.train.objective import Target, TextBatch, loss, precision
from gardener.draft.train.plan import Plan
from gardener.errors import UserError, reason
from gardener.runtime.files import whole_file

WARM_UP = 0.02
"""Share of the time in which the learning rate rises."""

FINAL = 0.005
"""The learning rate at the end, as a share of the highest."""

DECAY = 0.3
"""Weight decay of the matrices. Dialogue is dear and each is seen several times: with hardly any, a
head had 58 % of its first guesses right on what it had seen ten times, and 40 % elsewhere."""


@dataclass
class Progress:
    """How far a run is.

    seconds: worked, in all sessions. chunks: trained on. written: tokens in these.
    tokens: trained on, repeats counted.
    losses: mean cross-entropy of every pass, one list per chunk. curve: chunks, and share of
    first guesses that were right by depth, on held-out dialogues.
    """

    seconds: float = 0.0
    chunks: int = 0
    written: int = 0
    tokens: int = 0
    losses: list[list[float]] = field(default_factory=list)
    curve: list[tuple[int, list[float]]] = field(default_factory=list)


class Trainer:
    """Trains `head` towards `target`."""

    def __init__(self, head: DraftHead, target: Target, plan: Plan) -> None:
        self.head, self.target, self.plan = head, target, plan
        self.progress = Progress()
        matrices = [p for p in head.parameters() if p.ndim == 2]
        norms = [p for p in head.parameters() if p.ndim == 1]
        self._optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(norms, lr=plan.rate / 2, betas=(0.9, 0.95), weight_decay=0.0),
            Muon(matrices, lr=plan.rate, decay=DECAY, dtype=target.matrix.dtype),
        ]
        self._highest = [group["lr"] for o in self._optimisers for group in o.param_groups]

    def train(self, batches: Iterable[TextBatch], done: Callable[[], float]) -> list[float]:
        """One step for each batch; `done` tells which share of all time has passed.

        Returns the mean cross-entropy of each pass.
        """
        sums = torch.zeros(self.plan.steps)
        steps = 0
        for batch in batches:
            self._set_rate(done())
            with precision(self.target):
                value, means = loss(
                    self.head, self.target, batch, self.plan.steps, self.plan.decay, self.plan.share
                )
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
            for optimiser in self._optimisers:
                optimiser.step()
                optimiser.zero_grad()
            sums += torch.tensor(means)
            steps += 1
            self.progress.tokens += int((batch.tokens >= 0).sum())
        return (sums / max(steps, 1)).tolist()

    def _set_rate(self, done: float) -> None:
        rise = min(done / WARM_UP, 1.0) if done < WARM_UP else 1.0
        fall = FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        groups = [group for o in self._optimisers for group in o.param_groups]
        for group, highest in zip(groups, self._highest, strict=True):
            group["lr"] = highest * max(rise, 0.05) * fall

    def save(self, path: Path) -> None:
        """All that is needed to go on from here. Raises UserError."""
        state = {
            "head": self.head.state_dict(),
            "kept": self.target.kept,
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "progress": asdict(self.progress),
        }
        # Through a file of ours: of its own, torch does not say why it cannot be written.
        with whole_file(path) as draft, draft.open("wb") as stream:
            torch.save(state, stream)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `read_state` gave."""
        self.head.take(state["head"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
            for parameter, of in optimiser.state.items():
                if "momentum" in of and of["momentum"].shape != parameter.shape:
                    of.clear()  # a matrix that has grown since
        self.progress = Progress(**state["progress"])


def read_state(path: Path) -> dict[str, Any]:
    """What `Trainer.save` wrote. Raises UserError."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} cannot be read ({reason(error)}): take it away to start anew"
        ) from error
    return state
