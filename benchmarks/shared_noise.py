"""What it brings that drafters rank with the noise of the target: acceptance by temperature, with
the noise and without.

The model writes an answer to each prompt with a seed of its own. Then the drafters play it twice:
knowing the seed, and knowing the rest of the sampling alone. Trees are not split: each is verified
before the next is drafted, see `benchmarks.acceptance`.

Run from the checkout: `python -m benchmarks.shared_noise [--prompts 20] [--temperatures 0 1]`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import torch
from torch import Tensor

from benchmarks.acceptance import OWN
from benchmarks.machine import machine
from benchmarks.recorded import Drafted, Player
from gardener.cli.program import note
from gardener.decoding.policy import Bounds, Serial
from gardener.decoding.tree import Guess, Tree
from gardener.draft.calibration import expected_error
from gardener.draft.drafter import Drafter
from gardener.draft.factory import DraftSettings, drafters
from gardener.draft.logit_changes import LogitChanges
from gardener.evaluation.datasets import read_conversations
from gardener.holder.prompter import Prompter
from gardener.model.batch_decoder import BatchDecoder
from gardener.model.checkpoint.resolve import resolve
from gardener.model.head import Head
from gardener.model.loader import Whole, load_whole
from gardener.model.noise import Noise
from gardener.model.tensors import pack
from gardener.protocol.sampling import Sampling
from gardener.rings.simulate.recording import Recording

DEPTH = 4
"""Places that are guessed at once, each by the drafter's own steps from the one before."""


class Sampled(NamedTuple):
    """A recording, and how it was made."""

    recording: Recording
    sampling: Sampling


class _Overheard:
    """A model's head that keeps the logits it gave."""

    def __init__(self, head: Any) -> None:
        self._head, self.dtype, self.device = head, head.dtype, head.device
        self.normed = head.normed
        self.logits = torch.zeros(0)

    def project(self, x: Tensor) -> Tensor:
        self.logits = self._head.project(x)
        return self.logits


class Writer:
    """The answer to one prompt, token by token."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, vocab: int) -> None:
        self.tokens, self.prompt, self.sampling = list(prompt), len(prompt), sampling
        self._noise = Noise(sampling.seed or 0)
        self._changes = LogitChanges(sampling, None, vocab, torch.device("cpu"))

    def write(self, logits: Tensor) -> None:
        """The pick from logits [vocab]."""
        ask = self.sampling
        self._changes.apply(logits[None], self.tokens, self.prompt, [[]])
        if not ask.is_greedy:
            logits = _kept(logits / ask.temperature, ask)
            logits = logits + torch.from_numpy(self._noise.row(len(self.tokens), len(logits)))
        self.tokens.append(int(logits.argmax()))


def _kept(logits: Tensor, ask: Sampling) -> Tensor:
    """What min-p, top-k and top-p leave."""
    odds = torch.softmax(logits, -1)
    logits = logits.masked_fill(odds < ask.min_p * odds.max(), -torch.inf)
    order = logits.argsort(descending=True)
    if ask.top_k:
        logits[order[ask.top_k :]] = -torch.inf
    odds = torch.softmax(logits[order], -1)
    if ask.top_p < 1:
        logits[order[odds.cumsum(-1) - odds >= ask.top_p]] = -torch.inf
    return logits


@torch.inference_mode()
def write(
    whole: Whole,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    eos: frozenset[int],
    taps: Sequence[int],
    sampling: Sampling,
) -> list[Sampled]:
    """The answers of the model, each with another seed."""
    head = _Overheard(whole.head)
    room = max(map(len, prompts)) + new_tokens
    heard = replace(whole, head=cast(Head, head))
    batch = BatchDecoder(heard, len(prompts), room, taps, seed=0)
    writers = [
        Writer(prompt, msgspec.structs.replace(sampling, seed=seed), whole.architecture.vocab)
        for seed, prompt in enumerate(prompts)
    ]
    for lane, prompt in enumerate(prompts):
        batch.read(lane, 0, prompt[:-1])
    for _ in range(new_tokens):
        batch.step(
            [writer.tokens[-1] for writer in writers],
            [len(writer.tokens) - 1 for writer in writers],
            [0.0] * batch.count,
        )
        for writer, logits in zip(writers, head.logits, strict=True):
            writer.write(logits)
    made = []
    for lane, writer in enumerate(writers):
        ends = (at for at, token in enumerate(writer.tokens) if token in eos)
        end = next((at for at in ends if at >= writer.prompt), len(writer.tokens) - 1)
        features = batch.kept(lane, end).features
        recording = Recording(tuple(writer.tokens[: end + 1]), writer.prompt, features)
        made.append(Sampled(recording, writer.sampling))
    return made


def chains(made: Sequence[Sampled], drafter: Drafter) -> list[dict[str, float]]:
    """For each depth, the share of places where the first guess was the true token, and where one
    of the first three was."""
    ranks: list[list[int]] = [[] for _ in range(DEPTH)]
    taps = len(drafter.taps)
    for recording, sampling in made:
        tokens, prompt = recording.tokens, recording.prompt
        draft = drafter.open(tokens[:prompt], sampling)
        draft.settle((), [pack(part) for part in recording.features[: prompt - 1].chunk(taps, -1)])
        tree = Tree(prompt - 1, tokens[prompt - 1])
        for at in range(prompt - 1, len(tokens) - DEPTH - 1, DEPTH):
            path = [tree[tree.root]]
            for token in tokens[at + 1 : at + DEPTH]:
                path.append(tree.graft(path[-1].id, token, 0.0))
            said = draft.expand([path[: end + 1] for end in range(DEPTH)])
            for depth, guesses in enumerate(said):
                ranks[depth].append(_rank(guesses or (), tokens[at + 1 + depth]))
            for token in tokens[at + 1 : at + 1 + DEPTH]:
                tree.advance(token)
            features = recording.features[at : at + DEPTH].chunk(taps, -1)
            draft.settle([*path[1:], tree[tree.root]], [pack(part) for part in features])
    return [
        {
            "first": float(np.mean([r < 1 for r in each])),
            "three": float(np.mean(np.array(each) < 3)),
        }
        for each in ranks
    ]


def _rank(said: Sequence[Guess], token: int) -> int:
    return next((rank for rank, guess in enumerate(said) if guess.token == token), 99)


def play(made: Sequence[Sampled], found: Sequence[Drafter], rows: int) -> dict[str, float]:
    """Trees of this number of rows, each verified before the next."""
    total = Drafted()
    policy = Serial(Bounds(rows=rows, window=1, floor=1e-9, batch=10))
    for recording, sampling in made:
        needs = any(drafter.taps for drafter in found)
        told = recording if needs else replace(recording, features=recording.features[:, :0])
        total.add(Player(told, found, policy, sampling).play())
    paths, firsts = (np.array(said, dtype=float).T for said in (total.paths, total.firsts))
    return {
        "per_tree": total.emitted / max(total.verifications, 1),
        "error_paths": expected_error(*paths),
        "error_firsts": expected_error(*firsts),
        "draft_ms": 1000 * total.growth / max(total.emitted, 1),
    }


def without_noise(made: Sequence[Sampled]) -> list[Sampled]:
    """The same, with nothing said of the seed."""
    return [
        each._replace(sampling=msgspec.structs.replace(each.sampling, seed=None)) for each in made
    ]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one object."""
    torch.set_num_threads(1)
    model = resolve(arguments.model, None, say=note)
    prompter, whole = Prompter(model), load_whole(model, dtype="float32", device="cpu")
    files = arguments.data or [OWN]
    prompts = [prompter.encode(row.turns[0]) for row in read_conversations(files, None)]
    prompts = prompts[:: max(len(prompts) // arguments.prompts, 1)][: arguments.prompts]

    def ready(kinds: str) -> list[Drafter]:
        settings = DraftSettings(tuple(kinds.split("+")), dtype="float32")
        return drafters(settings, model, Path, Path)

    taps = ready("eagle")[0].taps
    rows = []
    for temperature in arguments.temperatures:
        sampling = Sampling(
            temperature,
            top_p=arguments.top_p if temperature else 1.0,
            repetition_penalty=arguments.repetition_penalty,
        )
        note(f"writing at temperature {temperature:g} ...")
        shared = write(whole, prompts, arguments.new_tokens, prompter.eos, taps, sampling)
        for name, made in (("shared", shared), ("without", without_noise(shared))):
            if name == "without" and not temperature:
                continue
            row = {
                "temperature": temperature,
                "noise": name,
                "depths": chains(made, *ready("eagle")),
            }
            for kinds in arguments.drafters:
                row[kinds] = play(made, ready(kinds), arguments.rows)
            rows.append(row)
            note(json.dumps(row))
    return {"machine": machine(), "rows": rows}


def show(report: dict[str, Any], kinds: Sequence[str]) -> None:
    """Tables."""
    for row in report["rows"]:
        print(f"temperature {row['temperature']:g}, noise {row['noise']}")
        depths = (f"{each['first']:.1%} {each['three']:.1%}" for each in row["depths"])
        print("  first and three right, by depth: " + " | ".join(depths))
        for each in kinds:
            said = row[each]
            print(
                f"  {each:12} {said['per_tree']:.2f} tokens per tree, errors of paths "
                f"{said['error_paths']:.2%}, of first guesses {said['error_firsts']:.2%}, "
                f"{said['draft_ms']:.2f} ms per token"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, nargs="+", help="JSONL files with `turns`")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.7, 1.0])
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--drafters", nargs="+", default=["ngram", "eagle", "ngram+eagle"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = measure(arguments)
    if "--json" in sys.argv:
        print(json.dumps(report, indent=2))
    else:
        show(report, arguments.drafters)


if __name__ == "__main__":
    main()
